"""Postfix's restriction lists: smtpd_client_, helo_, sender_, relay_, recipient_, data_ and end_of_data_restrictions.

One list is one check: its words are asked in order, and the first that permits or rejects ends it, and it alone. The
words and the tables' actions are Postfix's, with its replies. What they look up lies in the neighbouring files.
A class is put in the place of its name, and so are the restrictions that a table gives.
"""

from collections.abc import Awaitable, Sequence
from typing import Final

from msgspec.structs import replace

from fastmta.config.kinds import RELAY_RESTRICTIONS
from fastmta.config.restrictions import WORDS, Restriction, parse
from fastmta.config.schema import Config
from fastmta.model.limits import RESTRICTIONS_ASKED
from fastmta.model.reply import Reply
from fastmta.model.stages import Stage
from fastmta.model.verdict import PASS, Action, Verdict
from fastmta.policy.check import Check, Context, Parts
from fastmta.policy.checks.access import MISTAKEN
from fastmta.policy.checks.restriction_words import Found, Subject, Words

_LISTS: Final = (
    (Stage.CONNECT, "smtpd_client_restrictions"),
    (Stage.HELO, "smtpd_helo_restrictions"),
    (Stage.MAIL, "smtpd_sender_restrictions"),
    (Stage.RCPT, "smtpd_relay_restrictions"),
    (Stage.RCPT, "smtpd_recipient_restrictions"),
    (Stage.DATA, "smtpd_data_restrictions"),
    (Stage.END, "smtpd_end_of_data_restrictions"),
)
_ENDLESS: Final = Verdict(
    Action.DEFER, Reply(451, "4.3.5", "Server configuration error"), reason="classes and tables that name each other"
)
_NOT_NOW: Final = Reply(450, "4.7.1", "Service unavailable - try again later")
_REFUSES: Final = frozenset({Action.REJECT, Action.DEFER})


def build(config: Config, parts: Parts) -> Sequence[Check]:
    """The lists that are not empty. Who may relay is asked before smtpd_recipient_restrictions, as Postfix does; where
    neither is set the session knows it by itself (`_session`, `_add`), and nobody is asked; unless an earlier list may
    put a recipient off whom nobody refuses.
    """
    words = Words(config, parts)
    relays_as_known = config.smtpd_relay_restrictions == RELAY_RESTRICTIONS and not config.smtpd_recipient_restrictions
    relay = "smtpd_relay_restrictions" if config.smtpd_relay_restrictions else "smtpd_recipient_restrictions"
    found: list[RestrictionList] = []
    for stage, key in _LISTS:
        given: tuple[str, ...] = getattr(config, key)
        if given and not (relays_as_known and key == relay and not any(each.may_put_off for each in found)):
            made = RestrictionList(key, stage, parse(given), words, grants_relay=key == relay)
            if not config.smtpd_delay_reject:
                made.reads = stage  # what is not known there yet says nothing
            found.append(made)
    if config.smtpd_reject_unlisted_sender:
        unlisted = [Restriction("reject_unlisted_sender", "")]
        found.append(RestrictionList("smtpd_reject_unlisted_sender", Stage.MAIL, unlisted, words))
    return found


class RestrictionList(Check):
    """One list."""

    accepts_for_all = False

    def __init__(
        self,
        name: str,
        stage: Stage,
        restrictions: Sequence[Restriction],
        words: Words,
        *,
        grants_relay: bool = False,
    ) -> None:
        self.name = name
        self.words = ", ".join(f"{each.name} {each.argument}".rstrip() for each in restrictions)
        self.stage = stage
        self.grants_relay = grants_relay
        named = words.named(restrictions)
        self.has_effects = "check_policy_service" in named
        self.may_put_off = any(words.may_put_off(name) for name in named)
        self.reads = min(max(stage, Stage.RCPT), max(words.reads(name) for name in named))
        self._words = words
        self._restrictions = tuple(restrictions)

    def check(self, context: Context) -> Verdict | Awaitable[Verdict]:
        return Evaluation(self.stage, self._restrictions, self._words, context).run()


class Evaluation:
    """One walk through a list."""

    __slots__ = (
        "_asked",
        "_defer_if_permit",
        "_defer_if_reject",
        "_is_behind",
        "_may_permit",
        "_pending",
        "_subject",
        "_verdict",
        "_warn",
        "_warns_next",
        "_words",
    )

    def __init__(self, stage: Stage, restrictions: tuple[Restriction, ...], words: Words, context: Context) -> None:
        # With warn_if_reject before it or not, and whether it may permit.
        self._pending = [(each, False, True) for each in reversed(restrictions)]
        self._words = words
        self._subject = Subject(stage, context)
        self._asked = 0
        self._warn = False  # of the one that is asked
        self._may_permit = True
        self._is_behind = False  # a word has been asked
        self._warns_next = False
        self._defer_if_permit: Reply | None = None
        self._defer_if_reject: Reply | None = None
        self._verdict = PASS

    def run(self) -> Verdict | Awaitable[Verdict]:
        """The list's verdict; at once where no word has to look anything up elsewhere."""
        while self._pending:
            found = self._ask()
            if isinstance(found, Awaitable):
                return self._later(found)
            end = self._take(found)
            if end is not None:
                return end
        return self._permitted(self._verdict)

    async def _later(self, pending: Awaitable[Found]) -> Verdict:
        end = self._take(await pending)
        while end is None and self._pending:
            found = self._ask()
            end = self._take(await found if isinstance(found, Awaitable) else found)
        return end if end is not None else self._permitted(self._verdict)

    def _ask(self) -> Found | Awaitable[Found]:
        restriction, warn, may_permit = self._pending.pop()
        self._asked += 1
        if self._asked > RESTRICTIONS_ASKED:
            return "now", _ENDLESS
        self._warn, self._warns_next = warn or self._warns_next, False
        word = WORDS.get(restriction.name)
        self._may_permit = may_permit and (word is None or word.permits)
        if restriction.name == "warn_if_reject":
            self._warns_next = True
            return None
        return self._words.class_of(restriction) or self._words.ask(restriction, self._subject)

    def _take(self, found: Found) -> Verdict | None:
        """The verdict that ends the list, or None."""
        if found is None:
            self._is_behind |= not self._warns_next
            return None
        if isinstance(found, list):
            self._pending += [(each, self._warn, self._may_permit) for each in reversed(found)]
            return None
        end = self._decided(*found)
        self._is_behind = True
        return end

    def _decided(self, kind: str, verdict: Verdict) -> Verdict | None:
        if self._warn and (kind == "if_permit" or verdict.action in _REFUSES) and kind != "if_reject":
            self._words.warn(self._subject, verdict)
            return None
        if kind != "now":
            if kind == "if_permit":
                self._defer_if_permit = self._defer_if_permit or verdict.reply or _NOT_NOW
            else:
                self._defer_if_reject = self._defer_if_reject or verdict.reply or _NOT_NOW
            if self._defer_if_permit is not None and self._defer_if_reject is not None:
                return self._permitted(self._verdict)  # the recipient is put off whatever the rest says
        elif verdict.action in _REFUSES:
            return self._refused(verdict)
        elif verdict.action is Action.ACCEPT and not self._may_permit:
            return Verdict(Action.DEFER, MISTAKEN, reason=f"{verdict.reason or 'a table of names'} permits: forged")
        elif verdict.action is Action.ACCEPT:
            return self._permitted(verdict if self._verdict is PASS else replace(self._verdict, permits=True))
        elif verdict.action is Action.DISCARD:
            return verdict
        else:
            mine = self._verdict
            self._verdict = Verdict(
                verdict.action or mine.action,
                fields=mine.fields + verdict.fields,
                copies=mine.copies + verdict.copies,
                target=verdict.target or mine.target,
                through=verdict.through or mine.through,
                reason=verdict.reason or mine.reason,
            )
        return None

    def _refused(self, verdict: Verdict) -> Verdict:
        """A refusal, or what defer_if_reject makes of it. Postfix ends a list where defer_if_reject joins an earlier
        list's defer_if_permit, and asks the lists behind it; we know of the earlier list only when its turn comes.
        """
        if self._defer_if_reject is None or verdict.action is not Action.REJECT:
            return replace(verdict, is_behind=True) if self._is_behind else verdict
        if self._subject.stage <= Stage.RCPT:
            return self._permitted(Verdict(if_alone=self._defer_if_reject, reason=verdict.reason))
        return Verdict(Action.DEFER, self._defer_if_reject, reason=verdict.reason)

    def _permitted(self, verdict: Verdict) -> Verdict:
        if self._defer_if_reject is not None and self._subject.stage is Stage.RCPT:
            verdict = replace(verdict, if_reject=self._defer_if_reject)
        if self._defer_if_permit is None:
            return verdict
        if self._subject.stage <= Stage.RCPT:  # whoever refuses later goes before it
            return replace(verdict, if_permit=self._defer_if_permit)
        return Verdict(Action.DEFER, self._defer_if_permit)
