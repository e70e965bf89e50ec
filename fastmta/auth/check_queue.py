"""Whose password is checked next: every address in turn, and within an address every login name in turn.

A hash costs 30 ms of a core and 19 MB meanwhile, so whoever can fill the queue can keep all others out. Here an address
has one check at a time (docs/adr/0215), so the next of another address never finds all threads at work for it, and a
newcomer waits for one check of each other address that waits, however many those have queued. What an address may queue
is bounded, and so is all of it together.
"""

import asyncio
from collections import deque
from typing import Final

from fastmta.model.errors import TemporaryFailure
from fastmta.model.limits import PASSWORD_CHECKS_OF_ADDRESS, PASSWORD_CHECKS_WAITING
from fastmta.model.reply import Reply

BUSY: Final = Reply(454, "4.7.0", "Temporary authentication failure")

_Line = deque["asyncio.Future[None]"]


class CheckQueue:
    """Gives out `at_once` turns, to each address one; each `take` that returns is followed by one `done`.

    Where a turn is free, whoever waits is of an address that has one.
    """

    __slots__ = ("_free", "_lines", "_served", "_waiting", "waiting")

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._served: set[str] = set()  # addresses that have a turn
        self._lines: dict[str, dict[str, _Line]] = {}  # address: login name: who waits; next in turn first
        self._waiting: dict[str, int] = {}  # address: how many of it wait
        self.waiting = 0  # of all addresses

    async def take(self, address: str, name: str) -> None:
        """Returns when it is this one's turn. Raises TemporaryFailure where too many wait; may be cancelled."""
        if self._free > 0 and address not in self._served:
            self._free -= 1
            self._served.add(address)
            return
        count = self._waiting.get(address, 0)
        if count >= PASSWORD_CHECKS_OF_ADDRESS or self.waiting >= PASSWORD_CHECKS_WAITING:
            raise TemporaryFailure(BUSY)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(address, {}).setdefault(name, deque()).append(turn)
        self._waiting[address] = count + 1
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._remove(address, name, turn)
            else:
                self.done(address)  # it had just been given
            raise

    def done(self, address: str) -> None:
        """Hands on the turn that this address had."""
        self._served.remove(address)
        while (following := next((each for each in self._lines if each not in self._served), None)) is not None:
            lines = self._lines[following]
            name, line = next(iter(lines.items()))
            turn = line.popleft()
            # Both go to the end of their round, or out of it where nothing of theirs waits any more.
            del lines[name]
            if line:
                lines[name] = line
            del self._lines[following]
            if lines:
                self._lines[following] = lines
            self._count_out(following)
            if not turn.cancelled():  # whoever was cancelled has not run since
                self._served.add(following)
                turn.set_result(None)
                return
        self._free += 1

    def _count_out(self, address: str) -> None:
        self.waiting -= 1
        self._waiting[address] -= 1
        if not self._waiting[address]:
            del self._waiting[address]

    def _remove(self, address: str, name: str, turn: "asyncio.Future[None]") -> None:
        lines = self._lines.get(address, {})
        line = lines.get(name)
        if line is None or turn not in line:  # `done` has met it already
            return
        line.remove(turn)
        if not line:
            del lines[name]
        if not lines:
            del self._lines[address]
        self._count_out(address)
