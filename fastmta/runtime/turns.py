"""The one budget of work: how the sessions of a worker share its loop, so that no input of one delays the others.

Time on the loop is drawn in pieces. A *turn* is one pass of the loop; all sessions together may work TURN_S of it on
what has just arrived, and WAITED_S on what waited. A session may work SLICE_S at a stretch, then the others come. What
does not fit waits here, and the session that has used least goes first: one that sends a command now and then is
always ahead of two hundred that send without a pause.

Every loop whose length a peer chooses asks `Share.over` between two pieces of at most PIECE_S, and where that says yes
either returns and is called again (`later`, for rules that never await) or awaits `pause`. A piece is bounded by counts
in model/limits.py: bytes read, rows looked at, lines written.

Invariants: a share waits once at most; who waits is called in a later pass of the loop and never from inside `later`;
as long as anybody waits the queue is drawn from in every pass, so nobody starves; where nobody waits and the turn has
time left, asking costs two readings of the clock and no trip through the loop.

Left to others: bytes ahead of a slow peer (each protocol's output), who may connect at all (limits by address).
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Final

from fastmta.model.limits import FIRST_S, FREE_S, PIECE_S, SLICE_S, TURN_S, WAITED_S

_TURN_NS: Final = int(TURN_S * 1e9)
_WAITED_NS: Final = int(WAITED_S * 1e9)
_SLICE_NS: Final = int(SLICE_S * 1e9)
_PIECE_NS: Final = int(PIECE_S * 1e9)
_FIRST_NS: Final = int(FIRST_S * 1e9)
_FREE_NS: Final = int(FREE_S * 1e9)
_NEWCOMER: Final = 1 << 62  # behind all others who have used as little: a crowd that connects keeps nobody waiting

Resume = Callable[[], None]


class Turns:
    """The loop time of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._loop = loop
        self._now_ns = now_ns
        self._ends_at = 0  # of the turn that is under way; 0: nobody has begun to work in it
        self._called = False  # `_pass` is scheduled
        self._waiting: list[tuple[int, int, Share]] = []  # a heap by what the share has used
        self._serial = 0  # equal ones in order of their coming
        self._level = 0  # what those who are served now have used: nobody saves up for later
        self._highest = 0

    def share(self) -> Share:
        """A session's part of the loop; one for each session."""
        return Share(self)

    @property
    def waiting(self) -> int:
        """Sessions that wait for their turn."""
        return len(self._waiting)

    def _may_work(self, now: int) -> bool:
        """Whether the turn that is under way has time left; begins one where none is."""
        if not self._ends_at:
            self._ends_at = now + _TURN_NS
            self._call()
        return now < self._ends_at

    def _call(self) -> None:
        if not self._called:
            self._called = True
            self._loop.call_soon(self._pass)

    def _charge(self, share: Share, spent: int) -> None:
        share._used = max(share._used, self._level) + spent
        self._highest = max(self._highest, share._used)

    def _wait(self, share: Share, resume: Resume) -> None:
        self._serial += 1
        share._place = self._serial + _NEWCOMER if share._new else self._serial
        share._resume = resume
        share._used = max(share._used, self._level)
        heapq.heappush(self._waiting, (share._used, share._place, share))
        self._call()

    def _pass(self) -> None:
        """Once a pass of the loop while anybody works: a new turn, and those who wait as far as it lasts."""
        self._called = False
        ends_at = self._now_ns() + _WAITED_NS
        self._ends_at = ends_at
        try:
            while self._waiting:
                used, place, share = heapq.heappop(self._waiting)
                resume = share._resume
                if share._place != place or resume is None:
                    continue  # it has left
                self._level = max(self._level, used)
                share._forget()
                share._begin(self._now_ns())
                if isinstance(resume, _Wake):
                    ends_at -= _SLICE_NS  # its task works in the next pass; counted now
                resume()
                if self._now_ns() >= ends_at:
                    break
        finally:
            self._ends_at = 0
            if self._waiting:
                self._call()
            else:
                self._level = self._highest  # those who worked alone took nothing from anybody


class Share:
    """One session's part. `over` charges it with what has run since it last asked or began."""

    __slots__ = ("_arrived", "_fresh", "_mark", "_new", "_place", "_resume", "_turns", "_until", "_used")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._used = 0
        self._new = True  # has not worked yet
        self._mark = 0
        self._until = 0
        self._arrived = False  # works on what came in this pass: a slice, and the rest waits
        self._fresh = False  # waits with input that has just come
        self._place = 0  # in the queue; 0: it does not wait
        self._resume: Resume | None = None

    @property
    def waiting(self) -> bool:
        """Whether `later` or `pause` has been called and the turn has not come yet."""
        return self._place > 0

    def enter(self, resume: Resume, *, fresh: bool = True) -> bool:
        """Asked where input arrives: whether to work on it now. Where not, `resume` is called when the turn comes.

        Input that had come before, and waited for a command to end, is not `fresh`.
        """
        turns = self._turns
        now = turns._now_ns()
        if turns._may_work(now):
            self._mark = now + _FREE_NS if fresh else now
            self._until = now + _FIRST_NS
            self._arrived = True
            self._new = False
            return True
        self._fresh = fresh
        turns._wait(self, resume)
        return False

    def begin(self) -> None:
        """A task of the session begins to work; nothing before it is charged."""
        self._begin(self._turns._now_ns())

    def over(self) -> bool:
        """Whether this session has worked enough for now; asked between two pieces of work."""
        turns = self._turns
        now = turns._now_ns()
        spent = now - self._mark
        if spent > 0:
            turns._charge(self, min(spent, _PIECE_NS))  # more than a piece: it waited for something in between
            self._mark = now
        if now < self._until:
            return False
        if self._arrived or turns._waiting or not turns._may_work(now):
            return True
        self._until = now + _SLICE_NS
        return False

    def later(self, resume: Resume) -> None:
        """Calls `resume` when this session's turn comes again, unless it has left by then."""
        self._turns._wait(self, resume)

    async def pause(self) -> None:
        """`over` and, where it is, the wait: what a long coroutine awaits between two pieces."""
        if not self.over():
            return
        future: asyncio.Future[None] = self._turns._loop.create_future()
        self._turns._wait(self, _Wake(future))
        try:
            await future
        finally:
            self._forget()
        self._begin(self._turns._now_ns())

    def leave(self) -> None:
        """The session has ended: `later` is forgotten. Who awaits `pause` is woken in its turn, to come to its end."""
        if not isinstance(self._resume, _Wake):
            self._forget()

    def _forget(self) -> None:
        self._place = 0
        self._resume = None

    def _begin(self, now: int) -> None:
        self._arrived = self._new = False
        self._mark = now + _FREE_NS if self._fresh else now
        self._fresh = False
        self._until = now + _SLICE_NS


class _Wake:
    """Wakes a task. It works after this pass, so its slice is counted beforehand."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def __call__(self) -> None:
        if not self._future.done():
            self._future.set_result(None)
