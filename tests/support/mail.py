"""What every test of a whole server needs: a letter to send, and a look into a mailbox with the standard library."""

import imaplib
import poplib
import shutil
import smtplib
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest

TIMEOUT_S = 60.0


class Site(Protocol):
    """A server's address and ports."""

    @property
    def host(self) -> str: ...
    def port(self, service: str) -> int: ...


def letter(
    subject: str, *, sender: str = "sender@client.example", to: str = "user@example.test", body: str = ""
) -> bytes:
    """A message with everything that is easily damaged: 8-bit text, dots, trailing blanks, a last line alone."""
    lines = [
        f"From: <{sender}>",
        f"To: <{to}>",
        f"Subject: {subject}",
        f"Message-ID: <{subject.replace(' ', '.')}.{time.time_ns()}@client.example>",
        "Date: Mon, 02 Mar 2026 10:00:00 +0000",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        body or "Grüße aus Köln,",
        ".",
        "..two dots",
        ".a dot and a letter",
        "",
        "trailing blanks:   ",
        "\tand a tab",
        "From a line that mbox would quote",
        "the end",
    ]
    return "".join(line + "\r\n" for line in lines).encode()


def send(site: Site, to: str | Sequence[str], message: bytes, *, sender: str = "sender@client.example") -> None:
    """Hands a message in at the SMTP port, without authentication."""
    with smtplib.SMTP(site.host, site.port("smtp"), local_hostname="client.example", timeout=TIMEOUT_S) as client:
        options = ["BODY=8BITMIME"] if client.ehlo()[0] == 250 and client.has_extn("8bitmime") else []
        client.sendmail(sender, [to] if isinstance(to, str) else list(to), message, options)


def messages(site: Site, user: str, password: str) -> list[bytes]:
    """All of a maildrop over POP3, with CRLF; nothing is deleted."""
    client = poplib.POP3(site.host, site.port("pop3"), timeout=TIMEOUT_S)
    try:
        client.user(user)
        client.pass_(password)
        count, _ = client.stat()
        return [b"".join(line + b"\r\n" for line in client.retr(number)[1]) for number in range(1, count + 1)]
    finally:
        client.quit()


def wait_for_messages(
    site: Site, user: str, password: str, count: int, timeout_s: float = TIMEOUT_S, *, subject: str = ""
) -> list[bytes]:
    """The maildrop when at least `count` messages (of that subject) are in it; the test fails when they don't come."""
    deadline = time.monotonic() + timeout_s
    wanted = f"\r\nSubject: {subject}\r\n".encode()
    while True:
        found = [message for message in messages(site, user, password) if not subject or wanted in message]
        if len(found) >= count:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"{user} has {len(found)} messages after {timeout_s} s, {count} are expected")
        time.sleep(0.05)


def imap(site: Site, user: str, password: str, *, tls: bool = False) -> imaplib.IMAP4:
    """A logged-in IMAP client."""
    client: imaplib.IMAP4
    if tls:
        client = imaplib.IMAP4_SSL(site.host, site.port("imaps"), ssl_context=unverified(), timeout=TIMEOUT_S)
    else:
        client = imaplib.IMAP4(site.host, site.port("imap"), timeout=TIMEOUT_S)
    client.login(user, password)
    return client


def unverified() -> ssl.SSLContext:
    """A client context for the self-signed certificates of tests."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def needs(program: str) -> str:
    """The path of a distribution's program; the test skips, visibly, where it is not installed."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed (tests/install_packages.sh)")
    return found


def run(
    *command: str, stdin: bytes = b"", env: dict[str, str] | None = None, check: bool = True, cwd: Path | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Runs a client program to its end; what it said is in the failure."""
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, env=env, cwd=cwd, check=False)
    if check and done.returncode:
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{said[-4000:]}")
    return done
