"""How well messages fit the words of FUZZY keys (RFC 6203 §4): a score from 1 to 100.

A word in the subject counts three, one in a sender's or recipient's name or address two, one somewhere else in the
message one; where all words stand in the subject as they were asked for, in one piece, the score is 100.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Final

from fastmta import _mime
from fastmta.imap import order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastmta.imap.session import Session
    from fastmta.imap.view import View

_IN_SUBJECT, _IN_ADDRESS, _ELSEWHERE = 3, 2, 1
_SUBJECT: Final = 3  # places in _imap.envelope_values
_ADDRESSES: Final = (4, 5, 6)
_WORDS: Final = 32  # that count
_TEXT_BYTES: Final = 2048  # of a subject or a name that are looked at


async def scores(session: Session, view: View, uids: array[int], words: list[str]) -> Sequence[int]:
    """Of each of these messages, which have all of the words. SessionEnded."""
    out = array("I", [100 // _IN_SUBJECT if words else 100]) * len(uids)
    if not words:
        return out
    words = words[:_WORDS]
    phrase = " ".join(words)
    most = _IN_SUBJECT * len(words)

    def take(at: int, values: tuple[Any, ...]) -> None:
        subject = _text(values[_SUBJECT])
        if phrase in subject:
            out[at] = 100
            return
        people = " ".join(_text(part) for field in _ADDRESSES if values[field] for part in values[field])
        found = sum(_IN_SUBJECT if word in subject else _IN_ADDRESS if word in people else _ELSEWHERE for word in words)
        out[at] = max(1, min(99, 100 * found // most))

    await order.envelopes(session, view, uids, take)
    return out


def _text(raw: bytes | None) -> str:
    return _mime.decode_header(raw[:_TEXT_BYTES]).casefold() if raw else ""
