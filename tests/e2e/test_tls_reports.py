"""TLS reports of ours: counted, sent by mail and by HTTPS to whom the domain names, signed, and read by others."""

import asyncio
import gzip
import json
import smtplib
from collections.abc import Iterator
from email import message_from_bytes, policy
from typing import Any

import pytest

from fastmta.tls.report import parse_report
from tests.support.authority import issue
from tests.support.dns_thread import dns_stub
from tests.support.mail import wait_for_messages
from tests.support.ports import free_ports
from tests.support.server import Server
from tests.support.smtp_sink import SmtpSink
from tests.support.waiting import wait_for

REPORTS = "reports@example.test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    (port,) = free_ports(1)
    zones: dict[str, Any] = {
        "b.test": {"MX": [(10, "mx.b.test")]},
        "mx.b.test": {"A": ["127.0.0.1"]},
        "_smtp._tls.b.test": {"TXT": [f"v=TLSRPTv1; rua=mailto:{REPORTS}"]},
        "silent.test": {"MX": [(10, "mx.b.test")]},
    }
    with dns_stub(zones) as dns:
        settings = {
            "dns": {"nameservers": [dns.address]},
            "delivery": {"smtp_tlsrpt_enable": True, "smtp_tcp_port": port, "allow_loopback_mx": True},
        }
        with Server(tmp_path_factory.mktemp("tls-reports"), settings=settings) as running:
            running.add_user(REPORTS, "secret")
            running.cli("dkim", "add", "example.test")
            running.next_hop = port  # type: ignore[attr-defined]
            yield running


async def deliver(server: Server, directory: Any, count: int) -> None:
    """To b.test, with TLS, and to silent.test."""
    sink = SmtpSink(tls=issue(["mx.b.test"]).context(directory), port=server.next_hop)  # type: ignore[attr-defined]
    async with sink:

        def send() -> None:
            with smtplib.SMTP(server.host, server.port("smtp"), timeout=60) as client:
                for n in range(count):
                    client.sendmail("ann@example.test", [f"u{n}@b.test"], "Subject: x\r\n\r\nx\r\n")
                client.sendmail("ann@example.test", ["u@silent.test"], "Subject: x\r\n\r\nx\r\n")

        await asyncio.to_thread(send)
        await sink.until(lambda: len(sink.messages) == count + 1)


def test_a_report_is_counted_sent_signed_and_read(server: Server, tmp_path: Any) -> None:
    asyncio.run(deliver(server, tmp_path, 3))
    told: list[dict[str, Any]] = []

    def sent() -> bool:
        told.extend(json.loads(server.cli("tlsrpt", "send", "--today", "--json").stdout))
        return bool(told)

    wait_for(sent, "what was counted")
    assert {row["domain"] for row in told} == {"b.test"} and told[0]["to"] == [REPORTS]
    assert json.loads(server.cli("tlsrpt", "show", "--json").stdout) == []
    (raw,) = wait_for_messages(server, REPORTS, "secret", 1)

    mail = message_from_bytes(raw, policy=policy.default)
    assert mail.get_content_type() == "multipart/report" and mail.get_param("report-type") == "tlsrpt"
    assert (mail["TLS-Report-Domain"], mail["TLS-Report-Submitter"]) == ("b.test", "example.test")
    assert mail["Subject"].startswith("Report Domain: b.test Submitter: example.test Report-ID: <")
    assert "d=example.test" in mail["DKIM-Signature"] and mail["TLS-Required"] == "No"
    text, part = mail.iter_parts()
    assert text.get_content_type() == "text/plain" and part.get_content_type() == "application/tlsrpt+gzip"
    name = str(part.get_filename())
    assert name.startswith("example.test!b.test!") and name.endswith(".json.gz")
    report = parse_report(gzip.decompress(part.get_content()))
    (found,) = report.policies
    assert (found.policy_type, found.policy_domain, found.failed) == ("no-policy-found", "b.test", 0)
    assert found.successful >= 1 and report.end - report.begin == 86_399

    shown = server.cli("tlsrpt", "report", "--json", "-", stdin=raw.decode())
    assert json.loads(shown.stdout)[0]["policies"][0]["policy_domain"] == "b.test"
    assert "no-policy-found" in server.cli("tlsrpt", "report", "-", stdin=raw.decode()).stdout


def test_others_read_it(server: Server) -> None:
    parsedmarc = pytest.importorskip("parsedmarc", reason="parsedmarc is not installed")
    (raw,) = wait_for_messages(server, REPORTS, "secret", 1)
    found = parsedmarc.parse_report_email(raw, offline=True)
    assert found["report_type"] == "smtp_tls"
    assert found["report"]["policies"][0]["policy_domain"] == "b.test"
