"""What the verdicts of several checks come to: one Outcome. For messages that a session brings, and for others."""

from collections.abc import Iterable

from fastmta.authentication.results import authentication_results
from fastmta.model.limits import CHECK_COPIES, CHECK_HEAD_BYTES, MESSAGE_CUTS
from fastmta.model.reply import Reply
from fastmta.model.stages import Stage
from fastmta.model.verdict import Action, Outcome, Verdict
from fastmta.policy.check import Check
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import METRICS, Cells

DECLINED = frozenset({Action.REJECT, Action.DEFER})
_WORDS = {action: action.name.lower() for action in Action}
_STAGES = {stage: stage.name.lower() for stage in Stage}
_DENIED = Reply(554, "5.7.1", "Access denied")
_NOT_NOW = Reply(450, "4.7.1", "Try again later")


def refusal_of(verdict: Verdict) -> Reply:
    """What is said for a verdict that refuses."""
    return verdict.reply or (_DENIED if verdict.action is Action.REJECT else _NOT_NOW)


def note(outcome: Outcome, verdict: Verdict) -> None:
    """Adds what a verdict that lets pass wants."""
    outcome.discard |= verdict.action is Action.DISCARD
    outcome.hold |= verdict.action is Action.HOLD
    outcome.quarantine |= verdict.action is Action.QUARANTINE
    if verdict.target:
        outcome.redirect = verdict.target
    if verdict.through:
        outcome.through = verdict.through
    if verdict.copies:
        new = [each for each in dict.fromkeys(verdict.copies) if each not in outcome.copies]
        outcome.copies += tuple(new[: max(0, CHECK_COPIES - len(outcome.copies))])
    if verdict.removed:
        outcome.removed = tuple(sorted({*outcome.removed, *verdict.removed}))
    if verdict.sender is not None:
        outcome.sender = verdict.sender
    if verdict.body is not None:
        outcome.body = verdict.body
    if verdict.fields:
        outcome.head = b"".join([outcome.head, *verdict.fields])
    if verdict.cuts:
        outcome.cuts = _joined(outcome.cuts + verdict.cuts)


def _joined(cuts: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """The same ranges in order, those that touch or overlap as one."""
    out: list[tuple[int, int]] = []
    for start, octets in sorted(cuts):
        if out and start <= sum(out[-1]):
            first, before = out[-1]
            out[-1] = (first, max(before, start + octets - first))
        else:
            out.append((start, octets))
    return tuple(out)


def sum_up(outcome: Outcome, verdicts: Iterable[Verdict], recipients: int) -> tuple[dict[int, Verdict], list[str]]:
    """Notes the verdicts of a message's end; (number of a recipient -> what refuses it, authentication results)."""
    everybody = range(recipients)
    refused: dict[int, Verdict] = {}
    results: list[str] = []
    for verdict in verdicts:
        results += verdict.results
        if verdict.action in DECLINED:
            for number in verdict.recipients or everybody:
                if number in everybody:
                    refused.setdefault(number, verdict)
            if not verdict.recipients:
                continue
        note(outcome, verdict)
    return refused, results


def close(outcome: Outcome, results: list[str], authserv_id: str) -> bool:
    """Puts Authentication-Results on top, of too many those that came first; whether a message can hold all of it."""
    if results:
        field = authentication_results(authserv_id, results)
        while len(field) > CHECK_HEAD_BYTES - len(outcome.head) and results:
            results.pop()
            field = authentication_results(authserv_id, results)
        outcome.head = field + outcome.head
    return len(outcome.head) <= CHECK_HEAD_BYTES and len(outcome.cuts) <= MESSAGE_CUTS


def count(cells: Cells, check: Check, verdict: Verdict) -> bool:
    """Counts a verdict; whether it has something to say for the log."""
    word = "late" if verdict.is_late else _WORDS[verdict.action]
    cells[METRICS.check_verdicts_total[_STAGES[check.stage], word]] += 1
    return bool(verdict.action or verdict.reason)


def tell(log: Log, check: Check, verdict: Verdict, **who: str | int | None) -> None:
    """Logs a verdict."""
    log.info(
        "policy.verdict",
        **who,
        check=check.name,
        stage=_STAGES[check.stage],
        verdict="late" if verdict.is_late else _WORDS[verdict.action],
        reply=str(verdict.reply) if verdict.reply is not None else None,
        reason=verdict.reason or None,
    )
