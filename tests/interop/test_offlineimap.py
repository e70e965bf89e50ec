"""offlineimap keeps a Maildir and the server's mailboxes the same, both ways, over TLS that it verifies."""

import os
from collections import Counter
from pathlib import Path

from tests.interop.conftest import Account
from tests.support.mail import imap, letter, needs, run, send
from tests.support.server import Server

_RC = """\
[general]
accounts = tests
metadata = {directory}/metadata
ui = basic

[Account tests]
localrepository = near
remoterepository = far

[Repository near]
type = Maildir
localfolders = {directory}/mail
sep = /

[Repository far]
type = IMAP
remotehost = localhost
remoteport = {port}
remoteuser = {user}
remotepass = {password}
ssl = yes
sslcacertfile = {ca}
auth_mechanisms = PLAIN
"""


def test_two_way_sync(server: Server, account: Account, tmp_path: Path) -> None:
    program = needs("offlineimap")
    rc = tmp_path / "offlineimaprc"
    rc.write_text(
        _RC.format(
            directory=tmp_path,
            port=server.port("imaps"),
            user=account.user,
            password=account.password,
            ca=server.directory / "ca.pem",
        )
    )
    mail = tmp_path / "mail"
    mail.mkdir()

    def sync() -> None:
        done = run(program, "-c", str(rc), "-o", "-1", env={**os.environ, "HOME": str(tmp_path)})
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        assert "ERROR" not in said, said

    def near(folder: str) -> Counter[str]:
        return Counter(
            _subject(path.read_bytes()) for part in ("cur", "new") for path in (mail / folder / part).iterdir()
        )

    for subject in ("one", "two", "three"):
        send(server, account.user, letter(subject))
    sync()
    assert near("INBOX") == Counter(("one", "two", "three"))
    assert (mail / "Archive").is_dir()

    by_subject = {_subject(path.read_bytes()): path for path in (mail / "INBOX" / "new").iterdir()}
    by_subject["one"].unlink()
    read = by_subject["two"]
    read.rename(mail / "INBOX" / "cur" / (read.name.split(":")[0] + ":2,FS"))
    for part in ("cur", "new", "tmp"):
        (mail / "Projects" / part).mkdir(parents=True)
    written = letter("written here").replace(b"\r\n", b"\n")
    (mail / "Projects" / "new" / "1.written.local").write_bytes(written)
    with imap(server, *account) as client:
        client.select("INBOX")
        client.store("3", "+FLAGS", r"(\Deleted)")
        client.expunge()
    send(server, account.user, letter("four"))
    sync()
    sync()

    assert near("INBOX") == Counter(("two", "four"))
    with imap(server, *account) as client:
        client.select("INBOX", readonly=True)
        assert client.search(None, "ALL")[1] == [b"1 2"]
        assert client.search(None, "FLAGGED", "SEEN", "SUBJECT", "two")[1] == [b"1"]
        client.select("Projects", readonly=True)
        _, parts = client.fetch("1:*", "(BODY.PEEK[])")
        (kept,) = [part[1] for part in parts if isinstance(part, tuple)]
    # it leaves a field of its own to find the message again
    lines = [line for line in kept.split(b"\r\n") if not line.startswith(b"X-OfflineIMAP")]
    assert b"\n".join(lines) == written


def _subject(message: bytes) -> str:
    for line in message.splitlines():
        if line.lower().startswith(b"subject: "):
            return line[9:].decode()
    return "(none)"
