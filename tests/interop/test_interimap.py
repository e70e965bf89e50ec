"""interimap keeps the mailboxes of two servers the same, ours and Debian's Dovecot, by QRESYNC over DEFLATE."""

import imaplib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import Account
from tests.support import dovecot
from tests.support.mail import imap, letter, needs, run, send
from tests.support.server import Server

pytestmark = pytest.mark.skipif(bool(dovecot.missing()), reason=dovecot.missing())
_CONFIG = """\
database = {directory}/far.db

[local]
type = imap
host = 127.0.0.1
port = {dovecot}
username = them
password = secret
STARTTLS = NO
auth = PLAIN

[remote]
type = imaps
host = localhost
port = {port}
username = {user}
password = {password}
compress = YES
SSL_CAfile = {ca}
"""


@pytest.fixture
def theirs() -> Iterator[imaplib.IMAP4]:
    with dovecot.Dovecot({"them": "secret"}) as running:
        client = imaplib.IMAP4(running.host, running.port("imap"))
        client.login("them", "secret")
        yield client
        client.logout()


def _state(client: imaplib.IMAP4, folder: str) -> Counter[tuple[bytes, ...]]:
    """Octets of each message with its flags and its date of arrival."""
    client.select(folder, readonly=True)
    out: Counter[tuple[bytes, ...]] = Counter()
    for number in client.search(None, "ALL")[1][0].split():
        _, parts = client.fetch(number.decode(), "(FLAGS INTERNALDATE BODY.PEEK[])")
        about = b" ".join(part[0] if isinstance(part, tuple) else part for part in parts)
        flags = sorted(set(imaplib.ParseFlags(about)) - {b"\\Recent"})
        (raw,) = [part[1] for part in parts if isinstance(part, tuple)]
        out[raw, *flags, str(imaplib.Internaldate2tuple(about)).encode()] += 1
    return out


def test_two_servers_are_kept_the_same(server: Server, account: Account, theirs: imaplib.IMAP4, tmp_path: Path) -> None:
    program = needs("interimap")
    config = tmp_path / "config"
    config.write_text(
        _CONFIG.format(
            directory=tmp_path,
            dovecot=theirs.port,
            port=server.port("imaps"),
            user=account.user,
            password=account.password,
            ca=server.directory / "ca.pem",
        )
    )
    config.chmod(0o600)

    def sync() -> None:
        run(program, f"--config={config}", env={**os.environ, "HOME": str(tmp_path)})

    for number in range(12):
        send(server, account.user, letter(f"ours {number}"))
    theirs.append("INBOX", r"(\Flagged)", '"01-Feb-2026 10:00:00 +0100"', letter("theirs"))
    theirs.create("Projects")
    theirs.append("Projects", "(custom)", '"02-Feb-2026 10:00:00 +0100"', letter("in a folder"))
    with imap(server, *account) as ours:
        sync()
        for folder, count in (("INBOX", 13), ("Projects", 1), ("Archive", 0)):
            state = _state(ours, folder)
            assert state.total() == count and state == _state(theirs, folder)

        ours.select("INBOX")
        ours.store("2:4", "+FLAGS", r"(\Seen $Label1)")
        ours.store("1,6:8", "+FLAGS", r"(\Deleted)")
        ours.expunge()
        ours.append("Projects", "", "", letter("another"))
        theirs.select("INBOX")
        theirs.store("10", "+FLAGS", r"(\Answered)")
        theirs.store("11", "+FLAGS", r"(\Deleted)")
        theirs.expunge()
        sync()
        sync()
        for folder, count in (("INBOX", 8), ("Projects", 2)):
            state = _state(ours, folder)
            assert state.total() == count and state == _state(theirs, folder)
