"""Lines that wait to be written: who is told of them, and when."""

from fastmta._intake import Lines


def test_the_first_line_and_what_is_too_much_are_told() -> None:
    told: list[str] = []
    lines = Lines(lambda: told.append("begun"), lambda: told.append("full"), 6)
    lines.add(b"a\n")
    lines.add(b"b\n")
    assert (told, lines.size) == (["begun"], 4)
    lines.add(b"c\n")
    assert told == ["begun", "full"]
    assert lines.take() == b"a\nb\nc\n"
    assert (lines.take(), lines.size) == (b"", 0)
    lines.add(b"d\n")
    assert told == ["begun", "full", "begun"]


def test_who_is_told_may_take_them() -> None:
    taken: list[bytes] = []
    lines = Lines(lambda: taken.append(lines.take()))
    lines.add(b"a\n")
    lines.add(b"b\n")
    assert taken == [b"a\n", b"b\n"]


def test_lines_may_wait_for_nobody() -> None:
    lines = Lines()
    for _ in range(3):
        lines.add(b"a\n")
    assert lines.take() == b"a\n" * 3
