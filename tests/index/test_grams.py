"""Segments: no message is passed over, damage is told, and one made of several says what they said."""

import os
import random
from array import array
from pathlib import Path

import pytest

from fastmta import _grams

LETTERS = "abcde  \n.éßжщ漢字🙂\0"
Docs = dict[int, tuple[list[str], list[str]]]


def made(docs: Docs, first: int = 1, last: int = 0, skipped: tuple[int, ...] = ()) -> bytes:
    builder = _grams.Builder()
    for uid, (header, behind) in docs.items():
        builder.add(uid, header, behind)
    for uid in skipped:
        builder.skip(uid)
    return builder.finish(7, first, last or max(docs, default=first))


def found(path: Path, data: bytes, needle: str, with_header: bool = True) -> tuple[array, int]:  # type: ignore[type-arg]
    path.write_bytes(data)
    segments = []
    at = 0
    while at < len(data):
        segment = _grams.segment_of(data[at : at + _grams.HEAD_BYTES], at)
        assert segment is not None
        segments.append(segment)
        at += segment.length
    fd = os.open(path, os.O_RDONLY)
    try:
        return _grams.find(fd, segments, needle, with_header)
    finally:
        os.close(fd)


def some_docs(rng: random.Random, count: int, first: int = 1) -> Docs:
    def text() -> str:
        return "".join(rng.choices(LETTERS, k=rng.choice((0, 1, 2, 3, 10, 60))))

    uids = sorted(rng.sample(range(first, first + 3 * count), count))
    return {uid: ([text()], [text() for _ in range(rng.randrange(3))]) for uid in uids}


def wanted(docs: Docs, needle: str, with_header: bool) -> set[int]:
    return {
        uid
        for uid, (header, behind) in docs.items()
        if any(needle in text for text in (*behind, *(header if with_header else ())))
    }


def test_whoever_has_a_word_is_named_and_few_others_are(tmp_path: Path) -> None:
    rng = random.Random(1)
    for _ in range(40):
        docs = some_docs(rng, rng.choice((1, 7, 8, 9, 63, 64, 65, 300)))
        data = made(docs)
        for _ in range(20):
            needle = "".join(rng.choices(LETTERS, k=rng.randint(3, 20)))
            if rng.random() < 0.7:
                text = "".join(rng.choice(list(docs.values()))[0])
                at = rng.randrange(len(text) + 1)
                needle = text[at : at + rng.randint(3, 40)]
            if len(needle) < 3:
                continue
            for with_header in (True, False):
                uids, damaged = found(tmp_path / "file", data, needle, with_header)
                assert damaged == -1
                assert list(uids) == sorted(uids)
                assert wanted(docs, needle, with_header) <= set(uids) <= set(docs)
                if len(needle) == 3 and needle.isascii():
                    assert wanted(docs, needle, with_header) == set(uids)


def test_no_word_reaches_from_one_text_into_the_next(tmp_path: Path) -> None:
    data = made({1: (["abcd"], ["ef", "ghij"])})
    assert [list(found(tmp_path / "file", data, word)[0]) for word in ("abc", "def", "efg", "hij")] == [
        [1],
        [],
        [],
        [1],
    ]
    assert list(found(tmp_path / "file", data, "abc", with_header=False)[0]) == []


def test_a_long_words_ends_count(tmp_path: Path) -> None:
    word = "".join(chr(0x4E00 + i) for i in range(200))
    data = made({1: ([word], []), 2: ([word[:-1] + "-"], []), 3: (["-" + word[1:]], [])})
    assert list(found(tmp_path / "file", data, word)[0]) == [1]


def test_a_short_word_is_refused() -> None:
    with pytest.raises(ValueError, match="three characters"):
        _grams.find(-1, [], "ab", True)


def test_a_file_that_cannot_be_read_is_damage() -> None:
    data = made({1: (["abcd"], [])})
    assert _grams.find(-1, [_grams.segment_of(data)], "abc", True) == (array("I"), 0)


def test_every_octet_is_looked_after(tmp_path: Path) -> None:
    rng = random.Random(2)
    docs = some_docs(rng, 40)
    data = made(docs, skipped=(200, 201), last=300)
    words = ["abc", "d e", "éaß", "字a漢"]
    good = [found(tmp_path / "file", data, word) for word in words]
    for at in range(0, len(data), 3):
        bad = bytearray(data)
        bad[at] ^= 1 << rng.randrange(8)
        segment = _grams.segment_of(bytes(bad[: _grams.HEAD_BYTES]))
        if segment is None or segment.length != len(bad):
            assert at < _grams.HEAD_BYTES
            continue
        fd = os.open(tmp_path / "bad", os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, bytes(bad), 0)
        for word, expected in zip(words, good, strict=True):
            assert _grams.find(fd, [segment], word, True) in (expected, (array("I"), 0))
        os.close(fd)
        assert _grams.merge([bytes(bad)], [set(docs)]) is None


def test_a_merged_segment_says_what_its_parts_said_but_of_those_that_are_gone(tmp_path: Path) -> None:
    rng = random.Random(3)
    for _ in range(20):
        parts: list[bytes] = []
        docs: Docs = {}
        kept: list[set[int]] = []
        first = 1
        for _ in range(rng.randint(1, 5)):
            mine = some_docs(rng, rng.choice((0, 1, 30, 200)), first)
            last = first + 3 * len(mine) + 2
            parts.append(made(mine, first, last, skipped=(last,)))
            here = {uid for uid in mine if rng.random() < 0.8} | {last}
            kept.append(here)
            docs |= {uid: each for uid, each in mine.items() if uid in here}
            first = last + 1
        data = _grams.merge(parts, kept)
        assert data is not None
        segment = _grams.segment_of(data)
        assert segment is not None
        assert (segment.first, segment.last, segment.docs) == (1, first - 1, len(docs))
        table = data[_grams.HEAD_BYTES : _grams.HEAD_BYTES + segment.table_bytes]
        assert list(_grams.left_out(segment, table) or ()) == [max(here) for here in kept]
        again = made(docs, 1, first - 1, skipped=tuple(max(here) for here in kept))
        assert data == again


def test_a_table_of_another_segment_is_damage() -> None:
    data = made({1: (["abcd"], [])}, skipped=(5,), last=9)
    segment = _grams.segment_of(data)
    assert segment is not None
    assert list(_grams.left_out(segment, data[_grams.HEAD_BYTES :][: segment.table_bytes]) or ()) == [5]
    assert _grams.left_out(segment, data[: segment.table_bytes]) is None
    assert _grams.left_out(segment, b"") is None


def test_what_is_no_head_is_none() -> None:
    assert _grams.segment_of(b"") is None
    assert _grams.segment_of(b"\0" * 100) is None


def test_a_segment_has_an_end() -> None:
    builder = _grams.Builder()
    for uid in range(_grams.MAX_DOCS):
        builder.add(uid + 1, [], [])
    with pytest.raises(ValueError, match="full"):
        builder.add(70_000, [], [])


def test_many_messages_with_all_of_a_gram(tmp_path: Path) -> None:
    docs: Docs = {uid: (["common" + ("rare" if uid % 5000 == 0 else "")], []) for uid in range(1, 20_001)}
    data = made(docs)
    assert len(found(tmp_path / "file", data, "common")[0]) == 20_000
    assert list(found(tmp_path / "file", data, "rare")[0]) == [5000, 10_000, 15_000, 20_000]
