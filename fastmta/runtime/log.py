"""The log: one line an event on standard error, JSON for machines, logfmt where standard error is a terminal.

    log.info("delivery.deferred", queue_id=text, next_hop=hop, code=450)
    {"at":"2026-01-02T03:04:05.678Z","level":"info","event":"delivery.deferred","queue_id":"0BCD","code":450, ...}

Values that come from a peer are given as bytes: they are written as ASCII with everything else escaped, and cut at a
bound, so no line can be forged. On a worker's loop, lines of one turn leave in one write; errors leave at once. A
reader that is gone or full never stops mail: lines are then dropped and counted.

Why not structlog: docs/adr/0040-own-log.md.
"""

import asyncio
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

import msgspec

from fastmta._intake import Lines
from fastmta.runtime.metrics import METRICS, Cells

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FIELD_CHARACTERS: Final = 2048  # of one value; a longer one is cut and marked
TRACED: Final = frozenset({"smtp.rejected"})  # of the trace, beside all that has a queue id (runtime/trace.py)
BUFFERED_BYTES: Final = 262_144  # of one turn of the loop, before they are written without waiting for its end
_encode = msgspec.json.Encoder(enc_hook=str).encode
_PLAIN: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:/@+[]<>,")


def _value(value: Any) -> Any:
    """A field as JSON will have it; bytes are a peer's and become printable ASCII, nothing is longer than the bound."""
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value[:FIELD_CHARACTERS]).decode("ascii", "backslashreplace")
    elif isinstance(value, BaseException):
        value = f"{type(value).__name__}: {value}"
    if isinstance(value, str):
        if len(value) > FIELD_CHARACTERS:
            value = value[:FIELD_CHARACTERS] + "..."
        if not value.isascii():
            value = value.encode("utf-8", "backslashreplace").decode()
    elif isinstance(value, list | tuple | set | frozenset):
        value = [_value(item) for item in value]
    return value


def _logfmt(record: dict[str, Any]) -> bytes:
    at, level, event = record.pop("at"), record.pop("level"), record.pop("event")
    parts = [at[11:-1], f"{level:<7}", event]
    for key, value in record.items():
        text = value if isinstance(value, str) else _encode(value).decode()
        if text.isascii() and (not text or not _PLAIN.issuperset(text)) and not isinstance(value, list | tuple | dict):
            text = _encode(text).decode()
        elif not text.isprintable():
            text = ascii(text)
        parts.append(f"{key}={text}")
    return " ".join(parts).encode() + b"\n"


class Log:
    """Writes events to a descriptor. `threshold` is the least level written, as a number of LEVELS."""

    def __init__(self, fd: int = 2, *, level: str = "info", style: str = "json") -> None:
        self._fd = fd
        self.threshold = LEVELS[level]
        self.gathered = Lines(self._begun, self.flush, BUFFERED_BYTES)
        self.trace: Lines | None = None  # takes what happens to messages, whatever the level
        self._logfmt = style == "logfmt"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cells: Cells | None = None
        self._second = 0
        self._prefix = ""
        self._follow: Callable[[int], None] | None = None
        self._bound: dict[str, Any] = {}
        self._bound_json = ""

    def attach(self, loop: asyncio.AbstractEventLoop, cells: Cells | None = None, **fields: Any) -> None:
        """From now on gathers the lines of one turn of `loop`; `fields` stand in every event of this process."""
        self._loop = loop
        self._cells = cells
        self._bound = fields
        self._bound_json = "," + _encode(fields).decode()[1:-1] if fields else ""

    def detach(self) -> None:
        """Writes what waits and goes back to a write a line."""
        self.flush()
        self._loop = None

    def set_level(self, level: str) -> None:
        """KeyError for a level that LEVELS does not have. FASTMTA_LOG_LEVEL, where set, wins over the configuration."""
        self.threshold = LEVELS.get(os.environ.get("FASTMTA_LOG_LEVEL", ""), LEVELS[level])
        if self._follow is not None:
            self._follow(self.threshold)

    def follow_level(self, told: Callable[[int], None]) -> None:
        """Tells the threshold, now and whenever it changes."""
        self._follow = told
        told(self.threshold)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop whose thread alone may write; None: any."""
        return self._loop

    @property
    def debugging(self) -> bool:
        """Whether debug events are written: for callers whose fields cost something to make."""
        return self.threshold <= 10

    @property
    def is_json(self) -> bool:
        """Whether whole lines for `line` may be built as JSON; else use `event`."""
        return not self._logfmt

    def opening(self, event: str, level: str = "info") -> str:
        """A JSON line's beginning, this process's own fields included; the caller adds `,"key":value...}` and LF."""
        return f'{{"at":"{self.timestamp()}","level":"{level}","event":"{event}"{self._bound_json}'

    def timestamp(self) -> str:
        """This instant in UTC, to the millisecond, as the lines have it."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        return f"{self._prefix}{int((now - second) * 1000):03d}Z"

    def event(self, event: str, /, level: str = "info", **fields: Any) -> None:
        """One event with its fields; nothing is made of them where the level is off."""
        number = LEVELS[level]
        traced = self.trace is not None and number >= 20 and ("queue_id" in fields or event in TRACED)
        if number < self.threshold and not traced:
            return
        record: dict[str, Any] = {"at": self.timestamp(), "level": level, "event": event, **self._bound}
        for key, value in fields.items():
            if value is not None:
                record[key] = value if type(value) is int else _value(value)
        if traced and self.trace is not None:
            self.trace.add(_encode(record) + b"\n")
        if number < self.threshold:
            return
        self.line(_logfmt(record) if self._logfmt else _encode(record) + b"\n")
        if number >= 40:
            self.flush()

    def debug(self, event: str, /, **fields: Any) -> None:
        """For a peer's mistakes and for following one session."""
        if self.threshold <= 10:
            self.event(event, "debug", **fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """For what happened to a message, and for policy's decisions."""
        if self.threshold <= 20 or self.trace is not None:
            self.event(event, "info", **fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """For what an operator should look at in daylight."""
        self.event(event, "warning", **fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """For our own faults, and for what stops mail."""
        self.event(event, "error", **fields)

    def exception(self, event: str, error: BaseException, /, **fields: Any) -> None:
        """An error with its traceback, as one field of one line."""
        self.event(
            event,
            "error",
            error=error,
            traceback="".join(traceback.format_exception(error))[-FIELD_CHARACTERS:],
            **fields,
        )

    def line(self, line: bytes) -> None:
        """A whole line, newline included, that the caller has built and escaped: for the one record a message."""
        self.gathered.add(line)

    def _begun(self) -> None:
        if self._loop is None:
            self.flush()
        else:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Writes what this turn of the loop has gathered."""
        data = self.gathered.take()
        if not data:
            return
        try:
            written = os.write(self._fd, data)
            while written < len(data):
                data = data[written:]
                written = os.write(self._fd, data)
        except OSError:  # the reader is gone or full, and there is nowhere left to say so but a counter
            if self._cells is not None:
                self._cells[METRICS.log_dropped_total] += data.count(b"\n")


def escape(raw: bytes) -> str:
    """A peer's bytes as printable ASCII without quotes, for callers of `Log.line` that build JSON themselves."""
    text = raw[:FIELD_CHARACTERS].decode("ascii", "backslashreplace")
    return _encode(text)[1:-1].decode() if not _PLAIN.issuperset(text) else text


_log: Log | None = None


def get_logger() -> Log:
    """This process's log; FASTMTA_LOG_LEVEL and FASTMTA_LOG_FORMAT (json, logfmt) set its beginning."""
    global _log
    if _log is None:
        level = os.environ.get("FASTMTA_LOG_LEVEL", "info")
        style = os.environ.get("FASTMTA_LOG_FORMAT") or (
            "logfmt" if sys.stderr is not None and sys.stderr.isatty() else "json"
        )
        _log = Log(level=level if level in LEVELS else "info", style=style)
    return _log
