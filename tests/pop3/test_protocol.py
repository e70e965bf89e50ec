"""POP3 over sockets: replies in order, one write a read, streaming with back-pressure, STLS, the lock, UPDATE."""

import asyncio
import poplib
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastmta.model.actor import Actor
from fastmta.model.errors import Cold
from fastmta.model.flags import SEEN
from fastmta.model.limits import LINE_SKIP_BYTES, POP3_COMMAND_BYTES
from fastmta.model.rights import READ
from fastmta.pop3.connection import Pop3Connection
from fastmta.pop3.lock import MaildropLocks
from fastmta.tls.certificate import write_self_signed
from tests.pop3.fakes import PREFIX, Running, on_both_loops

MESSAGES = [
    b"Subject: one\r\n\r\nfirst\r\n",
    b"Subject: two\r\n\r\n.dot\r\n..two\r\n.\r\nlast",
    b"Subject: three\r\n\r\n" + b"".join(b"line %d\r\n" % n for n in range(50)),
]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    directory = tmp_path_factory.mktemp("tls")
    write_self_signed(directory / "cert.pem", directory / "key.pem", ["localhost"])
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return made


def trusting() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


async def until(condition: Callable[[], object]) -> None:
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to pass")


def only(server: Running) -> Pop3Connection:
    (connection,) = server.server.connections
    return connection


@on_both_loops
async def test_session_of_poplib(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        validity = server.store.access.resolve(Actor(server.account.id), "INBOX", READ).uid_validity

        def use() -> None:
            client = poplib.POP3("127.0.0.1", server.port, timeout=60)
            assert "PIPELINING" in client.capa()
            client.user("bill")
            client.pass_("secret word")
            sizes = [len(PREFIX + text) for text in MESSAGES]
            sizes[1] += 2  # the CRLF that its last line lacks
            assert client.stat() == (3, sum(sizes))
            assert client.list()[1] == [b"%d %d" % (n + 1, size) for n, size in enumerate(sizes)]
            assert client.uidl()[1] == [b"%d %d.%d" % (n, validity, n) for n in (1, 2, 3)]
            for number, text in enumerate(MESSAGES, 1):
                status, lines, _ = client.retr(number)
                whole = b"".join(line + b"\r\n" for line in lines)
                assert whole.removesuffix(b"\r\n") == (PREFIX + text).removesuffix(b"\r\n")
                assert status == b"+OK %d octets" % len(whole)
            assert client.top(3, 2)[1] == [PREFIX[:-2], b"Subject: three", b"", b"line 0", b"line 1"]
            assert client.top(3, 0)[1] == [PREFIX[:-2], b"Subject: three", b""]
            assert len(client.top(3, 10**9)[1]) == 53
            client.dele(1)
            client.quit()

        await asyncio.to_thread(use)
        assert list(server.flags()) == [2, 3]
        assert server.flags() == {2: SEEN, 3: SEEN}


@on_both_loops
async def test_pipelined_commands_are_answered_in_one_write(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        server.authenticator.remembers = True
        client = await server.connect()
        writes = []
        transport = only(server)._transport
        assert transport is not None

        class Counting:
            def write(self, data: bytes) -> None:
                writes.append(data)
                transport.write(data)

            def __getattr__(self, name: str) -> object:
                return getattr(transport, name)

        only(server)._transport = Counting()  # type: ignore[assignment]
        client.send(b"USER bill\r\nPASS secret word\r\nSTAT\r\nRETR 1\r\nNOOP\r\nLIST\r\nNOOP\r\n")
        for expected in (b"+OK\r\n", b"+OK Logged in, 3 messages\r\n", b"+OK 3 "):
            assert (await client.line()).startswith(expected)
        assert (await client.line()).startswith(b"+OK")
        assert await client.body() == PREFIX + MESSAGES[0]
        assert await client.line() == b"+OK\r\n"
        assert (await client.line()).startswith(b"+OK 3 messages")
        assert (await client.body()).count(b"\r\n") == 3
        assert await client.line() == b"+OK\r\n"
        assert len(writes) == 1
        client.close()


@on_both_loops
async def test_commands_wait_for_a_login_under_way(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        server.authenticator.gate = asyncio.Event()
        client = await server.connect()
        client.send(b"USER bill\r\nPASS secret word\r\nSTAT\r\nQUIT\r\n")
        assert await client.line() == b"+OK\r\n"
        server.authenticator.gate.set()
        assert (await client.line()).startswith(b"+OK Logged in")
        assert (await client.line()).startswith(b"+OK 3 ")
        assert await client.line() == b"+OK Bye\r\n"
        assert await client.ended()
        client.close()


@on_both_loops
async def test_input_that_waits_is_bounded(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        server.authenticator.gate = asyncio.Event()
        client = await server.connect()
        client.send(b"USER bill\r\nPASS secret word\r\n" + b"NOOP\r\n" * 100_000)
        for _ in range(200):
            await asyncio.sleep(0)
            if only(server)._reading_paused:
                break
        assert only(server)._reading_paused
        assert len(only(server)._input) < 600_000
        server.authenticator.gate.set()
        await client.line()
        assert (await client.line()).startswith(b"+OK Logged in")
        assert await client.reader.readexactly(5 * 100_000) == b"+OK\r\n" * 100_000
        client.close()


@on_both_loops
async def test_wrong_password_and_unknown_user_get_one_answer(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        client = await server.connect()
        answers = set()
        for name in (b"bill", b"nobody"):
            assert await client.say(b"USER " + name) == b"+OK\r\n"
            answers.add(await client.say(b"PASS wrong"))
        assert answers == {b"-ERR [AUTH] Authentication failed\r\n"}
        assert await client.say(b"AUTH PLAIN AGJpbGwAeA==") in answers
        assert await client.ended()
        client.close()


@on_both_loops
async def test_maildrop_is_locked(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        first = await server.connect()
        second = await server.connect()
        assert (await first.log_in()).startswith(b"+OK")
        assert (await second.log_in()).startswith(b"-ERR [IN-USE] ")
        assert await first.say(b"QUIT") == b"+OK Bye\r\n"
        assert (await second.log_in()).startswith(b"+OK")
        first.close()
        second.close()


@on_both_loops
async def test_lock_excludes_other_processes_and_goes_with_the_connection(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        other = MaildropLocks(tmp_path)  # another open file description, as another process has
        assert other.acquire(server.account.id)
        assert not other.acquire(server.account.id)
        client = await server.connect()
        assert (await client.log_in()).startswith(b"-ERR [IN-USE]")
        other.release(server.account.id)
        assert (await client.log_in()).startswith(b"+OK")
        assert not other.acquire(server.account.id)
        assert other.acquire(server.account.id + 1)
        client.close()
        for _ in range(1000):
            await asyncio.sleep(0)
            if not server.server.connections:
                break
        assert other.acquire(server.account.id)
        other.close()


@pytest.mark.parametrize("remembers", [False, True])
@on_both_loops
async def test_lock_is_released_when_the_peer_leaves_during_login(tmp_path: Path, remembers: bool) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*[b"x\r\n"] * 1500)
        server.authenticator.remembers = remembers
        client = await server.connect()
        client.send(b"USER bill\r\nPASS secret word\r\n")
        await client.line()
        if remembers:
            client.writer.transport.abort()
        else:
            only(server)._transport.abort()  # type: ignore[union-attr]
        await until(lambda: not (server.server.connections or len(server.tasks)))
        await asyncio.sleep(0)
        assert server.server.locks.acquire(server.account.id)


@on_both_loops
async def test_nothing_is_deleted_without_quit(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        client = await server.connect()
        await client.log_in()
        assert await client.say(b"DELE 1") == b"+OK Marked to be deleted\r\n"
        client.close()
        await until(lambda: not (server.server.connections))
        assert len(server.flags()) == 3


@on_both_loops
async def test_update_goes_on_when_the_peer_leaves(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        server.mailboxes.gate = asyncio.Event()
        client = await server.connect()
        await client.log_in()
        client.send(b"DELE 1\r\nQUIT\r\n")
        await client.line()
        await until(lambda: only(server)._task is not None)
        transport = only(server)._transport
        assert transport is not None
        transport.abort()
        await until(lambda: not (server.server.connections))
        assert not server.server.locks.acquire(server.account.id)
        server.mailboxes.gate.set()
        await until(lambda: not (len(server.tasks)))
        assert list(server.flags()) == [2, 3]
        assert server.server.locks.acquire(server.account.id)


@on_both_loops
async def test_failed_update_is_an_error(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        server.services.log = type("Quiet", (), {"__getattr__": lambda *_: lambda *_, **__: None})()
        await server.fill(*MESSAGES)
        server.mailboxes.failing = True
        client = await server.connect()
        await client.log_in()
        await client.say(b"DELE 1")
        assert await client.say(b"QUIT") == b"-ERR [SYS/TEMP] Some deleted messages were not removed\r\n"
        assert await client.ended()
        assert len(server.flags()) == 3
        client.close()


@on_both_loops
async def test_reading_on_a_full_disk_ends_well(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        server.services.log = type("Quiet", (), {"__getattr__": lambda *_: lambda *_, **__: None})()
        await server.fill(*MESSAGES)
        server.mailboxes.failing = True
        client = await server.connect()
        await client.log_in()
        assert (await client.say(b"RETR 1")).startswith(b"+OK")
        await client.body()
        assert await client.say(b"QUIT") == b"+OK Bye\r\n"
        assert await client.ended()
        client.close()


BIG = b"Subject: big\r\n\r\n" + b"".join(b".%06d %s\r\n" % (n, b"x" * 690) for n in range(12_000))


@on_both_loops
async def test_big_message_is_read_only_as_fast_as_the_peer_takes_it(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(BIG)
        client = await server.connect()
        await client.log_in()
        before = server.mailboxes.reads
        client.send(b"RETR 1\r\nNOOP\r\n")
        status = await client.line()
        connection = only(server)
        for _ in range(2000):
            await asyncio.sleep(0)
        assert connection._paused
        assert server.mailboxes.reads - before < 100  # of 128: what sockets and the client's reader hold, no more
        assert status == b"+OK %d octets\r\n" % len(PREFIX + BIG)
        assert await client.body() == PREFIX + BIG
        assert await client.line() == b"+OK\r\n"
        client.close()


@on_both_loops
async def test_what_is_not_in_memory_is_waited_for_and_commands_behind_it_too(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(BIG, *MESSAGES)
        client = await server.connect()
        await client.log_in()
        gate, asked = asyncio.Event(), []

        read_on = server.mailboxes.read_on

        def read_hot(row: Any, offset: int, length: int, hot: bool = False) -> Any:
            if hot:
                asked.append(offset)
                if len(asked) % 3 == 1:
                    raise Cold([(0, 4096)])
            return read_on(row, offset, length)

        server.mailboxes.read_on = read_hot
        server.mailboxes.need_on = lambda row, offset, length: gate.wait() if offset < len(BIG) // 2 else None
        client.send(b"RETR 1\r\nRETR 2\r\nNOOP\r\n")
        await until(lambda: only(server)._task is not None)
        assert asked == [0]
        gate.set()
        assert await client.line() == b"+OK %d octets\r\n" % len(PREFIX + BIG)
        assert await client.body() == PREFIX + BIG
        assert (await client.line()).startswith(b"+OK")
        assert await client.body() == PREFIX + MESSAGES[0]
        assert await client.line() == b"+OK\r\n"
        assert len(asked) > 10
        client.close()


@on_both_loops
async def test_message_whose_bytes_go_while_a_slow_peer_reads_ends_the_connection_uncompleted(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(BIG)
        client = await server.connect()
        await client.log_in()
        client.send(b"RETR 1\r\nNOOP\r\n")
        await client.line()
        for _ in range(2000):
            await asyncio.sleep(0)
        await server.lose(1)
        await server.fill(b"Subject: another's mail\r\n\r\nprivate\r\n" * 10_000)
        server.mailboxes.reaped = True
        rest = await asyncio.wait_for(client.reader.read(-1), 60)
        assert (PREFIX + BIG).startswith(rest.replace(b"\r\n..", b"\r\n.")[:100_000])
        assert b"private" not in rest
        assert not rest.endswith(b"\r\n.\r\n")
        assert b"+OK" not in rest
        client.close()


@on_both_loops
async def test_message_expunged_elsewhere_is_an_error_and_the_session_goes_on(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        client = await server.connect()
        await client.log_in()
        await server.lose(1)
        assert (await client.say(b"RETR 1")).startswith(b"-ERR")
        assert (await client.say(b"TOP 1 0")).startswith(b"-ERR")
        assert await client.say(b"RETR 2") == b"+OK %d octets\r\n" % (len(PREFIX + MESSAGES[1]) + 2)
        assert await client.body() == PREFIX + MESSAGES[1] + b"\r\n"
        client.close()


@pytest.mark.parametrize(
    "text", [b"", b"x", b"x\n", b"x\r", b"\r\n", b".", b".\r\n", b"\n.\n", b"a\n.b\n", b"H: x\r\n\r\n" + b"." * 200_000]
)
@on_both_loops
async def test_odd_messages_arrive_whole(tmp_path: Path, text: bytes) -> None:
    async with Running(tmp_path) as server:
        await server.fill(text)
        client = await server.connect()
        await client.log_in()
        client.reader._limit = 1 << 20  # type: ignore[attr-defined]
        status = await client.say(b"RETR 1")
        body = await client.body()
        whole = PREFIX + text
        assert body == (whole if whole.endswith(b"\r\n") else whole + b"\r\n")
        assert status == b"+OK %d octets\r\n" % len(body)
        assert await client.say(b"LIST 1") == b"+OK 1 %d\r\n" % len(body)
        client.close()


@on_both_loops
async def test_new_messages_alone_are_looked_at_again(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*[b"x\r\n", b"y"] * 600)
        sizes = []
        for _ in range(2):
            client = await server.connect()
            await client.log_in()
            sizes.append(await client.say(b"STAT"))
            assert await client.say(b"QUIT") == b"+OK Bye\r\n"
            client.close()
            reads = server.mailboxes.reads
        assert reads == 1200
        assert sizes == [b"+OK 1200 %d\r\n" % (600 * 2 * (len(PREFIX) + 3))] * 2


@on_both_loops
async def test_long_lines_are_dropped_and_the_session_goes_on(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        client = await server.connect()
        client.send(b"USER " + b"x" * POP3_COMMAND_BYTES + b"\r\nCAPA\r\n")
        assert await client.line() == b"-ERR Line too long\r\n"
        assert await client.line() == b"+OK\r\n"
        await client.body()
        for _ in range(10):
            client.send(b"y" * 100_000)
        assert await client.say(b"") == b"-ERR Line too long\r\n"
        assert len(only(server)._input) == 0
        client.close()


@on_both_loops
async def test_an_endless_line_ends_the_session_early(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        client = await server.connect()
        client.send(b"y" * (LINE_SKIP_BYTES + 1))
        assert await client.line() == b"-ERR [SYS/PERM] The line does not end\r\n"
        await until(lambda: not server.server.connections)
        client.close()


@on_both_loops
async def test_pipelined_commands_are_answered_in_turns_and_in_order(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        greedy, other = await server.connect(), await server.connect()
        await greedy.log_in()
        server.tick_ns = 100_000
        greedy.send(b"NOOP\r\nSTAT\r\nRETR 1\r\nRSET\r\nLIST\r\n" * 200)
        other.send(b"CAPA\r\n")
        assert await other.line() == b"+OK\r\n"
        assert server.services.turns.waiting == 1, "the greedy one has more to come"
        for _ in range(200):
            assert await greedy.line() == b"+OK\r\n"
            assert (await greedy.line()).startswith(b"+OK 3 ")
            assert (await greedy.line()).endswith(b" octets\r\n")
            assert await greedy.body() == PREFIX + MESSAGES[0]
            assert await greedy.line() == b"+OK\r\n"
            assert (await greedy.line()).startswith(b"+OK 3 messages")
            await greedy.body()
        for client in (greedy, other):
            client.close()


@on_both_loops
async def test_who_leaves_in_the_middle_of_a_pipeline_is_forgotten(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        greedy = await server.connect()
        await greedy.log_in()
        server.tick_ns = 100_000
        greedy.send(b"NOOP\r\n" * 20_000)
        await greedy.line()
        greedy.writer.transport.abort()
        await until(lambda: not server.server.connections)
        await until(lambda: not server.services.turns.waiting)


@on_both_loops
async def test_half_closed_client_gets_its_answers(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        client = await server.connect()
        client.send(b"USER bill\r\nPASS secret word\r\nDELE 1\r\nQUIT\r\n")
        client.writer.write_eof()
        answers = await asyncio.wait_for(client.reader.read(-1), 60)
        assert answers.endswith(b"+OK Bye\r\n")
        assert len(server.flags()) == 2
        client.close()


@on_both_loops
async def test_idle_sessions_are_logged_out_without_update(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        client = await server.connect()
        await client.log_in()
        await client.say(b"DELE 1")
        now = asyncio.get_running_loop().time()
        assert 590 < only(server).deadline - now < 601
        only(server).deadline_passed(now + 601)
        assert (await client.line()).startswith(b"-ERR [SYS/TEMP]")
        assert await client.ended()
        assert len(server.flags()) == 3
        client.close()


@on_both_loops
async def test_peer_that_stops_reading_is_cut_off(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(BIG)
        client = await server.connect()
        await client.log_in()
        client.send(b"RETR 1\r\n")
        await client.line()
        for _ in range(2000):
            await asyncio.sleep(0)
        connection = only(server)
        assert 290 < connection.deadline - asyncio.get_running_loop().time() < 301
        connection.deadline_passed(connection.deadline)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not server.server.connections
        client.close()


@on_both_loops
async def test_drain_lets_a_session_with_deletions_finish(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        idle = await server.connect()
        busy = await server.connect()
        await busy.log_in()
        await busy.say(b"DELE 1")
        server.server.drain()
        assert await idle.line() == b"-ERR [SYS/TEMP] Server shutting down\r\n"
        assert await idle.ended()
        assert await busy.say(b"QUIT") == b"+OK Bye\r\n"
        assert len(server.flags()) == 2
        idle.close()
        busy.close()


@on_both_loops
async def test_close_all_deletes_nothing(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        client = await server.connect()
        await client.log_in()
        await client.say(b"DELE 1")
        assert server.server.sessions == 1
        server.server.close_all("going\r\ndown")
        assert await client.line() == b"-ERR [SYS/TEMP] goingdown\r\n"
        assert await client.ended()
        assert len(server.flags()) == 3
        client.close()


@on_both_loops
@pytest.mark.parametrize("smuggled", [b"USER bill\r\nSTAT\r\n", b"USER bi", b"PASS secret word\r\nUSER ", b"x" * 2000])
async def test_commands_behind_stls_are_dropped(tmp_path: Path, context: ssl.SSLContext, smuggled: bytes) -> None:
    """So is a part of one: it must not stand in front of the first command inside TLS."""
    async with Running(tmp_path, context=context) as server:
        await server.fill(*MESSAGES)
        client = await server.connect()
        client.send(b"USER mallory\r\nSTLS\r\n" + smuggled)
        assert await client.line() == b"+OK\r\n"
        assert (await client.line()).startswith(b"+OK Begin TLS")
        await client.writer.start_tls(trusting())
        assert await client.say(b"PASS secret word") == b"-ERR Command not valid in this state\r\n"
        assert await client.say(b"CAPA") == b"+OK\r\n"
        assert b"STLS" not in await client.body()
        assert await client.say(b"STLS") == b"-ERR STLS is not available\r\n"
        assert (await client.log_in()).startswith(b"+OK Logged in")
        client.close()


@on_both_loops
async def test_plain_text_is_refused_until_stls(tmp_path: Path, context: ssl.SSLContext) -> None:
    async with Running(tmp_path, context=context) as server:
        await server.fill(BIG)
        server.authenticator.plain_text = False
        client = await server.connect()
        assert (await client.say(b"USER bill")).startswith(b"-ERR [AUTH]")
        await client.say(b"STLS")
        await client.writer.start_tls(trusting())
        assert (await client.log_in()).startswith(b"+OK Logged in")
        await client.say(b"RETR 1")
        assert await client.body() == PREFIX + BIG
        client.close()


@on_both_loops
async def test_failed_handshake_ends_only_that_connection(tmp_path: Path, context: ssl.SSLContext) -> None:
    async with Running(tmp_path, context=context) as server:
        client = await server.connect()
        await client.say(b"STLS")
        client.send(b"this is no TLS\r\n" * 10)
        assert await asyncio.wait_for(client.reader.read(-1), 60) is not None
        client.close()
        other = await server.connect()
        assert await other.say(b"CAPA") == b"+OK\r\n"
        other.close()


@on_both_loops
async def test_implicit_tls_with_poplib(tmp_path: Path, context: ssl.SSLContext) -> None:
    async with Running(tmp_path, context=context, implicit_tls=True) as server:
        await server.fill(*MESSAGES)
        server.authenticator.plain_text = False

        def use() -> int:
            client = poplib.POP3_SSL("127.0.0.1", server.port, context=trusting(), timeout=60)
            client.user("bill")
            client.pass_("secret word")
            count, _ = client.stat()
            client.quit()
            return count

        assert await asyncio.to_thread(use) == 3


@on_both_loops
async def test_fault_of_ours_ends_one_connection(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        server.services.log = type("Quiet", (), {"__getattr__": lambda *_: lambda *_, **__: None})()
        await server.fill(*MESSAGES)
        server.authenticator.remembers = True
        client, other = await server.connect(), await server.connect()
        server.mailboxes.summary = None  # type: ignore[assignment]
        await client.say(b"USER bill")
        assert await client.say(b"PASS secret word") == b"-ERR [SYS/TEMP] Internal error\r\n"
        assert await client.ended()
        assert await other.say(b"CAPA") == b"+OK\r\n"
        assert server.server.sessions == 1
        client.close()
        other.close()


async def run(*command: str, directory: Path) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=directory
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, output


@pytest.mark.interop
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@on_both_loops
async def test_curl(tmp_path: Path, context: ssl.SSLContext) -> None:
    async with Running(tmp_path, context=context) as server:
        await server.fill(*MESSAGES)
        base = ("curl", "-s", "-k", "--ssl-reqd", "-u", "bill:secret word")
        code, output = await run(*base, f"pop3://127.0.0.1:{server.port}/2", directory=tmp_path)
        assert (code, output) == (0, PREFIX + MESSAGES[1] + b"\r\n")
        code, output = await run(*base, f"pop3://127.0.0.1:{server.port}", directory=tmp_path)
        assert code == 0
        assert output.count(b"\r\n") == 3


@pytest.mark.interop
@pytest.mark.skipif(not shutil.which("fetchmail"), reason="fetchmail is not installed")
@on_both_loops
async def test_fetchmail_takes_everything_once(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        await server.fill(*MESSAGES)
        config = tmp_path / "fetchmailrc"
        config.write_text(
            f"poll 127.0.0.1 protocol pop3 port {server.port} uidl auth password user bill password 'secret word' "
            f"no sslcertck sslproto '' no keep mda 'cat >> {tmp_path}/out; echo ==end== >> {tmp_path}/out'\n"
        )
        config.chmod(0o600)
        code, output = await run(
            "env",
            f"FETCHMAILHOME={tmp_path}",
            "fetchmail",
            "-f",
            str(config),
            "--nodetach",
            "--nosyslog",
            "--pidfile",
            str(tmp_path / "pid"),
            directory=tmp_path,
        )
        assert code == 0, output
        taken = (tmp_path / "out").read_bytes()
        assert taken.count(b"==end==") == 3
        assert b"\n.dot\n..two\n.\nlast" in taken.replace(b"\r\n", b"\n")
        assert server.flags() == {}


@on_both_loops
async def test_quit_before_login(tmp_path: Path) -> None:
    async with Running(tmp_path) as server:
        client = await server.connect()
        assert await client.say(b"QUIT") == b"+OK Bye\r\n"
        assert await client.ended()
