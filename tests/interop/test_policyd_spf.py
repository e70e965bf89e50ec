"""Debian's policyd-spf, asked by check_policy_service: who fails is refused, who passes gets a Received-SPF field."""

import imaplib
import smtplib
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.dns_thread import dns_stub
from tests.support.mail import needs
from tests.support.server import Server
from tests.support.waiting import wait_for

BOB = "bob@example.test"
ZONES = {
    "passes.test": {"TXT": ["v=spf1 ip4:127.0.0.1 -all"]},
    "fails.test": {"TXT": ["v=spf1 -all"]},
}
#: The program itself, but for the name server that it asks: it has no setting for one.
PROGRAM = """\
import sys
import spf
if hasattr(spf, "DNS"):
    spf.DNS.defaults.update(server=[sys.argv[2]], port=int(sys.argv[3]), server_rotate=False)
else:
    resolver = spf.dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [sys.argv[2]], int(sys.argv[3])
    spf.dns.resolver.default_resolver = resolver
sys.argv = ["policyd-spf", sys.argv[1]]
from spf_engine.policyd_spf import main
sys.exit(main())
"""
CONFIG = "debugLevel = -1\nTestOnly = 1\nHELO_reject = False\nMail_From_reject = Fail\nskip_addresses = 192.0.2.0/24\n"


@contextmanager
def spawned(command: list[str]) -> Iterator[int]:
    """The port of a service that runs a command for each connection, on its socket, as Postfix's spawn(8) does."""
    running: list[subprocess.Popen[bytes]] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    running.append(subprocess.Popen(command, stdin=connection, stdout=connection))

        thread = threading.Thread(target=serve, name="spawn")
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for process in running:
                process.kill()
                process.wait(10)


def test_who_fails_is_refused_and_who_passes_is_marked(tmp_path: Path) -> None:
    needs("policyd-spf")
    config = tmp_path / "policyd-spf.conf"
    config.write_text(CONFIG)
    with dns_stub(ZONES) as dns:
        host, _, port = dns.address.rpartition(":")
        with spawned(["/usr/bin/python3", "-c", PROGRAM, str(config), host, port]) as service:
            settings = {
                "mynetworks": ["192.0.2.0/24"],
                "smtpd_authentication": False,
                "smtpd_recipient_restrictions": ["check_policy_service", f"inet:127.0.0.1:{service}"],
                "dns": {"nameservers": [dns.address]},
            }
            with Server(tmp_path / "server", services=("smtp", "imap"), settings=settings) as server:
                server.add_user(BOB, "secret")
                with smtplib.SMTP("127.0.0.1", server.port("smtp")) as client:
                    client.ehlo("client.test")
                    client.mail("ann@fails.test")
                    code, text = client.rcpt(BOB)
                    assert (code, b"SPF" in text) == (550, True), text
                    client.rset()
                    client.sendmail("ann@passes.test", [BOB], "Subject: x\r\n\r\nText\r\n")
                with imaplib.IMAP4("127.0.0.1", server.port("imap")) as reader:
                    reader.login(BOB, "secret")
                    wait_for(lambda: int(reader.select("INBOX")[1][0] or 0) == 1, "the message")
                    raw = reader.fetch("1", "(BODY.PEEK[HEADER])")[1][0][1]  # type: ignore[index]
    assert b"\r\nReceived-SPF: Pass" in b"\r\n" + raw, raw
