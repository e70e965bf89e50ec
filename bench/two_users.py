"""Two users: one does the most costly thing that a protocol allows, over and over; how long does the other wait?

    python -m bench.two_users                      every row
    python -m bench.two_users fetch store pop3     the rows whose name contains one of these words
    python -m bench.two_users --messages 20000     another size of the busy mailbox (500,000 is the default)

One worker serves both. The quiet user sends one command at a time, over IMAP, POP3 and SMTP in turn, and a small
message each round. The table has the delay of its commands, of those that wait for a commit (the 250 after a message,
and the NOOP that tells of it), and by how much the
busy user let the worker's memory grow. "alone" is the quiet user by itself: what the machine makes of it today; on a
machine that others use too, `--control` measures that again before each row.

"CPU" is what the worker's threads, but for the one that commits beside them, worked while a command waited: the delay
that is the worker's own, whatever else the machine does. What an administrator's command does in its own process is not
in it. `--first` (for root) has the server and the quiet user go ahead of everything else that the machine does, which
is nearly as good as a machine of one's own.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bench import administration
from fastmta import _mime
from fastmta.store import MailStore
from fastmta.store.mailboxes import Appended
from tests.support.server import Server

PASSWORD = "secret"
BUSY, QUIET = "busy@example.test", "quiet@example.test"
DISTINCT = 1000  # messages that are appended; the rest are copies of their records
COPIED = 20_000  # messages of one copying unit
READ_BYTES = 1 << 18
AHEAD = -15  # the server's nice value with --first


# --- the mailboxes ---


def _appended(store: MailStore, message: bytes) -> Appended:
    blob = store.mailboxes.new_blob()
    structure = _mime.Structure()
    for start in range(0, len(message), 1 << 18):
        piece = message[start : start + (1 << 18)]
        blob.feed(piece)
        structure.feed(piece)
    return Appended(blob, structure.finish(), 1_700_000_000)


async def _fill(store: MailStore, address: str, messages: int) -> None:
    account = store.accounts.lookup(address)
    assert account is not None
    boxes = store.mailboxes
    inbox = account.inbox_id
    for start in range(0, min(messages, DISTINCT), 100):
        made = []
        for n in range(start, min(start + 100, messages)):
            head = b"From: a@example.org\r\nTo: b@example.test\r\nSubject: message %d\r\n" % n
            made.append(_appended(store, head + b"Message-ID: <%d@x>\r\n\r\n" % n + b"some text\r\n" * 20))
        await boxes.append_many(inbox, made)
    first = boxes.uids(inbox)
    while (have := len(boxes.uids(inbox))) < messages:
        uids = boxes.uids(inbox)[: min(have, COPIED, messages - have)] if have >= DISTINCT else first
        await boxes.copy(inbox, uids, inbox)
    await boxes.take_recent(inbox)
    large = await boxes.create(account.id, "Large")
    header = b"".join(b"X-Field-%d: %b\r\n" % (n, b"v" * 900) for n in range(4000))
    await boxes.append_many(large.id, [_appended(store, b"Subject: large\r\n" + header + b"\r\nbody\r\n")])
    body = b"0123456789abcdef" * 4 + b"\r\n"
    await boxes.append_many(large.id, [_appended(store, b"Subject: long\r\n\r\n" + body * 300_000)])
    for n in range(500):
        await boxes.create(account.id, f"folder {n}/inner {'x' * 100}")
    for name in ("Target", "Work"):
        await boxes.create(account.id, name)


def fill(server: Server, messages: int) -> None:
    """Accounts, and the busy one's INBOX with so many messages."""
    for address in (BUSY, QUIET, *administration.ACCOUNTS):
        server.add_user(address, PASSWORD)
    administration.write_map(server)
    store = MailStore.open(server.data_directory, sync=False)
    try:
        asyncio.run(_fill(store, BUSY, messages))
        asyncio.run(administration.fill(store))
    finally:
        store.close()


# --- clients ---


class Peer:
    """A blocking client; `ask` sends and reads up to the line that begins with `end`."""

    def __init__(self, server: Server, service: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", server.port(service)), timeout=120)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.last = b""

    def ask(self, data: bytes, end: bytes) -> None:
        if data:
            self.sock.sendall(data)
        tail = b""
        while True:
            got = self.sock.recv(READ_BYTES)
            if not got:
                raise ConnectionError(f"closed while waiting for {end!r}: {tail[-200:]!r}")
            tail = (tail + got)[-READ_BYTES:]
            if tail.endswith(b"\r\n"):
                line = tail[tail.rfind(b"\r\n", 0, -2) + 2 :] if tail.count(b"\r\n") > 1 else tail
                if line.startswith(end):
                    self.last = line
                    return

    def close(self) -> None:
        self.sock.close()


def imap(server: Server, user: str = BUSY, mailbox: str = "INBOX") -> Peer:
    peer = Peer(server, "imap")
    peer.ask(b"", b"* OK")
    peer.ask(b"l LOGIN %s %s\r\n" % (user.encode(), PASSWORD.encode()), b"l OK")
    if mailbox:
        peer.ask(b"s SELECT %s\r\n" % mailbox.encode(), b"s ")
    return peer


def pop3(server: Server, user: str = BUSY) -> Peer:
    peer = Peer(server, "pop3")
    peer.ask(b"", b"+OK")
    peer.ask(b"USER %s\r\n" % user.encode(), b"+OK")
    peer.ask(b"PASS %s\r\n" % PASSWORD.encode(), b"+OK")
    return peer


def smtp(server: Server, service: str = "smtp") -> Peer:
    peer = Peer(server, service)
    peer.ask(b"", b"220")
    peer.ask(b"LHLO me\r\n" if service == "lmtp" else b"EHLO me\r\n", b"250 ")
    return peer


# --- what the busy user does: each runs until it is killed ---

Act = Callable[[Server], None]
ROWS: dict[str, Act] = {}


def row(name: str) -> Callable[[Act], Act]:
    def add(act: Act) -> Act:
        ROWS[name] = act
        return act

    return add


def _for_ever(name: str, commands: bytes, mailbox: str = "INBOX") -> None:
    """A row of IMAP that gives one command over and over; `%d` alternates between 0 and 1."""

    def act(server: Server) -> None:
        peer = imap(server, mailbox=mailbox)
        while True:
            peer.ask(b"c %b\r\n" % commands, b"c ")

    ROWS[name] = act


def _flood(name: str, service: str, greeting: bytes, line: bytes, count: int, *, reads: bool = True) -> None:
    """`count` connections that send one line without a pause, and read what comes or do not."""

    def act(server: Server) -> None:
        data = line * (65_536 // len(line))
        peers = [Peer(server, service) for _ in range(count)]
        for peer in peers:
            if greeting:
                peer.ask(b"", b"220")
                peer.ask(greeting, b"250 ")
            peer.sock.setblocking(False)
        left = dict.fromkeys(peers, b"")
        while True:
            for peer in peers:
                with contextlib.suppress(BlockingIOError, ConnectionError, OSError):
                    sent = peer.sock.send(left[peer] or data)
                    left[peer] = (left[peer] or data)[sent:]
                if reads:
                    with contextlib.suppress(BlockingIOError, ConnectionError, OSError):
                        while peer.sock.recv(READ_BYTES):
                            pass
            time.sleep(0.0005)

    ROWS[name] = act


_flood("imap NOOP x200 before login", "imap", b"", b"a NOOP\r\n", 200)
_flood("imap BAD x200 before login", "imap", b"", b"a ID NIL\r\n", 200)
_flood("imap NOOP, never reads", "imap", b"", b"a CAPABILITY\r\n", 200, reads=False)
_flood("pop3 CAPA x200 before login", "pop3", b"", b"CAPA\r\n", 200)
_flood("smtp NOOP x200", "smtp", b"EHLO me\r\n", b"NOOP\r\n", 200)
_flood("smtp RSET x200", "smtp", b"EHLO me\r\n", b"RSET\r\n", 200)
_flood(
    "smtp MAIL RCPT RSET x200",
    "smtp",
    b"EHLO me\r\n",
    b"MAIL FROM:<a@x.org>\r\nRCPT TO:<quiet@example.test>\r\nRSET\r\n",
    200,
)
_flood(
    "smtp RCPT unknown x200", "smtp", b"EHLO me\r\n", b"MAIL FROM:<a@x.org>\r\nRCPT TO:<nosuch@example.test>\r\n", 200
)
_flood("smtp never reads", "smtp", b"EHLO me\r\n", b"EHLO x\r\n", 200, reads=False)
_flood("lmtp LHLO x200", "lmtp", b"LHLO me\r\n", b"LHLO me\r\n", 200)
_flood("http /metrics x20", "http", b"", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 20)
_flood("http, never reads", "http", b"", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 20, reads=False)
_flood("imap line without end", "imap", b"", b"x" * 65_536, 4)
_flood("pop3 line without end", "pop3", b"", b"x" * 65_536, 4)
_flood("smtp line without end", "smtp", b"EHLO me\r\n", b"x" * 65_536, 4)
_flood("http line without end", "http", b"", b"x" * 65_536, 4)
_for_ever("imap SELECT", b"SELECT INBOX", "")
_for_ever("imap STATUS", b"STATUS INBOX (MESSAGES RECENT UNSEEN)", "")
_for_ever("imap FETCH FLAGS", b"FETCH 1:* (FLAGS)")
_for_ever("imap FETCH ALL", b"FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)")
_for_ever("imap FETCH HEADER.FIELDS", b"FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
_for_ever("imap FETCH BODY[]", b"FETCH 1:* (BODY.PEEK[])")
_for_ever(
    "imap FETCH BODY[] x10 of 20 MB",
    b"FETCH 2 (%b)" % b" ".join([b"BODY.PEEK[]<%d.20000000>" % n for n in range(10)]),
    "Large",
)
_for_ever(
    "imap FETCH 64 header subsets",
    b"FETCH 1 (%b)" % b" ".join([b"BODY.PEEK[HEADER.FIELDS.NOT (A)]<0.%d>" % n for n in range(4000000, 4000064)]),
    "Large",
)
_for_ever("imap FETCH sparse set", b"FETCH %b (FLAGS)" % b",".join(b"%d" % n for n in range(1, 40_000, 3)))
_for_ever("imap LIST *%*%", b'LIST "" "%b"' % (b"*%" * 30_000), "")
_for_ever("imap LIST *a*b", b'LIST "" "%b"' % (b"*x" * 150), "")
_for_ever("imap SEARCH flags", b"SEARCH UNSEEN NOT DELETED")
_for_ever("imap SEARCH body", b"SEARCH BODY nowhere")
_for_ever("imap STORE silent", b"STORE 1:* +FLAGS.SILENT (\\Flagged)")
_for_ever("imap STORE told", b"STORE 1:* +FLAGS (\\Flagged)")
_for_ever("imap NOOP pipelined", b"\r\nn ".join([b"NOOP"] * 8000))


@row("imap STORE on, off")
def _store(server: Server) -> None:
    peer = imap(server)
    while True:
        peer.ask(b"c STORE 1:100000 +FLAGS.SILENT (\\Flagged)\r\n", b"c ")
        peer.ask(b"c STORE 1:100000 -FLAGS.SILENT (\\Flagged)\r\n", b"c ")


@row("imap FETCH, never reads")
def _no_reader(server: Server) -> None:
    peers = [imap(server) for _ in range(10)]
    for peer in peers:
        peer.sock.sendall(b"c FETCH 1:* (UID FLAGS ENVELOPE BODYSTRUCTURE)\r\n")
    time.sleep(3600)


@row("imap FETCH BODY[], never reads")
def _no_reader_body(server: Server) -> None:
    peers = [imap(server, mailbox="Large") for _ in range(10)]
    for peer in peers:
        peer.sock.sendall(b"c FETCH 2 (BODY.PEEK[] BODY.PEEK[TEXT])\r\n")
    time.sleep(3600)


@row("imap COPY, STORE, EXPUNGE of 100,000")
def _copy(server: Server) -> None:
    peer, work = imap(server), imap(server, mailbox="Work")
    while True:
        peer.ask(b"c COPY 1:100000 Work\r\n", b"c ")
        work.ask(b"c NOOP\r\n", b"c ")
        work.ask(b"c STORE 1:* +FLAGS.SILENT (\\Deleted)\r\n", b"c ")
        work.ask(b"c EXPUNGE\r\n", b"c ")


@row("imap MOVE of 100,000")
def _move(server: Server) -> None:
    peer = imap(server)
    peer.ask(b"c COPY 1:100000 Work\r\n", b"c ")
    peer.ask(b"c SELECT Work\r\n", b"c ")
    while True:
        peer.ask(b"c MOVE 1:* Target\r\n", b"c ")
        peer.ask(b"c SELECT Target\r\n", b"c ")
        peer.ask(b"c MOVE 1:* Work\r\n", b"c ")
        peer.ask(b"c SELECT Work\r\n", b"c ")


@row("imap another session told of 100,000")
def _told(server: Server) -> None:
    idle, peer = imap(server), imap(server)
    idle.ask(b"i IDLE\r\n", b"+")
    idle.sock.setblocking(False)
    while True:
        for sign in (b"+", b"-"):
            peer.ask(b"c STORE 1:100000 %bFLAGS.SILENT (\\Flagged)\r\n" % sign, b"c ")
            with contextlib.suppress(BlockingIOError):
                while idle.sock.recv(READ_BYTES):
                    pass


@row("pop3 login")
def _pop3_login(server: Server) -> None:
    while True:
        peer = pop3(server)
        peer.ask(b"QUIT\r\n", b"+OK")
        peer.close()


@row("pop3 LIST, UIDL")
def _pop3_list(server: Server) -> None:
    peer = pop3(server)
    while True:
        peer.ask(b"LIST\r\n", b".\r\n")
        peer.ask(b"UIDL\r\n", b".\r\n")


@row("pop3 RETR, RSET pipelined")
def _pop3_retr(server: Server) -> None:
    peer = pop3(server)
    while True:
        peer.ask(
            b"".join(b"RETR %d\r\nRSET\r\nSTAT\r\n" % n for n in range(1, 2000))
            + b"TOP 1 0\r\nCAPA\r\nNOOP\r\nDELE x\r\n",
            b"-ERR",
        )
        peer.close()
        peer = pop3(server)


@row("pop3 QUIT that deletes 20,000")
def _pop3_quit(server: Server) -> None:
    while True:
        peer = pop3(server)
        peer.ask(b"".join(b"DELE %d\r\n" % n for n in range(1, 20_001)) + b"CAPA\r\n", b".\r\n")
        peer.ask(b"QUIT\r\n", b"+OK")
        peer.close()


ROWS |= administration.ROWS


# --- the quiet user ---


def go_first(server: Server) -> None:
    """All threads of the server that there are, and so those that they start."""
    for pid in (server.pid, *server.workers()):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), AHEAD)


@contextlib.contextmanager
def at_once(wanted: bool) -> Iterator[None]:
    """This process runs as soon as it can: what it measures ends when the answer is there."""
    if wanted:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        if wanted:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class Figures(NamedTuple):
    """Delays in milliseconds; `worked`: of the worker's CPU while a command waited."""

    commands: list[float]
    acceptances: list[float]
    worked: list[float]

    @staticmethod
    def place(values: list[float], part: float) -> float:
        values = sorted(values)
        return values[min(len(values) - 1, int(part * len(values)))] if values else 0.0


class Work:
    """What a worker has worked, in milliseconds, but for the thread that commits."""

    def __init__(self, pid: int) -> None:
        self._clock = ~pid << 3 | 2  # clock_getcpuclockid(3)
        names = {path.parent: path.read_text().strip() for path in Path(f"/proc/{pid}/task").glob("*/comm")}
        self._beside = [thread / "schedstat" for thread, name in names.items() if name == "fastmta-commits"]

    def now(self) -> float:
        beside = sum(int(path.read_text().split()[0]) for path in self._beside)
        return (time.clock_gettime_ns(self._clock) - beside) / 1e6


def quiet_user(server: Server, seconds: float) -> Figures:
    """One command after the other for so long, ten milliseconds apart."""
    reader, drop, sender = imap(server, QUIET), pop3(server, QUIET), smtp(server)
    commands: list[float] = []
    acceptances: list[float] = []
    worked: list[float] = []
    work = Work(server.workers()[0])

    def timed(into: list[float], peer: Peer, data: bytes, end: bytes) -> None:
        before = work.now()
        started = time.perf_counter()
        peer.ask(data, end)
        into.append((time.perf_counter() - started) * 1000)
        if into is commands:
            worked.append(work.now() - before)

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        timed(acceptances, reader, b"q NOOP\r\n", b"q OK")  # claims what has just come as \Recent: a commit too
        timed(commands, reader, b"q NOOP\r\n", b"q OK")
        timed(commands, drop, b"STAT\r\n", b"+OK")
        timed(commands, sender, b"MAIL FROM:<a@example.org>\r\n", b"250")
        timed(commands, sender, b"RCPT TO:<quiet@example.test>\r\n", b"250")
        timed(commands, sender, b"DATA\r\n", b"354")
        timed(acceptances, sender, b"Subject: x\r\n\r\nhello\r\n.\r\n", b"250")
        time.sleep(0.01)
    for peer in (reader, drop, sender):
        peer.close()
    return Figures(commands, acceptances, worked)


# --- measuring ---


def memory_mb(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def anonymous_peak(pid: int, stop: Any, out: Any) -> None:
    """The most anonymous memory of a process until it is told to stop: the map of the store is no memory of ours."""
    most = 0.0
    while not stop.is_set():
        most = max(most, memory_mb(pid, "RssAnon"))
        time.sleep(0.01)
    out.value = most


def measure(server: Server, name: str, act: Act | None, seconds: float, *, first: bool = False) -> str:
    pid = server.workers()[0]
    before = memory_mb(pid, "RssAnon")
    context = multiprocessing.get_context("fork")
    stop, peak = context.Event(), context.Value("d", 0.0)
    watcher = context.Process(target=anonymous_peak, args=(pid, stop, peak), daemon=True)
    watcher.start()
    busy = None
    if act is not None:
        busy = context.Process(target=act, args=(server,), daemon=True)
        busy.start()
        time.sleep(0.3)
    died = False
    try:
        with at_once(first):
            figures = quiet_user(server, seconds)
        died = busy is not None and not busy.is_alive()
    finally:
        if busy is not None:
            busy.kill()
            busy.join()
        stop.set()
        watcher.join()
    commands, acceptances, worked = figures
    place = Figures.place
    return (
        f"{name:38} {place(commands, 0.5):7.1f} {place(commands, 0.99):7.1f} {max(commands):7.1f}"
        f" {place(worked, 0.99):7.1f} {max(worked):7.1f}"
        f" {place(acceptances, 0.5):8.1f} {place(acceptances, 0.99):7.1f} {peak.value - before:8.1f}"
        + ("  (the busy user ended)" if died else "")
    )


def rows_of(words: list[str]) -> Iterator[tuple[str, Act | None]]:
    yield "alone", None
    for name, act in ROWS.items():
        if not words or any(word.lower() in name.lower() for word in words):
            yield name, act


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--messages", type=int, default=500_000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--first", action="store_true", help="the server and the quiet user go ahead of all others")
    parser.add_argument("--control", action="store_true", help="measure the quiet user alone before each row")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="two-users-") as directory:
        server = Server(
            Path(directory),
            workers=1,
            services=("smtp", "lmtp", "imap", "pop3", "http"),
            settings={
                "log_level": "warning",
                "smtpd_client_connection_count_limit": 0,
                "smtpd_junk_command_limit": 1_000_000,
                "smtpd_hard_error_limit": 1_000_000,
                "smtpd_soft_error_limit": 0,
                "mail_max_userip_connections": 0,
                "virtual_alias_maps": [f"texthash:{directory}/virtual"],
            },
        )
        started = time.monotonic()
        fill(server, arguments.messages)
        print(f"{arguments.messages} messages filed in {time.monotonic() - started:.0f} s", flush=True)
        with server:
            print(f"{'milliseconds':38} {'command':>23} {'CPU':>15} {'what is committed':>16} {'memory':>8}")
            print(
                f"{'':38} {'median':>7} {'p99':>7} {'most':>7} {'p99':>7} {'most':>7}"
                f" {'median':>8} {'p99':>7} {'MB':>8}",
                flush=True,
            )
            if arguments.first:
                go_first(server)
            measured = partial(measure, server, first=arguments.first)
            for name, act in rows_of(arguments.words):
                if arguments.control and act is not None:
                    print(measured("alone", None, min(2.0, arguments.seconds)), flush=True)
                print(measured(name, act, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
