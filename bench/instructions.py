"""Instructions that the server executes for a message or a command.

    python -m bench.instructions [rows] [--against TREE] [--against-with trace_retention=0]

One worker of a whole server, with its default configuration, runs under callgrind. A client in this process makes it do
a piece of work, then three times as much; the difference is what the work costs, without start-up and timers. Counts
repeat within 0.5 % (1.5 % where each commit stands alone) where CPU seconds vary by tens, so they show what a change
costs; what the kernel does (sockets, flushes) and cache misses are not in them. `--against TREE` counts another source
tree, built in place, too.

Acceptance rows commit in turn one message alone and twenty together: the store's write lock is held meanwhile, so that
neither speed nor chance decides how many share a commit. Other rows that write commit each operation alone.
"""

import argparse
import contextlib
import itertools
import os
import selectors
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import lmdb

from bench import callgrind, trees
from bench.callgrind import Counted, Disturbed
from bench.load import message_bytes
from bench.peers import HOLD_DOMAIN, LOCAL_DOMAIN, LOCAL_USER, PASSWORD, RELAY_DOMAIN
from tests.support.server import REPOSITORY, Server

TOGETHER: Final = 20  # messages in a commit
FILLED: Final = 300  # messages of the mailbox that is read
MESSAGE: Final = message_bytes(4096)
LARGE: Final = message_bytes(51_200)
CHUNKED_DOMAIN: Final = "chunked.example"  # its server takes BDAT
LONE_DOMAIN: Final = "lone.example"  # its server hangs up behind a message
PLACES: Final = 800  # destinations; enough for five samples
READER: Final = f"reader@{LOCAL_DOMAIN}"
SETTLED_S: Final = 0.05  # a unit has reached the committer, and that waits for the store's lock
COMMITTED_S: Final = 5.0
WAIT_S: Final = 120.0
# Valgrind has no room for a map of 64 GiB.
SITE: Final = """
from fastmta.store import MailStore
MailStore.open.__func__.__kwdefaults__["map_size_bytes"] = 4 << 30
"""


class Line:
    """A client's connection that waits for each answer."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reply(self, code: bytes) -> None:
        """One SMTP or POP3 answer, of several lines perhaps."""
        while (line := self._file.readline())[3:4] == b"-" and line[:1].isdigit():
            pass
        if not line.startswith(code):
            raise RuntimeError(f"expected {code!r}, got {line!r}")

    def ask(self, command: bytes, code: bytes = b"2") -> None:
        self.send(command + b"\r\n")
        self.reply(code)

    def tagged(self, command: bytes) -> None:
        """An IMAP command until its OK."""
        self.send(b"t " + command + b"\r\n")
        self.until(b"t OK")

    def until(self, begin: bytes) -> None:
        while not (line := self._file.readline()).startswith(begin):
            if not line or line.startswith((b"t NO", b"t BAD")):
                raise RuntimeError(f"expected {begin!r}, got {line!r}")

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class Sink:
    """The next hop, as long as somebody waits for what it takes. Who comes to `chunked_port` is offered CHUNKING; who
    comes to `lone_port` is left after a message; `places` are hosts of their own at one port.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self.port, self.chunked_port, self.lone_port = (int(each.getsockname()[1]) for each in self._listeners)
        self.places = [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(PLACES)]
        self._listeners += [socket.create_server((place, self.port)) for place in self.places]
        for listener in self._listeners:
            self._selector.register(listener, selectors.EVENT_READ, None)
        self._in_data: dict[socket.socket, bool] = {}
        self._held: dict[socket.socket, bytes] = {}
        self.taken = 0

    def take(self) -> None:
        """Returns when one more message has come."""
        wanted, deadline = self.taken + 1, time.monotonic() + WAIT_S
        while self.taken < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError("no message has come to the next hop")
            for key, _ in self._selector.select(1.0):
                if key.fileobj in self._listeners:
                    peer, _ = key.fileobj.accept()  # type: ignore[union-attr]
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._in_data[peer], self._held[peer] = False, b""
                    self._selector.register(peer, selectors.EVENT_READ)
                    peer.sendall(b"220 sink ESMTP\r\n")
                else:
                    self._readable(key.fileobj)  # type: ignore[arg-type]

    def _readable(self, peer: socket.socket) -> None:
        data = peer.recv(1 << 18)
        if not data:
            self._selector.unregister(peer)
            peer.close()
            return
        data = self._held[peer] + data
        out = b""
        while data:
            end = b"\r\n.\r\n" if self._in_data[peer] else b"\r\n"
            line, found, rest = data.partition(end)
            if not found:
                break
            data = rest
            if self._in_data[peer]:
                self._in_data[peer] = False
                self.taken += 1
                out += b"250 2.0.0 taken\r\n"
            elif line.upper().startswith(b"EHLO"):
                more = b"250-CHUNKING\r\n" if peer.getsockname()[1] == self.chunked_port else b""
                out += b"250-sink\r\n250-PIPELINING\r\n%b250 8BITMIME\r\n" % more
            elif line.upper().startswith(b"BDAT"):  # the whole message
                size = int(line.split()[1])
                if len(data) < size:
                    data = line + b"\r\n" + data
                    break
                data = data[size:]
                self.taken += 1
                out += b"250 2.0.0 taken\r\n"
            elif line.upper() == b"DATA":
                self._in_data[peer] = True
                out += b"354 go on\r\n"
            else:
                out += b"250 2.0.0 ok\r\n"
        self._held[peer] = data
        if out:
            peer.sendall(out)
        if out.endswith(b"taken\r\n") and peer.getsockname()[1] == self.lone_port:
            self._selector.unregister(peer)
            peer.close()


class Context(NamedTuple):
    server: Server
    store: lmdb.Environment  # opened beside the server, for its write lock and its last transaction's number
    sink: Sink
    closing: contextlib.ExitStack

    def line(self, service: str) -> Line:
        line = Line(self.server.port(service))
        self.closing.callback(line.close)
        return line

    def smtp(self) -> Line:
        line = self.line("smtp")
        line.reply(b"220")
        line.ask(b"EHLO client.example")
        return line

    def imap(self, selected: bool = True) -> Line:
        line = self.line("imap")
        line.until(b"* OK")
        line.tagged(b"LOGIN %s %s" % (READER.encode(), PASSWORD.encode()))
        if selected:
            line.tagged(b"SELECT INBOX")
        return line

    @contextlib.contextmanager
    def transactions(self, expected: int) -> Iterator[None]:
        """What is done inside must take so many transactions of the store; waits for them."""
        before = self.store.info()["last_txnid"]
        yield
        deadline = time.monotonic() + COMMITTED_S
        while (done := self.store.info()["last_txnid"] - before) < expected and time.monotonic() < deadline:
            time.sleep(0.002)
        if done != expected:
            raise Disturbed(f"{done} transactions instead of {expected}")


Work = Callable[[int], None]  # so many operations
Settings = dict[str, str]  # keys of the configuration


def _envelope(line: Line, to: str) -> None:
    line.ask(b"MAIL FROM:<load@bench.example>")
    line.ask(b"RCPT TO:<%s>" % to.encode())
    line.ask(b"DATA", b"354")


def accept(to: str, message: bytes = MESSAGE) -> Callable[[Context], Work]:
    def prepare(context: Context) -> Work:
        sessions = [context.smtp() for _ in range(TOGETHER + 1)]

        def work(n: int) -> None:
            clock = context.smtp()  # the same for every n, so the difference does not have it
            for _ in range(n // (TOGETHER + 1)):
                for line in sessions:
                    _envelope(line, to)
                with context.transactions(2):
                    with context.store.begin(write=True):  # aborted, as it writes nothing
                        sessions[0].send(message + b".\r\n")
                        time.sleep(SETTLED_S)
                        for line in sessions[1:]:
                            line.send(message + b".\r\n")
                        clock.ask(b"RSET")  # answered after all that had come before it
                        time.sleep(SETTLED_S * (len(message) // 8192))
                    for line in sessions:
                        line.reply(b"250")

        return work

    return prepare


def accept_alone(context: Context) -> Work:
    line = context.smtp()

    def work(n: int) -> None:
        for _ in range(n):
            _envelope(line, f"h@{HOLD_DOMAIN}")
            with context.transactions(1):
                line.send(MESSAGE + b".\r\n")
                line.reply(b"250")

    return work


def accept_one(context: Context) -> Work:
    """A connection for each message, from the greeting to QUIT."""

    def work(n: int) -> None:
        for _ in range(n):
            line = Line(context.server.port("smtp"))
            line.reply(b"220")
            line.ask(b"EHLO client.example")
            _envelope(line, f"h@{HOLD_DOMAIN}")
            with context.transactions(1):
                line.send(MESSAGE + b".\r\n")
                line.reply(b"250")
            line.ask(b"QUIT")
            line.close()

    return work


def relay(message: bytes = MESSAGE, domain: str = RELAY_DOMAIN) -> Callable[[Context], Work]:
    def prepare(context: Context) -> Work:
        line = context.smtp()

        def work(n: int) -> None:
            for _ in range(n):
                _envelope(line, f"r@{domain}")
                with context.transactions(2):
                    line.send(message + b".\r\n")
                    line.reply(b"250")
                    context.sink.take()

        return work

    return prepare


def relay_new(context: Context) -> Work:
    """Each message to a host that nobody has sent to yet."""
    line = context.smtp()
    numbers = itertools.count()

    def work(n: int) -> None:
        for _ in range(n):
            _envelope(line, f"r@d{next(numbers)}.{RELAY_DOMAIN}")
            with context.transactions(2):
                line.send(MESSAGE + b".\r\n")
                line.reply(b"250")
                context.sink.take()

    return work


def smtp_noop(context: Context) -> Work:
    lines = itertools.cycle([context.smtp() for _ in range(50)])  # none of them asks so often that it is cut off

    def work(n: int) -> None:
        for line in itertools.islice(lines, n):
            line.ask(b"NOOP")

    return work


def imap(*commands: bytes, transactions: int = 0) -> Callable[[Context], Work]:
    """Commands in turn; `%d` in one is the number of a message."""

    def prepare(context: Context) -> Work:
        line = context.imap()

        def work(n: int) -> None:
            for number in range(n):
                command = commands[number % len(commands)].replace(
                    b"%d", b"%d" % (number // len(commands) % FILLED + 1)
                )
                with context.transactions(transactions):
                    line.tagged(command)

        return work

    return prepare


def imap_all(items: bytes) -> Callable[[Context], Work]:
    """A message of a FETCH of all."""

    def prepare(context: Context) -> Work:
        line = context.imap()

        def work(n: int) -> None:
            for _ in range(n // FILLED):
                line.tagged(b"FETCH 1:* (%s)" % items)

        return work

    return prepare


def imap_append(context: Context) -> Work:
    line = context.imap(selected=False)
    line.send(b"t CREATE appended\r\n")
    line.until(b"t ")

    def work(n: int) -> None:
        for _ in range(n):
            with context.transactions(1):
                line.send(b"t APPEND appended {%d}\r\n" % len(MESSAGE))
                line.until(b"+")
                line.send(MESSAGE + b"\r\n")
                line.until(b"t OK")

    return work


def pop3_retr(context: Context) -> Work:
    line = context.line("pop3")
    line.reply(b"+OK")
    line.ask(b"USER " + READER.encode(), b"+OK")
    line.ask(b"PASS " + PASSWORD.encode(), b"+OK")

    def work(n: int) -> None:
        for number in range(n):
            line.send(b"RETR %d\r\n" % (number % FILLED + 1))
            line.until(b".\r\n")

    return work


class Row(NamedTuple):
    key: str
    title: str
    n: int
    prepare: Callable[[Context], Work]


ROWS: Final = (
    Row("smtp-noop", "NOOP", 100, smtp_noop),
    Row("accept", "accept 4 KB, 20 in a commit and one alone", 10 * (TOGETHER + 1), accept(f"h@{HOLD_DOMAIN}")),
    Row("accept-alone", "accept 4 KB, a lone client", 60, accept_alone),
    Row("accept-one", "accept 4 KB, one a connection", 40, accept_one),
    Row(
        "accept-50k",
        "accept 50 KB, 20 in a commit and one alone",
        2 * (TOGETHER + 1),
        accept(f"h@{HOLD_DOMAIN}", LARGE),
    ),
    Row("relay", "relay 4 KB, one after the other", 40, relay()),
    Row("relay-one", "relay 4 KB, a connection for each message", 30, relay(domain=LONE_DOMAIN)),
    Row("relay-new", "relay 4 KB, a destination for each message", 30, relay_new),
    Row("relay-50k", "relay 50 KB, one after the other", 20, relay(LARGE)),
    Row("relay-bdat", "relay 4 KB to a server that takes BDAT", 40, relay(domain=CHUNKED_DOMAIN)),
    Row("relay-50k-bdat", "relay 50 KB to a server that takes BDAT", 20, relay(LARGE, CHUNKED_DOMAIN)),
    Row("local", "local 4 KB, 20 in a commit and one alone", 10 * (TOGETHER + 1), accept(LOCAL_USER)),
    Row("imap-noop", "IMAP NOOP", 100, imap(b"NOOP")),
    Row("imap-status", "STATUS (MESSAGES UNSEEN UIDNEXT)", 100, imap(b"STATUS INBOX (MESSAGES UNSEEN UIDNEXT)")),
    Row("imap-flags", "FETCH 1:* FLAGS, a message", FILLED * 4, imap_all(b"FLAGS")),
    Row("imap-envelope", "FETCH 1:* ENVELOPE, a message", FILLED * 2, imap_all(b"ENVELOPE")),
    Row(
        "imap-header",
        "FETCH 1:* BODY.PEEK[HEADER.FIELDS (TO)], a message",
        FILLED,
        imap_all(b"BODY.PEEK[HEADER.FIELDS (TO)]"),
    ),
    Row("imap-fetch", "FETCH of one BODY.PEEK[]", 50, imap(b"FETCH %d BODY.PEEK[]")),
    Row(
        "imap-store",
        "STORE of one flag, a command and a commit each",
        40,
        imap(b"STORE %d +FLAGS (\\Flagged)", b"STORE %d -FLAGS (\\Flagged)", transactions=1),
    ),
    Row("imap-append", "APPEND of 4 KB", 40, imap_append),
    Row("pop3-retr", "RETR of 4 KB", 50, pop3_retr),
)


def _server(directory: Path, tree: Path, sink: Sink, settings: Settings) -> Server:
    site = directory / "site"
    site.mkdir(parents=True)
    (site / "sitecustomize.py").write_text(SITE)
    server = Server(
        directory / "server",
        domains=[LOCAL_DOMAIN],
        services=("smtp", "imap", "pop3"),
        settings={
            "transport": {
                HOLD_DOMAIN: "hold:",
                RELAY_DOMAIN: f"smtp:[127.0.0.1]:{sink.port}",
                CHUNKED_DOMAIN: f"smtp:[127.0.0.1]:{sink.chunked_port}",
                LONE_DOMAIN: f"smtp:[127.0.0.1]:{sink.lone_port}",
                **{f"d{n}.{RELAY_DOMAIN}": f"smtp:[{place}]:{sink.port}" for n, place in enumerate(sink.places)},
            },
            **settings,
        },
        env={**callgrind.environment(directory), "PYTHONPATH": f"{site}:{tree}"},
        wrapper=callgrind.command(directory),
    )
    trees.fit(server, tree)
    return server


@contextlib.contextmanager
def counted_server(directory: Path, tree: Path, settings: Settings | None = None) -> Iterator[tuple[Counted, Context]]:
    """A server of `tree` with a filled mailbox, its worker being counted."""
    with contextlib.ExitStack() as closing:
        sink = Sink()
        server = _server(directory, tree, sink, settings or {})
        for address in (LOCAL_USER, READER):
            server.add_user(address, PASSWORD)
        closing.callback(server.stop)
        server.start(wait=False)
        server.wait_ready(WAIT_S)
        store = lmdb.open(str(server.data_directory), max_dbs=8, map_size=4 << 30, create=False)
        closing.callback(store.close)
        context = Context(server, store, sink, closing)
        line = context.smtp()
        for _ in range(FILLED):
            _envelope(line, READER)
            line.send(MESSAGE + b".\r\n")
            line.reply(b"250")
        yield Counted(server.workers()[0], directory), context


def measure(
    tree: Path, rows: list[Row], samples: int, keep: Path | None, settings: Settings | None = None
) -> dict[str, callgrind.Cost]:
    """What the rows cost in the server of `tree`. The store lies in memory where there is /dev/shm."""
    memory = Path("/dev/shm")
    parent = keep or (memory if memory.is_dir() and os.access(memory, os.W_OK) else None)
    directory = Path(tempfile.mkdtemp(prefix="fastmta-instructions-", dir=parent))
    found: dict[str, callgrind.Cost] = {}
    try:
        with counted_server(directory, tree, settings) as (counted, context):
            for row in rows:
                with contextlib.ExitStack() as closing:
                    work = row.prepare(context._replace(closing=closing))
                    found[row.key] = counted.cost(work, row.n, samples)
                print(
                    f"{row.key:14} {found[row.key].instructions:12,.0f} {found[row.key].spread:7.2%}",
                    file=sys.stderr,
                    flush=True,
                )
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    return found


def _settings(given: list[str]) -> Settings:
    return {name: value for name, _, value in (each.partition("=") for each in given)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.instructions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", help=f"default: all of {', '.join(row.key for row in ROWS)}")
    parser.add_argument("--against", type=Path, metavar="TREE", help="another source tree, built in place")
    parser.add_argument("--tree", type=Path, default=REPOSITORY, help="the tree that is counted (default: this one)")
    parser.add_argument("--with", dest="given", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    parser.add_argument(
        "--against-with", action="append", default=[], metavar="KEY=VALUE", help="a setting of what it is compared with"
    )
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="leave callgrind's files there")
    options = parser.parse_args(arguments)
    reason = callgrind.missing()
    if reason:
        print(f"bench: nothing was counted: {reason}")
        return 0
    unknown = set(options.rows) - {row.key for row in ROWS}
    if unknown:
        parser.error(f"no row {min(unknown)}; there are {', '.join(row.key for row in ROWS)}")
    rows = [row for row in ROWS if not options.rows or row.key in options.rows]
    tree = options.tree.resolve()
    other = options.against.resolve() if options.against else tree if options.against_with else None
    ours = measure(tree, rows, options.samples, options.keep, _settings(options.given))
    theirs = measure(other, rows, options.samples, options.keep, _settings(options.against_with)) if other else {}
    print(
        f"{'instructions for an operation':54} {'here':>10} {'spread':>7}"
        + (f" {'against':>10} {'spread':>7} {'ratio':>6}" if theirs else "")
    )
    for row in rows:
        line = f"{row.title:54} {ours[row.key].instructions:10,.0f} {ours[row.key].spread:7.2%}"
        if theirs:
            their = theirs[row.key]
            ratio = ours[row.key].instructions / their.instructions
            line += f" {their.instructions:10,.0f} {their.spread:7.2%} {ratio:6.3f}"
        print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
