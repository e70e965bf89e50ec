"""What libraries and a site's modules say by `logging` stands in our log, in our form."""

import asyncio
import json
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

from fastmta.runtime.library_log import take_library_records
from fastmta.runtime.log import Log

Lines = Callable[[], list[dict[str, str]]]


@pytest.fixture
def bridged() -> Iterator[tuple[Log, Lines]]:
    read, write = os.pipe2(os.O_NONBLOCK)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    log = Log(write)
    take_library_records(log)

    def lines() -> list[dict[str, str]]:
        try:
            return [json.loads(line) for line in os.read(read, 65_536).splitlines()]
        except BlockingIOError:
            return []

    yield log, lines
    logging.captureWarnings(False)
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    os.close(read)
    os.close(write)


def test_a_record_is_one_line_of_ours(bridged: tuple[Log, Lines]) -> None:
    logging.getLogger("site.filter").warning("cannot reach %s\nforged", "10.0.0.1")
    (line,) = bridged[1]()
    assert (line["level"], line["event"], line["logger"]) == ("warning", "library.record", "site.filter")
    assert line["message"] == "cannot reach 10.0.0.1\nforged"
    assert "traceback" not in line


def test_an_exception_brings_its_traceback(bridged: tuple[Log, Lines]) -> None:
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("lib").exception("failed")
    (line,) = bridged[1]()
    assert line["level"] == "error"
    assert "ValueError: no" in line["traceback"]


def test_the_level_is_the_logs(bridged: tuple[Log, Lines]) -> None:
    log, lines = bridged
    library = logging.getLogger("lib")
    library.debug("no")
    library.info("yes")
    log.set_level("error")
    library.warning("no")
    assert not library.isEnabledFor(logging.WARNING)
    log.set_level("debug")
    library.debug("yes too")
    assert [line["message"] for line in lines()] == ["yes", "yes too"]


def test_a_warning_of_python_is_a_record(bridged: tuple[Log, Lines]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    (line,) = bridged[1]()
    assert line["logger"] == "py.warnings"
    assert "DeprecationWarning: old" in line["message"]


async def test_another_thread_may_say_something(bridged: tuple[Log, Lines]) -> None:
    log, lines = bridged
    log.attach(asyncio.get_running_loop(), slot=3)
    thread = threading.Thread(target=logging.getLogger("lib").warning, args=("from a thread",))
    thread.start()
    await asyncio.to_thread(thread.join)
    logging.getLogger("lib").warning("from the loop")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    log.detach()
    assert {(line["message"], line["slot"]) for line in lines()} == {("from a thread", 3), ("from the loop", 3)}


def test_a_record_that_cannot_be_made_harms_nobody(bridged: tuple[Log, Lines], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logging.getLogger("lib").warning("%d", "no number")
    assert bridged[1]() == []
