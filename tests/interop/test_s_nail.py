"""s-nail, the mailx of many systems: it sends over submissions, and reads, flags, copies and deletes over IMAPS."""

import os
from pathlib import Path
from urllib.parse import quote

from tests.interop.conftest import Account
from tests.support.mail import imap, letter, messages, needs, run, send, wait_for_messages
from tests.support.server import Server


def _s_nail(server: Server, account: Account, directory: Path, *arguments: str, stdin: bytes) -> str:
    login = f"{quote(account.user, safe='')}:{account.password}@localhost"
    options = {
        "v15-compat": "",
        "tls-ca-no-defaults": "",
        "tls-ca-file": str(server.directory / "ca.pem"),
        "tls-verify": "strict",
        "from": account.user,
        "mta": f"smtps://{login}:{server.port('submissions')}",
        "smtp-auth": "plain",
        "sendwait": "",
        "sendcharsets": "utf-8",
        "folder": f"imaps://{login}:{server.port('imaps')}",
        "imap-auth": "login",
        "batch-exit-on-error": "",
        "ttycharset": "utf-8",
    }
    given = [f"-S{name}={value}" if value else f"-S{name}" for name, value in options.items()]
    environment = {**os.environ, "HOME": str(directory), "TMPDIR": str(directory), "LC_ALL": "C.UTF-8"}
    done = run(needs("s-nail"), "-:/", "-#", *given, *arguments, stdin=stdin, env=environment)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def test_send(server: Server, account: Account, tmp_path: Path) -> None:
    attached = tmp_path / "attached.bin"
    attached.write_bytes(bytes(range(256)) * 20)
    body = "Grüße,\n.\nFrom s-nail\n".encode()
    arguments = ("-s", "from s-nail", "-a", str(attached), account.user)
    _s_nail(server, account, tmp_path, *arguments, stdin=body)
    (found,) = wait_for_messages(server, *account, 1)
    assert b"\r\nSubject: from s-nail\r\n" in found and b"attached.bin" in found


def test_read_flag_copy_and_delete(server: Server, account: Account, tmp_path: Path) -> None:
    for subject in ("keep me", "delete me", "file me"):
        send(server, account.user, letter(subject))
    commands = b"headers\nprint 1\nflag 1\ncopy 3 +Archive\ndelete 2\nquit\n"
    drawn = _s_nail(server, account, tmp_path, "-f", "+INBOX", stdin=commands)
    assert "delete me" in drawn and "Grüße aus Köln" in drawn
    assert len(messages(server, *account)) == 2
    with imap(server, *account) as client:
        client.select("INBOX", readonly=True)
        assert client.search(None, "FLAGGED", "SEEN", "SUBJECT", "keep")[1] == [b"1"]
        client.select("Archive", readonly=True)
        assert client.search(None, "SUBJECT", "file")[1] == [b"1"]
