"""The answers to /healthz and /readyz: 200, or 503 with one line that says why."""

from collections.abc import Callable

from fastmta.admin.http import Answer, Request
from fastmta.runtime.board import Board
from fastmta.runtime.metrics import Cells


def healthz(_: Request) -> Answer:
    """This process's loop turns: that is all that a liveness check should restart a server for."""
    return Answer(200, b"ok\n")


class Readiness:
    """Whether mail can be taken in: listeners up, store writable. `trouble` is the store's own word, "" for none."""

    def __init__(self, board: Cells, accepting: Callable[[], bool], trouble: Callable[[], str]) -> None:
        self._board = board
        self._accepting = accepting
        self._trouble = trouble

    def readyz(self, _: Request) -> Answer:
        """Ready as long as one worker accepts, since the others' sockets are served or kept meanwhile."""
        if not self._accepting():
            return _not_ready("this worker is not accepting: it is starting or shutting down")
        if self._board[Board.STORE_FAILED]:
            return _not_ready("the store failed to commit; workers are being replaced")
        if self._board[Board.STORE_DAMAGED]:
            return _not_ready("the store is damaged: see store.damaged in the log, and run fastmta store check")
        trouble = self._trouble()
        if trouble:
            return _not_ready(trouble)
        ready = max(1, self._board[Board.READY])  # this one may be faster than the supervisor's count
        stuck = self._board[Board.STUCK]
        more = f"; {stuck} stuck, see the log" if stuck else ""
        return Answer(200, f"ready: {ready} of {self._board[Board.SLOTS]} workers{more}\n".encode())


def _not_ready(reason: str) -> Answer:
    return Answer(503, f"not ready: {reason}\n".encode())
