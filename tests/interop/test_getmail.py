"""getmail takes mail away over IMAPS and POP3S each message once and whole; mpop over POP3S too."""

import os
from pathlib import Path

import pytest

from tests.interop.conftest import Account
from tests.support.mail import letter, messages, needs, run, send
from tests.support.server import Server

_RC = """\
[retriever]
type = {type}
server = localhost
port = {port}
username = {user}
password = {password}
ca_certs = {ca}
{more}
[destination]
type = MDA_external
path = /bin/sh
arguments = ("-c", "cat >{directory}/mail/new/$$")
allow_root_commands = true

[options]
delete = true
read_all = false
delivered_to = false
received = false
verbose = 2
"""
_MPOP = """\
account default
host localhost
port {port}
tls on
tls_starttls {starttls}
tls_trust_file {ca}
auth plain
user {user}
password {password}
delivery maildir {directory}/mail
received_header off
uidls_file {directory}/uidls
"""


def _filed(directory: Path) -> list[bytes]:
    return sorted(path.read_bytes() for part in ("new", "cur") for path in (directory / "mail" / part).iterdir())


def _as_sent(filed: bytes) -> bytes:
    """Without our trace fields, and without getmail's own behind the header."""
    kept = filed[filed.index(b"From: ") :].split(b"\n")
    return b"\n".join(line for line in kept if not line.startswith(b"X-getmail-"))


def _fetched_once(server: Server, account: Account, directory: Path, *command: str) -> None:
    """The program takes everything at its first run, and only what is new at its second."""
    for part in ("cur", "new", "tmp"):
        (directory / "mail" / part).mkdir(parents=True)
    sent = [letter(f"fetch {number}") for number in range(3)]
    for message in sent[:2]:
        send(server, account.user, message)
    environment = {**os.environ, "HOME": str(directory)}
    run(*command, env=environment)
    assert len(_filed(directory)) == 2
    assert messages(server, *account) == []
    send(server, account.user, sent[2])
    run(*command, env=environment)
    found = _filed(directory)
    assert len(found) == 3
    for message, written in zip(sorted(sent), sorted(map(_as_sent, found)), strict=True):
        assert written == message.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("kind", ["IMAP", "POP3"])
def test_getmail_takes_all_away(server: Server, account: Account, tmp_path: Path, kind: str) -> None:
    program = needs("getmail")
    rc = tmp_path / "getmailrc"
    rc.write_text(
        _RC.format(
            type=f"Simple{kind}SSLRetriever",
            port=server.port(f"{kind.lower()}s"),
            user=account.user,
            password=account.password,
            ca=server.directory / "ca.pem",
            more='mailboxes = ("INBOX",)\n' if kind == "IMAP" else "",
            directory=tmp_path,
        )
    )
    rc.chmod(0o600)
    _fetched_once(server, account, tmp_path, program, "--getmaildir", str(tmp_path), "--rcfile", str(rc))


@pytest.mark.parametrize("service", ["pop3", "pop3s"])
def test_mpop_takes_all_away(server: Server, account: Account, tmp_path: Path, service: str) -> None:
    program = needs("mpop")
    rc = tmp_path / "mpoprc"
    rc.write_text(
        _MPOP.format(
            port=server.port(service),
            starttls="on" if service == "pop3" else "off",
            ca=server.directory / "ca.pem",
            user=account.user,
            password=account.password,
            directory=tmp_path,
        )
    )
    rc.chmod(0o600)
    _fetched_once(server, account, tmp_path, program, "--file", str(rc), "--keep=off")
