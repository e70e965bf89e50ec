"""Address rewriting in the header of mail that comes in; policy/header_rewriting has the rules."""

from collections.abc import Awaitable, Sequence
from typing import Final

from fastmta.authentication.message import HeaderTooLong
from fastmta.config.schema import Config
from fastmta.directory.canonical import Canonical
from fastmta.model.errors import TemporaryFailure
from fastmta.model.services import screened
from fastmta.model.verdict import PASS, Action, Verdict
from fastmta.policy.check import Check, Context, Message, Parts
from fastmta.policy.checks.authentication import read_header
from fastmta.policy.header_rewriting import HeaderRewriting, cuts_of

_REFRESH_S: Final = 1.0


def build(config: Config, parts: Parts) -> Sequence[Check]:
    if not HeaderRewriting.is_wanted(config):
        return []
    return [Rewriting(HeaderRewriting(config, Canonical(config)), parts)]


class Rewriting(Check):
    """Writes addresses anew; what has no room in front stays, with a reason in the log."""

    name = "header_rewriting"
    services = (*screened("smtp"), "pickup")  # what a filter gives back has been rewritten, and perhaps signed

    def __init__(self, rewriting: HeaderRewriting, parts: Parts) -> None:
        self._rewriting = rewriting
        self._parts = parts
        self._looked_at = parts.clock.monotonic()

    def check(self, context: Context) -> Verdict | Awaitable[Verdict]:
        return PASS if context.message is None else self._rewrite(context, context.message)

    async def _rewrite(self, context: Context, message: Message) -> Verdict:
        now = self._parts.clock.monotonic()
        if now - self._looked_at >= _REFRESH_S:
            self._looked_at = now
            self._rewriting.refresh()
        try:
            fields = await read_header(message)
            made, left = await self._rewriting.changes(context, fields, self._parts.turns)
        except HeaderTooLong as error:
            return Verdict(reason=f"not rewritten: {error}")
        except TemporaryFailure as failure:
            return Verdict(Action.DEFER, failure.reply, reason="a table cannot be used")
        names = ", ".join(sorted({change.name.decode("ascii", "replace") for change in left}))
        return Verdict(
            fields=tuple(change.new for change in made),
            cuts=cuts_of(made),
            reason=f"not rewritten, too long: {names}" if names else "",
        )
