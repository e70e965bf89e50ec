"""Dovecot as a client: doveadm copies an account away over IMAP (imapc), and from there into another one.

It reads all that a migration has to keep: octets, flags, keywords, dates of arrival, folders and their subscriptions.
"""

import imaplib
from collections.abc import Iterator

import pytest

from tests.interop.conftest import PASSWORD, Account
from tests.support import dovecot
from tests.support.mail import imap, letter, needs, run, send
from tests.support.server import Server

pytestmark = pytest.mark.skipif(bool(dovecot.missing()), reason=dovecot.missing())


@pytest.fixture
def doveadm() -> Iterator[dovecot.Dovecot]:
    with dovecot.Dovecot({"them": "secret"}) as running:
        yield running


def _doveadm(running: dovecot.Dovecot, server: Server, account: Account, *command: str) -> None:
    trusted = running.directory / "ca.pem"  # it reads as somebody else
    trusted.write_bytes((server.directory / "ca.pem").read_bytes())
    far = {
        "imapc_host": "localhost",
        "imapc_port": str(server.port("imaps")),
        "imapc_user": account.user,
        "imapc_password": account.password,
        "imapc_ssl": "imaps",
        "imapc_features": "rfc822.size fetch-headers",
        "ssl_client_ca_file": str(trusted),
        "mail_prefetch_count": "20",
    }
    given = [word for name, value in far.items() for word in ("-o", f"{name}={value}")]
    config = ["-c", str(running.directory / "dovecot.conf")]
    run(needs("doveadm"), *config, *given, *command)


def _everything(client: imaplib.IMAP4) -> dict[bytes, list[object]]:
    out: dict[bytes, list[object]] = {}
    subscribed = {_name(line) for line in client.lsub()[1] if line}
    for line in client.list()[1]:
        name = _name(line)
        found: list[object] = [name in subscribed]
        client.select(b'"%b"' % name if not name.startswith(b'"') else name, readonly=True)
        for number in client.search(None, "ALL")[1][0].split():
            _, parts = client.fetch(number.decode(), "(FLAGS INTERNALDATE BODY.PEEK[])")
            about = b" ".join(part[0] if isinstance(part, tuple) else part for part in parts)
            (raw,) = [part[1] for part in parts if isinstance(part, tuple)]
            found.append(
                (raw, sorted(set(imaplib.ParseFlags(about)) - {b"\\Recent"}), imaplib.Internaldate2tuple(about))
            )
        out[name] = found
    return out


def _name(line: bytes | tuple[bytes, bytes]) -> bytes:
    assert isinstance(line, bytes)
    return line.rpartition(b' "/" ')[2].strip(b'"')


def test_an_account_is_copied_away_and_into_another(server: Server, account: Account, doveadm: dovecot.Dovecot) -> None:
    for number in range(5):
        send(server, account.user, letter(f"letter {number}"))
    with imap(server, *account) as ours:
        ours.create('"T&AOQ-gliches/Sub"')
        ours.append('"T&AOQ-gliches/Sub"', r"(\Flagged custom)", '"01-Feb-2026 10:00:00 +0000"', letter("in a folder"))
        ours.select("INBOX")
        ours.store("1,3", "+FLAGS", r"(\Seen $Label1)")
        ours.store("2", "+FLAGS", r"(\Deleted)")
        ours.expunge()
        before = _everything(ours)
        assert sum(len(found) - 1 for found in before.values()) == 5

    _doveadm(doveadm, server, account, "backup", "-R", "-u", "them", "imapc:")
    theirs = imaplib.IMAP4(doveadm.host, doveadm.port("imap"))
    theirs.login("them", "secret")
    copied = _everything(theirs)
    theirs.logout()
    assert copied == before

    other = Account(f"copy.{account.user}", PASSWORD)
    server.add_user(*other)
    _doveadm(doveadm, server, other, "sync", "-1", "-u", "them", "imapc:")
    with imap(server, *other) as ours:
        assert _everything(ours) == before
