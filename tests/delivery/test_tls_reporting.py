"""What sessions are counted as for TLS reports (RFC 8460 §4.3), over the tables of test_tls_policies.py."""

import time

import pytest

from fastmta.delivery import service as delivery_service
from fastmta.model.envelope import RecipientState
from tests.delivery.test_tls_policies import DANE, LEAF, OTHER, POLICY, ROOT, STS, issue, trusting, zones
from tests.delivery.test_tls_resumption import send
from tests.support.dns_stub import SERVFAIL, DnsStub
from tests.support.https_stub import HttpsStub
from tests.support.smtp_sink import SmtpSink

ASKS = {"_smtp._tls.b.test": {"TXT": ["v=TLSRPTv1; rua=mailto:tls@b.test"]}}
TLSA, STS_KIND, NONE = "tlsa", "sts", "no-policy-found"
DANE_COUNTS = {
    "ee": (TLSA, ""),
    "ee of another key": (TLSA, "validation-failure"),
    "ee, no STARTTLS": (TLSA, "starttls-not-supported"),
    "ta": (TLSA, ""),
    "ta of another": (TLSA, "validation-failure"),
    "unusable": (TLSA, "tlsa-invalid"),
    "no record": (NONE, ""),
    "no record, no STARTTLS": (NONE, "starttls-not-supported"),
    "no record, only": (TLSA, "dane-required"),
    "unsigned host": (NONE, ""),
}
STS_COUNTS = {
    "enforce": (STS_KIND, ""),
    "enforce, another exchanger": (STS_KIND, "validation-failure"),
    "enforce, nobody vouches": (STS_KIND, "certificate-not-trusted"),
    "enforce, no STARTTLS": (STS_KIND, "starttls-not-supported"),
    "testing": (STS_KIND, ""),
    "testing, nobody vouches": (STS_KIND, "certificate-not-trusted"),
    "testing, another exchanger": (STS_KIND, "validation-failure"),
    "testing, no STARTTLS": (STS_KIND, "starttls-not-supported"),
    "none": (NONE, "starttls-not-supported"),
    "DANE wins": (TLSA, ""),
}


async def counted(rig):
    """{(policy, result): sessions} of b.test, with the rows."""
    await rig.service.tls_reporting.flush()
    await rig.store.tls_rows.flush()
    (day, domain), *others = rig.store.tls_rows.pending() or [("", "")]
    assert not others
    if not domain:
        return {}, []
    assert domain == "b.test" and day == time.strftime("%Y%m%d", time.gmtime(rig.clock.now()))
    rows = rig.store.tls_rows.of(day, domain)[1]
    return {(row.policy_type, row.result): count for row, count in rows.items()}, list(rows)


async def deliver(rig, hop=b"smtp:b.test", **options):
    queue_id = await rig.queue(hop, b"r@b.test", **options)
    await rig.until(lambda: all(row.state == RecipientState.DEFERRED for row in rig.rows(queue_id)))
    await rig.settled()
    return rig.store.queue.message(queue_id) is None


def settings(dns, sink, level, **more):
    return {
        "nameservers": (dns.address,),
        "allow_loopback_mx": True,
        "smtp_tcp_port": sink.port,
        "smtp_tls_security_level": level,
        "smtp_tlsrpt_enable": True,
        "tlsrpt_report_email": "tls@a.test",
        **more,
    }


@pytest.mark.parametrize("name", DANE_COUNTS)
async def test_dane_is_counted(make_rig, tmp_path, name):
    level, wanted, insecure, certificate, _ = DANE[name]
    async with SmtpSink(tls=certificate and certificate.context(tmp_path)) as sink:
        texts = {"3 1 1": LEAF.tlsa(3, 1, 1), "2 0 1": ROOT.tlsa(2, 0, 1)}
        async with DnsStub(
            {**zones(sink.port, *[texts.get(each, each) for each in wanted]), **ASKS}, insecure=insecure
        ) as dns:
            rig = make_rig(**settings(dns, sink, level))
            await deliver(rig)
            found, (row,) = await counted(rig)
            assert found == {DANE_COUNTS[name]: 1}
            if row.policy_type == TLSA:
                assert row.policy_domain == "mx.b.test"
                assert level == "dane-only" or all(text[1] == " " for text in row.policy_string)
            if row.result:
                assert row.receiving_host == "mx.b.test" and row.receiving_ip == "127.0.0.1"
            else:
                assert not row.receiving_ip  # successes are one row, whichever server it was


@pytest.mark.parametrize("name", STS_COUNTS)
async def test_mta_sts_is_counted(make_rig, tmp_path, monkeypatch, name):
    mode, mx, certificate, level, records, _ = STS[name]
    answers = {"/.well-known/mta-sts.txt": (200, "text/plain", POLICY.format(mode=mode, mx=mx).encode())}
    async with (
        HttpsStub(issue(["mta-sts.b.test"], ROOT).context(tmp_path, "policy"), answers) as https,
        SmtpSink(tls=certificate and certificate.context(tmp_path)) as sink,
    ):
        monkeypatch.setattr(delivery_service, "STS_PORT", https.port)
        names = zones(sink.port, *[OTHER.tlsa(3, 1, 1) for _ in records]) | ASKS
        names |= {"_mta-sts.b.test": {"TXT": ["v=STSv1; id=1;"]}, "mta-sts.b.test": {"A": ["127.0.0.1"]}}
        async with DnsStub(names) as dns:
            rig = make_rig(
                **settings(
                    dns, sink, level, mta_sts=True, mta_sts_allow_private_hosts=True, data_directory=str(tmp_path)
                )
            )
            trusting(rig, ROOT.write(tmp_path, "ca"))
            rig.service.reload()
            await deliver(rig)
            found, (row,) = await counted(rig)
            assert found == {STS_COUNTS[name]: 1}
            if row.policy_type == STS_KIND:
                assert row.policy_domain == "b.test" and row.mx_host == (mx,)
                assert row.policy_string == ("version: STSv1", f"mode: {mode}", f"mx: {mx}", "max_age: 86400")


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ((404, "text/plain", b""), "sts-policy-fetch-error"),
        ((200, "text/plain", b"version: STSv2\n"), "sts-policy-invalid"),
        (None, "sts-webpki-invalid"),
    ],
)
async def test_a_policy_that_cannot_be_had_is_told(make_rig, tmp_path, monkeypatch, answer, result):
    issuer = ROOT if answer else None
    async with (
        HttpsStub(
            issue(["mta-sts.b.test"], issuer).context(tmp_path, "policy"), {"/.well-known/mta-sts.txt": answer}
        ) as https,
        SmtpSink(tls=LEAF.context(tmp_path)) as sink,
    ):
        monkeypatch.setattr(delivery_service, "STS_PORT", https.port)
        names = zones(sink.port) | ASKS
        names |= {"_mta-sts.b.test": {"TXT": ["v=STSv1; id=1;"]}, "mta-sts.b.test": {"A": ["127.0.0.1"]}}
        async with DnsStub(names) as dns:
            rig = make_rig(
                **settings(
                    dns, sink, "may", mta_sts=True, mta_sts_allow_private_hosts=True, data_directory=str(tmp_path)
                )
            )
            trusting(rig, ROOT.write(tmp_path, "ca"))
            rig.service.reload()
            assert await deliver(rig)
            assert (await counted(rig))[0] == {(STS_KIND, result): 1}


async def test_a_broken_tlsa_look_up_is_told(make_rig, tmp_path):
    async with SmtpSink(tls=LEAF.context(tmp_path)) as sink, DnsStub(zones(sink.port) | ASKS) as dns:
        dns.zones[f"_{sink.port}._tcp.mx.b.test"] = SERVFAIL
        rig = make_rig(**settings(dns, sink, "dane"))
        assert not await deliver(rig)
        assert (await counted(rig))[0] == {(TLSA, "dnssec-invalid"): 1}


@pytest.mark.parametrize("skips", [True, False])
async def test_resumed_sessions_are_counted_where_that_is_said(make_rig, tmp_path, skips):
    async with SmtpSink(tls=LEAF.context(tmp_path)) as sink, DnsStub(zones(sink.port) | ASKS) as dns:
        rig = make_rig(**settings(dns, sink, "may", smtp_tlsrpt_skip_reused_handshakes=skips))
        for _ in range(3):
            await send(rig, sink, b"smtp:b.test")
        assert (await counted(rig))[0] == {(NONE, ""): 1 if skips else 3}


async def test_who_asks_for_none_a_named_host_and_a_report_are_not_counted(make_rig, tmp_path):
    async with SmtpSink(tls=LEAF.context(tmp_path)) as sink, DnsStub(zones(sink.port)) as dns:
        rig = make_rig(**settings(dns, sink, "may"))
        assert await deliver(rig)
        assert (await counted(rig))[0] == {}
        dns.zones.update(ASKS)
        rig.service.reload()
        assert await deliver(rig, b"smtp:[127.0.0.1]:%d" % sink.port)
        rig.service.reload()
        assert await deliver(rig, sender=b"tls@a.test")
        assert (await counted(rig))[0] == {}


@pytest.mark.parametrize(
    ("field", "level", "arrives"),
    [
        (b"TLS-Required: No", "dane", True),
        (b"tls-required:  no ", "dane", True),
        (b"TLS-Required: Yes", "dane", False),
        (b"TLS-Required: No\r\nTLS-Required: No", "dane", False),
        (b"X: TLS-Required: No", "dane", False),
        (b"TLS-Required: No", "dane-only", False),
    ],
)
async def test_a_sender_may_waive_what_the_domain_asks_for_but_not_what_an_administrator_does(
    make_rig, tmp_path, field, level, arrives
):
    async with SmtpSink(tls=LEAF.context(tmp_path)) as sink, DnsStub(zones(sink.port, OTHER.tlsa(3, 1, 1))) as dns:
        rig = make_rig(**settings(dns, sink, level))
        assert await deliver(rig, body=b"Subject: x\r\n" + field + b"\r\n\r\nx\r\n") is arrives
        assert len(sink.messages) == arrives
