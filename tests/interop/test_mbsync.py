"""mbsync keeps a Maildir and the server's mailboxes the same, both ways: nothing is lost, nothing doubled."""

import os
import stat
from collections import Counter
from pathlib import Path

import pytest

from tests.interop.conftest import Account
from tests.support.mail import imap, letter, needs, run, send
from tests.support.server import Server

_RC = """\
IMAPAccount test
Host {host}
Port {port}
User {user}
Pass {password}
SSLType {ssl}
{certificate}AuthMechs PLAIN

IMAPStore far
Account test

MaildirStore near
Path {maildir}/
Inbox {maildir}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Remove Both
Expunge Both
Sync All
SyncState *
CopyArrivalDate yes
"""


class Sync:
    def __init__(self, server: Server, account: Account, directory: Path, service: str) -> None:
        self.maildir = directory / "mail"
        self.maildir.mkdir()
        self._rc = directory / "mbsyncrc"
        tls = service == "imaps"
        self._rc.write_text(
            _RC.format(
                host="localhost" if tls else server.host,
                port=server.port(service),
                user=account.user,
                password=account.password,
                ssl="IMAPS" if tls else "None",
                certificate=f"CertificateFile {server.directory / 'cert.pem'}\n" if tls else "",
                maildir=self.maildir,
            )
        )
        self._rc.chmod(stat.S_IRUSR | stat.S_IWUSR)
        self._home = directory

    def run(self) -> str:
        done = run(needs("mbsync"), "-c", str(self._rc), "-a", "-V", env={**os.environ, "HOME": str(self._home)})
        return (done.stdout + done.stderr).decode("utf-8", "replace")

    def near(self, folder: str = "INBOX") -> Counter[str]:
        """The subjects in the Maildir, with how often each is there."""
        return Counter(_subject(path.read_bytes()) for path in self.files(folder))

    def files(self, folder: str = "INBOX") -> list[Path]:
        return [path for part in ("cur", "new") for path in (self.maildir / folder / part).iterdir()]

    def put(self, subject: str, folder: str = "INBOX") -> None:
        name = f"{os.getpid()}.{subject.replace(' ', '_')}.local"
        (self.maildir / folder / "new" / name).write_bytes(letter(subject).replace(b"\r\n", b"\n"))


def _subject(message: bytes) -> str:
    for line in message.splitlines():
        if line.lower().startswith(b"subject: "):
            return line[9:].decode()
    return "(none)"


def _far(server: Server, account: Account, folder: str = "INBOX") -> Counter[str]:
    with imap(server, *account) as client:
        status, counted = client.select(folder, readonly=True)
        assert status == "OK", counted
        if counted == [b"0"]:
            return Counter()
        _, parts = client.fetch("1:*", "(BODY.PEEK[HEADER])")
        return Counter(_subject(part[1]) for part in parts if isinstance(part, tuple))


@pytest.mark.parametrize("service", ["imap", "imaps"])
def test_two_way_sync_twice(server: Server, account: Account, tmp_path: Path, service: str) -> None:
    needs("mbsync")
    sync = Sync(server, account, tmp_path, service)
    arrived = [f"arrived {number}" for number in range(10)]
    for subject in arrived:
        send(server, account.user, letter(subject))
    sync.run()
    assert sync.near() == Counter(arrived)

    written = [f"written {number}" for number in range(3)]
    for subject in written:
        sync.put(subject)
    sync.run()
    assert _far(server, account) == sync.near() == Counter(arrived + written)

    sync.run()
    assert _far(server, account) == sync.near() == Counter(arrived + written)


def test_flags_and_deletions_travel_both_ways(server: Server, account: Account, tmp_path: Path) -> None:
    needs("mbsync")
    sync = Sync(server, account, tmp_path, "imap")
    for subject in ("one", "two", "three", "four"):
        send(server, account.user, letter(subject))
    sync.run()

    by_subject = {_subject(path.read_bytes()): path for path in sync.files()}
    by_subject["one"].unlink()
    read = by_subject["two"]
    read.rename(sync.maildir / "INBOX" / "cur" / (read.name.split(":")[0] + ":2,FS"))
    with imap(server, *account) as client:
        client.select("INBOX")
        _, found = client.search(None, "SUBJECT", "three")
        client.store(found[0].decode(), "+FLAGS.SILENT", r"(\Deleted)")
        client.expunge()
    send(server, account.user, letter("five"))
    sync.run()
    sync.run()

    assert sync.near() == _far(server, account) == Counter(["two", "four", "five"])
    with imap(server, *account) as client:
        client.select("INBOX", readonly=True)
        _, found = client.search(None, "FLAGGED", "SEEN")
        assert len(found[0].split()) == 1


def test_a_new_folder_and_bytes_travel(server: Server, account: Account, tmp_path: Path) -> None:
    needs("mbsync")
    sync = Sync(server, account, tmp_path, "imap")
    sync.run()
    for part in ("cur", "new", "tmp"):
        (sync.maildir / "Projects" / part).mkdir(parents=True)
    sync.put("in a folder", "Projects")
    original = sync.files("Projects")[0].read_bytes()
    sync.run()
    assert _far(server, account, "Projects") == Counter(["in a folder"])
    with imap(server, *account) as client:
        client.select("Projects", readonly=True)
        _, parts = client.fetch("1", "(BODY.PEEK[])")
        (kept,) = [part[1].replace(b"\r\n", b"\n") for part in parts if isinstance(part, tuple)]
    # mbsync may add its own X-TUID line on the way
    assert b"\n".join(line for line in kept.split(b"\n") if not line.startswith(b"X-TUID")) == original
