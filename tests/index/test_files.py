"""An account's file: what is cut off, damaged, of another store or of mailboxes that are gone is never believed."""

import os
from pathlib import Path

import pytest

from fastmta import _grams
from fastmta.index import files
from fastmta.index.files import IndexDamaged, IndexFile, account_of, discard, path_of
from fastmta.index.marker import Marker, turned_off


def record(mailbox: int, first: int, last: int, word: str = "hello", skipped: int = 0) -> bytes:
    builder = _grams.Builder()
    for uid in range(first, last + 1):
        if uid == skipped:
            builder.skip(uid)
        else:
            builder.add(uid, [], [f"{word} {uid}"])
    return builder.finish(mailbox, first, last)


def names(file: IndexFile, mailbox: int, word: str = "hello") -> list[int]:
    found = file.find(mailbox, [(word, True)])
    assert found is not None
    assert found.words[0] is not None
    return list(found.words[0])


def test_what_was_added_is_found_by_all_who_have_the_file_open(tmp_path: Path) -> None:
    writer, reader = IndexFile(tmp_path, 5, 1), IndexFile(tmp_path, 5, 1)
    assert reader.find(1, [("hello", True)]) is None
    writer.append(record(1, 1, 3))
    assert names(reader, 1) == [1, 2, 3]
    writer.append(record(2, 1, 1))
    writer.append(record(1, 4, 4, skipped=4))
    found = reader.find(1, [("hello", True), ("llo", False)])
    assert found is not None
    assert (found.until, list(found.skipped), list(found.exact)) == (4, [4], [False, True])
    assert reader.until(2) == 1
    writer.close()
    reader.close()


def test_a_later_segment_stands_for_those_within_it(tmp_path: Path) -> None:
    file = IndexFile(tmp_path, 5, 1)
    for first in (1, 3, 5):
        file.append(record(1, first, first + 1, skipped=first))
    file.append(record(1, 3, 8, "other"))
    assert names(file, 1) == [2]
    assert names(file, 1, "other") == [3, 4, 5, 6, 7, 8]
    found = file.find(1, [])
    assert found is not None
    assert list(found.skipped) == [1]
    file.close()


def test_what_a_kill_has_cut_off_is_written_over(tmp_path: Path) -> None:
    file = IndexFile(tmp_path, 5, 1)
    file.append(record(1, 1, 3))
    whole = file.path.read_bytes()
    file.append(record(1, 4, 9))
    both = file.path.read_bytes()
    file.close()
    for length in range(len(both) + 1):
        file.path.write_bytes(both[:length])
        again = IndexFile(tmp_path, 5, 1)
        again.refresh()
        until = again.until(1)
        assert until == (0 if length < len(whole) else 3 if length < len(both) else 9)
        again.append(record(1, until + 1, 12, "more"))
        assert names(again, 1, "more") == list(range(until + 1, 13))
        assert again.path.read_bytes()[:length] == both[:length] or length < len(both)
        again.close()
        file.path.unlink()


def test_a_segment_that_is_missing_is_damage(tmp_path: Path) -> None:
    file = IndexFile(tmp_path, 5, 1)
    for first in (1, 3, 5):
        file.append(record(1, first, first + 1))
    data = file.path.read_bytes()
    length = len(record(1, 1, 2))
    file.close()
    file.path.write_bytes(data[:32] + data[32 + length :])
    with pytest.raises(IndexDamaged):
        IndexFile(tmp_path, 5, 1).refresh()


def test_a_changed_octet_is_damage(tmp_path: Path) -> None:
    file = IndexFile(tmp_path, 5, 1)
    file.append(record(1, 1, 3))
    data = bytearray(file.path.read_bytes())
    data[-10] ^= 1
    file.path.write_bytes(data)
    file.close()
    with pytest.raises(IndexDamaged):
        IndexFile(tmp_path, 5, 1).find(1, [("hello", True)])


def test_a_file_of_another_store_counts_as_none(tmp_path: Path) -> None:
    file = IndexFile(tmp_path, 5, 1)
    file.append(record(1, 1, 3))
    file.close()
    for account_id, number in ((5, 2), (6, 1)):
        os.link(path_of(tmp_path, 5), tmp_path / "kept") if not (tmp_path / "kept").exists() else None
        path_of(tmp_path, account_id).write_bytes((tmp_path / "kept").read_bytes())
        other = IndexFile(tmp_path, account_id, number)
        assert other.find(1, [("hello", True)]) is None
        other.append(record(1, 1, 1, "mine"))
        assert names(other, 1, "mine") == [1]
        other.close()


def test_nothing_is_added_to_a_file_that_was_thrown_away_meanwhile(tmp_path: Path) -> None:
    file = IndexFile(tmp_path, 5, 1)
    file.append(record(1, 1, 3))
    assert discard(tmp_path, 5)
    assert not discard(tmp_path, 5)
    file.append(record(1, 4, 9))
    assert file.until(1) == 0
    file.append(record(1, 1, 9))
    assert file.until(1) == 9
    file.close()


def test_a_file_is_written_anew_when_half_of_it_is_good_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "INDEX_DEAD_BYTES", 10)
    file, reader = IndexFile(tmp_path, 5, 1), IndexFile(tmp_path, 5, 1)
    file.append(record(1, 1, 30))
    file.append(record(2, 1, 3))
    assert names(reader, 1)
    size = file.path.stat().st_size
    file.tidy({1, 2})
    assert file.path.stat().st_size == size
    file.tidy({2})
    assert file.path.stat().st_size < size
    assert names(reader, 2) == [1, 2, 3]
    assert reader.find(1, []) is None
    file.close()
    reader.close()


def test_small_segments_are_merged_and_large_ones_left(tmp_path: Path) -> None:
    file = IndexFile(tmp_path, 5, 1)
    file.append(record(1, 1, 500))
    file.append(record(1, 501, 502))
    file.append(record(1, 503, 503))
    tail = file.tail(1, 10, 1)
    assert [each.first for each in tail] == [501, 503]
    assert file.tail(2, 10, 1) == []
    file.close()


def test_words_that_very_many_messages_have_are_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = IndexFile(tmp_path, 5, 1)
    file.append(record(1, 1, 30))
    for bound, named in ((90, [30, 30, 30]), (89, [30, 30, None]), (29, [None, None, None])):
        monkeypatch.setattr(files, "INDEX_NAMED", bound)
        found = file.find(1, [("hello", True), ("ell", True), ("llo ", False)])
        assert found is not None
        assert [None if uids is None else len(uids) for uids in found.words] == named
    file.close()


def test_names_of_files() -> None:
    assert [account_of(name) for name in ("1f.fts", "1f.fts.part", "lock", "store", "x.fts", "1f.txt")] == [
        31,
        31,
        None,
        None,
        None,
        None,
    ]


def test_indexes_of_a_store_that_went_back_are_thrown_away(tmp_path: Path) -> None:
    folder = tmp_path / "index"

    def started(number: int, transaction: int) -> str:
        marker = Marker(folder, number)
        try:
            return marker.begin(lambda: transaction)
        finally:
            marker.close()

    assert started(9, 100) == ""
    (folder / "1.fts").write_bytes(b"")
    marker = Marker(folder, 9)
    marker.note(200)
    marker.note(150)
    marker.close()
    assert started(9, 200) == ""
    assert "earlier" in started(9, 199)
    assert not (folder / "1.fts").exists()
    assert started(9, 199) == ""
    (folder / "1.fts").write_bytes(b"")
    assert "another" in started(8, 500)
    (folder / "1.fts").write_bytes(b"")
    turned_off(folder)
    assert "not known" in started(8, 500)
    assert list(folder.glob("*.fts")) == []


def test_a_mark_that_moves_on_meanwhile_is_of_no_later_store(tmp_path: Path) -> None:
    beside, marker = Marker(tmp_path, 9), Marker(tmp_path, 9)
    marker.begin(lambda: 100)
    now = 100

    def commit() -> int:
        nonlocal now
        now += 1
        beside.note(now)
        return now

    (tmp_path / "1.fts").write_bytes(b"")
    for _ in range(3):
        assert marker.begin(commit) == ""
    assert (tmp_path / "1.fts").exists()
    beside.close(), marker.close()
