"""Short operations that a thread does beside the loop: public-key operations, and hashes of long pieces.

One thread a worker. What is asked for while it works is done next, without a further trip through the loop, and the
loop is woken once for several of them: a pool of threads costs twice as much (docs/adr/0281).

Left to others: what takes tens of milliseconds (password hashes have a pool), and what may hang.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

TOGETHER: Final = 8  # results that the loop is told of at once

_Job = tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]

_Done = tuple[asyncio.Future[Any], Any, BaseException | None]


class Aside:
    """The thread, which begins with the first operation. All methods are for the loop's own thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: deque[_Job] = deque()
        self._wake = threading.Lock()  # held: nothing new has been asked for
        self._wake.acquire()
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, operation: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        """The result of an operation, in the order of the asking. One that is cancelled before its turn is not done."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.cancel()
            return future
        self._jobs.append((future, operation, arguments))
        if self._wake.locked():  # nobody else releases it
            self._wake.release()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="signature", daemon=True)
            self._thread.start()
        return future

    def close(self) -> None:
        """Nothing further is done; who waits is cancelled."""
        self._closed = True
        while self._jobs:
            self._jobs.popleft()[0].cancel()
        if self._wake.locked():
            self._wake.release()

    def _work(self) -> None:
        """The thread."""
        while True:
            self._wake.acquire()
            if self._closed:
                return
            while self._jobs:
                done: list[_Done] = []
                while self._jobs and len(done) < TOGETHER:
                    self._do(done)
                try:
                    self._loop.call_soon_threadsafe(_tell, done)
                except RuntimeError:  # the loop is closed, and nobody waits any more
                    return

    def _do(self, done: list[_Done]) -> None:
        try:
            future, operation, arguments = self._jobs.popleft()
        except IndexError:  # `close` has taken it
            return
        if future.cancelled():
            return
        try:
            done.append((future, operation(*arguments), None))
        except Exception as error:
            done.append((future, None, error))


def _tell(done: list[_Done]) -> None:
    for future, result, error in done:
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
