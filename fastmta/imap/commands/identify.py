"""ID (RFC 2971): a fixed answer; what the client says of itself is checked for form and dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastmta import __version__
from fastmta._imap import BadSyntax

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

MAX_FIELDS: Final = 30  # RFC 2971 §3.3
_ANSWER: Final = b'* ID ("name" "FastMTA" "version" "%b")\r\n' % __version__.encode("ascii")


def run(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    if cursor.try_open():
        fields = 0
        while not cursor.try_close():
            if fields:
                cursor.sp()
            cursor.string()
            cursor.sp()
            cursor.nstring()
            fields += 1
            if fields > MAX_FIELDS:
                raise BadSyntax("Too many fields")
    elif cursor.nstring() is not None:
        raise BadSyntax("NIL or a parenthesized list expected")
    cursor.end()
    session.write(_ANSWER)
    return b"OK ID completed"
