"""Whom TLS reports go to: by HTTPS, and what becomes of those that nobody takes."""

import gzip
import time
from types import SimpleNamespace

import pytest

from fastmta.config.load import parse_all
from fastmta.dns.resolver import Resolver
from fastmta.pickup.tls_reports import send_tls_reports
from fastmta.store import MailStore
from fastmta.store.tls_rows import TlsRow
from fastmta.tls.contexts import https_context
from fastmta.tls.report import parse_report
from tests.support.authority import issue
from tests.support.dns_stub import SERVFAIL, DnsStub
from tests.support.https_stub import HttpsStub

NOW = 1_795_824_500.0  # 2026-11-28
ROOT = issue(["Root of Tests"], ca=True)
GOOD = TlsRow("sts", "b.test", ("version: STSv1",), ("mx.b.test",))
BAD = TlsRow("sts", "b.test", ("version: STSv1",), ("mx.b.test",), "certificate-expired", "", "mx.b.test", "192.0.2.1")


@pytest.fixture
async def world(tmp_path):
    store = MailStore.open(tmp_path / "store", sync=False, map_size_bytes=1 << 26)
    import asyncio

    store.attach(asyncio.get_running_loop())
    text = 'myhostname = "mx.a.test"\nmydomain = "a.test"\n'
    config, _ = parse_all(f"{text}[delivery]\nallow_loopback_mx = true\n", base=str(tmp_path), name="f")
    strict, _ = parse_all(text, base=str(tmp_path), name="f")
    async with (
        HttpsStub(issue(["tls.b.test"], ROOT).context(tmp_path, "https")) as https,
        DnsStub({"tls.b.test": {"A": ["127.0.0.1"]}}) as dns,
    ):
        resolver = Resolver((dns.address,), monotonic=time.monotonic)

        async def send(now=NOW, today=False, is_strict=False):
            return await send_tls_reports(
                strict if is_strict else config,
                store,
                resolver,
                lambda: https_context(ROOT.write(tmp_path, "ca")),
                now,
                today=today,
            )

        yield SimpleNamespace(store=store, https=https, dns=dns, send=send)
        await resolver.close()
    store.close()


async def test_a_report_is_posted(world):
    world.dns.zones["_smtp._tls.b.test"] = {"TXT": [f"v=TLSRPTv1; rua=https://tls.b.test:{world.https.port}/v1"]}
    world.https.answers["/v1"] = (201, "text/plain", b"")
    for _ in range(3):
        world.store.tls_rows.note("20261127", "b.test", "", GOOD)
    world.store.tls_rows.note("20261127", "b.test", "", BAD, 2)
    world.store.tls_rows.note("20261128", "b.test", "", GOOD)  # a day that is not over
    (sent,) = await world.send()
    assert sent.to == (f"https://tls.b.test:{world.https.port}/v1",) and sent.messages == 5
    assert sent.day == "2026-11-27"  # as it is listed
    ((_, line, body),) = world.https.requests
    assert line == "POST /v1 HTTP/1.1"
    (policy,) = parse_report(gzip.decompress(body)).policies
    assert (policy.successful, policy.failed, policy.failures[0].result_type) == (3, 2, "certificate-expired")
    assert world.store.tls_rows.pending() == [("20261128", "b.test")]


async def test_what_is_not_taken_is_tried_again_for_two_days(world):
    world.dns.zones["_smtp._tls.b.test"] = {"TXT": [f"v=TLSRPTv1; rua=https://tls.b.test:{world.https.port}/v1"]}
    world.https.answers["/v1"] = (503, "text/plain", b"")
    world.store.tls_rows.note("20261127", "b.test", "", GOOD)
    (sent,) = await world.send()
    assert not sent.to and "503" in sent.reason and "tomorrow" in sent.reason
    (sent,) = await world.send(NOW + 2 * 86_400)
    assert "tomorrow" not in sent.reason and world.store.tls_rows.pending() == []


@pytest.mark.parametrize(
    ("zone", "kept"), [(None, False), (SERVFAIL, True), ({"TXT": ["v=TLSRPTv1; rua=ftp://x"]}, False)]
)
async def test_who_cannot_be_told_is_forgotten_unless_the_dns_is_down(world, zone, kept):
    if zone is not None:
        world.dns.zones["_smtp._tls.b.test"] = zone
    world.store.tls_rows.note("20261127", "b.test", "", GOOD)
    (sent,) = await world.send()
    assert not sent.to and sent.reason and bool(world.store.tls_rows.pending()) is kept


@pytest.mark.parametrize(
    "address",
    [
        {"A": ["127.0.0.1"]},
        {"A": ["10.0.0.1"]},
        {"AAAA": ["::1"]},
        {"AAAA": ["::ffff:127.0.0.1"]},
        {"A": ["169.254.169.254"]},
    ],
)
async def test_nothing_is_posted_to_a_host_of_our_own_network(world, address):
    world.dns.zones["tls.b.test"] = address
    world.dns.zones["_smtp._tls.b.test"] = {"TXT": [f"v=TLSRPTv1; rua=https://tls.b.test:{world.https.port}/v1"]}
    world.https.answers["/v1"] = (201, "text/plain", b"")
    world.store.tls_rows.note("20261127", "b.test", "", GOOD)
    (sent,) = await world.send(is_strict=True)
    assert not sent.to and "reports are not sent to" in sent.reason and world.https.requests == []
