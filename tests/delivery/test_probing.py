"""Questions about addresses: asked of the next hop up to RCPT, and nothing is delivered."""

import asyncio
import contextlib

import pytest

from fastmta.delivery import probing
from fastmta.model.envelope import LocalTarget, QueuedTarget, Resolution
from tests.support.authority import issue
from tests.support.smtp_sink import CLOSE, HANG, SmtpSink

ADDRESS = b"x@next.test"


def towards(rig, *hops):
    """Has the address lead to these hops."""
    targets = tuple(QueuedTarget(ADDRESS, hop) for hop in hops)
    usual = rig.directory.resolve
    rig.directory.resolve = lambda path, *, may_relay: (
        Resolution(targets=targets) if path == ADDRESS else usual(path, may_relay=may_relay)
    )


async def ask(rig, sender=b"probe@mx.test", address=ADDRESS):
    reply = await rig.service.probe(sender, address)
    assert rig.service.connections == 0
    return reply


async def test_questions_may_have_routes_of_their_own(make_rig):
    async with SmtpSink() as sink:
        table = f"inline:{{ {{ next.test = smtp:[127.0.0.1]:{sink.port} }}, {{ bad.test = error:no }} }}"
        rig = make_rig(top={"address_verify_transport_maps": (table,)})
        towards(rig, b"smtp:[127.0.0.1]:1")
        assert (await ask(rig)).code == 250
        assert b"RCPT" in [line.split(b" ")[0] for line in sink.commands] and not sink.messages


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("lmtp", [True, False])
async def test_a_server_that_takes_the_recipient_gets_no_message(make_rig, pipelining, lmtp):
    rig = make_rig()
    async with SmtpSink(pipelining=pipelining, lmtp=lmtp) as sink:
        towards(rig, b"%s:[127.0.0.1]:%d" % (b"lmtp" if lmtp else b"smtp", sink.port))
        assert (await ask(rig)).code == 250
        await sink.until(lambda: b"QUIT" in sink.commands)
        words = [line.split(b" ")[0] for line in sink.commands]
        assert words == [b"LHLO" if lmtp else b"EHLO", b"MAIL", b"RCPT", b"QUIT"]
        assert sink.commands[1].startswith(b"MAIL FROM:<probe@mx.test>")
        assert sink.messages == []


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(
    ("verb", "said", "told"),
    [
        ("RCPT", "550 5.1.1 unknown", "550 5.1.1 host 127.0.0.1[127.0.0.1] said: 550 5.1.1 unknown (in reply to RCPT"),
        ("RCPT", "451 4.7.1 later", "451 4.7.1 host 127.0.0.1[127.0.0.1] said: 451 4.7.1 later (in reply to RCPT"),
        ("RCPT", "452 4.5.3 many", "452 4.5.3 host 127.0.0.1[127.0.0.1] said: 452 4.5.3 many (in reply to RCPT"),
        ("MAIL", "550 5.7.1 no", "550 5.7.1 host 127.0.0.1[127.0.0.1] said: 550 5.7.1 no (in reply to MAIL FROM"),
        ("GREETING", "554 5.3.2 closed", "450 4.3.2 554 closed"),
        ("EHLO", CLOSE, "450 4.4.2 lost connection with"),
        ("RCPT", CLOSE, "450 4.4.2 lost connection with"),
    ],
)
async def test_what_a_server_says_is_the_answer(make_rig, pipelining, verb, said, told):
    rig = make_rig()
    async with SmtpSink(pipelining=pipelining, replies={verb: [said]}) as sink:
        towards(rig, b"smtp:[127.0.0.1]:%d" % sink.port)
        assert str(await ask(rig)).startswith(told)
        assert sink.messages == []


async def test_tls_that_fails_is_left_out_where_it_is_optional(make_rig, tmp_path):
    rig = make_rig(smtp_tls_security_level="may")
    async with SmtpSink(tls=issue(["sink.test"]).context(tmp_path)) as sink:
        towards(rig, b"smtp:[127.0.0.1]:%d" % sink.port)
        assert (await ask(rig)).code == 250
        assert b"STARTTLS" in sink.commands
    async with SmtpSink(capabilities=("STARTTLS",), replies={"STARTTLS": ["220 go"]}) as sink:  # and no TLS behind it
        towards(rig, b"smtp:[127.0.0.1]:%d" % sink.port)
        assert (await ask(rig)).code == 250
        assert sink.connections == 2


async def test_a_server_that_never_answers_is_left(make_rig):
    rig = make_rig(smtp_helo_timeout=1.0)
    async with SmtpSink(replies={"EHLO": [HANG]}) as sink:
        towards(rig, b"smtp:[127.0.0.1]:%d" % sink.port)
        assert "conversation timed out" in str(await ask(rig))


async def test_nobody_listens(make_rig):
    rig = make_rig()
    towards(rig, b"smtp:[127.0.0.1]:1")
    reply = await ask(rig)
    assert reply.code == 450 and "Connection refused" in reply.text


async def test_who_gives_up_leaves_no_connection(make_rig):
    rig = make_rig()
    async with SmtpSink(replies={"EHLO": [HANG]}) as sink:
        towards(rig, b"smtp:[127.0.0.1]:%d" % sink.port)
        task = asyncio.ensure_future(rig.service.probe(b"", ADDRESS))
        await sink.until(lambda: bool(sink.commands))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert rig.service.connections == 0


@pytest.mark.parametrize(
    ("hops", "told"),
    [
        ((b"error:5.1.6 moved",), "5"),
        ((b"retry:4.3.2 later",), "4"),
        ((b"discard:",), "250"),
        ((b"hold:next.test",), "250"),
        ((b"smtp:[127.0.0.1]:1", b"smtp:[127.0.0.1]:2"), "250"),  # an alias of several, as in Postfix
    ],
)
async def test_what_ends_here_is_not_asked(make_rig, hops, told):
    rig = make_rig()
    towards(rig, *hops)
    assert str(await ask(rig)).startswith(told)


async def test_mailboxes_and_unknown_users_are_known(make_rig):
    rig = make_rig()
    rig.directory.mailboxes[b"bill@a.test"] = LocalTarget(1, 2, b"bill@a.test")
    assert (await ask(rig, address=b"bill@a.test")).code == 250
    assert str(await ask(rig, address=b"nobody@elsewhere.test")) == "550 5.1.1 unknown"


async def test_a_damaged_route_is_temporary(make_rig, monkeypatch):
    rig = make_rig()
    towards(rig, b"smtp:[127.0.0.1]:1")

    def refuse(hop, config):
        raise ValueError("no route")

    monkeypatch.setattr(probing, "next_hop_of", refuse)
    assert str(await ask(rig)) == "451 4.3.5 the route cannot be used: no route"
