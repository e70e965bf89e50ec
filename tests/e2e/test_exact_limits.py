"""Limits by address are exact over all workers: four of them, and 200 connections of one client."""

import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server

CONNECTIONS, STRANGER = 200, "127.0.0.9"


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    yield sockets
    for each in sockets:
        each.close()


def server(directory: Path, **limits: int) -> Server:
    settings = {"mynetworks": ["127.0.0.1/32"], "anvil_rate_time_unit": "1h", **limits}
    return Server(directory, services=("smtp",), settings=settings, workers=4, with_tls=False)


def connect(running: Server, sockets: list[socket.socket]) -> None:
    """All at once, so that every worker has some."""
    for _ in range(CONNECTIONS):
        made = socket.socket()
        made.settimeout(60)
        made.bind((STRANGER, 0))
        made.connect((running.host, running.port("smtp")))
        sockets.append(made)


def reply(connection: socket.socket) -> int:
    text = b""
    while not text.endswith(b"\n") or text.splitlines()[-1][3:4] == b"-":
        piece = connection.recv(4096)
        if not piece:
            return 0
        text += piece
    return int(text.splitlines()[-1][:3])


@pytest.mark.parametrize("limit", [1, 120, CONNECTIONS])
def test_so_many_connections_and_not_one_more(tmp_path: Path, opened: list[socket.socket], limit: int) -> None:
    with server(tmp_path, smtpd_client_connection_count_limit=limit) as running:
        connect(running, opened)
        expected = {220: limit, 421: CONNECTIONS - limit}
        assert Counter(map(reply, opened)) == {code: n for code, n in expected.items() if n}


def test_so_many_messages_in_the_time_and_not_one_more(tmp_path: Path, opened: list[socket.socket]) -> None:
    with server(tmp_path, smtpd_client_connection_count_limit=0, smtpd_client_message_rate_limit=37) as running:
        connect(running, opened)
        assert Counter(map(reply, opened)) == {220: CONNECTIONS}
        for each in opened:
            each.sendall(b"EHLO c.test\r\n")
        assert Counter(map(reply, opened)) == {250: CONNECTIONS}
        for each in opened:
            each.sendall(b"MAIL FROM:<a@client.test>\r\n")
        assert Counter(map(reply, opened)) == {250: 37, 450: CONNECTIONS - 37}
