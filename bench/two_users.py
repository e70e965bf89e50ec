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

"disk" is the longest time that a stranger's flush of a page took meanwhile, at the end of another file in the same
directory, from a process of its own: what the disk and its journal made everybody wait. A commit has two such flushes;
where its delay is no longer than they are, it is not the worker's (docs/adr/0216). With TMPDIR=/dev/shm there is no
disk in any row.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bench import administration, busy
from bench.busy import BUSY, PASSWORD, QUIET, Act, Peer, imap, pop3, smtp
from fastmta import _mime
from fastmta.model.appended import Appended
from fastmta.store import MailStore
from tests.support.server import Server

DISTINCT = 1000  # messages that are appended; the rest are copies of their records
COPIED = 20_000  # messages of one copying unit
ROWS: dict[str, Act] = {**busy.ROWS, **administration.ROWS}
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


def prepared(directory: Path, messages: int, env: Mapping[str, str] | None = None) -> Server:
    """A server with everything that the rows work on; not started yet."""
    server = Server(
        directory,
        workers=1,
        services=("smtp", "lmtp", "imap", "pop3", "http"),
        env=env,
        settings={
            "log_level": "warning",
            "smtpd_client_connection_count_limit": 0,
            "smtpd_junk_command_limit": 1_000_000,
            "smtpd_hard_error_limit": 1_000_000,
            "smtpd_soft_error_limit": 1_000_000,
            "smtpd_authorized_xclient_hosts": ["127.0.0.0/8"],
            "smtpd_authorized_xforward_hosts": ["127.0.0.0/8"],
            "mail_max_userip_connections": 0,
            "mail_undelete_time": "1d",
            "virtual_alias_maps": [f"texthash:{directory}/virtual"],
            "shaping": [administration.RULE],
        },
    )
    fill(server, messages)
    return server


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


def longest_flush(directory: Path, first: bool, stop: Any, out: Any) -> None:
    """Milliseconds of the longest fdatasync of a file that grows until it is told to stop, fifty a second."""
    with at_once(first), (directory / "flushed").open("wb", buffering=0) as file:
        while not stop.is_set():
            started = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            out.value = max(out.value, (time.perf_counter() - started) * 1000)
            time.sleep(0.02)


def measure(server: Server, name: str, act: Act | None, seconds: float, *, first: bool = False) -> str:
    pid = server.workers()[0]
    before = memory_mb(pid, "RssAnon")
    context = multiprocessing.get_context("fork")
    stop, peak, flush = context.Event(), context.Value("d", 0.0), context.Value("d", 0.0)
    watchers = [
        context.Process(target=anonymous_peak, args=(pid, stop, peak), daemon=True),
        context.Process(target=longest_flush, args=(server.directory, first, stop, flush), daemon=True),
    ]
    for watcher in watchers:
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
        for watcher in watchers:
            watcher.join()
    commands, acceptances, worked = figures
    place = Figures.place
    return (
        f"{name:38} {place(commands, 0.5):7.1f} {place(commands, 0.99):7.1f} {max(commands):7.1f}"
        f" {place(worked, 0.99):7.1f} {max(worked):7.1f}"
        f" {place(acceptances, 0.5):8.1f} {place(acceptances, 0.99):7.1f} {flush.value:7.1f}"
        f" {peak.value - before:8.1f}" + ("  (the busy user ended)" if died else "")
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
        started = time.monotonic()
        server = prepared(Path(directory), arguments.messages)
        print(f"{arguments.messages} messages filed in {time.monotonic() - started:.0f} s", flush=True)
        with server:
            print(
                f"{'milliseconds':38} {'command':>23} {'CPU':>15} {'what is committed':>16} {'disk':>7} {'memory':>8}"
            )
            print(
                f"{'':38} {'median':>7} {'p99':>7} {'most':>7} {'p99':>7} {'most':>7}"
                f" {'median':>8} {'p99':>7} {'most':>7} {'MB':>8}",
                flush=True,
            )
            if arguments.first:
                go_first(server)
            quiet_user(server, 0.2)  # its passwords are checked now: 19 MB for a moment, which no busy user took
            measured = partial(measure, server, first=arguments.first)
            for name, act in rows_of(arguments.words):
                if arguments.control and act is not None:
                    print(measured("alone", None, min(2.0, arguments.seconds)), flush=True)
                print(measured(name, act, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
