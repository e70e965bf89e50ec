"""What a client demanded: REQUIRETLS (RFC 8689), delivery by a time (RFC 2852), or not before one (RFC 4865)."""

import pytest

from fastmta.model.envelope import NOTIFY_NEVER, RecipientState, RecipientTail, Terms
from tests.delivery.test_tls_policies import LEAF, OTHER, ROOT, trusting, zones
from tests.support.dns_stub import DnsStub
from tests.support.smtp_sink import SmtpSink

OFFER = ("SIZE 50000000", "8BITMIME", "DSN", "SMTPUTF8", "REQUIRETLS", "DELIVERBY")
PLAIN = ("SIZE 50000000", "8BITMIME", "DSN", "SMTPUTF8")
WITHOUT = ("SIZE 50000000", "REQUIRETLS")
HOUR = 3600


def reports(rig):
    """The reports in the queue: (their envelope, their octets)."""
    found = [message for message, _ in rig.everything() if message.envelope.reverse_path == b""]
    return [(each.envelope, rig.store.queue.read(each.blob_id, 0, 100_000)) for each in found]


CASES = {  # certificate, what the server offers, whether it has TLS -> whether it gets the mail
    "proved": (LEAF, OFFER, True, True),
    "not offered": (LEAF, PLAIN, True, False),
    "another authority": (OTHER, OFFER, True, False),
    "no TLS": (LEAF, OFFER, False, False),
}


@pytest.mark.parametrize("name", sorted(CASES))
async def test_mail_that_requires_tls_goes_to_who_proves_himself_and_promises_the_same(make_rig, tmp_path, name):
    certificate, offer, has_tls, gets_it = CASES[name]
    context = certificate.context(tmp_path) if has_tls else None
    async with SmtpSink(tls=context, capabilities=offer) as sink:
        (tmp_path / "map").write_text("[127.0.0.1] verify match=mx.b.test\n")
        rig = make_rig(smtp_tls_security_level="may", smtp_tls_policy_maps=(f"texthash:{tmp_path / 'map'}",))
        trusting(rig, ROOT.write(tmp_path, "root"))
        (tmp_path / "map").write_text(f"[127.0.0.1]:{sink.port} verify match=mx.b.test\n")
        rig.service.tls.refresh()
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port, b"r@b.test", terms=Terms(True))
        await rig.gone(queue_id)
        if gets_it:
            (message,) = sink.messages
            assert message.tls and message.parameters.endswith(b" REQUIRETLS") and not reports(rig)
            return
        assert not sink.messages
        ((envelope, text),) = reports(rig)
        assert b"Status: 5.7.30" in text
        assert b"text/rfc822-headers" in text and b"\r\nbody\r\n" not in text
        assert envelope.terms == Terms(True)


async def test_such_mail_uses_no_connection_that_other_mail_has_opened(make_rig, tmp_path):
    async with SmtpSink(tls=LEAF.context(tmp_path), capabilities=OFFER) as sink, DnsStub(zones(sink.port)) as dns:
        rig = make_rig(
            nameservers=(dns.address,),
            smtp_tls_security_level="may",
            smtp_tcp_port=sink.port,
            allow_loopback_mx=True,
        )
        trusting(rig, ROOT.write(tmp_path, "root"))
        await rig.gone(await rig.queue(b"smtp:b.test", b"r@b.test"))
        await rig.gone(await rig.queue(b"smtp:b.test", b"r@b.test", terms=Terms(True)))
        assert [b"REQUIRETLS" in each.parameters for each in sink.messages] == [False, True]
        assert sink.connections == 2
        levels = [line["security_level"] for line in rig.log() if line["event"] == "delivery.tls"]
        assert levels == ["may", "secure"]
        await rig.gone(await rig.queue(b"smtp:b.test", b"r@b.test", terms=Terms(True)))
        assert sink.connections == 2, "the proved connection serves such mail again"


async def test_lmtp_within_the_site_needs_no_proof(make_rig):
    async with SmtpSink(lmtp=True) as sink:
        rig = make_rig()
        await rig.gone(await rig.queue(b"lmtp:[127.0.0.1]:%d" % sink.port, b"r@b.test", terms=Terms(True)))
        assert len(sink.messages) == 1


def by(rig, seconds, mode):
    return Terms(deliver_by_ms=int((rig.clock.now() + seconds) * 1000), by_mode=mode)


@pytest.mark.parametrize("mode", ["R", "N", "RT", "NT"])
async def test_what_is_left_of_the_time_is_passed_on(make_rig, mode):
    async with SmtpSink(capabilities=OFFER) as sink:
        rig = make_rig()
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port, b"r@b.test", terms=by(rig, HOUR, mode))
        await rig.gone(queue_id)
        assert sink.messages[0].parameters.split()[-1] in (b"BY=3600;" + mode.encode(), b"BY=3599;" + mode.encode())
        told = reports(rig)
        assert len(told) == mode.endswith("T")
        assert all(b"Action: relayed" in text and b"Deliver-By-Date: " in text for _, text in told)


async def test_a_trace_is_not_told_to_who_asked_for_nothing(make_rig):
    async with SmtpSink(capabilities=OFFER) as sink:
        rig = make_rig()
        recipient = RecipientTail(b"r@b.test", notify=NOTIFY_NEVER)
        await rig.gone(await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port, recipient, terms=by(rig, HOUR, "NT")))
        assert sink.messages and not reports(rig)


@pytest.mark.parametrize(
    ("offer", "mode", "status"),
    [
        (WITHOUT, "R", b"5.3.3"),
        (("DELIVERBY 7200",), "R", b"5.4.7"),
        (WITHOUT, "N", b""),
        (("DELIVERBY 7200",), "N", b""),
    ],
)
async def test_mail_that_would_have_to_come_back_goes_only_where_that_is_promised(make_rig, offer, mode, status):
    async with SmtpSink(capabilities=offer) as sink:
        rig = make_rig()
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port, b"r@b.test", terms=by(rig, HOUR, mode))
        await rig.gone(queue_id)
        assert [b"Status: " + status in text for _, text in reports(rig)] == ([True] if status else [])
        assert len(sink.messages) == (not status)


async def test_mail_comes_back_when_its_time_is_over(make_rig):
    async with SmtpSink(capabilities=OFFER, replies={"RCPT": ["451 4.3.0 later"] * 9}) as sink:
        rig = make_rig()
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port, b"r@b.test", terms=by(rig, 400, "R"))
        await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
        await rig.settled()
        rig.tick(390)
        await rig.until(lambda: rig.rows(queue_id)[0].attempts == 2)
        (row,) = rig.rows(queue_id)
        assert row.due_ms == rig.store.queue.message(queue_id).envelope.terms.deliver_by_ms
        await rig.settled()
        rig.tick(11)
        await rig.gone(queue_id)
        ((_, text),) = reports(rig)
        assert b"Status: 5.4.7" in text and b"Action: failed" in text and not sink.messages


async def test_its_sender_is_told_once_that_mail_is_late_which_is_then_delivered(make_rig):
    async with SmtpSink(capabilities=OFFER, replies={"RCPT": ["451 4.3.0 later"] * 3}) as sink:
        rig = make_rig()
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port, b"r@b.test", terms=by(rig, 200, "N"))
        for attempt, seconds in ((1, 0), (2, 201), (3, 4000), (4, 4500)):
            rig.tick(seconds)
            await rig.until(lambda: not rig.rows(queue_id) or rig.rows(queue_id)[0].attempts == attempt)  # noqa: B023
            await rig.settled()
        await rig.gone(queue_id)
        assert len(sink.messages) == 1 and b"BY=-" in sink.messages[0].parameters
        ((_, text),) = reports(rig)
        assert b"Action: delayed" in text


async def test_the_age_of_mail_that_was_kept_is_counted_from_its_release(make_rig):
    async with SmtpSink(replies={"RCPT": ["451 4.3.0 later"]}) as sink:
        rig = make_rig()
        now_ms = int(rig.clock.now() * 1000)
        terms = Terms(release_at_ms=now_ms)
        queue_id = await rig.queue(
            b"smtp:[127.0.0.1]:%d" % sink.port, b"r@b.test", received_at_ms=now_ms - 20 * 86_400_000, terms=terms
        )
        await rig.until(lambda: rig.rows(queue_id) and rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
        await rig.settled()
        assert not reports(rig)
