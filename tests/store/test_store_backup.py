"""A backup of an open store, and a compaction of a closed one."""

import errno
import os
import struct
from pathlib import Path

import pytest

from fastmta._store import Store
from fastmta.model.errors import StorageFailure
from fastmta.store import MailStore
from fastmta.store import backup as backup_module
from fastmta.store.backup import backup, compact
from fastmta.store.check import check_path
from fastmta.store.guard import hold_alone
from fastmta.store.pace import Pace
from fastmta.store.pages import Pages
from fastmta.store.salvage import salvage
from tests.store.composing import enqueue, file, new_mailbox, run


def test_a_backup_is_a_sound_store_of_its_moment(tmp_path: Path) -> None:
    mail = MailStore.open(tmp_path / "store", sync=False)
    box = new_mailbox(mail.raw)
    file(mail.raw, box, b"x" * 200_000)
    enqueue(mail.raw, 1, 2)
    told: list[tuple[int, int]] = []
    size = backup(mail, tmp_path / "copy", lambda done, total: told.append((done, total)))
    assert told[-1][0] == size > 200_000
    file(mail.raw, box)
    report = check_path(tmp_path / "copy")
    assert (report.problems, report.messages, report.recipients) == ([], 1, 2)
    with pytest.raises(StorageFailure, match="already"):
        backup(mail, tmp_path / "copy")
    mail.close()


def test_compaction_gives_free_pages_back(tmp_path: Path) -> None:
    path = tmp_path / "store"
    store = Store(str(path), sync=False, trash_delay_ms=0)
    box = new_mailbox(store)
    for _ in range(30):
        file(store, box, b"x" * 100_000)
    unit = store.new_unit()
    unit.expunge(box, None, False)
    run(store, unit)
    file(store, box, b"kept")
    store.reap()
    store.close()
    before, after = compact(path)
    assert after < before // 4
    assert check_path(path).problems == []
    mail = MailStore.open(path)
    assert mail.mailboxes.read(box, 31, 0, 10) == b"kept"
    mail.close()


@pytest.mark.parametrize("at_once", [False, True])
def test_an_interrupted_backup_leaves_nothing_and_the_store_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    monkeypatch.setattr(backup_module, "PROGRESS_INTERVAL_S", 0.0 if at_once else 60.0)
    mail = MailStore.open(tmp_path / "store", sync=False)
    box = new_mailbox(mail.raw)
    file(mail.raw, box, b"x" * 3_000_000)

    def interrupt(done: int, total: int) -> None:
        assert (done < 2_000_000) is at_once  # while LMDB still writes, or when all is written
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(mail, tmp_path / "copy", interrupt)
    assert list((tmp_path / "copy").iterdir()) == []
    file(mail.raw, box)
    assert backup(mail, tmp_path / "copy") > 200_000
    mail.close()


def test_only_one_of_an_open_store_and_a_compaction(tmp_path: Path) -> None:
    path = tmp_path / "store"
    mail = MailStore.open(path, sync=False)
    with pytest.raises(StorageFailure, match="open elsewhere"):
        compact(path)
    mail.close()
    guard = hold_alone(path)
    with pytest.raises(StorageFailure, match="compacted"):
        MailStore.open(path)
    os.close(guard)
    MailStore.open(path).close()


def test_a_backup_goes_to_the_disk_piece_by_piece_with_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unwritten: list[int] = []
    rests: list[int] = []
    synced = [0]

    def sync(fd: int) -> None:
        size = os.fstat(fd).st_size
        unwritten.append(size - synced[0])
        synced[0] = size

    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(Pace, "rest", lambda pace: rests.append(1))
    mail = MailStore.open(tmp_path / "store", sync=False)
    box = new_mailbox(mail.raw)
    for _ in range(4):
        file(mail.raw, box, b"x" * 2_000_000)
    size = backup(mail, tmp_path / "copy")
    mail.close()
    assert max(unwritten) <= backup_module.PIECE_BYTES
    assert len(rests) == -(-size // backup_module.PIECE_BYTES)


@pytest.fixture
def damaged(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A closed store with some hundred pages, one of them damaged, or cut off."""
    path = tmp_path / "store"
    store = Store(str(path), sync=False)
    box = new_mailbox(store)
    for number in range(200):
        file(store, box, b"Subject: %d\r\n\r\n" % number * 400)
    store.close()
    data = (path / "data.mdb").read_bytes()
    if request.param == "cut":
        with (path / "data.mdb").open("r+b") as file_:
            file_.truncate(len(data) // 2)
        return path
    kind = {"leaf": 2, "branch": 1}[request.param]
    pages = Pages(path)
    pages.walk()
    reached = sorted(pages.visited)
    pages.close()
    number = next(n for n in reversed(reached) if struct.unpack_from("<H", data, n * 4096 + 10) == (kind,))
    with (path / "data.mdb").open("r+b") as file_:
        file_.seek(number * 4096 + 16)
        file_.write(b"\xff" * 8)
    return path


@pytest.mark.parametrize("damaged", ["leaf", "branch", "cut"], indirect=True)
def test_a_damaged_store_is_not_copied_and_the_page_is_named(damaged: Path, tmp_path: Path) -> None:
    before = (damaged / "data.mdb").read_bytes()
    with pytest.raises(StorageFailure, match=r"page \d+ of .* cannot be read.*store salvage"):
        compact(damaged)
    assert (damaged / "data.mdb").read_bytes() == before
    try:
        mail = MailStore.open(damaged)
    except StorageFailure as error:  # it cannot even be opened
        assert "damaged" in str(error)
    else:
        with pytest.raises(StorageFailure, match=r"page \d+ of .* cannot be read.*store salvage"):
            backup(mail, tmp_path / "copy")
        mail.close()
        assert os.listdir(tmp_path / "copy") == []
    assert not [name for name in os.listdir(damaged) if "compacted" in name]


def test_a_sector_that_the_disk_cannot_give_is_a_page_that_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    store = Store(str(path), sync=False)
    box = new_mailbox(store)
    for number in range(100):
        file(store, box, b"Subject: %d\r\n\r\n" % number * 400)
    store.close()
    pages = Pages(path)
    pages.walk()
    bad = max(pages.visited)
    pages.close()
    pread = os.pread

    def reading(fd: int, size: int, at: int) -> bytes:
        if at // 4096 == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, size, at)

    monkeypatch.setattr(os, "pread", reading)
    outcome = salvage(path, tmp_path / "saved")
    assert any(f"page {bad} of " in line and "Input/output error" in line for line in outcome.lost)
    assert check_path(tmp_path / "saved").problems == []
    with pytest.raises(StorageFailure, match=f"page {bad} of "):
        compact(path)
