"""Threads that a peer's References fields make long, wide or many: linear, bounded, and in steps."""

import gc
import random
from collections import deque

import pytest

from fastmta.imap import threads
from tests.imap.built_threads import Built


def test_a_long_way_of_messages_that_are_not_here_is_linear() -> None:
    """Each message names the next part of one chain: moved from place to place, it would take minutes."""
    count = 390
    built = Built(count)
    for n in range(count):
        built.add(n, f"m{n}", [f"p{n * 250 + k}" for k in range(256)])
    steps = sum(1 for _ in built.steps())
    assert steps < 5 * count * 256 / threads.STEP
    text = b"".join(built.threads.forest.lines(range(1, count + 1)))
    assert sorted(map(int, text.replace(b"(", b" ").replace(b")", b" ").split())) == list(range(1, count + 1))


def test_children_of_places_that_go_are_all_kept_in_order() -> None:
    built = Built(40)
    for n in range(40):
        built.add(n, f"m{n}", ["top", *(f"p{k}" for k in range(n % 7 + 1))])
    assert built.text() == b"(" + b"".join(b"(%d)" % n for n in range(1, 41)) + b")"


@pytest.mark.parametrize(("bound", "text"), [(2, b"(1)(2)"), (3, b"((1)(2))"), (4, b"((1)(2))")])
def test_places_for_what_is_not_here_are_bounded(monkeypatch: pytest.MonkeyPatch, bound: int, text: bytes) -> None:
    monkeypatch.setattr(threads, "IMAP_THREAD_PLACES", bound)
    built = Built(2)
    built.add(0, "m0", ["a", "b", "c"])
    built.add(1, "m1", ["c"])
    assert built.text() == text


def test_a_message_that_is_here_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IMAP_THREAD_PLACES", 1)
    built = Built(4)
    built.add(0, "m0", ["m1"])
    built.add(1, "m1", [])
    built.add(2, "m2", ["gone"])
    built.add(3, "m3", ["gone"])
    assert built.text() == b"(2 1)((3)(4))"


@pytest.mark.parametrize("count", [1, 2, 3 * threads.STEP + 7])
def test_many_threads_and_many_answers_are_ordered_by_date(count: int) -> None:
    dates = list(range(count))
    random.Random(5).shuffle(dates)
    flat, wide = Built(count), Built(count)
    for at, date in enumerate(dates):
        flat.add(at, f"m{at}", [], date=date)
        wide.add(at, f"m{at}", ["top"], date=date)
    order = [at + 1 for at in sorted(range(count), key=dates.__getitem__)]
    assert flat.text() == b"".join(b"(%d)" % n for n in order)
    if count > 1:
        assert wide.text() == b"(" + b"".join(b"(%d)" % n for n in order) + b")"


def test_one_long_thread_is_written_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Built(5000)
    for n in range(5000):
        built.add(n, f"m{n}", ["top"])
    whole = built.text()
    monkeypatch.setattr(threads, "PIECE", 100)
    pieces = list(built.threads.forest.lines(range(1, 5001)))
    assert b"".join(pieces) == whole
    assert max(map(len, pieces)) < 800


def test_a_thread_has_the_date_of_its_earliest_message_whatever_joined_it_last() -> None:
    """The oldest message joins two answers of its subject, whose parent is not here: all come before the other."""
    built = Built(4)
    for at, (name, references, date, subject) in enumerate(
        [("old", [], 10, "s"), ("between", [], 20, ""), ("late", ["gone"], 30, "s"), ("later", ["gone"], 40, "s")]
    ):
        built.add(at, name, references, subject, date)
    assert built.text() == b"((1)(3)(4))(2)"


def test_what_is_built_is_no_object_a_message() -> None:
    """A collection of garbage looks at every object that can hold others, and cannot be paused."""
    count = 5000
    gc.collect()
    before = len(gc.get_objects())
    built = threads.Threads(count)
    for n in range(count):
        built.add(n, b"m%d" % n, b"m%d" % (n // 2), n, f"subject {n}", False)
    for n in range(count):
        deque(built.refer(n, [b"top%d" % n]), 0)
    most = 0
    for _ in built.link(range(count), by_subject=True):
        most = max(most, len(gc.get_objects()) - before)
    assert most < 100
    assert b"".join(built.forest.lines(range(count))) == b"".join(b"(%d)" % n for n in range(count))
