"""Finds messages in the trace: lines by their text, newest first, then all lines of the messages that they belong to.

There is no index: a line costs what its bytes cost, and a search looks through about a gigabyte a second. Memory is
bounded by the messages put together at one time, whatever lies on the disk.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from fastmta.model.limits import (
    TRACE_EVENTS,
    TRACE_LINE_BYTES,
    TRACE_MESSAGES,
    TRACE_WINDOW_BYTES,
)
from fastmta.trace.files import FOLDER, day_of, parts
from fastmta.trace.story import Story, Wanted

_QUEUE_ID: Final = re.compile(rb'"queue_id":"([^"\\]{1,16})"')
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
Line = dict[str, Any]


def search(directory: Path, wanted: Wanted) -> Iterator[Story]:
    """Messages that are as wanted, those accepted or refused last first."""
    seen: set[str] = set()
    batch: dict[str, Story] = {}
    refusals = 0
    for line in _candidates(directory, wanted):
        queue_id = line.get("queue_id")
        if not isinstance(queue_id, str):
            story = Story("")
            story.add(line)
            if wanted.takes(story):
                batch[f"refused {refusals}"] = story
                refusals += 1
        elif queue_id not in seen:
            seen.add(queue_id)
            batch[queue_id] = Story(queue_id)
        if len(batch) >= TRACE_MESSAGES:
            yield from _told(directory, batch, wanted)
            batch = {}
    yield from _told(directory, batch, wanted)


def _told(directory: Path, batch: dict[str, Story], wanted: Wanted) -> Iterator[Story]:
    """Gives every message of the batch all its lines, and those back that are as wanted."""
    ids = {queue_id.encode() for queue_id, story in batch.items() if story.queue_id}
    if ids:
        for line in _lines_of(directory, ids):
            story = batch.get(line["queue_id"])
            if story is not None and len(story.lines) < TRACE_EVENTS:
                story.add(line)
    for story in batch.values():
        story.finish()
        if wanted.takes(story):
            yield story


def _candidates(directory: Path, wanted: Wanted) -> Iterator[Line]:
    """Lines that may belong to a wanted message, newest first."""
    needle = wanted.needle
    since_day = day_of(wanted.since_at) if wanted.since_at else ""
    for part in reversed(parts(directory)):
        if part.day < since_day:
            return
        for window in _windows_backwards(directory / FOLDER / part.name):
            for raw in _matching(window, needle) if needle else reversed(window.split(b"\n")):
                line = _parsed(raw)
                if line is not None and wanted.may_take(line):
                    yield line


def _matching(window: bytes, needle: bytes) -> Iterator[bytes]:
    """The lines of a window in which `needle` (lower case) stands in any case, the last one first."""
    lower = window.lower()
    end = len(lower)
    while (at := lower.rfind(needle, 0, end)) >= 0:
        begin = lower.rfind(b"\n", 0, at) + 1
        stop = lower.find(b"\n", at)
        yield window[begin : stop if stop >= 0 else len(window)]
        end = max(begin - 1, 0)
        if not begin:
            return


def _lines_of(directory: Path, ids: set[bytes]) -> Iterator[Line]:
    """All lines of these messages, in the order of the files."""
    only = b'"queue_id":"' + next(iter(ids)) + b'"' if len(ids) == 1 else None
    for part in parts(directory):
        for window in _windows(directory / FOLDER / part.name):
            for raw in _of_ids(window, ids, only):
                line = _parsed(raw)
                if line is not None and isinstance(line.get("queue_id"), str):
                    yield line


def _of_ids(window: bytes, ids: set[bytes], only: bytes | None) -> Iterator[bytes]:
    if only is not None:
        at = -1
        while (at := window.find(only, at + 1)) >= 0:
            yield _line_at(window, at)
        return
    for match in _QUEUE_ID.finditer(window):
        if match[1] in ids:
            yield _line_at(window, match.start())


def _line_at(window: bytes, at: int) -> bytes:
    stop = window.find(b"\n", at)
    return window[window.rfind(b"\n", 0, at) + 1 : stop if stop >= 0 else len(window)]


def _parsed(raw: bytes) -> Line | None:
    if not raw:
        return None
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # half-written
        return None


def _windows(path: Path) -> Iterator[bytes]:
    """A file in pieces of whole lines."""
    try:
        file = path.open("rb")
    except FileNotFoundError:  # too old by now
        return
    with file:
        rest = b""
        while piece := file.read(TRACE_WINDOW_BYTES):
            whole, found, tail = piece.rpartition(b"\n")
            if not found:
                rest = (rest + tail)[-TRACE_LINE_BYTES:]
                continue
            yield rest + whole
            rest = tail
        if rest:
            yield rest


def _windows_backwards(path: Path) -> Iterator[bytes]:
    """The same from the end; lines within a piece stand in the file's order."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        end = file.seek(0, 2)
        rest = b""
        while end:
            begin = max(0, end - TRACE_WINDOW_BYTES)
            file.seek(begin)
            piece = file.read(end - begin)
            if len(piece) == end - begin:  # else the file is being given up, and `rest` is of a line that is gone
                piece += rest
            end = begin
            if begin == 0:
                yield piece
                return
            head, found, whole = piece.partition(b"\n")
            if not found:
                rest = head[:TRACE_LINE_BYTES]
                continue
            rest = head
            if whole:
                yield whole


def newest(stories: Iterable[Story], limit: int) -> tuple[list[Story], bool]:
    """The first `limit` of them in the order of time, and whether there are more."""
    found: list[Story] = []
    for story in stories:
        if len(found) == limit:
            return sorted(found, key=lambda each: each.at), True
        found.append(story)
    return sorted(found, key=lambda each: each.at), False
