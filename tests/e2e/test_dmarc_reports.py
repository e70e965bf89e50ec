"""DMARC aggregate reports of ours: counted, sent to whom the domain names, signed, and read by others."""

import gzip
import json
import smtplib
from collections.abc import Iterator
from email import message_from_bytes
from typing import Any

import pytest

from fastmta.authentication.dmarc_report import parse_report
from tests.support.dns_thread import dns_stub
from tests.support.mail import wait_for_messages
from tests.support.server import Server
from tests.support.waiting import wait_for

BOB, REPORTS = "bob@example.test", "reports@example.test"
ZONES: dict[str, Any] = {
    "sender.test": {"TXT": ["v=spf1 ip4:127.0.0.0/8 -all"]},
    "_dmarc.sender.test": {"TXT": [f"v=DMARC1; p=reject; sp=none; rua=mailto:{REPORTS},mailto:x@refuses.test"]},
    "sender.test._report._dmarc.example.test": {"TXT": ["v=DMARC1"]},
    "silent.test": {"TXT": ["v=spf1 ip4:127.0.0.0/8 -all"]},
    "_dmarc.silent.test": {"TXT": ["v=DMARC1; p=none"]},
    "lost.test": {"TXT": ["v=spf1 -all"]},
    "_dmarc.lost.test": {"TXT": ["v=DMARC1; p=quarantine; rua=mailto:x@refuses.test"]},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with dns_stub(ZONES) as dns:
        settings = {
            "mynetworks": ["192.0.2.0/24"],
            "smtpd_peername_lookup": False,
            "dmarc_reports": True,
            "dns": {"nameservers": [dns.address]},
        }
        with Server(tmp_path_factory.mktemp("reports"), settings=settings) as running:
            for user in (BOB, REPORTS):
                running.add_user(user, "secret")
            running.cli("dkim", "add", "example.test")
            yield running


def send(server: Server, sender: str, source: str, header_from: str = "") -> None:
    with smtplib.SMTP(server.host, server.port("smtp"), timeout=20, source_address=(source, 0)) as client:
        text = f"From: {header_from or sender}\r\nSubject: x\r\n\r\ntext\r\n"
        try:
            client.sendmail(sender, [BOB], text)
        except smtplib.SMTPDataError as refusal:
            assert refusal.smtp_code == 550


def test_a_report_is_counted_sent_signed_and_read(server: Server) -> None:
    for _ in range(3):
        send(server, "ann@sender.test", "127.0.0.2")
    send(server, "ann@silent.test", "127.0.0.2", "eve@sender.test")
    send(server, "ann@silent.test", "127.0.0.2")
    send(server, "ann@lost.test", "127.0.0.2")

    def stored() -> bool:  # the worker's own memory is asked by an act inside it
        found = json.loads(server.cli("dmarc", "send", "--today", "--json").stdout)
        told.extend(found)
        return {"sender.test", "lost.test"} <= {row["domain"] for row in told}

    told: list[dict[str, Any]] = []
    wait_for(stored, "what was counted")
    by_domain = {row["domain"]: row for row in told}
    assert "silent.test" not in by_domain
    assert by_domain["sender.test"]["to"] == [REPORTS] and by_domain["sender.test"]["messages"] == 4
    assert by_domain["lost.test"]["to"] == [] and by_domain["lost.test"]["reason"]
    assert json.loads(server.cli("dmarc", "pending", "--json").stdout) == []
    (raw,) = wait_for_messages(server, REPORTS, "secret", 1)

    mail = message_from_bytes(raw)
    subject = " ".join(str(mail["Subject"]).split())
    assert subject.startswith("Report Domain: sender.test Submitter: example.test Report-ID: ")
    assert "d=example.test" in mail["DKIM-Signature"]
    (part,) = [each for each in mail.walk() if each.get_content_type() == "application/gzip"]
    name = str(part.get_filename())
    assert name.startswith("example.test!sender.test!") and name.endswith(".xml.gz")
    report = parse_report(gzip.decompress(part.get_payload(decode=True)))  # type: ignore[arg-type]
    assert (report.domain, report.p, report.sp, report.email) == (
        "sender.test",
        "reject",
        "none",
        "postmaster@example.test",
    )
    assert report.end - report.begin == 86_399
    rows = {(row.disposition, row.spf, row.header_from, row.envelope_from): row.messages for row in report.records}
    assert rows == {
        ("pass", "pass", "sender.test", "sender.test"): 3,
        ("reject", "fail", "sender.test", "silent.test"): 1,
    }


def test_others_read_it(server: Server) -> None:
    parsedmarc = pytest.importorskip("parsedmarc", reason="parsedmarc is not installed")
    (raw,) = wait_for_messages(server, REPORTS, "secret", 1)
    found = parsedmarc.parse_report_email(raw, offline=True)
    report = found["report"]
    assert report["policy_published"]["domain"] == "sender.test"
    assert sum(record["count"] for record in report["records"]) == 4
