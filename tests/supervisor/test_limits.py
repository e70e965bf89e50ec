"""Limits by address and account over the workers of a real server, also when one of them dies."""

import imaplib
import os
import poplib
import signal
import socket
import urllib.error
import urllib.request

from fastmta.model.limits import IMAP_UPLOADS
from fastmta.supervisor.demo import PASSWORD
from tests.supervisor.running import Server, eventually
from tests.supervisor.test_whole_server import ALICE, BOB, Start, figure, start

__all__ = ["start"]
NOBODY_EXEMPT = "smtpd_client_event_limit_exceptions = []\nsmtpd_client_connection_count_limit = 7\n"


def greetings(server: Server, service: str, count: int) -> tuple[list[socket.socket], list[bytes]]:
    sockets = [server.connect(service) for _ in range(count)]
    return sockets, [sock.recv(200) for sock in sockets]


def has_ended(sock: socket.socket) -> bool:
    sock.settimeout(0.5)
    try:
        return sock.recv(100) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_connections_of_an_address_are_exact_over_two_workers_and_a_death(start: Start) -> None:
    server = start(2, NOBODY_EXEMPT)
    submission, said = greetings(server, "submission", 30)
    assert sum(line.startswith(b"220 ") for line in said) == 7
    smtp, said = greetings(server, "smtp", 30)
    assert sum(line.startswith(b"220 ") for line in said) == 7, "each service counts its own"
    assert sum(line.startswith(b"421 4.7.0 ") for line in said) == 23
    granted = [sock for sock, line in zip(smtp, said, strict=True) if line.startswith(b"220 ")]
    os.kill(server.pids[0], signal.SIGKILL)
    eventually(lambda: server.status().get("ready") and figure(server, "worker_restarts_total"), "a successor")
    died = sum(has_ended(sock) for sock in granted)

    def free() -> int:
        sockets, lines = greetings(server, "smtp", 20)
        for sock in sockets:
            sock.close()
        return sum(line.startswith(b"220 ") for line in lines)

    eventually(lambda: free() == died, f"{died} places are given back")
    assert figure(server, 'limited_total{limit="connections"}') >= 46
    for sock in (*submission, *smtp):
        sock.close()


def test_connections_of_an_account_from_an_address_are_exact_over_two_workers(start: Start) -> None:
    server = start(2)
    boxes = []
    refused = 0
    for _ in range(14):
        box = imaplib.IMAP4(*server.address("imap"), timeout=60)
        boxes.append(box)
        try:
            box.login(ALICE, PASSWORD)
        except imaplib.IMAP4.error as error:
            assert "mail_max_userip_connections=10" in str(error)
            refused += 1
    assert refused == 4
    other = imaplib.IMAP4(*server.address("imap"), timeout=60)
    other.login(BOB, PASSWORD)
    pop = poplib.POP3(*server.address("pop3"), timeout=60)
    pop.user(ALICE)
    pop.pass_(PASSWORD)
    pop.quit()
    boxes[0].logout()

    def logged_in() -> bool:
        try:
            return boxes[-1].login(ALICE, PASSWORD)[0] == "OK"
        except imaplib.IMAP4.error:
            return False

    eventually(logged_in, "a place is given back")
    for box in [*boxes[1:], other]:
        box.shutdown()


def test_what_has_not_logged_in_is_bounded_for_an_address_over_imap_and_pop3(start: Start) -> None:
    more = "smtpd_client_event_limit_exceptions = []\nlogin_max_ip_connections = 5\nlogin_max_connections = 8\n"
    server = start(2, more)
    first, said = greetings(server, "imap", 9)
    assert sum(line.startswith(b"* OK ") for line in said) == 5
    assert sum(line.startswith(b"* BYE ") for line in said) == 4
    second, said = greetings(server, "pop3", 9)
    assert sum(line.startswith(b"+OK ") for line in said) == 3
    for sock in (*first, *second):
        sock.close()


def test_http_connections_of_an_address_are_bounded_and_foreign_names_refused(start: Start) -> None:
    server = start(2, "smtpd_client_event_limit_exceptions = []\nhttp_client_connection_count_limit = 3\n")
    sockets = [server.connect("http") for _ in range(8)]
    refused = 0
    for sock in sockets:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        refused += sock.recv(500).startswith(b"HTTP/1.1 429 ")
        if refused:
            sock.settimeout(5)
    assert refused == 5
    for sock in sockets:
        sock.close()

    def asked(host: str) -> int:
        request = urllib.request.Request(
            f"http://{server.address('http')[0]}:{server.address('http')[1]}/metrics", headers={"Host": host}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    eventually(lambda: asked("mx.example.test:8025") == 200, "a connection is free again")
    assert asked("evil.example:8025") == 403


def test_a_crowd_of_wrong_logins_locks_nobody_else_out(start: Start) -> None:
    server = start(1)
    crowd, said = greetings(server, "imap", 60)
    assert all(line.startswith(b"* OK ") for line in said)
    for number, sock in enumerate(crowd):
        sock.sendall(b"a LOGIN %s wrong%d\r\n" % (ALICE.encode() if number % 2 else b"nobody", number))
    with socket.create_connection(server.address("imap"), 15, ("127.0.0.2", 0)) as other_address:
        assert other_address.recv(300).startswith(b"* OK ")
        other_address.sendall(f'a LOGIN {BOB} "{PASSWORD}"\r\n'.encode())
        assert other_address.recv(500).startswith(b"a OK ")
    for sock in crowd:
        sock.setblocking(False)
    answered = 0
    for sock in crowd:
        try:
            answered += bool(sock.recv(300))
        except BlockingIOError:
            continue
    assert answered < len(crowd), "the crowd still waits"
    for sock in crowd:
        sock.close()


def test_unfinished_appends_of_an_account_are_exact_over_two_workers_and_a_death(start: Start) -> None:
    server = start(2, "mail_max_userip_connections = 0\n")

    def appending() -> tuple[imaplib.IMAP4, bool]:
        box = imaplib.IMAP4(*server.address("imap"), timeout=60)
        box.login(ALICE, PASSWORD)
        box.send(b"x APPEND INBOX {1000}\r\n")
        return box, box.readline().startswith(b"+")

    boxes = [appending() for _ in range(IMAP_UPLOADS + 2)]
    assert sum(granted for _, granted in boxes) == IMAP_UPLOADS
    sent = 'limited_total{limit="uploads"}'
    eventually(lambda: figure(server, sent) == 2, "each refusal is counted")
    os.kill(server.pids[0], signal.SIGKILL)
    eventually(lambda: server.status().get("ready") and figure(server, "worker_restarts_total"), "a successor")
    died = sum(has_ended(box.sock) for box, granted in boxes if granted)
    for box, granted in boxes:
        if not granted:
            box.sock.close()
    again: list[tuple[imaplib.IMAP4, bool]] = []
    eventually(lambda: again.append(appending()) or sum(g for _, g in again) >= min(died, 1), "what it held is free")
    for box, _ in (*boxes, *again):
        box.sock.close()
