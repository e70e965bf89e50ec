"""Memory of idle IMAP sessions: logged in, INBOX selected, in IDLE, over many accounts.

    python -m bench.idle_imap [--sessions 10000] [--accounts 1000] [--tls] [--peer dovecot --sessions 500] [--json]

The figure is anonymous resident memory (RssAnon) of all the server's processes, after minus before, for each session;
"before" is a server that has already served one session of every kind counted. Each session lists, selects and fetches
first if `--worked-in` is given, so that buffers that only grow are seen.
"""

import argparse
import json
import resource
import select
import shutil
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.peers import PASSWORD, settle
from tests.support import dovecot, processes
from tests.support.accounts import seed_accounts
from tests.support.server import Server

CONNECTING_AT_ONCE = 100
DESCRIPTORS_FOR_THE_REST = 200
TIMEOUT_S = 600.0


class IdleServer:
    """What both peers give: an address, the tree's root, and whether the port speaks TLS."""

    def __init__(self, peer: str, directory: Path, users: Sequence[str], tls: bool) -> None:
        self.tls = tls
        if peer == "dovecot":
            reason = dovecot.missing()
            if reason:
                raise SystemExit(f"idle_imap: {reason}")
            self._server: Server | dovecot.Dovecot = dovecot.Dovecot(dict.fromkeys(users, PASSWORD))
            self._server.start()
        else:
            server = Server(directory / "fastmta", services=("smtp", "imap", "imaps"), workers=1)
            seed_accounts(server, users, PASSWORD)
            server.start()
            self._server = server
        self.address = (self._server.host, self._server.port("imaps" if tls else "imap"))
        self.name = peer

    def memory_bytes(self) -> int:
        """RssAnon of every process of the tree; of FastMTA the supervisor and its one worker."""
        total = 0
        for pid in processes.tree(self._server.pid):
            try:
                total += processes.rss_anon_bytes(pid)
            except (FileNotFoundError, ProcessLookupError, RuntimeError):
                continue
        return total

    def cpu_seconds(self) -> float:
        return processes.cpu_seconds(self._server.pid)

    def port(self, service: str) -> int:
        return self.address[1]

    def pending(self) -> int:
        return 0

    def reset(self) -> None:
        return

    def stop(self) -> None:
        self._server.stop()


def idle_session(address: tuple[str, int], user: str, context: ssl.SSLContext | None, worked_in: bool) -> socket.socket:
    """A connection that has just been told that it idles."""
    plain = socket.create_connection(address, timeout=60.0)
    sock = context.wrap_socket(plain, server_hostname="localhost") if context is not None else plain
    _converse(sock, b"", b"* OK")
    _converse(sock, f"a LOGIN {user} {PASSWORD}\r\n".encode(), b"a OK")
    _converse(sock, b"b SELECT INBOX\r\n", b"b OK")
    if worked_in:
        _converse(sock, b'c LIST "" *\r\n', b"c OK")
        _converse(sock, b"d UID FETCH 1:* (FLAGS ENVELOPE)\r\n", b"d OK")
    _converse(sock, b"e IDLE\r\n", b"+")
    return sock


def _converse(sock: socket.socket, out: bytes, expected: bytes) -> None:
    if out:
        sock.sendall(out)
    answer = b""
    while True:
        data = sock.recv(65536)
        if not data:
            raise RuntimeError(f"closed while waiting for {expected!r} after {answer[-200:]!r}")
        answer += data
        if answer.endswith(b"\r\n"):
            last = answer[answer.rfind(b"\r\n", 0, -2) + 2 :] if answer.count(b"\r\n") > 1 else answer
            if last.startswith(expected):
                return
            if last.startswith((expected[:2] + b"NO", expected[:2] + b"BAD", b"* BYE")):
                raise RuntimeError(f"expected {expected!r}, got {last!r}")


def measure(server: IdleServer, users: Sequence[str], sessions: int, worked_in: bool) -> dict[str, float]:
    context = None
    if server.tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    idle_session(server.address, users[0], context, worked_in).close()
    settle(server)
    before = server.memory_bytes()
    cpu = server.cpu_seconds()
    started = time.monotonic()
    open_sockets: list[socket.socket] = []
    try:
        for number in range(sessions):
            if time.monotonic() - started > TIMEOUT_S:
                raise RuntimeError(f"only {number} sessions after {TIMEOUT_S} s")
            open_sockets.append(idle_session(server.address, users[number % len(users)], context, worked_in))
        elapsed = time.monotonic() - started
        settle(server)
        after = server.memory_bytes()
        spent = server.cpu_seconds() - cpu
        cpu = server.cpu_seconds()
        time.sleep(3.0)
        idle_cpu = (server.cpu_seconds() - cpu) / 3.0
        poll = select.poll()
        for sock in open_sockets:
            poll.register(sock, select.POLLHUP | select.POLLRDHUP)
        lost = len(poll.poll(0))
    finally:
        for sock in open_sockets:
            sock.close()
    return {
        "sessions": sessions,
        "accounts": len(users),
        "bytes_a_session": (after - before) / sessions,
        "before_bytes": before,
        "after_bytes": after,
        "lost": lost,
        "sessions_opened_per_second": sessions / elapsed,
        "cpu_s_per_1000_sessions": spent * 1000 / sessions,
        "cpu_share_while_idle": idle_cpu,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--accounts", type=int, default=1_000)
    parser.add_argument("--peer", choices=["fastmta", "dovecot"], default="fastmta")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--worked-in", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sessions = min(options.sessions, hard - DESCRIPTORS_FOR_THE_REST)
    if sessions < options.sessions:
        print(f"idle_imap: {sessions} sessions only: the limit is {hard} file descriptors", file=sys.stderr)
    users = [f"idle{number}@example.test" for number in range(options.accounts)]
    directory = Path(tempfile.mkdtemp(prefix="fastmta-idle-"))
    try:
        server = IdleServer(options.peer, directory, users, options.tls)
        try:
            figures = measure(server, users, sessions, options.worked_in)
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if options.json:
        print(json.dumps({"peer": options.peer, "tls": options.tls, **figures}))
    else:
        print(
            f"{options.peer}: {figures['bytes_a_session'] / 1024:.2f} KB a session"
            f" ({figures['sessions']:,.0f} sessions of {figures['accounts']:,.0f} accounts,"
            f" {figures['before_bytes'] / 1e6:.1f} to {figures['after_bytes'] / 1e6:.1f} MB RssAnon);"
            f" opened {figures['sessions_opened_per_second']:,.0f} a second,"
            f" idle CPU {figures['cpu_share_while_idle'] * 100:.2f} %, lost {figures['lost']:.0f}"
        )
    return 1 if figures["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
