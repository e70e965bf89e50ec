"""What the checks of a message's way say of it, one after the other, as far as they can be asked without one.

The checks are the worker's own, asked about a client, HELO, sender and recipient as a session would ask them. Not asked
are those that would leave a trace elsewhere (a greylist, a policy service, a quota, a site's module) and those that
look into a message.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, NamedTuple

from fastmta.delivery.explanation import Step
from fastmta.model.reply import Reply
from fastmta.model.stages import Stage
from fastmta.model.verdict import Action, Verdict, standing
from fastmta.policy.check import Check, Context, deadline_s
from fastmta.policy.plan import StageList
from fastmta.policy.summing import DECLINED, refusal_of

_SAYS: Final = {
    Action.NONE: "lets pass",
    Action.ACCEPT: "accepts",
    Action.REJECT: "rejects",
    Action.DEFER: "defers",
    Action.DISCARD: "takes the mail and throws it away",
    Action.HOLD: "holds the mail in the queue",
    Action.QUARANTINE: "files the mail into Junk",
    Action.REDIRECT: "sends the mail to somebody else",
}
_ALLOWS: Final = frozenset({Action.ACCEPT, Action.DISCARD})


class Answer(NamedTuple):
    """A step; the reply of a check that refuses; and what it says of relaying, None: nothing."""

    step: Step
    refusal: str = ""
    may_relay: bool | None = None


async def policy_answers(lists: Iterable[StageList], about: Context) -> AsyncIterator[Answer]:
    """Every check in order. It ends behind the first that refuses."""
    put_off: Reply | None = None  # what an earlier list's DEFER_IF_PERMIT says
    for each in lists:
        before = put_off
        for check in each.checks:
            due = f" (at {each.due.name})" if each.due is not each.stage else ""
            text = f"{each.stage.name}{due}: {check.name}" + (f" = {check.words}" if check.words else "")
            values: dict[str, object] = {
                "stage": each.stage.name,
                "due": each.due.name,
                "check": check.name,
                "words": check.words,
            }
            why = _not_asked(check, each.stage, about)
            if why:
                yield Answer(Step("policy", f"{text}; not asked: {why}", {**values, "asked": False}))
                continue
            verdict = standing(await _asked(check, each.stage, about), before)
            put_off = put_off or verdict.if_permit
            said, refusal = _said(verdict)
            values |= {"asked": True, "verdict": verdict.action.name.lower(), "reason": verdict.reason}
            if refusal:
                values["reply"] = refusal
            may_relay = (verdict.permits or verdict.action in _ALLOWS) if check.grants_relay else None
            yield Answer(Step("policy", f"{text}: {said}", values), refusal, may_relay)
            if refusal:
                return
            if verdict.action in _ALLOWS and check.accepts_for_all:
                break


def _not_asked(check: Check, stage: Stage, about: Context) -> str:
    if about.is_known and not check.known_too:
        return "the client is known"
    if check.has_effects:
        return "it has effects elsewhere"
    if stage is Stage.END and not check.words:
        return "it looks into the message"
    return ""


async def _asked(check: Check, stage: Stage, about: Context) -> Verdict:
    try:
        found = check.check(about)
        if isinstance(found, Verdict):
            return found
        return await asyncio.wait_for(found, deadline_s(stage))
    except TimeoutError:
        return check.late


def _said(verdict: Verdict) -> tuple[str, str]:
    """What a verdict says, and the reply where it refuses."""
    refusal = str(refusal_of(verdict)) if verdict.action in DECLINED else ""
    said = _SAYS[verdict.action] + (f": {refusal}" if refusal else "")
    if verdict.target:
        said += f", to {verdict.target.decode('utf-8', 'backslashreplace')}"
    if verdict.copies:
        said += f", a copy to {b', '.join(verdict.copies).decode('utf-8', 'backslashreplace')}"
    if verdict.through:
        said += f", through the filter {verdict.through}"
    for field in verdict.fields:
        said += f", adds {field.decode('utf-8', 'backslashreplace').rstrip()}"
    return said + (f" ({verdict.reason})" if verdict.reason else ""), refusal
