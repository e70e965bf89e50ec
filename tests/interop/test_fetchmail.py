"""fetchmail takes mail away over POP3 and IMAP, each message once and whole."""

import stat
from pathlib import Path

import pytest

from tests.interop.conftest import Account
from tests.support.mail import letter, messages, needs, run, send
from tests.support.server import Server

NOTHING_TO_FETCH = 1  # fetchmail's exit code


class Fetcher:
    def __init__(self, server: Server, account: Account, directory: Path, protocol: str, *options: str) -> None:
        self._spool = directory / "fetched"
        self._spool.mkdir()
        self._directory = directory
        agent = directory / "agent"
        agent.write_text(f"#!/bin/sh\nexec cat >{self._spool}/$$\n")
        agent.chmod(0o755)
        self._rc = directory / "fetchmailrc"
        tracking = " uidl" if "keep" in options else ""
        service = {"POP3": "pop3", "IMAP": "imap"}[protocol]
        self._rc.write_text(
            f"poll {server.host} port {server.port(service)} protocol {protocol} timeout 20 no dns{tracking}\n"
            f'  user "{account.user}" password "{account.password}" is root here\n'
            f'  no rewrite mda "{agent}" {" ".join(options)}\n'
        )
        self._rc.chmod(stat.S_IRUSR | stat.S_IWUSR)

    def run(self) -> int:
        done = run(
            needs("fetchmail"),
            *["-f", str(self._rc), "--nodetach", "--nosyslog", "-v", "--pidfile", str(self._directory / "pid")],
            env={"HOME": str(self._directory), "PATH": "/usr/bin:/bin", "FETCHMAILHOME": str(self._directory)},
            check=False,
        )
        assert done.returncode in (0, NOTHING_TO_FETCH), (done.stdout + done.stderr).decode("utf-8", "replace")
        return done.returncode

    def fetched(self) -> list[bytes]:
        return [path.read_bytes() for path in self._spool.iterdir()]


@pytest.mark.parametrize("protocol", ["POP3", "IMAP"])
@pytest.mark.parametrize("ssl", [("sslproto", "''"), ("sslproto", "TLS1.2+", "no", "sslcertck")], ids=["plain", "tls"])
def test_fetch_and_delete(
    server: Server, account: Account, tmp_path: Path, protocol: str, ssl: tuple[str, ...]
) -> None:
    needs("fetchmail")
    sent = [letter(f"fetch {number}") for number in range(5)]
    for message in sent:
        send(server, account.user, message)
    fetcher = Fetcher(server, account, tmp_path, protocol, *ssl, "no keep", "fetchall")
    assert fetcher.run() == 0
    fetched = fetcher.fetched()
    assert len(fetched) == len(sent)
    for message in sent:
        body = message.replace(b"\r\n", b"\n").partition(b"\n\n")[2]
        subject = message.partition(b"Subject: ")[2].partition(b"\r\n")[0]
        (match,) = [found for found in fetched if b"Subject: " + subject + b"\n" in found]
        assert match.partition(b"\n\n")[2] == body
    assert messages(server, *account) == []
    assert fetcher.run() == NOTHING_TO_FETCH
    assert len(fetcher.fetched()) == len(sent)


def test_keep_fetches_only_what_is_new(server: Server, account: Account, tmp_path: Path) -> None:
    needs("fetchmail")
    fetcher = Fetcher(server, account, tmp_path, "POP3", "sslproto", "''", "keep")
    send(server, account.user, letter("old"))
    fetcher.run()
    send(server, account.user, letter("new"))
    fetcher.run()
    assert len(fetcher.fetched()) == 2
    assert len(messages(server, *account)) == 2
