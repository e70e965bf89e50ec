"""`fastmta store backup / compact`: copies of one moment, and a file that is replaced only while nobody has it open."""

import os
import pty
import struct
import threading
from pathlib import Path

import pytest

from fastmta.cli.failures import EX_CANTCREAT, EX_DATAERR, EX_IOERR, EX_NOINPUT, EX_TEMPFAIL
from fastmta.cli.store import progress
from fastmta.config.load import load
from fastmta.runtime.lock import lock_directory
from fastmta.store import MailStore
from fastmta.store.check import check_path
from fastmta.store.guard import hold_alone
from fastmta.store.pages import Pages
from tests.support.pickup import pick_up


@pytest.fixture
def directory(cli, tmp_path):
    cli.user()
    assert cli.sendmail("bill@example.test").code == 0
    return Path(load(tmp_path / "fastmta.toml").data_directory)


def test_backup_holds_what_the_store_held(cli, tmp_path, directory):
    done = cli.ok("store", "backup", str(tmp_path / "copy"))
    assert f"written to {tmp_path / 'copy'}" in done.out
    report = check_path(tmp_path / "copy")
    assert (report.problems, report.messages) == ([], 1)
    assert (tmp_path / "copy" / "data.mdb").stat().st_mode & 0o077 == 0


def test_backup_does_not_overwrite_another(cli, tmp_path, directory):
    cli.ok("store", "backup", str(tmp_path / "copy"))
    done = cli("store", "backup", str(tmp_path / "copy"))
    assert (done.code, "holds a store already" in done.err) == (EX_CANTCREAT, True)


@pytest.mark.parametrize("command", ["backup", "compact"])
def test_a_copy_is_not_written_through_a_link(cli, tmp_path, directory, command):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    target = directory if command == "compact" else tmp_path / "copy"
    target.mkdir(exist_ok=True)
    (target / {"backup": "data.mdb.part", "compact": "data.mdb.compacted.part"}[command]).symlink_to(precious)
    cli.ok("store", command, *([str(target)] if command == "backup" else []))
    assert precious.read_text() == "kept"
    assert check_path(target).problems == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_salvage_gives_away_only_the_directory_that_it_makes(cli, tmp_path, directory):
    for path in (directory, *directory.rglob("*")):
        os.lchown(path, 65534, 65534)
    tmp_path.chmod(0o711)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    roots = tmp_path / "roots"
    roots.mkdir()
    (tmp_path / "link").symlink_to(roots)
    assert cli("store", "salvage", str(directory), str(tmp_path / "link")).code == EX_TEMPFAIL
    assert roots.stat().st_uid == 0
    cli.ok("store", "salvage", str(directory), str(tmp_path / "new"))
    assert (tmp_path / "new").stat().st_uid == (tmp_path / "new" / "data.mdb").stat().st_uid == 65534


def test_compact_keeps_the_mail_and_the_owner(cli, directory):
    before = cli.mail()
    owner = (directory / "data.mdb").stat()
    assert "before" in cli.ok("store", "compact").out
    after = (directory / "data.mdb").stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (owner.st_uid, owner.st_gid, owner.st_mode)
    assert cli.mail() == before
    assert cli.sendmail("bill@example.test").code == 0
    assert len(cli.mail()) == 2


def test_compact_is_refused_while_a_server_runs(cli, directory):
    lock = lock_directory(directory)
    try:
        done = cli("store", "compact")
    finally:
        os.close(lock)
    assert (done.code, "is in use by fastmta pid" in done.err) == (EX_TEMPFAIL, True)


def test_compact_is_refused_while_a_command_has_the_store_open(cli, directory):
    other = MailStore.open(directory)
    try:
        done = cli("store", "compact")
    finally:
        other.close()
    assert (done.code, "is open elsewhere" in done.err) == (EX_TEMPFAIL, True)


def test_mail_that_comes_during_a_compaction_waits_in_the_spool(cli, directory):
    guard = hold_alone(directory)
    try:
        done = cli.sendmail("bill@example.test")
    finally:
        os.close(guard)
    assert done.code == 0
    assert len(cli.mail()) == 1
    pick_up(cli.config)
    assert len(cli.mail()) == 2


def test_compact_without_a_store_says_so(cli):
    assert cli("store", "compact").code == EX_NOINPUT


def test_a_terminal_shows_a_bar(cli, tmp_path, directory, monkeypatch):
    controller, terminal = pty.openpty()
    shown = bytearray()

    def drain():
        while True:
            try:
                data = os.read(controller, 4096)
            except OSError:  # the other end is closed
                return
            if not data:
                return
            shown.extend(data)

    reader = threading.Thread(target=drain)
    reader.start()
    with open(terminal, "w") as stream, monkeypatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        patch.setenv("TERM", "xterm")
        with progress("backup") as told:
            told(50, 100)
            told(120, 100)
    reader.join()
    os.close(controller)
    assert b"backup" in shown


def root_page(directory: Path, what: str) -> int:
    """Which page leads to the databases ("names"), or to the records of one of them."""
    if what == "names":
        raw = (directory / "data.mdb").read_bytes()
        metas = [struct.unpack_from("<IIQQ48s48sQQ", raw, 4096 * number + 16) for number in range(2)]
        return int.from_bytes(max(metas, key=lambda meta: meta[7])[5][-8:], "little")
    pages = Pages(directory)
    try:
        return pages._roots[what.encode()]
    finally:
        pages.close()


@pytest.mark.parametrize("command", ["backup", "compact", "check"])
@pytest.mark.parametrize("what", ["names", "directory"])
def test_a_store_that_cannot_be_opened_is_named_with_its_page_and_the_remedy(cli, tmp_path, directory, what, command):
    page = root_page(directory, what)
    with open(directory / "data.mdb", "r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xff" * 4096)
    done = cli("store", command, *([str(tmp_path / "copy")] if command == "backup" else []))
    assert done.code == (EX_DATAERR if command == "check" else EX_IOERR)
    told = done.out + done.err
    assert f"page {page} of {'main' if what == 'names' else what} cannot be read" in told
    if command != "check":
        assert str(directory / "data.mdb") in told
        assert "fastmta store salvage" in told
        assert told.count("\n") == 1


@pytest.mark.parametrize("command", ["backup", "compact"])
def test_without_a_meta_page_only_a_backup_helps(cli, tmp_path, directory, command):
    with open(directory / "data.mdb", "r+b") as file:
        file.write(bytes(8192))
    done = cli("store", command, *([str(tmp_path / "copy")] if command == "backup" else []))
    assert done.code == EX_IOERR
    assert "neither meta page can be read" in done.err
    assert f"put the data.mdb of a backup in the place of {directory / 'data.mdb'}" in done.err
