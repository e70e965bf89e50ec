"""Records of Python's `logging`, of libraries and of a site's own modules, in our log: one line each, as all others.

    {"at":...,"level":"warning","event":"library.record","logger":"site.filter","message":"...","traceback":"..."}

Python's warnings come the same way. What is below the log's level costs a library one comparison.
"""

import asyncio
import logging
import traceback
from functools import partial
from typing import Final

from fastmta.runtime.log import FIELD_CHARACTERS, Log

_LEVELS: Final = ((40, "error"), (30, "warning"), (20, "info"))


class LibraryRecords(logging.Handler):
    """Gives records to a Log, from whatever thread they come."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = next((name for number, name in _LEVELS if record.levelno >= number), "debug")
            trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
            say = partial(
                self._log.event,
                "library.record",
                level,
                logger=record.name,
                message=record.getMessage(),
                traceback=trace[-FIELD_CHARACTERS:] or None,
            )
            loop = self._log.loop
            if loop is None or loop is _running():
                say()
            else:
                loop.call_soon_threadsafe(say)
        except Exception:
            self.handleError(record)


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def take_library_records(log: Log) -> None:
    """From now on `logging`'s records and Python's warnings are lines of `log`, of this process and of its forks."""
    root = logging.getLogger()
    root.handlers[:] = [LibraryRecords(log)]
    log.follow_level(root.setLevel)
    logging.captureWarnings(True)
