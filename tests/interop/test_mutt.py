"""mutt sends in batch mode, over STARTTLS with AUTH, and reads and deletes over IMAP on a terminal."""

import contextlib
import os
import pty
import select
import subprocess
import time
from pathlib import Path

from tests.interop.conftest import Account
from tests.support.mail import letter, messages, needs, run, send
from tests.support.server import Server

_RC = """\
set from = "{user}"
set realname = "Interop"
set use_envelope_from = no
set smtp_url = "smtp://{user}@{host}:{submission}/"
set smtp_pass = "{password}"
set smtp_authenticators = "plain"
set folder = {directory}
set ssl_starttls = yes
set ssl_force_tls = no
set ssl_verify_host = no
set certificate_file = {directory}/certificates
set imap_user = "{user}"
set imap_pass = "{password}"
set copy = no
set header_cache = ""
set delete = yes
set confirmappend = no
set quit = yes
set mail_check = 0
set record = ""
unset confirmcreate
set postponed = {directory}/postponed
"""


def _configured(server: Server, account: Account, directory: Path) -> tuple[list[str], dict[str, str]]:
    rc = directory / "muttrc"
    rc.write_text(
        _RC.format(
            user=account.user,
            password=account.password,
            host=server.host,
            submission=server.port("submission"),
            directory=directory,
        )
    )
    # What is in this file is trusted: our self-signed certificate.
    (directory / "certificates").write_bytes((server.directory / "cert.pem").read_bytes())
    environment = {**os.environ, "HOME": str(directory), "TERM": "xterm", "LANG": "C.UTF-8", "TMPDIR": str(directory)}
    return [needs("mutt"), "-n", "-F", str(rc)], environment


def test_batch_send(server: Server, account: Account, tmp_path: Path) -> None:
    mutt, environment = _configured(server, account, tmp_path)
    attachment = tmp_path / "attached.bin"
    attachment.write_bytes(bytes(range(256)) * 40)
    body = b"Gr\xc3\xbc\xc3\x9fe,\n.\nFrom mutt\n"
    run(
        *[*mutt, "-s", "from mutt", "-a", str(attachment), "--", account.user],
        stdin=body,
        env=environment,
    )
    (found,) = messages(server, *account)
    assert b"\r\nSubject: from mutt\r\n" in found
    assert b"attached.bin" in found


def _at_terminal(command: list[str], environment: dict[str, str], timeout_s: float = 30.0) -> str:
    """Runs a full-screen program to its end on a terminal of its own; gives what it drew."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    drawn = b""
    deadline = time.monotonic() + timeout_s
    try:
        while process.poll() is None and time.monotonic() < deadline:
            if select.select([leader], [], [], 0.1)[0]:
                try:
                    drawn += os.read(leader, 65536)
                except OSError:  # the program has closed its terminal
                    break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(leader)
    text = drawn.decode("utf-8", "replace")
    assert process.returncode == 0, text[-3000:]
    return text


def test_read_and_delete(server: Server, account: Account, tmp_path: Path) -> None:
    mutt, environment = _configured(server, account, tmp_path)
    for subject in ("keep me", "delete me"):
        send(server, account.user, letter(subject))
    url = f"imap://{server.host}:{server.port('imap')}/INBOX"
    saved = tmp_path / "saved"
    keys = (
        f"<tag-pattern>~A<enter><tag-prefix-cond><copy-message>{saved}<enter>"
        "<delete-pattern>~s 'delete me'<enter><sync-mailbox><quit>"
    )
    drawn = _at_terminal([*mutt, "-f", url, "-e", f'push "{keys}"'], environment)
    assert saved.exists(), drawn[-3000:]
    copied = saved.read_bytes()
    assert copied.count(b"\nSubject: ") == 2
    assert "Grüße aus Köln".encode() in copied
    (left,) = messages(server, *account)
    assert b"Subject: keep me" in left
