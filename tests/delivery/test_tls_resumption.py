"""TLS sessions are resumed with the server that they were made with, under the same policy, and nowhere else."""

import asyncio
import ssl

import msgspec
import pytest
import uvloop

from fastmta.runtime.metrics import METRICS
from fastmta.tls.contexts import Contexts, client_context
from fastmta.tls.sessions import TlsSessions
from tests.smtp_client.test_connection import Owner, connect
from tests.support.authority import issue
from tests.support.dns_stub import DnsStub
from tests.support.smtp_sink import SmtpSink

ROOT = issue(["Root of Tests"], ca=True)
LEAF = issue(["mx.b.test"], ROOT)
OTHER = issue(["mx.b.test"])


async def send(rig, sink, hop):
    """Sends one message over a connection of its own; the line of the log about its TLS, or None."""
    for owner in list(rig.service._owners.values()):
        while owner.close_idle():
            pass
    before = len(rig.log())
    queue_id = await rig.queue(hop)
    await rig.until(
        lambda: rig.store.queue.message(queue_id) is None or all(row.last_reply for row in rig.rows(queue_id))
    )
    await rig.settled()
    lines = [line for line in rig.log()[before:] if line["event"] == "delivery.tls"]
    return lines[-1] if lines else None


def counted(rig):
    return [rig.services.cells[METRICS.delivery_tls_sessions_total[each]] for each in ("new", "resumed")]


@pytest.mark.parametrize(
    ("entry", "verified"),
    [
        ("may", "none"),
        ("encrypt", "none"),
        ("encrypt protocols=TLSv1.2", "none"),
        ("encrypt protocols=TLSv1.3", "none"),
        ("secure match=mx.b.test", "mx.b.test"),
        ("fingerprint match={cert}", "fingerprint"),
    ],
)
async def test_the_second_connection_resumes_and_is_as_proved_as_the_first(make_rig, tmp_path, entry, verified):
    async with SmtpSink(tls=LEAF.context(tmp_path)) as sink:
        (tmp_path / "map").write_text(f"[127.0.0.1]:{sink.port} {entry.format(cert=LEAF.fingerprint())}\n")
        rig = make_rig(smtp_tls_policy_maps=(f"texthash:{tmp_path / 'map'}",))
        rig.services.contexts = Contexts(
            msgspec.structs.replace(rig.config.tls, smtp_tls_CAfile=ROOT.write(tmp_path, "ca"))
        )
        hop = b"smtp:[127.0.0.1]:%d" % sink.port
        first, second, third = [await send(rig, sink, hop) for _ in range(3)]
        assert "resumed" not in first and second["resumed"] and third["resumed"]
        assert first["verified"] == second["verified"] == verified
        assert counted(rig) == [1, 2] and len(sink.messages) == 3


@pytest.mark.parametrize(("record", "verified"), [("3 1 1", "dane-ee"), ("2 0 1", "dane-ta")])
async def test_dane_holds_for_a_resumed_session(make_rig, tmp_path, record, verified):
    async with SmtpSink(tls=LEAF.context(tmp_path)) as sink:
        tlsa = {"3 1 1": LEAF.tlsa(3, 1, 1), "2 0 1": ROOT.tlsa(2, 0, 1)}[record]
        zones = {
            "b.test": {"MX": [(10, "mx.b.test")]},
            "mx.b.test": {"A": ["127.0.0.1"]},
            f"_{sink.port}._tcp.mx.b.test": {"TLSA": [tlsa]},
        }
        async with DnsStub(zones) as dns:
            rig = make_rig(
                nameservers=(dns.address,),
                allow_loopback_mx=True,
                smtp_tcp_port=sink.port,
                smtp_tls_security_level="dane",
            )
            lines = [await send(rig, sink, b"smtp:b.test") for _ in range(2)]
            assert [line["verified"] for line in lines] == [verified] * 2 and lines[1]["resumed"]


async def test_another_policy_makes_a_handshake_of_its_own(make_rig, tmp_path):
    async with SmtpSink(tls=LEAF.context(tmp_path)) as sink:
        path = tmp_path / "map"
        path.write_text(f"[127.0.0.1]:{sink.port} encrypt\n")
        rig = make_rig(smtp_tls_policy_maps=(f"texthash:{path}",))
        hop = b"smtp:[127.0.0.1]:%d" % sink.port
        await send(rig, sink, hop)
        path.write_text(f"[127.0.0.1]:{sink.port} fingerprint match=00:11\n")
        rig.tick(2)
        assert await send(rig, sink, hop) is None  # the session of `encrypt` proves nothing
        assert counted(rig) == [1, 0] and len(sink.messages) == 1


async def test_a_certificate_that_changed_is_looked_at(make_rig, tmp_path):
    """A server with other keys does not know the ticket, so it shows the certificate that it has now."""
    async with SmtpSink(tls=LEAF.context(tmp_path)) as sink:
        (tmp_path / "map").write_text(f"[127.0.0.1]:{sink.port} fingerprint match={LEAF.fingerprint()}\n")
        rig = make_rig(smtp_tls_policy_maps=(f"texthash:{tmp_path / 'map'}",))
        hop = b"smtp:[127.0.0.1]:%d" % sink.port
        await send(rig, sink, hop)
        sink.tls = OTHER.context(tmp_path, "other")
        assert await send(rig, sink, hop) is None
        assert counted(rig) == [1, 0] and len(sink.messages) == 1


async def test_a_server_that_stumbles_over_a_session_gets_a_whole_handshake(make_rig, tmp_path, monkeypatch):
    """And neither plain text, where TLS is optional, nor a deferral."""
    async with SmtpSink(tls=LEAF.context(tmp_path)) as sink:
        rig = make_rig(smtp_tls_security_level="may")
        hop = b"smtp:[127.0.0.1]:%d" % sink.port
        await send(rig, sink, hop)
        whole = ssl.SSLContext.wrap_bio

        def stumbling(self, *args, **named):
            if named.get("session") is not None:
                raise ssl.SSLError("no such session")
            return whole(self, *args, **named)

        monkeypatch.setattr(ssl.SSLContext, "wrap_bio", stumbling)
        assert "resumed" not in await send(rig, sink, hop)
        assert [message.tls for message in sink.messages] == [True, True]


async def test_none_is_kept_where_the_time_is_0(make_rig, tmp_path):
    async with SmtpSink(tls=LEAF.context(tmp_path)) as sink:
        rig = make_rig(smtp_tls_security_level="may", smtp_tls_session_cache_timeout=0.0)
        hop = b"smtp:[127.0.0.1]:%d" % sink.port
        assert "resumed" not in [await send(rig, sink, hop) for _ in range(2)][1]
        assert len(rig.service.tls_sessions) == 0


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_sessions_are_resumed_on_the_workers_loop_and_on_pythons(tmp_path, loop_factory):
    context = client_context("may")
    sessions = TlsSessions(100.0, lambda: 0.0)

    async def both():
        found = []
        async with SmtpSink(tls=LEAF.context(tmp_path)) as sink:
            for _ in range(2):
                owner = Owner(b"x\r\n", context)
                owner.session = sessions.find("sink", context)
                connection = await connect(sink, owner)
                await owner.ready.wait()
                sessions.keep("sink", connection.tls(), None)
                found.append(connection.is_resumed)
                connection.close()
                await owner.over.wait()
        return found

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(both()) == [False, True]


class Tls:
    """As much of an SSLObject as `keep` looks at."""

    def __init__(self, context, *, reused=False, ticket=True):
        self.context = context
        self.session_reused = reused
        self.session = type("Session", (), {"has_ticket": ticket, "id": b""})()


def test_a_session_lasts_as_long_as_the_first_handshake_is_young(monkeypatch):
    now = [0.0]
    context, after_reload = client_context("may"), client_context("may")
    sessions = TlsSessions(100.0, lambda: now[0])
    sessions.keep("a", Tls(context, ticket=False), None)
    assert sessions.find("a", context) is None
    sessions.keep("a", Tls(context), None)
    now[0] = 90.0
    assert sessions.find("a", context) is not None and sessions.find("b", context) is None
    sessions.keep("a", Tls(context, reused=True), None)
    now[0] = 101.0
    assert sessions.find("a", context) is None
    sessions.keep("a", Tls(context), None)
    assert sessions.find("a", after_reload) is None


def test_a_session_is_read_behind_a_whole_handshake_only_unless_its_server_takes_it_once():
    context = client_context("may")
    sessions = TlsSessions(100.0, lambda: 0.0)

    def kept(*, reused):
        tls = Tls(context, reused=reused)
        sessions.keep("a", tls, None)
        return sessions.find("a", context).session is tls.session

    assert [kept(reused=reused) for reused in (False, True, True)] == [True, False, False]
    assert kept(reused=False)  # what was resumed is so no more: each ticket is good once
    assert [kept(reused=reused) for reused in (True, True)] == [True, True]


def test_a_session_that_nobody_may_keep_is_not_read():
    class Unread(Tls):
        session = property(lambda self: pytest.fail("read"), lambda self, value: None)

    TlsSessions(0, lambda: 0.0).keep("a", Unread(client_context("may")), None)


def test_sessions_are_bounded(monkeypatch):
    monkeypatch.setattr("fastmta.tls.sessions.TLS_SESSIONS", 3)
    context = client_context("may")
    sessions = TlsSessions(100.0, lambda: 0.0)
    for n in range(4):
        sessions.keep(n, Tls(context), None)
    assert len(sessions) == 3 and sessions.find(0, context) is None and sessions.find(3, context) is not None
