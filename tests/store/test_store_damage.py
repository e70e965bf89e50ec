"""A damaged page is an error wherever it is met, never a shorter answer, and never the end of the process."""

import random
import shutil
import struct
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastmta import _store
from fastmta._store import TABLE_ALIAS, TABLE_MESSAGE, TABLE_META, Store
from fastmta.imap.fetch_lines import fetch_lines
from fastmta.model.errors import StorageFailure, StoreDamaged
from fastmta.store.check import check_store
from fastmta.store.mailstore import MailStore
from tests.store.composing import blob_of, enqueue, file, new_mailbox, run, uids

PAGE = 4096
MESSAGES = 400
BRANCH, LEAF, OVERFLOW = 1, 2, 4
FILLS = (b"\xff" * 8, bytes(8), b"\xa5\x13\x77\x08\x00\x00\x01\xfe")
NUMBERS = array("I", range(1, MESSAGES + 1))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A store of some hundred pages of every kind, and its mailbox."""
    path = tmp_path_factory.mktemp("sound") / "store"
    store = Store(str(path), sync=False)
    box = new_mailbox(store)
    for number in range(MESSAGES):
        file(store, box, (b"Subject: %d\r\n\r\n" % number) * (1 + number % 7 * 300), keywords=b"k%d" % (number % 3))
    for number in range(60):
        enqueue(store, 1, 2, 3, hop=b"smtp:h%d" % (number % 9))
    for number in range(50):
        unit = store.new_unit()
        unit.put(TABLE_ALIAS, b"alias%d@example" % number, b"\x91\xa1x")
        assert run(store, unit) == ""
    store.close()
    return path, box


def pages_of(data: bytes, kind: int) -> list[int]:
    """Numbers of the pages that begin as one of this kind does (some may be free)."""
    return [
        number
        for number in range(2, len(data) // PAGE)
        if struct.unpack_from("<QHH", data, number * PAGE) == (number, 0, kind)
    ]


def fetched(store: Store, box: int, items: int) -> int:
    at = lines = 0
    while at < MESSAGES:
        text, following = fetch_lines(MailStore(store).mailboxes, box, NUMBERS, NUMBERS, items, at, 1 << 18)
        if following == at:  # a message that is too large for this way is read by pieces
            assert len(_store.message_read(store, box, NUMBERS[at], 0, 1) or b"") == 1
            following += 1
        lines += text.count(b" FETCH (UID ")
        at = following
    return lines


READS: dict[str, Callable[[Store, int], Any]] = {
    "uids": lambda store, box: list(_store.mailbox_uids(store, box)),
    "summary": lambda store, box: [len(column) for column in _store.mailbox_summary(store, box)],
    "rows": lambda store, box: len(_store.message_rows(store, box, None)),
    "changes": lambda store, box: len(_store.mailbox_changes(store, box, 0)[0]),
    "lines": lambda store, box: fetched(store, box, 255),
    "whole": lambda store, box: fetched(store, box, 1 | 256),
    "read": lambda store, box: [len(_store.message_read(store, box, uid, 0, 1 << 18) or b"") for uid in NUMBERS],
    "alias": lambda store, box: len(store.scan(TABLE_ALIAS, b"")),
    "one alias": lambda store, box: [store.get(TABLE_ALIAS, b"alias%d@example" % n) is None for n in range(50)],
    "queue": lambda store, box: len(store.scan(_store.TABLE_QUEUE, b"")),
    "list": lambda store, box: len(_store.mailbox_list(store, 1)),
    "due": lambda store, box: [len(_store.hop_due(store, b"smtp:h%d" % n, 2**60, 1000, b"")) for n in range(9)],
    "hops": lambda store, box: len(_store.hops_due(store, range(256), 2**60, 1000)),
    "modseq": lambda store, box: _store.mailbox_modseq(store, box) > 0,
}


def answers(store: Store, box: int) -> dict[str, Any]:
    out = {}
    for name, read in READS.items():
        try:
            out[name] = read(store, box)
        except StorageFailure:
            out[name] = "damage"
    return out


def write(store: Store, box: int) -> list[str]:
    """Every kind of change, each of which may fail by itself."""
    outcomes = []
    for fill in (
        lambda unit: unit.flags(box, uids(*NUMBERS), 1, 8, b"", -1),
        lambda unit: unit.expunge(box, uids(3, 200, 399), False),
        lambda unit: unit.put(TABLE_ALIAS, b"z", b"z"),
        lambda unit: unit.copy(box, uids(10, 300), box, False),
    ):
        unit = store.new_unit()
        fill(unit)
        outcomes.append(run(store, unit))
    try:
        blob = blob_of(store, b"new" * 100)
    except StorageFailure:  # identifiers are counted on that page
        return outcomes
    unit = store.new_unit()
    unit.blob(blob)
    unit.append(box, blob.blob_id, b"", 0, b"", 1, 0, bytes(16))
    outcomes.append(run(store, unit))
    return outcomes


def damaged_copy(sound: Path, target: Path, places: list[tuple[int, bytes]]) -> Path:
    shutil.copytree(sound, target)
    with (target / "data.mdb").open("r+b") as file_:
        for offset, fill in places:
            file_.seek(offset)
            file_.write(fill)
    return target


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("kind", [BRANCH, LEAF, OVERFLOW])
def test_a_damaged_page_gives_the_whole_answer_or_an_error(
    sound: tuple[Path, int], tmp_path: Path, kind: int, seed: int
) -> None:
    path, box = sound
    data = (path / "data.mdb").read_bytes()
    chance = random.Random(seed * 8 + kind)
    page = chance.choice(pages_of(data, kind))
    offset = chance.choice((0, 8, 8, 12, 16, 24, chance.randrange(0, PAGE - 8)))
    store = Store(str(path), sync=False)
    whole = answers(store, box)
    store.close()
    where = damaged_copy(path, tmp_path / "damaged", [(page * PAGE + offset, chance.choice(FILLS))])
    try:
        store = Store(str(where), sync=False, create=False)
    except StorageFailure:
        return  # the page holds what every process needs
    found = answers(store, box)
    short = {name: each for name, each in found.items() if each not in ("damage", whole[name])}
    assert not short, (page, offset)
    assert set(write(store, box)) <= {"", "damaged", "missing", "io"}
    assert not store.failed
    store.close()


def test_damage_is_told_with_table_and_key_before_it_is_raised(sound: tuple[Path, int], tmp_path: Path) -> None:
    path, box = sound
    data = (path / "data.mdb").read_bytes()
    store = Store(str(path), sync=False)
    key, value = store.scan(TABLE_MESSAGE, box.to_bytes(8, "big"), b"", 200)[150]
    store.close()
    page = data.rindex(key + value) // PAGE
    where = damaged_copy(path, tmp_path / "damaged", [(page * PAGE + 8, b"\xff" * 8)])
    store = Store(str(where), sync=False, create=False)
    told: list[StoreDamaged] = []
    store.on_damage = told.append
    with pytest.raises(StoreDamaged) as raised:
        _store.mailbox_uids(store, box)
    assert told == [raised.value]
    assert (raised.value.table, raised.value.key[:8]) == ("message", box.to_bytes(8, "big"))
    assert store.damages == 1
    assert store.damage == str(raised.value)
    store.close()


def test_a_file_that_is_cut_while_it_is_read_is_an_error_and_no_signal(sound: tuple[Path, int], tmp_path: Path) -> None:
    path, box = sound
    shutil.copytree(path, tmp_path / "cut")
    store = Store(str(tmp_path / "cut"), sync=False)
    with (tmp_path / "cut" / "data.mdb").open("r+b") as file_:
        file_.truncate(40 * PAGE)
    found = answers(store, box)
    assert found["uids"] == "damage"
    assert found["read"] == "damage"
    assert set(write(store, box)) <= {"", "damaged", "missing", "io"}
    store.close()


def test_bytes_that_are_not_those_received_are_told_once_and_served(sound: tuple[Path, int], tmp_path: Path) -> None:
    path, box = sound
    data = (path / "data.mdb").read_bytes()
    places = [(data.index(b"Subject: 6\r\n") + 9, b"X"), (data.index(b"Subject: 7\r\n") + 9, b"X")]
    where = damaged_copy(path, tmp_path / "flipped", places)
    mail = MailStore.open(where, sync=False, create=False)
    told: list[StoreDamaged] = []
    mail.raw.on_damage = told.append
    whole, _ = fetch_lines(mail.mailboxes, box, array("I", (7,)), array("I", (7,)), 256, 0, 1 << 20)
    assert b"Subject: X\r\n" in whole
    assert [each.table for each in told] == ["blob"]
    size = mail.mailboxes.rows(box, array("I", (8,)))[0].size
    for offset in range(0, size, 7):  # in pieces, as a slow reader takes it
        assert mail.mailboxes.read(box, 8, offset, 7) is not None
    assert len(told) == 2
    for uid in range(1, MESSAGES + 1):
        fetch_lines(mail.mailboxes, box, array("I", (uid,)), array("I", (uid,)), 256, 0, 1 << 20)
    assert {each.key for each in told[2:]} <= {each.key for each in told[:2]}
    mail.close()


def test_a_name_that_leads_nowhere_is_damage(tmp_path: Path) -> None:
    mail = MailStore.open(tmp_path / "store", sync=False)
    unit = mail.raw.new_unit()
    unit.put(_store.TABLE_ACCOUNT_NAME, b"ghost@example.test", (7).to_bytes(8, "big"))
    unit.put(_store.TABLE_ALIAS, b"odd@example.test", b"\xff\xff")
    unit.put(_store.TABLE_MAILBOX_NAME, (7).to_bytes(8, "big") + b"INBOX", (9).to_bytes(8, "little"))
    assert run(mail.raw, unit) == ""
    for read in (
        lambda: mail.accounts.lookup("ghost@example.test"),
        lambda: mail.aliases.lookup("odd@example.test"),
        lambda: mail.mailboxes.get(7, "INBOX"),
        lambda: mail.mailboxes.list(7),
    ):
        with pytest.raises(StoreDamaged):
            read()
    mail.close()


@pytest.mark.disk
def test_a_store_that_is_mapped_above_another_one_is_read_by_its_own_map(tmp_path):
    first = Store(str(tmp_path / "first"), sync=False, map_size_bytes=1 << 29)
    second = Store(str(tmp_path / "second"), sync=False, map_size_bytes=1 << 28)
    first.close()  # leaves a gap above the second, into which the third fits
    third = Store(str(tmp_path / "third"), sync=False, map_size_bytes=1 << 28)
    for store in (second, third):
        unit = store.new_unit()
        for n in range(1000):
            unit.put(TABLE_META, b"row %d" % n, b"x" * 100)
        store.commit_sync(unit)
    for store in (second, third):
        assert len(store.scan(TABLE_META, b"row ", b"", 2000)) == 1000
        assert check_store(store).problems == []
        store.close()
