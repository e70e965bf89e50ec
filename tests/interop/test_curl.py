"""curl over SMTP, IMAP and POP3, with and without TLS."""

from pathlib import Path

import pytest

from tests.interop.conftest import Account
from tests.support.mail import letter, messages, needs, run, send
from tests.support.server import Server


def _curl(account: Account | None, *arguments: str, stdin: bytes = b"") -> bytes:
    login = ["--user", f"{account.user}:{account.password}"] if account else []
    return run(needs("curl"), "--silent", "--show-error", "--insecure", *login, *arguments, stdin=stdin).stdout


def _url(server: Server, scheme: str, service: str, path: str = "") -> str:
    return f"{scheme}://{server.host}:{server.port(service)}/{path}"


def _upload(server: Server, scheme: str, service: str, account: Account, message: bytes, *options: str) -> None:
    sender = account.user
    target = ["--mail-from", sender, "--mail-rcpt", account.user, "--upload-file", "-"]
    login = account if service != "smtp" else None
    _curl(login, *options, *target, _url(server, scheme, service, "client.example"), stdin=message)


@pytest.mark.parametrize(
    ("scheme", "service", "options"),
    [("smtp", "smtp", ()), ("smtp", "submission", ("--ssl-reqd",)), ("smtps", "submissions", ())],
    ids=["smtp", "starttls", "smtps"],
)
def test_smtp(server: Server, account: Account, scheme: str, service: str, options: tuple[str, ...]) -> None:
    message = letter("curl")
    _upload(server, scheme, service, account, message, *options)
    (found,) = messages(server, *account)
    assert found.endswith(message)


@pytest.mark.parametrize(
    ("scheme", "service", "options"),
    [("imap", "imap", ()), ("imap", "imap", ("--ssl-reqd",)), ("imaps", "imaps", ())],
    ids=["imap", "starttls", "imaps"],
)
def test_imap(
    server: Server, account: Account, tmp_path: Path, scheme: str, service: str, options: tuple[str, ...]
) -> None:
    message = letter("by append")
    upload = tmp_path / "message"  # the literal's length must be known first
    upload.write_bytes(message)
    _curl(account, *options, "--upload-file", str(upload), _url(server, scheme, service, "INBOX"))
    assert b"EXISTS" in _curl(account, *options, "--request", "EXAMINE INBOX", _url(server, scheme, service))
    assert b"* SEARCH 1" in _curl(account, *options, _url(server, scheme, service, "INBOX?SUBJECT%20append"))
    assert _curl(account, *options, _url(server, scheme, service, "INBOX;MAILINDEX=1")) == message
    header = _curl(account, *options, _url(server, scheme, service, "INBOX;UID=1;SECTION=HEADER.FIELDS%20(SUBJECT)"))
    assert header == b"Subject: by append\r\n\r\n"
    listing = _curl(account, *options, _url(server, scheme, service))
    assert b"INBOX" in listing
    assert b"Sent" in listing


@pytest.mark.parametrize(
    ("scheme", "service", "options"),
    [("pop3", "pop3", ()), ("pop3", "pop3", ("--ssl-reqd",)), ("pop3s", "pop3s", ())],
    ids=["pop3", "stls", "pop3s"],
)
def test_pop3(server: Server, account: Account, scheme: str, service: str, options: tuple[str, ...]) -> None:
    sent = [letter("first"), letter("second")]
    for message in sent:
        send(server, account.user, message)
    assert len(_curl(account, *options, _url(server, scheme, service)).splitlines()) == 2
    assert _curl(account, *options, _url(server, scheme, service, "2")).endswith(sent[1])
    _curl(account, *options, "--list-only", "--request", "DELE", _url(server, scheme, service, "1"))
    (left,) = messages(server, *account)
    assert left.endswith(sent[1])
