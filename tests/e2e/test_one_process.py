"""The round trip with everything in this process: two whole servers on one loop, with their stores in memory.

Mark hands a letter in at relay.example.net, with AUTH over STARTTLS; that server asks DNS and delivers to
smtp.example.org, where Bill reads it over IMAP and POP3. Clients are the standard library's, in threads.
"""

import asyncio
import imaplib
import json
import poplib
import smtplib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fastmta.config.load import load
from fastmta.model.events import Actor
from fastmta.policy.limits import local_table
from fastmta.runtime.board import Board
from fastmta.runtime.launching import Launcher
from fastmta.runtime.log import get_logger
from fastmta.runtime.metrics import SharedCells
from fastmta.supervisor.acceptor import Acceptor
from fastmta.supervisor.build import MailServer
from fastmta.supervisor.worker import Place
from tests.support.dns_thread import dns_stub
from tests.support.mail import letter, unverified, wait_for_messages
from tests.support.ports import free_port
from tests.support.server import Server

RELAY_HOST, SMTP_HOST = "127.0.0.2", "127.0.0.3"
MARK, BILL = "mark@example.net", "bill@example.org"
PASSWORD = "round-trip"
ZONES = {
    "example.org": {"MX": [(10, "smtp.example.org")]},
    "smtp.example.org": {"A": [SMTP_HOST]},
    "example.net": {"MX": [(10, "relay.example.net")]},
    "relay.example.net": {"A": [RELAY_HOST]},
}
SERVICES = ("smtp", "submission", "imap", "pop3")
TIMEOUT_S = 30.0


def _site(directory: Path, host: str, name: str, domain: str, port: int, dns: str) -> Server:
    """The configuration of a server; it is never started as a process."""
    return Server(
        directory,
        host=host,
        hostname=name,
        domains=[domain],
        services=SERVICES,
        ports={"smtp": port},
        settings={
            "mynetworks": [f"{host}/32"],
            "dns": {"nameservers": [dns]},
            "delivery": {"smtp_tcp_port": port},
        },
    )


async def _nobody(_question: str, **_given: object) -> dict[str, object]:
    """There are no other workers to be asked."""
    return {}


async def _act(server: MailServer, name: str, **request: object) -> dict[str, Any]:
    """Has the worker do an administrator's act, as when the supervisor hands a command's socket over."""
    ours, theirs = socket.socketpair()
    server.act(theirs.detach(), Actor(0, "root"), name, request)
    reader, writer = await asyncio.open_connection(sock=ours)
    answer: dict[str, Any] = json.loads(await reader.readline())
    writer.close()
    return answer


@asynccontextmanager
async def _serving(site: Server, user: str) -> AsyncIterator[MailServer]:
    """The parts of a worker, on this loop, with an account."""
    loop = asyncio.get_running_loop()
    shared = SharedCells.create(2)
    log = get_logger()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()  # no commands are started here
    place = Place(
        config=load(str(site.config_path)),
        slot=0,
        slots=1,
        cells=shared.range(1),
        board=shared.range(0),
        shared=shared,
        limits=local_table(),
        launcher=Launcher(ours.detach()),
        loop=loop,
        log=log,
        ask=_nobody,
    )
    place.board[Board.STORE_FAILED] = 0
    server = MailServer(place)
    acceptor = Acceptor(loop, log)
    place.accepting = lambda: acceptor.accepting
    try:
        for service in SERVICES:
            sock = socket.create_server((site.host, site.port(service)))
            sock.setblocking(False)
            await acceptor.add(0, service, sock, server.factory(service), server.server_context(service))
        acceptor.measure()
        server.own()
        assert (await _act(server, "user.add", address=user, password=PASSWORD))["ok"]
        yield server
    finally:
        acceptor.close()
        server.close_all("the test is over")
        await server.release(1.0)
        while server.sessions:  # noqa: ASYNC110 - the servers only count
            await asyncio.sleep(0.01)
        await server.close()


def _submit(site: Server, message: bytes) -> None:
    with smtplib.SMTP(site.host, site.port("submission"), local_hostname="pc.example.net", timeout=TIMEOUT_S) as client:
        client.starttls(context=unverified())
        client.login(MARK, PASSWORD)
        assert client.sendmail(MARK, [BILL], message, ["BODY=8BITMIME"]) == {}


def _body(message: bytes) -> bytes:
    """Below the trace fields of the two servers."""
    return message[message.index(b"From: <") :]


def _over_imap(site: Server) -> bytes:
    client = imaplib.IMAP4(site.host, site.port("imap"), timeout=TIMEOUT_S)
    client.starttls(unverified())
    client.login(BILL, PASSWORD)
    client.select("INBOX")
    _, rows = client.fetch("1", "(FLAGS BODY[])")
    assert isinstance(rows[0], tuple)
    client.store("1", "+FLAGS", r"(\Deleted)")
    client.expunge()
    client.logout()
    return bytes(rows[0][1])


def _left_over_pop3(site: Server) -> int:
    client = poplib.POP3(site.host, site.port("pop3"), timeout=TIMEOUT_S)
    client.stls(unverified())
    client.user(BILL)
    client.pass_(PASSWORD)
    count, _ = client.stat()
    client.quit()
    return count


@pytest.mark.parametrize("engine", ["memory", "lmdb"])
def test_a_letter_goes_round_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setenv("FASTMTA_TEST_ENGINE", engine)
    sent = letter("one process", sender=MARK, to=BILL)
    port = free_port("0.0.0.0")

    async def scene(dns: str) -> None:
        relay = _site(tmp_path / "relay", RELAY_HOST, "relay.example.net", "example.net", port, dns)
        smtp = _site(tmp_path / "smtp", SMTP_HOST, "smtp.example.org", "example.org", port, dns)
        async with _serving(relay, MARK) as first, _serving(smtp, BILL):
            assert first._services.store.raw.in_memory == (engine == "memory")
            await asyncio.to_thread(_submit, relay, sent)
            (over_pop3,) = await asyncio.to_thread(wait_for_messages, smtp, BILL, PASSWORD, 1, TIMEOUT_S)
            over_imap = await asyncio.to_thread(_over_imap, smtp)
            assert over_pop3 == over_imap
            assert _body(over_imap) == sent
            assert await asyncio.to_thread(_left_over_pop3, smtp) == 0
            async with asyncio.timeout(TIMEOUT_S):
                while sum(first._services.store.queue.counts().values()):  # noqa: ASYNC110 - the 250 is recorded later
                    await asyncio.sleep(0.01)

    with dns_stub(ZONES) as dns:
        asyncio.run(scene(dns.address))
    assert (tmp_path / "smtp" / "data" / "data.mdb").exists() == (engine == "lmdb")
