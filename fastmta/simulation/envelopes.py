"""Mail that was: envelopes with their instants, from lines of JSON such as `fastmta trace --json` prints.

A line is one message or a list of them. Of a message `at` (an instant of UTC, or seconds of the epoch), `sender` and
`recipients` are wanted, these as texts or with the field `recipient`; `size`, `client` and `login` are used where they
are. What the trace has besides, each recipient's `events`, is what `past.py` learns from.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

_decode: Final = msgspec.json.Decoder().decode
_DEFAULT_BYTES: Final = 4096
LATEST_AT: Final = 221_845_392_000.0  # the year 9000: retries behind it still have a date
LINE_BYTES: Final = 256 * 2**20  # of one line: a day of a busy server, which the trace prints as one list


class Unreadable(ValueError):
    """A line is no message; the text says which and why."""


class Letter(msgspec.Struct):
    """A message as it was accepted. `became` has, by recipient, what aliases have made of it then."""

    at: float
    sender: str
    recipients: list[str]
    size_bytes: int
    client: str
    login: str
    became: dict[str, list[str]]
    events: list[dict[str, Any]]  # what happened to its recipients


def read(lines: Iterable[bytes]) -> Iterator[Letter]:
    """The messages in lines of JSON; Unreadable names a line that has none. Blank lines are passed over."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = _decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Unreadable(f"line {number} is no JSON: {error}") from error
        for message in found if isinstance(found, list) else [found]:
            try:
                letter = letter_of(message)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
                raise Unreadable(f"line {number}: no message with at, sender and recipients: {error!r}") from error
            if letter is not None:
                yield letter


def letter_of(message: dict[str, Any]) -> Letter | None:
    """A message of the trace; None: it was refused, and came from nowhere into the queue."""
    if "queue_id" in message and message["queue_id"] is None:
        return None
    recipients: list[str] = []
    became: dict[str, list[str]] = {}
    events: list[dict[str, Any]] = []
    for each in message["recipients"]:
        if isinstance(each, str):
            recipients.append(each)
            continue
        address, original = str(each["recipient"]), each.get("original_recipient")
        events += each.get("events") or ()
        if original and original != address:
            became.setdefault(str(original), []).append(address)
        else:
            recipients.append(address)
    recipients += [original for original in became if original not in recipients]
    for line in message.get("events") or ():
        events.append(line)
    at = instant(message["at"])
    if not 0 <= at <= LATEST_AT:
        raise ValueError(f"at: {at} lies before 1970 or behind the year 9000")
    return Letter(
        at=at,
        sender=str(message["sender"]),
        recipients=recipients,
        size_bytes=int(message.get("size") or _DEFAULT_BYTES),
        client=str(message.get("client") or ""),
        login=str(message.get("login") or ""),
        became=became,
        events=events,
    )


def instant(value: Any) -> float:
    """Seconds of the epoch of an instant; one without a zone is UTC. ValueError."""
    if isinstance(value, int | float):
        return float(value)
    at = datetime.fromisoformat(str(value))
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
