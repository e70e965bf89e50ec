"""Threads that a peer's References fields make long, wide or many: linear, bounded, and in steps."""

import random
import time

import pytest

from fastmta.imap import threads


def add(built: threads.Threads, at: int, name: str, references: list[str], subject: str = "") -> threads.Node:
    return built.add(at, name.encode(), [each.encode() for each in references], at, subject)


def text_of(built: threads.Threads, count: int) -> bytes:
    for _ in built.link(by_subject=True):
        pass
    return b"".join(threads.lines(built.roots, range(1, count + 1)))


def test_a_long_way_of_messages_that_are_not_here_is_linear() -> None:
    """Each message names the next part of one chain: moved from place to place, it would take minutes."""
    built, count = threads.Threads(), 390
    for n in range(count):
        add(built, n, f"m{n}", [f"p{n * 250 + k}" for k in range(256)])
    started = last = time.thread_time()
    longest = 0.0
    for _ in built.link(by_subject=False):
        now = time.thread_time()
        longest, last = max(longest, now - last), now
    assert time.thread_time() - started < 2
    assert longest < 0.5  # a millisecond, but for a collection of garbage
    text = b"".join(threads.lines(built.roots, range(1, count + 1)))
    assert sorted(map(int, text.replace(b"(", b" ").replace(b")", b" ").split())) == list(range(1, count + 1))


def test_children_of_places_that_go_are_all_kept_in_order() -> None:
    built = threads.Threads()
    for n in range(40):
        add(built, n, f"m{n}", ["top", *(f"p{k}" for k in range(n % 7 + 1))])
    assert text_of(built, 40) == b"(" + b"".join(b"(%d)" % n for n in range(1, 41)) + b")"


@pytest.mark.parametrize(("bound", "text"), [(2, b"(1)(2)"), (3, b"((1)(2))"), (4, b"((1)(2))")])
def test_places_for_what_is_not_here_are_bounded(monkeypatch: pytest.MonkeyPatch, bound: int, text: bytes) -> None:
    monkeypatch.setattr(threads, "IMAP_THREAD_PLACES", bound)
    built = threads.Threads()
    add(built, 0, "m0", ["a", "b", "c"])
    add(built, 1, "m1", ["c"])
    assert text_of(built, 2) == text


def test_a_place_that_a_message_takes_is_free_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IMAP_THREAD_PLACES", 1)
    built = threads.Threads()
    add(built, 0, "m0", ["m1"])
    add(built, 1, "m1", [])
    add(built, 2, "m2", ["gone"])
    add(built, 3, "m3", ["gone"])
    assert text_of(built, 4) == b"(2 1)((3)(4))"


@pytest.mark.parametrize("count", [threads.RUN - 1, threads.RUN, threads.RUN + 1, 3 * threads.RUN + 7])
def test_many_threads_and_many_answers_are_ordered_by_date(count: int) -> None:
    dates = list(range(count))
    random.Random(5).shuffle(dates)
    flat, wide = threads.Threads(), threads.Threads()
    for at, date in enumerate(dates):
        flat.add(at, b"m%d" % at, [], date, "")
        wide.add(at, b"m%d" % at, [b"top"], date, "")
    order = [at + 1 for at in sorted(range(count), key=dates.__getitem__)]
    assert text_of(flat, count) == b"".join(b"(%d)" % n for n in order)
    assert text_of(wide, count) == b"(" + b"".join(b"(%d)" % n for n in order) + b")"


def test_one_long_thread_is_written_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    built = threads.Threads()
    for n in range(5000):
        add(built, n, f"m{n}", ["top"])
    whole = text_of(built, 5000)
    monkeypatch.setattr(threads, "PIECE", 100)
    pieces = list(threads.lines(built.roots, range(1, 5001)))
    assert b"".join(pieces) == whole
    assert max(map(len, pieces)) < 800


def test_a_thread_has_the_date_of_its_earliest_message_whatever_joined_it_last() -> None:
    """The oldest message joins two answers of its subject, whose parent is not here: all come before the other."""
    built = threads.Threads()
    for at, (name, references, date, subject) in enumerate(
        [("old", [], 10, "s"), ("between", [], 20, ""), ("late", ["gone"], 30, "s"), ("later", ["gone"], 40, "s")]
    ):
        built.add(at, name.encode(), [each.encode() for each in references], date, subject)
    assert text_of(built, 4) == b"((1)(3)(4))(2)"
