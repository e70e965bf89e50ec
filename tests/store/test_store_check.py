"""The check of all records: silent on a sound store, and one finding at least for each kind of damage."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fastmta import _store
from fastmta._store import Store
from fastmta.store import MailStore
from fastmta.store.check import check, check_path, check_store
from tests.store.composing import HOP, enqueue, file, move, new_mailbox, run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    store = Store(str(path), sync=False)
    box = new_mailbox(store)
    for number in range(3):
        file(store, box, b"%d" % number * 70_000)
    queue_id = enqueue(store, 1, 2, 3)
    assert move(store, queue_id, 1, 2, 2) == ""
    store.close()
    return path


def first(store: Store, table: int, length: int) -> tuple[bytes, bytes]:
    return next(row for row in store.scan(table, b"") if len(row[0]) == length)


def changed(value: bytes, at: int) -> bytes:
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


DAMAGE: dict[str, tuple[int, int, int | None]] = {
    # table, length of the key, which byte of the value is turned (None: the record goes)
    "a chunk's byte": (_store.TABLE_BLOB, 12, 100),
    "a chunk": (_store.TABLE_BLOB, 12, None),
    "a blob's record": (_store.TABLE_BLOB, 8, None),
    "a blob's references": (_store.TABLE_BLOB, 8, 8),
    "a blob's size": (_store.TABLE_BLOB, 8, 16),
    "a blob's digest": (_store.TABLE_BLOB, 8, 24),
    "a message": (_store.TABLE_MESSAGE, 12, None),
    "a message's flags": (_store.TABLE_MESSAGE, 12, 4),
    "a message's modseq": (_store.TABLE_MESSAGE, 12, 24),
    "a mailbox": (_store.TABLE_MAILBOX, 8, None),
    "a mailbox's exists": (_store.TABLE_MAILBOX, 8, 20),
    "a mailbox's name": (_store.TABLE_MAILBOX_NAME, 13, None),
    "a change row": (_store.TABLE_CHANGE, 21, None),
    "usage": (_store.TABLE_USAGE, 8, 16),
    "a queue row": (_store.TABLE_QUEUE, 8, None),
    "a queue row's count": (_store.TABLE_QUEUE, 8, 4),
    "a recipient": (_store.TABLE_QUEUE, 12, None),
    "a recipient's due": (_store.TABLE_QUEUE, 12, 8),
    "a schedule row": (_store.TABLE_SCHEDULE, 1 + len(HOP) + 21, None),
    "a hop's place": (_store.TABLE_HOP, 9 + len(HOP), None),
    "a hop's counts": (_store.TABLE_HOP_STATE, len(HOP), 4),
    "an index row": (_store.TABLE_QUEUE_BY_AGE, 20, None),
    "a row of the index by reply": (_store.TABLE_QUEUE_BY_ERROR, 9 + 1 + 12, None),
    "a held recipient's place": (_store.TABLE_SCHEDULE, 1 + len(HOP) + 21, None),
    "a row of the index by tenant": (_store.TABLE_QUEUE_BY_TENANT, 6 + 1 + 12, None),
    "a tenant's counts": (_store.TABLE_QUEUE_COUNT, 1 + 6 + 1 + 4, 8),
    "the queue's counts": (_store.TABLE_QUEUE_COUNT, 0, 8),
    "the queue's bytes": (_store.TABLE_QUEUE_COUNT, 0, 40),
    "a domain's counts": (_store.TABLE_QUEUE_COUNT, 1 + 11 + 1 + 4, 8),
    "no counts of a domain": (_store.TABLE_QUEUE_COUNT, 1 + 11 + 1 + 4, None),
}


def test_a_sound_store_has_no_problems(path: Path) -> None:
    report = check_path(path)
    assert report.is_sound
    assert (report.messages, report.mailboxes, report.queued, report.recipients) == (3, 1, 1, 3)
    assert report.blobs == 4


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found(path: Path, what: str) -> None:
    table, length, at = DAMAGE[what]
    store = Store(str(path), sync=False)
    key, value = first(store, table, length)
    unit = store.new_unit()
    if at is None:
        unit.delete(table, key)
    else:
        unit.put(table, key, changed(value, at))
    assert run(store, unit) == ""
    assert check_store(store).problems != []
    store.close()


def test_an_orphaned_structure_is_found(path: Path) -> None:
    store = Store(str(path), sync=False)
    key, value = first(store, _store.TABLE_ENVELOPE, 12)
    unit = store.new_unit()
    unit.put(_store.TABLE_ENVELOPE, key[:8] + b"\0\0\0\x63", value)
    unit.put(_store.TABLE_ACCOUNT_NAME, b"ghost", bytes(8))
    assert run(store, unit) == ""
    assert len(check_store(store).problems) == 2
    store.close()


def test_problems_are_told_one_by_one(path: Path) -> None:
    mail = MailStore.open(path, sync=False)
    told: list[str] = []
    report: Callable[[str], None] = told.append
    assert check(mail, report) == 0
    unit = mail.raw.new_unit()
    unit.delete(_store.TABLE_SCHEDULE, first(mail.raw, _store.TABLE_SCHEDULE, 1 + len(HOP) + 21)[0])
    mail.commit_sync(unit)
    assert check(mail, report) == len(told) > 0
    mail.close()
