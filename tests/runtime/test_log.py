import json
import os
from collections.abc import Iterator

import pytest

from fastmta.runtime.log import FIELD_CHARACTERS, Log, escape
from fastmta.runtime.metrics import METRICS, local_cells


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def text(self) -> str:
        try:
            return os.read(self.reader, 1 << 16).decode()
        except BlockingIOError:
            return ""


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.reader)
    os.close(made.writer)


class Loop:
    def __init__(self) -> None:
        self.soon: list[object] = []

    def call_soon(self, callback: object) -> None:
        self.soon.append(callback)


def test_an_event_is_one_json_line_with_its_fields(pipe: Pipe) -> None:
    Log(pipe.writer).info("delivery.deferred", queue_id="0BCD", code=450, absent=None)
    record = json.loads(pipe.text())
    assert record.pop("at").endswith("Z")
    assert record == {"level": "info", "event": "delivery.deferred", "queue_id": "0BCD", "code": 450}


@pytest.mark.parametrize("style", ["json", "logfmt"])
@pytest.mark.parametrize("raw", [b"a\r\nlevel=error b", b"\x00\xff\x1b[2J", b'x" y="z', "ü\u2028\udcff\n"])
def test_a_value_can_never_begin_a_second_line_or_reach_the_terminal(pipe: Pipe, style: str, raw: bytes | str) -> None:
    Log(pipe.writer, style=style).info("smtp.command", raw=raw, inside=[raw])
    text = pipe.text()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert not any(character in text for character in "\r\x00\x1b")


def test_a_long_value_is_cut(pipe: Pipe) -> None:
    Log(pipe.writer).info("smtp.command", raw=b"x" * 100_000)
    assert json.loads(pipe.text())["raw"] == "x" * FIELD_CHARACTERS


def test_a_level_that_is_off_writes_nothing(pipe: Pipe) -> None:
    log = Log(pipe.writer)
    log.debug("smtp.command")
    assert pipe.text() == ""
    log.set_level("debug")
    log.debug("smtp.command")
    assert "smtp.command" in pipe.text()


def test_the_lines_of_one_turn_leave_in_one_write_and_an_error_at_once(pipe: Pipe) -> None:
    log, loop = Log(pipe.writer), Loop()
    log.attach(loop, slot=2)  # type: ignore[arg-type]
    log.info("one")
    log.info("two")
    assert pipe.text() == ""
    assert len(loop.soon) == 1
    log.error("three")
    events = [json.loads(line) for line in pipe.text().splitlines()]
    assert [event["event"] for event in events] == ["one", "two", "three"]
    assert all(event["slot"] == 2 for event in events)


def test_lines_that_nobody_reads_are_counted_and_do_not_stop_us() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    log, cells = Log(writer), local_cells()
    log.attach(Loop(), cells)  # type: ignore[arg-type]
    for _ in range(100):
        log.line(b"x" * 4000 + b"\n")
    log.flush()
    assert 80 < cells[METRICS.log_dropped_total] < 100
    os.close(reader)
    os.close(writer)


def test_an_exception_is_one_line_with_its_traceback(pipe: Pipe) -> None:
    try:
        raise ValueError("no")
    except ValueError as error:
        Log(pipe.writer).exception("smtp.failed", error, session="s1")
    record = json.loads(pipe.text())
    assert record["error"] == "ValueError: no"
    assert "Traceback" in record["traceback"]


def test_escape_gives_what_stands_between_json_quotes() -> None:
    assert json.loads(f'"{escape(b"a" + bytes([34, 13, 255]))}"') == 'a"\r\\xff'
