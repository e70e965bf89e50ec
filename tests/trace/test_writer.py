"""The trace's files: gathered, appended, bounded; and never worth a failure."""

import asyncio
import errno
import itertools
import json
import os
from pathlib import Path

import pytest

from fastmta.model.limits import TRACE_PART_SHARE
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import METRICS, local_cells
from fastmta.trace import writer
from fastmta.trace.files import FOLDER, PRUNED, Part, give_back, parts, prune
from fastmta.trace.writer import Trace

DAY_S = 86_400
LINE = b'{"at":"2027-01-15T08:00:00.000Z","event":"x","queue_id":"0"}\n'


class Clock:
    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def made(directory: Path, clock: Clock, *, retention_s: float = 7 * DAY_S, size: int = 1 << 20) -> tuple[Trace, Log]:
    log = Log(os.open(os.devnull, os.O_WRONLY), level="error")
    trace = Trace(directory, log, local_cells(), now=clock)
    trace.configure(retention_s, size)
    return trace, log


def told(directory: Path) -> bytes:
    return b"".join((directory / FOLDER / part.name).read_bytes() for part in parts(directory))


def test_what_has_a_queue_id_is_traced_whatever_the_logs_level(tmp_path: Path) -> None:
    trace, log = made(tmp_path, Clock())
    log.info("delivery.deferred", queue_id="0BCD", reply=b"450 \xff")
    log.info("smtp.rejected", verb="RCPT")
    log.info("imap.login", user="x")
    log.debug("anything", queue_id="0BCD")
    trace.close()
    lines = [json.loads(line) for line in told(tmp_path).splitlines()]
    assert [line["event"] for line in lines] == ["delivery.deferred", "smtp.rejected"]
    assert lines[0]["reply"] == "450 \\xff"


def test_no_retention_is_no_trace(tmp_path: Path) -> None:
    trace, log = made(tmp_path, Clock(), retention_s=0)
    log.info("delivery.deferred", queue_id="0BCD")
    trace.close()
    assert not (tmp_path / FOLDER).exists()


def test_each_day_has_its_file_and_old_ones_go(tmp_path: Path) -> None:
    clock = Clock()
    trace, _ = made(tmp_path, clock, retention_s=2 * DAY_S)
    for _ in range(5):
        trace.add(LINE)
        clock.now += DAY_S
    trace.close()
    assert [part.day for part in parts(tmp_path)] == ["2027-01-17", "2027-01-18", "2027-01-19"]


def test_all_files_together_are_bounded(tmp_path: Path) -> None:
    size = 64 * len(LINE) * TRACE_PART_SHARE // 16
    trace, _ = made(tmp_path, Clock(), size=size)
    for _ in range(1000):
        trace.add(LINE)
    trace.close()
    assert size // 2 < len(told(tmp_path)) <= size + size // TRACE_PART_SHARE + len(LINE)
    assert parts(tmp_path)[0].number > 1


def test_pruning_leaves_what_is_not_the_traces(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    for name in ("2000-01-01.000.jsonl", "2000-01-01.000.jsonl.gz", "notes", "notes.pruned"):
        (tmp_path / FOLDER / name).write_bytes(LINE)
    assert prune(tmp_path, Clock().now, DAY_S, 0) == [Part("2000-01-01", 0)]
    assert not give_back(tmp_path, 1 << 20)
    left = ["2000-01-01.000.jsonl.gz", "notes", "notes.pruned"]
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == left


def test_a_pruned_file_is_gone_at_once_and_its_room_is_given_back_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / FOLDER).mkdir()
    day, next_day = Part("2000-01-01", 0), Part("2000-01-02", 0)
    for part in (day, next_day):
        (tmp_path / FOLDER / part.name).write_bytes(LINE * 100)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    assert prune(tmp_path, Clock().now, DAY_S, 0) == [next_day, day]
    assert parts(tmp_path) == [], "no reader finds it"

    def room() -> int:
        return sum(path.stat().st_size for path in (tmp_path / FOLDER).iterdir())

    piece, steps = 30 * len(LINE), [room()]
    while give_back(tmp_path, piece):
        steps.append(room())
    assert all(before - after <= piece for before, after in itertools.pairwise(steps))
    assert len(steps) == 7 and room() == 0 and len(synced) == 6, "the disk is told of each piece by itself"
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_what_a_killed_process_had_pruned_is_given_back_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "TRACE_GIVEN_BACK_BYTES", 2 * len(LINE))
    (tmp_path / FOLDER).mkdir()
    pruned = tmp_path / FOLDER / (Part("2000-01-01", 0).name + PRUNED)
    pruned.write_bytes(LINE * 5)
    trace, _ = made(tmp_path, Clock())
    sizes = []
    for _ in range(3):
        trace.add(LINE)
        sizes.append(pruned.stat().st_size // len(LINE) if pruned.exists() else None)
    trace.close()
    assert sizes == [3, 1, None]
    assert told(tmp_path) == LINE * 3


def test_pruned_files_that_cannot_be_given_back_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / "other").write_bytes(LINE)
    (tmp_path / FOLDER / (Part("2000-01-01", 0).name + PRUNED)).symlink_to(tmp_path / "other")
    trace, _ = made(tmp_path, Clock())
    trace.add(LINE)
    trace.add(LINE)
    trace.close()
    assert told(tmp_path) == LINE * 2 and (tmp_path / "other").read_bytes() == LINE


def test_nobody_writes_on_into_a_file_that_another_process_has_pruned(tmp_path: Path) -> None:
    trace, _ = made(tmp_path, Clock())
    trace.add(LINE)
    assert prune(tmp_path, Clock().now + 10 * DAY_S, DAY_S, 0) == [Part("2027-01-15", 0)]
    trace.add(LINE)
    trace.close()
    assert told(tmp_path) == LINE


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    clock = Clock()
    first, _ = made(tmp_path, clock)
    second, _ = made(tmp_path, clock)
    for _ in range(10):
        first.add(LINE)
        second.add(LINE)
    assert len(parts(tmp_path)) == 1 and told(tmp_path) == LINE * 20


def test_a_full_disk_stops_the_trace_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace, _ = made(tmp_path, Clock())
    trace.add(LINE)
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 10:
            return write(fd, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer.os, "write", full)
    trace.add(LINE)
    trace.add(LINE)
    monkeypatch.undo()
    trace.add(LINE)
    assert trace._cells[METRICS.trace_dropped_total] == 2
    lines = told(tmp_path).splitlines(keepends=True)
    assert lines.count(LINE) == 2, "a torn line spoils no other"


def test_the_reserve_of_the_disk_is_left_to_mail(tmp_path: Path) -> None:
    trace, _ = made(tmp_path, Clock())
    trace.reserve_bytes = 1 << 62
    trace.add(LINE)
    trace.reserve_bytes = 0
    trace.add(LINE)
    assert told(tmp_path) == LINE and trace._cells[METRICS.trace_dropped_total] == 1


def test_on_a_loop_lines_wait_for_a_second_and_a_flush_has_them_all(tmp_path: Path) -> None:
    async def run() -> None:
        log = Log(os.open(os.devnull, os.O_WRONLY))
        trace = Trace(tmp_path, log, local_cells(), loop=asyncio.get_running_loop())
        trace.configure(DAY_S, 0)
        trace.add(LINE)
        trace.add(LINE)
        assert told(tmp_path) == b""
        await trace.flushed()
        assert told(tmp_path) == LINE * 2
        trace.add(LINE)
        trace._due()
        assert trace._writing is not None
        trace.add(LINE)
        await trace.flushed()
        assert told(tmp_path) == LINE * 4
        trace.close()

    asyncio.run(run())


def test_a_link_in_the_files_place_is_not_followed(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / FOLDER).mkdir()
    (tmp_path / "other").write_bytes(b"")
    (tmp_path / FOLDER / "2027-01-15.000.jsonl").symlink_to(tmp_path / "other")
    trace, _ = made(tmp_path, clock)
    trace.add(LINE)
    assert (tmp_path / "other").read_bytes() == b"" and trace._cells[METRICS.trace_dropped_total] == 1
