"""Connections that die at every stage leave their gauge at zero, in every protocol."""

import re
import socket
import ssl
import struct
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server
from tests.support.waiting import wait_for

PLAIN = {
    "smtp": [b"", b"EHLO me\r\n", b"EHL", b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<bill@example.test>\r\nDATA\r\nhalf"],
    "submission": [b"", b"EHLO me\r\nAUTH PLAIN\r\n"],
    "lmtp": [b"", b"LHLO me\r\nMAIL FROM:<>\r\n"],
    "imap": [b"", b"a LOGIN bill@example.test wrong\r\n", b"a LOGIN {5}\r\n", b"a ID NIL\r\n", b"a LOGOUT\r\n"],
    "pop3": [b"", b"USER bill@example.test\r\nPASS wrong\r\n", b"QUIT\r\n", b"CAP"],
    "http": [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /metr"],
}
STARTTLS = {
    "smtp": [b"EHLO me\r\n", b"STARTTLS\r\n"],
    "submission": [b"EHLO me\r\n", b"STARTTLS\r\n"],
    "imap": [b"a STARTTLS\r\n"],
    "pop3": [b"STLS\r\n"],
}
LETTER = b"Subject: left\r\n\r\n" + b"line\r\n" * 200
MAIL = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<bill@example.test>\r\nDATA\r\n"
LOGIN = b"a LOGIN bill@example.test secret\r\nb SELECT INBOX\r\n"
# What a client sends before it leaves: behind the first reply to `begin`, so that it falls into work under way.
LEAVING = {
    "smtp": [
        (b"EHLO me\r\n", b"NOOP\r\n" * 90),
        (b"EHLO me\r\n" + MAIL, LETTER),
        (b"EHLO me\r\n" + MAIL, LETTER + b".\r\n"),
        (b"EHLO me\r\n" + MAIL, (LETTER + b".\r\n" + MAIL) * 20),
        (b"EHLO me\r\n", MAIL[:-6] + b"BDAT 100000\r\n" + LETTER),
    ],
    "lmtp": [(b"LHLO me\r\n" + MAIL, LETTER + b".\r\n"), (b"LHLO me\r\n", b"NOOP\r\n" * 90)],
    "imap": [
        (LOGIN, b"c NOOP\r\n" * 5000),
        (LOGIN, b"c APPEND INBOX {100000}\r\n" + LETTER),
        (LOGIN, b"c APPEND INBOX {%d+}\r\n%b\r\n" % (len(LETTER), LETTER)),
        (LOGIN, b"c FETCH 1:* BODY[]\r\n" * 200),
        (LOGIN, b"c STORE 1:* +FLAGS (\\Deleted)\r\nd EXPUNGE\r\ne NOOP\r\n"),
        (LOGIN, b"c COPY 1:* INBOX\r\nd MOVE 1:* Sent\r\n"),
        (LOGIN, b"c IDLE\r\n"),
        (b"a ENABLE CONDSTORE\r\n", b"a LOGIN {17}\r\nbill"),
        (LOGIN + b"c COMPRESS DEFLATE\r\n", b"\x00\x01\x02"),
    ],
    "pop3": [
        (b"USER bill@example.test\r\nPASS secret\r\n", b"NOOP\r\n" * 5000),
        (b"USER bill@example.test\r\nPASS secret\r\n", b"RETR 1\r\n" * 500),
        (b"USER bill@example.test\r\nPASS secret\r\n", b"DELE 1\r\nQUIT\r\n"),
        (b"AUTH PLAIN\r\n", b"AGJpbG"),
    ],
    "http": [(b"", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)],
}
IMPLICIT = ("submissions", "imaps", "pop3s")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as server:
        server.add_user("bill@example.test", "secret")
        yield server


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def open_gauges(server: Server) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port('http')}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found = re.findall(r'^fastmta_connections\{service="(\w+)"\} (\S+)', text, re.MULTILINE)
    return {name: float(value) for name, value in found if name != "http" and float(value)} | {
        name: float(value) - 1 for name, value in found if name == "http" and float(value) != 1
    }


def test_sessions_that_are_reset_at_any_stage_are_counted_out_once(server: Server) -> None:
    def connect(service: str) -> socket.socket:
        return socket.create_connection((server.host, server.port(service)), timeout=60)

    for service, stages in PLAIN.items():
        for said in stages:
            for greeted in (False, True):
                for end in (reset, socket.socket.close):
                    sock = connect(service)
                    if greeted and service != "http":
                        sock.recv(4096)
                    sock.sendall(said)
                    end(sock)
    for service, ways in LEAVING.items():
        for begin, then in ways:
            for end in (reset, socket.socket.close):
                sock = connect(service)
                if begin:
                    sock.recv(4096)
                    sock.sendall(begin)
                    sock.recv(4096)
                sock.sendall(then)
                end(sock)
    for service, asked in STARTTLS.items():
        for end in (reset, socket.socket.close):
            for then in (b"", b"\x16\x03", b"garbage\r\n" * 10):
                sock = connect(service)
                sock.recv(4096)
                for line in asked:
                    sock.sendall(line)
                    sock.recv(4096)
                sock.sendall(then)
                end(sock)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for service in IMPLICIT:
        for then in (b"", b"\x16\x03", b"garbage\r\n" * 10):
            sock = connect(service)
            sock.sendall(then)
            reset(sock)
        for said in (b"", b"EHLO me\r\n", b"a LOGIN {5}\r\n"):
            with connect(service) as raw, context.wrap_socket(raw) as sock:
                sock.recv(4096)
                sock.sendall(said)
                reset(sock)
    wait_for(lambda: not open_gauges(server), lambda: str(open_gauges(server)))
    log = server.log_path.read_text()
    assert '"level":"error"' not in log, log[-3000:]
    assert "nexpected" not in log
    assert "Traceback" not in log
    with connect("imap") as sock:  # and what was cut off holds nothing: no lock, no room, no session
        sock.sendall(LOGIN + b"c APPEND INBOX {%d+}\r\n%b\r\nd LOGOUT\r\n" % (len(LETTER), LETTER))
        said = b"".join(iter(lambda: sock.recv(65536), b""))
        assert b"c OK [APPENDUID" in said, said
    with connect("pop3") as sock:
        sock.sendall(b"USER bill@example.test\r\nPASS secret\r\nQUIT\r\n")
        said = b"".join(iter(lambda: sock.recv(65536), b""))
        assert said.count(b"+OK") == 4, said


def test_figures_of_process_disk_and_certificate_are_exported(server: Server) -> None:
    def figures() -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port('http')}/metrics", timeout=60) as answer:
            lines = [line.split() for line in answer.read().decode().splitlines() if not line.startswith("#")]
        return {line[0]: float(line[1]) for line in lines}

    wait_for(lambda: figures()["fastmta_process_cpu_seconds_total"] > 0, "a look at the process")
    found = figures()
    assert 1e6 < found["fastmta_process_resident_memory_bytes"] < 1e9
    assert 3 < found["fastmta_process_open_fds"] < found["fastmta_process_max_fds"]
    assert 0 < found["fastmta_disk_reserve_bytes"] < found["fastmta_disk_size_bytes"]
    assert 0 < found["fastmta_disk_free_bytes"] < found["fastmta_disk_size_bytes"]
    assert found["fastmta_tls_certificate_expiry_timestamp_seconds"] > time.time()
