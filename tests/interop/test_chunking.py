"""Mail that leaves by BDAT for servers that take it: Postfix, Exim, and ourselves over SMTP and LMTP."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import exim, postfix
from tests.support.exim import Exim
from tests.support.mail import letter, messages, send
from tests.support.server import Server
from tests.support.waiting import wait_for

BODIES = {
    "small": letter("small"),
    "dots": b"Subject: dots\r\n\r\n" + b".\r\n..\r\n.x\r\n" * 20,
    "empty": b"Subject: empty\r\n\r\n",
    "large": b"Subject: large\r\n\r\n" + b".dot and text\r\n" * 30_000,
}


class Tap:
    """Passes bytes on to a port, and keeps what the client said."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.said = b""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._to)) as server:
            answers = threading.Thread(target=self._pass, args=(server, client, False), daemon=True)
            answers.start()
            self._pass(client, server, True)
            answers.join()

    def _pass(self, source: socket.socket, target: socket.socket, keeps: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if keeps:
                    self.said += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()


class Site(NamedTuple):
    server: Server
    taps: dict[str, Tap]
    received: dict[str, Callable[[], list[bytes]]]


def _postfix_that_keeps() -> tuple[postfix.Postfix, Path]:
    relay = postfix.Postfix(
        {
            "virtual_mailbox_domains": "postfix.example",
            "virtual_mailbox_maps": "inline:{user@postfix.example=kept/}",
            "virtual_mailbox_base": "$queue_directory/mail",
            "virtual_uid_maps": "static:65534",
            "virtual_gid_maps": "static:65534",
            "virtual_minimum_uid": "1000",
            "smtpd_relay_restrictions": "reject_unauth_destination",
        }
    )
    spool = relay.queue / "mail"
    spool.mkdir()
    spool.chmod(0o777)
    return relay, spool / "kept" / "new"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with contextlib.ExitStack() as closing:
        second = closing.enter_context(
            Server(
                tmp_path_factory.mktemp("second"),
                domains=["ours.example", "lmtp.example"],
                services=("smtp", "lmtp", "pop3"),
            )
        )
        second.add_user("user@ours.example", "secret")
        second.add_user("user@lmtp.example", "secret")
        ports = {"ours.example": second.port("smtp"), "lmtp.example": second.port("lmtp")}
        received: dict[str, Callable[[], list[bytes]]] = {
            "ours.example": lambda: messages(second, "user@ours.example", "secret"),
            "lmtp.example": lambda: messages(second, "user@lmtp.example", "secret"),
        }
        if not postfix.missing():
            relay, maildir = _postfix_that_keeps()
            closing.enter_context(relay)
            ports["postfix.example"] = relay.port
            received["postfix.example"] = lambda: (
                [path.read_bytes() for path in maildir.iterdir()] if maildir.exists() else []
            )
        if not exim.missing():
            other = closing.enter_context(Exim())
            ports["exim.example"] = other.port
            received["exim.example"] = other.messages
        taps = {name: Tap(port) for name, port in ports.items()}
        for tap in taps.values():
            closing.callback(tap.close)
        routes = {
            name: f"{'lmtp' if name.startswith('lmtp') else 'smtp'}:[127.0.0.1]:{tap.port}"
            for name, tap in taps.items()
        }
        server = closing.enter_context(
            Server(
                tmp_path_factory.mktemp("chunking"),
                settings={"transport": routes, "delivery": {"smtp_tls_security_level": "none"}},
            )
        )
        server.add_user("sender@example.test", "secret")
        yield Site(server, taps, received)


PEERS = ("ours.example", "lmtp.example", "postfix.example", "exim.example")


def _there(site: Site, peer: str) -> None:
    if peer not in site.taps:
        pytest.skip(f"{postfix.missing() or exim.missing()} (tests/install_packages.sh)")


def _body(raw: bytes) -> bytes:
    return raw.replace(b"\r\n", b"\n").partition(b"\n\n")[2]


@pytest.mark.parametrize("peer", PEERS)
def test_what_goes_by_bdat_arrives_octet_for_octet(site: Site, peer: str) -> None:
    _there(site, peer)
    for raw in BODIES.values():
        send(site.server, f"user@{peer}", raw)
    sent = sorted(_body(raw) for raw in BODIES.values())
    received = site.received[peer]

    def bodies() -> list[bytes]:
        found = received()
        return sorted(found if peer == "exim.example" else map(_body, found))  # Exim keeps bodies alone

    wait_for(lambda: bodies() == sent, site.server.log_tail)  # a file of Exim's is there before it is whole
    said = site.taps[peer].said
    assert b"\r\nBDAT 131072\r\n" in said and said.count(b" LAST\r\n") == len(sent)
    assert b"\r\nDATA\r\n" not in said


@pytest.mark.parametrize("peer", ["exim.example", "postfix.example"])
def test_recipients_that_are_refused_before_the_message_come_back(site: Site, peer: str) -> None:
    _there(site, peer)
    before = len(messages(site.server, "sender@example.test", "secret"))
    send(site.server, f"nobody@{peer}", letter(f"to nobody at {peer}"), sender="sender@example.test")
    wait_for(lambda: len(messages(site.server, "sender@example.test", "secret")) > before, site.server.log_tail)
    report = messages(site.server, "sender@example.test", "secret")[-1]
    assert b"Action: failed" in report and f"nobody@{peer}".encode() in report
    assert b"nobody@" in site.taps[peer].said and not site.server.queue()
