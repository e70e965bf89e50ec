"""Addresses in header fields: where each lies, so that one may be written anew and all else stays as it came.

Rules over text: quoted strings, comments, groups, routes and display names are passed over (RFC 5322 §3.4, §4.4). What
is no address is left alone. A field is read once, from left to right, and others get their turn between two addresses,
since each may be asked of tables of thousands of expressions.
"""

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, NamedTuple

_SPACE: Final = re.compile(r"\s+")
# Beside quoted strings and domain literals a token is blanks, one special, or a run of what is none. Comments nest, and
# are read by themselves.
_QUOTED: Final = {
    '"': re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL),
    "[": re.compile(r"\[(?:[^\]\\]|\\.)*\]", re.DOTALL),
}
_TOKENS_A_TURN: Final = 256  # of what is no address: 0.3 ms
_TOKEN: Final = re.compile(r'\s+|[^\s()<>,;:"\[]+|.', re.DOTALL)

# Postfix's header classes: whose addresses a field has.
SENDERS: Final = frozenset(
    {
        b"disposition-notification-to",
        b"errors-to",
        b"from",
        b"mail-followup-to",
        b"reply-to",
        b"resent-from",
        b"resent-sender",
        b"return-path",
        b"return-receipt-to",
        b"sender",
    }
)
RECIPIENTS: Final = frozenset(
    {b"apparently-to", b"bcc", b"cc", b"resent-bcc", b"resent-cc", b"resent-reply-to", b"resent-to", b"to"}
)


class Span(NamedTuple):
    """Where an address lies in the text, and what it is without blanks."""

    start: int
    end: int
    text: str


def spans(text: str) -> Iterator[Span]:
    """The addresses of a field's value, in order."""
    return (span for span in _read(text) if span is not None)


def _read(text: str) -> Iterator[Span | None]:
    """The addresses, and None now and then between them: others may have their turn."""
    first = last = -1  # of the address that is read, outside of brackets
    angle = -1  # behind the "<"
    had_angle = False
    depth = 0  # of comments
    broken = False  # a comment lies within the address
    endless: set[str] = set()  # openings that nothing closes any more, from here to the end
    at = steps = 0
    size = len(text)
    while at < size:
        steps += 1
        if steps % _TOKENS_A_TURN == 0:
            yield None
        if depth:
            sign = text[at]
            at += 2 if sign == "\\" else 1
            depth += (sign == "(") - (sign == ")")
            continue
        opening = text[at]
        found = _QUOTED[opening].match(text, at) if opening in _QUOTED and opening not in endless else None
        if found is None:
            if opening in _QUOTED:
                endless.add(opening)
            found = _TOKEN.match(text, at)
            assert found is not None
        token, end = found[0], found.end()
        if token == "(":
            depth = 1
        elif angle >= 0:
            if token == ">":
                inner = text[angle:at]
                start = angle + (inner.rfind(":", 0, _local_part(inner)) + 1)  # behind a route
                yield from _span(text, start, at)
                angle = -1
        elif token == "<":
            angle, had_angle = end, True
        elif token in (",", ";", ":"):
            if first >= 0 and not had_angle and token != ":" and not broken:
                yield from _span(text, first, last)
            first, had_angle, broken = -1, False, False
        elif not token.isspace():
            if first < 0:
                first = at
            elif "(" in text[last:at]:
                broken = True
            last = end
        at = end
    if first >= 0 and not had_angle and not broken:
        yield from _span(text, first, last)


async def rewritten(text: str, change: Callable[[str], str | None], pause: Callable[[], Awaitable[None]]) -> str | None:
    """The value with each address as `change` gives it (None: as it is); None where nothing changes. `pause` is awaited
    between two pieces of the work.
    """
    out, at = [], 0
    for span in _read(text):
        await pause()
        new = change(span.text) if span is not None else None
        if span is not None and new is not None and new != span.text:
            out += [text[at : span.start], new]
            at = span.end
    return "".join([*out, text[at:]]) if out else None


def _local_part(inner: str) -> int:
    """Up to where a route may end: before the last "@", and before a quoted local part."""
    quoted = inner.find('"')
    at = inner.rfind("@")
    return min(place for place in (quoted if quoted >= 0 else len(inner), at if at >= 0 else len(inner)))


def _span(text: str, start: int, end: int) -> Iterator[Span]:
    raw = text[start:end]
    shift = len(raw) - len(raw.lstrip())
    raw = raw.strip()
    found = raw if raw[:1] == '"' else _SPACE.sub("", raw)
    if found and "(" not in found:
        yield Span(start + shift, start + shift + len(raw), found)
