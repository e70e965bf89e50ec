"""Next hops that misbehave: nothing is lost, nothing comes twice but where an answer was lost, memory is bounded.

Each hop of the table is a server of a few lines that does one thing wrong, for a number of connections; behind it the
same port serves well. The mail waits meanwhile and is delivered once in the end, or bounces where the server said so.
"""

import asyncio
import socket
import ssl
import struct
from types import SimpleNamespace

import pytest

from fastmta.model.envelope import RecipientState
from tests.support.authority import issue

GREETING = b"220 hostile.test ESMTP\r\n"
EHLO = b"250-hostile.test\r\n250 PIPELINING\r\n"
LEAF = issue(["hostile.test"])


class Hostile:
    """A server whose first `times` connections are `script`'s, and the others a good one's."""

    def __init__(self, script, *, times=1, tls=None):
        self.script, self.times, self.tls = script, times, tls
        self.taken, self.connections, self.sent = [], 0, 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info):
        self.server.close()
        await self.server.wait_closed()

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            if self.connections <= self.times:
                await self.script(self, reader, writer)
            else:
                await self.serve_well(reader, writer)
        except (OSError, EOFError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def serve_well(
        self, reader, writer, *, greeting=GREETING, mail=b"250 ok\r\n", data=b"354 go\r\n", dot=b"250 ok\r\n"
    ):
        writer.write(greeting)
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                writer.write(EHLO)
            elif verb == b"DATA":
                writer.write(data)
                if data.startswith(b"354"):
                    self.taken.append(await reader.readuntil(b"\r\n.\r\n"))
                    if dot is None:
                        raise ConnectionError
                    writer.write(dot)
            elif verb == b"MAIL":
                writer.write(mail)
            elif verb == b"QUIT":
                return
            else:
                writer.write(b"250 ok\r\n")


async def endless_greeting(self, reader, writer):
    while True:
        self.sent += writer.write(b"220-" + b"x" * 1000 + b"\r\n") or 1006
        await writer.drain()


async def endless_line(self, reader, writer):
    while True:
        writer.write(b"2" * 65_536)
        self.sent += 65_536
        await writer.drain()


async def nuls(self, reader, writer):
    writer.write(GREETING)
    await reader.readline()
    writer.write(b"250-hostile\0.test\r\n250 \0\0\0\r\n")
    await reader.readline()
    writer.write(b"451 4.3.0 \0\x1b[31mred\0\r\n")
    await writer.drain()


async def out_of_order(self, reader, writer):
    writer.write(GREETING + b"250 I know what comes\r\n250 and that too\r\n354 go\r\n250 taken\r\n")
    await reader.read()


async def no_numbers(self, reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n<html>")
    await reader.read()


async def reset_in_data(self, reader, writer):
    writer.write(GREETING)
    await reader.readline()
    writer.write(EHLO)
    await reader.readuntil(b"DATA\r\n")
    writer.write(b"250 ok\r\n250 ok\r\n354 go\r\n")
    await reader.read(10)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def silent_after_the_dot(self, reader, writer):
    await self.serve_well(reader, writer, dot=b"")


async def lost_after_the_dot(self, reader, writer):
    await self.serve_well(reader, writer, dot=None)


def shutting_down(at):
    said = {at: b"421 4.3.2 shutting down\r\n"}

    async def script(self, reader, writer):
        await self.serve_well(reader, writer, **said)

    return script


async def refused_starttls(self, reader, writer):
    writer.write(GREETING)
    await reader.readline()
    writer.write(b"250-hostile.test\r\n250 STARTTLS\r\n")
    await reader.readline()
    writer.write(b"454 4.7.0 not now\r\n")
    await self.serve_well(reader, writer, greeting=b"")


async def stalled_tls(self, reader, writer):
    writer.write(GREETING)
    await reader.readline()
    writer.write(b"250-hostile.test\r\n250 STARTTLS\r\n")
    await reader.readline()
    writer.write(b"220 go\r\n")
    await reader.read()  # the client's first flight is never answered
    await asyncio.Event().wait()


async def broken_tls(self, reader, writer):
    writer.write(GREETING)
    await reader.readline()
    writer.write(b"250-hostile.test\r\n250 STARTTLS\r\n")
    await reader.readline()
    writer.write(b"220 go\r\n" + b"\x15\x03\x03\x00\x02\x02\x28")
    await reader.read()


HOPS = {
    "endless greeting": endless_greeting,
    "endless line": endless_line,
    "NULs": nuls,
    "answers before questions": out_of_order,
    "another protocol": no_numbers,
    "reset in DATA": reset_in_data,
    "silence after the dot": silent_after_the_dot,
    "lost after the dot": lost_after_the_dot,
    "421 at once": shutting_down("greeting"),
    "421 to MAIL": shutting_down("mail"),
    "421 to DATA": shutting_down("data"),
    "421 to the dot": shutting_down("dot"),
    "STARTTLS refused": refused_starttls,
    "TLS that stalls": stalled_tls,
    "TLS that breaks": broken_tls,
}
# Whose answer may have been lost behind the whole message, so that it comes twice.
TWICE = {"silence after the dot", "lost after the dot"}
TIMEOUTS = {
    "smtp_helo_timeout": 300.0,
    "smtp_mail_timeout": 300.0,
    "smtp_rcpt_timeout": 300.0,
    "smtp_data_init_timeout": 300.0,
    "smtp_data_done_timeout": 300.0,
}


@pytest.mark.parametrize(
    ("name", "level"),
    [(name, level) for name in HOPS for level in ("none", "may") if level == "may" or "TLS" not in name],
)
async def test_the_mail_is_there_once_in_the_end(make_rig, name, level):
    async with Hostile(HOPS[name]) as hop:
        rig = make_rig(smtp_tls_security_level=level, smtp_starttls_timeout=0.2, **TIMEOUTS)
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % hop.port)

        def put_off():
            return rig.store.queue.message(queue_id) is None or rig.rows(queue_id)[0].last_reply

        async def until(condition):
            while not condition():
                for owner in list(rig.service._owners.values()):
                    for connection in list(owner._open):
                        if name.startswith("silence") and hop.taken and hop.connections == 1:
                            connection.deadline_passed(rig.services.loop.time())
                await asyncio.sleep(0.005)

        await until(put_off)
        for _ in range(3):
            if rig.store.queue.message(queue_id) is None:
                break
            assert rig.rows(queue_id)[0].state == RecipientState.DEFERRED
            assert all(32 <= octet < 127 for octet in rig.rows(queue_id)[0].last_reply)
            rig.tick(5000)
            await rig.until(lambda: rig.store.queue.message(queue_id) is None or not rig.service.connections)
        await rig.gone(queue_id)
        assert len(hop.taken) == (2 if name in TWICE else 1) + (name == "421 to the dot")
        assert rig.count("smtp", "delivered") == 1 and not rig.count("smtp", "bounced")
        assert hop.sent < 4 << 20  # the client stops listening long before


async def test_a_server_whose_certificate_changes_is_judged_by_the_new_one(make_rig, tmp_path):
    other = issue(["hostile.test"])
    context = LEAF.context(tmp_path)
    taken = []

    async def serve(reader, writer):
        try:
            writer.write(GREETING)
            await reader.readline()
            writer.write(b"250-hostile.test\r\n250 STARTTLS\r\n")
            await reader.readline()
            writer.write(b"220 go\r\n")
            await writer.start_tls(current[0])
            writer_lines = Hostile(None)
            await writer_lines.serve_well(reader, writer, greeting=b"")
            taken.extend(writer_lines.taken)
        except (OSError, EOFError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()

    current = [context]
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    (tmp_path / "map").write_text(f"[127.0.0.1]:{port} fingerprint match={LEAF.fingerprint()}\n")
    rig = make_rig(smtp_tls_policy_maps=(f"texthash:{tmp_path / 'map'}",))
    first = await rig.queue(b"smtp:[127.0.0.1]:%d" % port)
    await rig.gone(first)
    for owner in rig.service._owners.values():
        while owner.close_idle():
            pass
    current[0] = other.context(tmp_path, "other")
    second = await rig.queue(b"smtp:[127.0.0.1]:%d" % port)
    await rig.until(lambda: rig.rows(second)[0].last_reply)
    assert b"not verified" in rig.rows(second)[0].last_reply
    await rig.until(lambda: len(taken) == 1)
    server.close()
    await server.wait_closed()


async def reset_second(self, reader, writer):
    """Takes one message of a connection and breaks off in the second one."""
    writer.write(GREETING)
    await reader.readline()
    writer.write(EHLO)
    for taken in (True, False):
        await reader.readuntil(b"DATA\r\n")
        writer.write(b"250 ok\r\n250 ok\r\n354 go\r\n")
        if taken:
            self.taken.append(await reader.readuntil(b"\r\n.\r\n"))
            writer.write(b"250 ok\r\n")
    await reader.read(10)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def goodbye_second(self, reader, writer):
    """The same, with a reply that a field of the message would relax if it were about TLS."""
    writer.write(GREETING)
    await reader.readline()
    writer.write(EHLO)
    await reader.readuntil(b"DATA\r\n")
    writer.write(b"250 ok\r\n250 ok\r\n354 go\r\n")
    self.taken.append(await reader.readuntil(b"\r\n.\r\n"))
    writer.write(b"250 ok\r\n")
    await reader.readline()
    writer.write(b"250 ok\r\n421 4.7.4 no more without encryption\r\n")
    await writer.drain()


@pytest.mark.parametrize("script", [reset_second, goodbye_second], ids=["reset", "421"])
@pytest.mark.parametrize("hosts", [1, 2])
async def test_a_kept_connection_that_fails_leads_to_the_next_address(make_rig, script, hosts):
    body = b"TLS-Required: No\r\n\r\nbody\r\n"
    async with Hostile(script, times=100) as hop, Hostile(None, times=0) as other:
        rig = make_rig(smtp_destination_concurrency_limit=1, **TIMEOUTS)
        route = b"smtp:[127.0.0.1]:%d" % hop.port + (b",[127.0.0.1]:%d" % other.port if hosts == 2 else b"")
        first = await rig.queue(route, body=body)
        await rig.gone(first)
        second = await rig.queue(route, body=body)
        if hosts == 2:
            await rig.gone(second)
            assert len(hop.taken) == len(other.taken) == 1
        else:
            await rig.until(lambda: rig.rows(second)[0].last_reply)
            assert rig.rows(second)[0].state == RecipientState.DEFERRED
        await rig.settled()
        assert not any("error" in line for line in rig.log())
        assert all(not owner.busy for owner in rig.service._owners.values())


async def gone_at_rset(self, reader, writer):
    """Refuses the first recipient of a connection, and leaves when it is asked to begin anew."""
    writer.write(GREETING)
    await reader.readline()
    writer.write(EHLO)
    await reader.readuntil(b"DATA\r\n")
    writer.write(b"250 ok\r\n550 5.1.1 nobody\r\n503 no recipients\r\n")
    await reader.readline()


async def goodbye_at_rset(self, reader, writer):
    await gone_at_rset(self, reader, writer)
    writer.write(b"421 4.7.0 too many unknown recipients\r\n")
    await writer.drain()


@pytest.mark.parametrize("script", [gone_at_rset, goodbye_at_rset])
async def test_a_server_that_leaves_behind_a_refusal_costs_the_next_message_no_attempt(make_rig, script):
    async with Hostile(script, times=1) as hop:
        rig = make_rig(smtp_destination_concurrency_limit=1, **TIMEOUTS)
        route = b"smtp:[127.0.0.1]:%d" % hop.port
        ids = [await rig.queue(route, sender=b"") for _ in range(3)]
        for queue_id in ids:
            await rig.until(lambda each=queue_id: rig.store.queue.message(each) is None or rig.rows(each)[0].last_reply)
        await rig.settled()
        assert rig.count("smtp", "deferred") == 0
        assert (rig.count("smtp", "bounced"), rig.count("smtp", "delivered")) == (1, 2)
        assert (len(hop.taken), hop.connections) == (2, 2)


class PartlyLmtp:
    """Answers of an LMTP server for each recipient of a session: to RCPT, and behind the dot before it is `done`."""

    def __init__(self, rcpts, dots, *, done=None):
        self.rcpts, self.dots, self.done = rcpts, dots, done

    async def __call__(self, hop, reader, writer):
        writer.write(b"220 hostile.test LMTP\r\n")
        await reader.readline()
        writer.write(EHLO)
        await reader.readuntil(b"DATA\r\n")
        writer.write(b"250 ok\r\n" + self.rcpts + b"354 go\r\n")
        await reader.readuntil(b"\r\n.\r\n")
        writer.write(self.dots)
        if self.done is not None:
            await self.done()
        await writer.drain()


@pytest.mark.parametrize("goodbye", [b"", b"421 4.3.2 going down\r\n"], ids=["lost", "421"])
async def test_what_lmtp_took_is_noted_before_the_rest_is_tried_elsewhere(make_rig, goodbye):
    notes = set()
    asked = asyncio.Event()

    async def first_noted():
        while not goodbye and not {0, 2} <= notes:  # noqa: ASYNC110 - the service knows of no event
            await asyncio.sleep(0.001)

    async def all_noted():
        assert {0, 2} <= notes  # though this server has yet to answer
        while 1 not in notes:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        asked.set()

    ok = b"250 ok\r\n"
    first = PartlyLmtp(ok + b"452 later\r\n" + ok + ok, ok + ok + goodbye, done=first_noted)
    second = PartlyLmtp(ok + ok, ok, done=all_noted)
    async with Hostile(first, times=9) as one, Hostile(second, times=9) as two:
        rig = make_rig(smtp_destination_concurrency_limit=1, **TIMEOUTS)
        rig.service.answers = SimpleNamespace(note=lambda _, __, numbers: notes.update(numbers), close=lambda: None)
        route = b"lmtp:[127.0.0.1]:%d,[127.0.0.1]:%d" % (one.port, two.port)
        queue_id = await rig.queue(route, *[b"%d@b.test" % n for n in range(4)])
        await asyncio.wait_for(asked.wait(), 60)
        await rig.until(lambda: rig.rows(queue_id) and rig.rows(queue_id)[-1].last_reply)
        await rig.settled()
        assert [row.n for row in rig.rows(queue_id) if row.state == RecipientState.DEFERRED] == [3]
        assert notes == {0, 1, 2}
