"""Checks whose answers a test gives when it likes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastmta.model.reply import Reply
from fastmta.model.stages import Stage
from fastmta.model.verdict import PASS, Action, Verdict
from fastmta.policy.check import Check, Context
from fastmta.policy.plan import Plan
from tests.support.smtp_rig import SmtpRig

STRANGER = "198.51.100.9"
REFUSED = Verdict(Action.REJECT, Reply(554, "5.7.1", "No"), reason="because")


class Fixed(Check):
    """Answers at once, with a verdict or with what a function makes of the context."""

    def __init__(self, stage: Stage, answer: Verdict | Callable[[Context], Verdict] = PASS, **attributes: Any) -> None:
        self.stage = stage
        self.name = f"fixed.{stage.name.lower()}"
        self.answer = answer
        self.asked: list[Context] = []
        for name, value in attributes.items():
            setattr(self, name, value)

    def check(self, context: Context) -> Verdict | Awaitable[Verdict]:
        self.asked.append(context)
        return self.answer if isinstance(self.answer, Verdict) else self.answer(context)


class Waiting(Fixed):
    """Answers when the test says so."""

    def __init__(self, stage: Stage, **attributes: Any) -> None:
        super().__init__(stage, **attributes)
        self.waits: list[asyncio.Future[Verdict]] = []

    def check(self, context: Context) -> Verdict | Awaitable[Verdict]:
        self.asked.append(context)
        self.waits.append(asyncio.get_running_loop().create_future())
        return self.waits[-1]

    async def say(self, verdict: Verdict = PASS) -> None:
        """Answers the oldest question that is still open."""
        next(wait for wait in self.waits if not wait.done()).set_result(verdict)
        await turn()

    @property
    def cancelled(self) -> int:
        return sum(wait.cancelled() for wait in self.waits)


async def turn() -> None:
    """Lets what is due on the loop run."""
    for _ in range(5):
        await asyncio.sleep(0)


def ask(rig: SmtpRig, *checks: Check, delay_reject: bool = True) -> None:
    """Has the rig's services ask these checks, from their next configuration on."""
    plan = Plan(checks, delay_reject=delay_reject)
    rig.server.plan = lambda service: plan  # type: ignore[method-assign]
