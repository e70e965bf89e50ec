"""A filter that changes everything: what is delivered, to whom and in whose name, over SMTP and from sendmail; and
our signature holds for it.
"""

import asyncio
import smtplib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.test_signing import records, verdicts
from tests.support.mail import wait_for_messages
from tests.support.scripted_milter import CONTINUE, packet, scripted_milter, terms
from tests.support.server import Server

LINES = (b"z" * 70 + b"\r\n") * 800
ADDRESSES = ("bill@example.test", "eve@example.test", "new@example.test")
ANSWER = (
    packet(b"h", b"X-Seen\0 yes\0")
    + packet(b"m", b"\0\0\0\1Subject\0 other\0")
    + packet(b"+", b"<new@example.test>\0")
    + packet(b"-", b"<eve@example.test>\0")
    + packet(b"e", b"<changed@client.example>\0")
    + packet(b"b", b"Another\r\n")
    + packet(b"b", LINES)
    + packet(b"b", b"last line")
    + CONTINUE
)


@contextmanager
def milter(path: Path) -> Iterator[None]:
    """The scripted filter in a thread of its own."""
    loop = asyncio.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with scripted_milter(path, {b"E": ANSWER}, offer=terms(actions=0x1FF)):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(60)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()


@pytest.mark.parametrize("way", ["smtp", "sendmail"])
def test_a_filter_changes_recipients_sender_header_and_body(tmp_path: Path, way: str) -> None:
    socket = tmp_path / "m"
    settings = {"smtpd_milters": [f"unix:{socket}"], "non_smtpd_milters": [f"unix:{socket}"]}
    server = Server(tmp_path / "server", services=("smtp", "pop3"), settings=settings)
    for address in ADDRESSES:
        server.add_user(address, "x")
    text = "From: ann@example.test\nSubject: one\nX-Kept: yes\n\nText\n"
    server.cli("dkim", "add", "example.test", "--algorithm", "ed25519")
    with milter(socket), server:
        if way == "smtp":
            with smtplib.SMTP(server.host, server.port("smtp")) as client:
                client.sendmail("ann@client.example", ADDRESSES[:2], text)
        else:
            server.cli("sendmail", "-f", "ann@client.example", *ADDRESSES[:2], stdin=text)
        for address in ("bill@example.test", "new@example.test"):
            (raw,) = wait_for_messages(server, address, "x", 1)
            head, _, body = raw.partition(b"\r\n\r\n")
            assert body == b"Another\r\n" + LINES + b"last line\r\n"
            assert head.startswith(b"Return-Path: <changed@client.example>\r\n")
            assert b"\r\nX-Seen: yes\r\n" in head and b"\r\nSubject: other" in head
            assert b"Subject: one" not in head and b"\r\nX-Kept: yes" in head
            assert [each.result for each in asyncio.run(verdicts(raw, records(server)))] == ["pass"], raw
        assert wait_for_messages(server, "eve@example.test", "x", 0) == []
        assert server.queue() == []
        log = server.log_tail(10_000)
    assert "policy.recipient_removed" in log and "eve@example.test" in log
