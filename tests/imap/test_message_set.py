"""The messages that a command names: against a plain list, and in FETCH, whose windows are not seen from outside."""

from array import array
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmta._imap import UidMap
from fastmta.imap import message_set
from fastmta.imap.commands import fetch
from fastmta.imap.message_set import MessageSet
from tests.imap.harness import World

UIDS = [3, 4, 5, 9, 11, 12, 20]


def view_of(uids: list[int]) -> Any:
    kept = UidMap()
    kept.extend(array("I", uids))
    return SimpleNamespace(uids=kept)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=3), st.integers(0, 7), st.booleans()
)
def test_against_a_list(pairs: list[tuple[int, int]], begin: int, by_uid: bool) -> None:
    view = view_of(UIDS)
    numbers = sorted({n for low, high in pairs for n in range(min(low, high), max(low, high) + 1)})
    flat = [UIDS[n - 1] for pair in pairs for n in pair] if by_uid else [n for pair in pairs for n in pair]
    chosen = MessageSet(array("I", flat), by_uid).choose(view)
    uids = [UIDS[n - 1] for n in numbers]
    assert len(chosen) == len(numbers)
    assert [list(each) for each in chosen.all()] == [numbers, uids]
    assert [uid for uid in range(25) if chosen.has(uid)] == uids
    part = chosen.part(begin, begin + 3)
    assert [list(each) for each in part.all()] == [numbers[begin : begin + 3], uids[begin : begin + 3]]
    assert len(part) == len(numbers[begin : begin + 3])
    assert list(message_set.Chosen.of_uids(view, array("I", uids)).all()[0]) == numbers


def test_a_window_is_no_longer_than_the_bound() -> None:
    view = view_of(list(range(1, 500_001)))
    chosen = MessageSet(array("I", (1, 0)), False).choose(view)
    assert len(chosen) == 500_000
    assert len(chosen.window(0)[0]) == message_set.IMAP_WINDOW
    assert list(chosen.window(499_998)[1]) == [499_999, 500_000]


@pytest.mark.parametrize("window", [1, 3])
async def test_windows_of_a_fetch_are_not_seen(world: World, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    client = await world.login("INBOX")
    for n in range(10):
        await client.append(b"Subject: %d\r\n\r\nhi\r\n" % n)
    await client.ok("SELECT INBOX (CONDSTORE)")
    await client.ok("STORE 4:5 +FLAGS.SILENT (\\Deleted)")
    await client.ok("EXPUNGE")
    await client.ok("STORE 1:* +FLAGS.SILENT (\\Flagged)")
    commands = [
        "FETCH 1,3:5,7:* (UID FLAGS ENVELOPE)",
        "UID FETCH 1:* (FLAGS BODY.PEEK[])",
        "FETCH 2:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])",
        "UID FETCH 2:9 (FLAGS) (PARTIAL 2:4)",
        "STORE 1:* +FLAGS (\\Flagged)",
        "FETCH 1:* (FLAGS) (CHANGEDSINCE 1)",
    ]
    whole = [await client.ok(command) for command in commands]
    assert [len(lines) for lines in whole] == [6, 8, 7, 3, 8, 8]
    monkeypatch.setattr(message_set, "IMAP_WINDOW", window)
    monkeypatch.setattr(fetch, "IMAP_WINDOW", window)
    again = [await client.ok(command) for command in commands]
    assert again[:4] == whole[:4]
    for some, others in zip(again[4:], whole[4:], strict=True):
        assert [line.partition(b" MODSEQ")[0].rstrip(b")") for line in some] == [
            line.partition(b" MODSEQ")[0].rstrip(b")") for line in others
        ]
