"""Postfix's restriction lists: smtpd_client_, helo_, sender_, recipient_, data_ and end_of_data_restrictions.

One list is one check: its words are asked in order, and the first that permits or rejects ends it. The words and the
tables' actions are Postfix's, with its replies. What they look up lies in the neighbouring files.
"""

from collections.abc import Awaitable, Sequence
from typing import Final

from fastmta.config.restrictions import WORDS, Restriction, parse
from fastmta.config.schema import Config
from fastmta.model.reply import Reply
from fastmta.model.stages import Stage
from fastmta.model.verdict import PASS, Action, Verdict
from fastmta.policy.check import Check, Context, Parts
from fastmta.policy.checks.restriction_words import Found, Subject, Words

_LISTS: Final = (
    (Stage.CONNECT, "smtpd_client_restrictions"),
    (Stage.HELO, "smtpd_helo_restrictions"),
    (Stage.MAIL, "smtpd_sender_restrictions"),
    (Stage.RCPT, "smtpd_recipient_restrictions"),
    (Stage.DATA, "smtpd_data_restrictions"),
    (Stage.END, "smtpd_end_of_data_restrictions"),
)
_RELAY: Final = ("permit_mynetworks", "permit_sasl_authenticated", "reject_unauth_destination")
_NOT_NOW: Final = Reply(450, "4.7.1", "Service unavailable - try again later")
_REFUSES: Final = frozenset({Action.REJECT, Action.DEFER})


def build(config: Config, parts: Parts) -> Sequence[Check]:
    """The lists that are not empty. Who may relay is asked before smtpd_recipient_restrictions, as Postfix does."""
    words = Words(config, parts)
    found = []
    for stage, key in _LISTS:
        given: tuple[str, ...] = getattr(config, key)
        if given:
            if stage is Stage.RCPT:
                found.append(RestrictionList("relay", stage, parse(_RELAY), words))
            found.append(RestrictionList(key, stage, parse(given), words))
    return found


class RestrictionList(Check):
    """One list."""

    def __init__(self, name: str, stage: Stage, restrictions: Sequence[Restriction], words: Words) -> None:
        self.name = name
        self.stage = stage
        self.has_effects = any(each.name == "check_policy_service" for each in restrictions)
        self.reads = max(WORDS[each.name].reads for each in restrictions)
        self._words = words
        self._restrictions = tuple(restrictions)

    def check(self, context: Context) -> Verdict | Awaitable[Verdict]:
        return Evaluation(self.stage, self._restrictions, self._words, context).run()


class Evaluation:
    """One walk through a list."""

    __slots__ = (
        "_at",
        "_defer_if_permit",
        "_defer_if_reject",
        "_restrictions",
        "_subject",
        "_verdict",
        "_warn",
        "_words",
    )

    def __init__(self, stage: Stage, restrictions: tuple[Restriction, ...], words: Words, context: Context) -> None:
        self._restrictions = restrictions
        self._words = words
        self._subject = Subject(stage, context)
        self._at = 0
        self._warn = False
        self._defer_if_permit: Reply | None = None
        self._defer_if_reject: Reply | None = None
        self._verdict = PASS

    def run(self) -> Verdict | Awaitable[Verdict]:
        """The list's verdict; at once where no word has to look anything up elsewhere."""
        while self._at < len(self._restrictions):
            found = self._ask()
            if isinstance(found, Awaitable):
                return self._later(found)
            end = self._take(found)
            if end is not None:
                return end
        return self._permitted(self._verdict)

    async def _later(self, pending: Awaitable[Found]) -> Verdict:
        end = self._take(await pending)
        while end is None and self._at < len(self._restrictions):
            found = self._ask()
            end = self._take(await found if isinstance(found, Awaitable) else found)
        return end if end is not None else self._permitted(self._verdict)

    def _ask(self) -> Found | Awaitable[Found]:
        restriction = self._restrictions[self._at]
        self._at += 1
        if restriction.name == "warn_if_reject":
            return "warn"
        return self._words.ask(restriction, self._subject)

    def _take(self, found: Found) -> Verdict | None:
        """The verdict that ends the list, or None."""
        if found == "warn":
            self._warn = True
            return None
        warn, self._warn = self._warn, False
        if found is None or isinstance(found, str):
            return None
        kind, verdict = found
        if warn and (kind != "now" or verdict.action in _REFUSES):
            self._words.warn(self._subject, verdict)
            return None
        if kind == "if_permit":
            self._defer_if_permit = self._defer_if_permit or verdict.reply or _NOT_NOW
        elif kind == "if_reject":
            self._defer_if_reject = self._defer_if_reject or verdict.reply or _NOT_NOW
        elif verdict.action in _REFUSES:
            if self._defer_if_reject is not None and verdict.action is Action.REJECT:
                return Verdict(Action.DEFER, self._defer_if_reject, reason=verdict.reason)
            return verdict
        elif verdict.action is Action.ACCEPT:
            return self._permitted(self._verdict if self._verdict is not PASS else verdict)
        elif verdict.action is Action.DISCARD:
            return verdict
        else:
            mine = self._verdict
            self._verdict = Verdict(
                verdict.action or mine.action,
                fields=mine.fields + verdict.fields,
                target=verdict.target or mine.target,
                reason=verdict.reason or mine.reason,
            )
        return None

    def _permitted(self, verdict: Verdict) -> Verdict:
        if self._defer_if_permit is not None:
            return Verdict(Action.DEFER, self._defer_if_permit)
        return verdict
