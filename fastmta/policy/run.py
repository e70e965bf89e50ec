"""The checks of one stage at work on one context.

Pure checks run side by side; one with effects, or that reads verdicts, starts when all before it have let pass. The
first decisive verdict in the list's order counts, and the rest are cancelled; one about some of the recipients decides
nothing about the others. When the time is over, each check that has not answered answers
what it says of itself for that case; so does one that fails.
"""

import asyncio
from collections.abc import Callable
from types import CoroutineType
from typing import Any

from msgspec.structs import replace

from fastmta.model.verdict import DECISIVE, PASS, Action, Verdict
from fastmta.policy.check import Check, Context

Failed = Callable[[Check, BaseException], None]


class Run:
    """One run. `verdicts` is complete, up to the decisive one, when it is `done`."""

    __slots__ = ("_answers", "_context", "_failed", "_loop", "_then", "_timer", "checks", "done", "is_told", "verdicts")

    def __init__(
        self,
        checks: tuple[Check, ...],
        context: Context,
        deadline_s: float,
        loop: asyncio.AbstractEventLoop,
        failed: Failed,
    ) -> None:
        self.checks = checks
        self.done = False
        self.is_told = False  # its verdicts are in the log
        self.verdicts: list[tuple[Check, Verdict]] = []
        self._context = context
        self._failed = failed
        self._loop = loop
        self._then: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answers: list[Any] = []  # of each check that was started: its Verdict, or the future of one
        self._go_on()
        if not self.done:
            self._timer = loop.call_later(deadline_s, self._late)

    def when_done(self, then: Callable[[], None]) -> None:
        """Calls `then` once, as soon as all is said, unless the run is cancelled before."""
        self._then = then

    def cancel(self) -> None:
        """Gives up what has not answered; nobody is told any more."""
        self._then = None
        self.done = True
        self._leave()

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for answer in self._answers:
            if not isinstance(answer, Verdict):
                answer.cancel()
        self._answers.clear()

    def _go_on(self) -> None:
        """Takes over the answers that stand in order, starts what may start, and looks whether all is said."""
        checks, answers, verdicts = self.checks, self._answers, self.verdicts
        decided = False
        while True:
            while len(verdicts) < len(answers) and not decided:
                answer = answers[len(verdicts)]
                if not isinstance(answer, Verdict):
                    break
                check = checks[len(verdicts)]
                verdicts.append((check, answer))
                decided = answer.action in DECISIVE and not answer.recipients
                decided = decided and (check.accepts_for_all or answer.action is not Action.ACCEPT)
            if decided or len(verdicts) == len(checks):
                break
            if len(answers) == len(checks):
                return
            check = checks[len(answers)]
            if len(verdicts) < len(answers) and (check.has_effects or check.reads_verdicts):
                return  # somebody before it has not answered
            answers.append(self._ask(check))
        self.done = True
        self._leave()
        then, self._then = self._then, None
        if then is not None:
            then()

    def _ask(self, check: Check) -> Any:
        context = self._context
        if not (check.known_too if context.is_known else check.strangers_too):
            return PASS
        if check.reads_verdicts:
            said: tuple[Verdict, ...] = ()
            for _, verdict in self.verdicts:
                if verdict is not PASS:
                    said += (verdict,)
            if said:
                context = replace(context, verdicts=said)
        try:
            answer = check.check(context)
        except Exception as error:
            self._failed(check, error)
            return check.late
        if isinstance(answer, Verdict):
            return answer
        future = self._loop.create_task(answer) if type(answer) is CoroutineType else asyncio.ensure_future(answer)
        number = len(self._answers)
        future.add_done_callback(lambda done: self._answered(number, done))
        return future

    def _answered(self, number: int, future: "asyncio.Future[Verdict]") -> None:
        error = None if future.cancelled() else future.exception()
        if self.done:
            return
        check = self.checks[number]
        if future.cancelled() or error is not None:
            if error is not None:
                self._failed(check, error)
            self._answers[number] = check.late
        else:
            self._answers[number] = future.result()
        self._go_on()

    def _late(self) -> None:
        self._timer = None
        while not self.done:  # a check with effects that has its turn only now has no time left either
            for number, answer in enumerate(self._answers):
                if not isinstance(answer, Verdict):
                    answer.cancel()
                    self._answers[number] = self.checks[number].late
            self._answers += [check.late for check in self.checks[len(self._answers) :]]
            self._go_on()
