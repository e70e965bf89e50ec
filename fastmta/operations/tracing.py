"""What happened to messages: the act `mail.trace`, from the files of the trace, with the server up or down.

It is done in the caller's process: the files may be large and cold, which no worker's loop should wait for. A running
server is asked to write what it has gathered first, so that a message which was answered a moment ago is found.
"""

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from fastmta.config.values import parse_time
from fastmta.model.errors import ActFailed, FastMTAError, NotRunning
from fastmta.model.ids import queue_id_text
from fastmta.operations.acts import act
from fastmta.operations.desk import BareDesk
from fastmta.operations.selecting import queue_id
from fastmta.runtime.owned import acting_as_owner
from fastmta.trace.search import newest, search
from fastmta.trace.story import STATUSES, Wanted


def _said(text: str, **extra: Any) -> msgspec.Meta:
    return msgspec.Meta(description=text, extra=extra or None)


class TraceMail(msgspec.Struct, forbid_unknown_fields=True):
    """Messages that are as all of this says; None says nothing."""

    sender: Annotated[
        str | None, _said('The envelope sender, or its domain; "": the null sender.', option="--from")
    ] = None
    recipient: Annotated[str | None, _said("A recipient, also before aliases, or a domain.", option="--to")] = None
    id: Annotated[str | None, _said("A queue id.")] = None
    message_id: Annotated[str | None, _said("The Message-ID, with or without its angle brackets.")] = None
    client: Annotated[str | None, _said("The client's address, network or name.")] = None
    status: Annotated[str | None, _said("Where a recipient stands at the last.", choices=list(STATUSES))] = None
    since: Annotated[str | None, _said('"2h" ago, or an instant of UTC such as 2026-11-27T22:00.')] = None
    until: Annotated[str | None, _said("The same.")] = None
    limit: Annotated[int, msgspec.Meta(description="At most so many messages.", ge=1)] = 100


class Traced(msgspec.Struct):
    """The last messages that are as wanted, the newest last, as Story.as_json has them. `more`: there are others before
    them; `trouble`: why the last second may be missing, "" where it is not.
    """

    messages: list[dict[str, Any]]
    more: bool
    trouble: str


@act("mail.trace")
async def trace(desk: BareDesk, asked: TraceMail) -> Traced:
    """Say what happened to messages: who sent them to whom, each attempt, and where each recipient stands.

    A message is told if it is as all options say; without any, the last ones are. The newest come last.
    """
    wanted = _wanted(asked)
    directory = Path(desk.config.data_directory)
    trouble = ""
    try:
        await desk.server.ask("flush_trace", desk.actor)
    except NotRunning:
        pass
    except FastMTAError as error:
        trouble = str(error)
    with acting_as_owner(directory):
        found, more = newest(search(directory, wanted), asked.limit)
    return Traced([story.as_json() for story in found], more, trouble)


def _wanted(asked: TraceMail) -> Wanted:
    for option, value in (("--to", asked.recipient), ("--message-id", asked.message_id), ("--client", asked.client)):
        if value is not None and not value.strip("<> "):
            raise ActFailed(f"{option} is empty", "usage")
    since_at = instant("--since", asked.since) if asked.since is not None else 0.0
    return Wanted(
        queue_id_text(queue_id(asked.id)) if asked.id is not None else "",
        (asked.message_id or "").strip(),
        None if asked.sender is None else asked.sender.strip().removeprefix("<").removesuffix(">"),
        (asked.recipient or "").strip().removeprefix("<").removesuffix(">"),
        (asked.client or "").strip(),
        (asked.status or "").lower(),
        since_at,
        _as_told(since_at) if since_at else "",
        _as_told(instant("--until", asked.until)) if asked.until is not None else "",
    )


def instant(option: str, text: str) -> float:
    """Unix time of "2h" (ago) or of an ISO 8601 instant, which is UTC where it names no zone."""
    try:
        return time.time() - parse_time(text) if re.fullmatch(r"\d+\s*[a-zA-Z]", text.strip()) else _iso(text)
    except (ValueError, OverflowError):
        raise ActFailed(
            f'{option} {text}: expected a time such as "2h" or "3d", or an instant such as 2026-11-27T22:00', "usage"
        ) from None


def _iso(text: str) -> float:
    at = datetime.fromisoformat(text.strip())
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def _as_told(at: float) -> str:
    """An instant as the lines of the trace have it; they sort as texts."""
    shown = datetime.fromtimestamp(min(max(at, 0.0), 253_402_300_799.0), UTC)
    return shown.strftime("%Y-%m-%dT%H:%M:%S.") + f"{shown.microsecond // 1000:03d}Z"
