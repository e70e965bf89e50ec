"""What an APPEND or REPLACE asks for (RFC 3501 §6.3.11, RFC 3502, RFC 4469, RFC 6855 §4): its arguments, as they come.

A command with streamed literals is read in stretches: each ends with a literal's announcement, the last one with the
command. Parsing only; a stretch is read whole before anything is done for it, and reading it again changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from fastmta._imap import BadSyntax
from fastmta.imap.dates import parse_date_time
from fastmta.imap.flag_names import parse_flags
from fastmta.model.limits import IMAP_APPEND_MESSAGES, IMAP_CATENATE_PARTS

if TYPE_CHECKING:
    from fastmta._imap import Cursor


class Argument(BadSyntax):
    """The literal that the stretch ends with is an argument: it is read like those of other commands."""

    def __init__(self) -> None:
        super().__init__("Literal expected")


class Place:
    """Where a stretch begins. Plain numbers, as session.State."""

    MESSAGE: Final = 0  # behind the mailbox, or behind a message
    UTF8: Final = 1  # behind the literal of UTF8 (...)
    PART: Final = 2  # behind a TEXT literal of CATENATE (...)


class Begin(msgspec.Struct, frozen=True, gc=False):
    """A message with its flags; `date` (seconds, minutes east of UTC) is None where the client gives none."""

    flags: int
    keywords: bytes
    date: tuple[int, int] | None
    utf8: bool = False
    catenated: bool = False


class Url(msgspec.Struct, frozen=True):
    """A part of a message that lies on the server (RFC 4469)."""

    raw: bytes


class Literal(msgspec.Struct, frozen=True):
    """The announced literal is a message or a part of one. The stretch ends here."""


class End(msgspec.Struct, frozen=True):
    """The message is whole."""


Step = Begin | Url | Literal | End


_LITERAL: Final = Literal()
_END: Final = End()


class Stretches(msgspec.Struct, gc=False):
    """Reads one command's stretches, one after the other. `single`: only one message, as REPLACE has it (RFC 8508
    §4.7)."""

    single: bool
    place: int = Place.MESSAGE
    messages: int = 0
    parts: int = 0
    has_urls: bool = False  # the stretch that was read last

    def read(self, cursor: Cursor) -> tuple[list[Step], Stretches]:
        """The steps of a stretch, and what reads the next one; a Literal can only be the last. BadSyntax, Argument."""
        following = Stretches(self.single, self.place, self.messages, self.parts)
        steps: list[Step] = []
        following._read(cursor, steps)
        return steps, following

    def _read(self, cursor: Cursor, steps: list[Step]) -> None:
        if self.place == Place.UTF8:
            if not cursor.take(0x29):
                raise BadSyntax("Closing parenthesis expected")
            steps.append(_END)
        elif self.place == Place.PART:
            if self._rest_of_parts(cursor, steps):
                return
        elif self.messages:
            steps.append(_END)
        self.place = Place.MESSAGE
        while not self.messages or cursor.try_sp():
            if self.single and self.messages:
                raise BadSyntax("Only one message a command")
            if self._message(cursor, steps):
                return
        cursor.end()

    def _message(self, cursor: Cursor, steps: list[Step]) -> bool:
        """From a message's flags on; True where the stretch has ended with a literal."""
        self.messages += 1
        if self.messages > IMAP_APPEND_MESSAGES:
            raise BadSyntax("Too many messages in one command")
        flags, keywords, date = 0, b"", None
        if cursor.at(0x28):
            flags, keywords = parse_flags(cursor.flag_list())
            cursor.sp()
        if cursor.at(0x22):
            date = parse_date_time(cursor.string())
            cursor.sp()
        if cursor.announcement():
            steps += (Begin(flags, keywords, date), _LITERAL)
            return True
        if cursor.take_text(b"UTF8 ("):
            if not cursor.at(0x7E) or not cursor.announcement():
                raise BadSyntax("Literal8 expected")
            self.place = Place.UTF8
            steps += (Begin(flags, keywords, date, utf8=True), _LITERAL)
            return True
        if cursor.take_text(b"CATENATE ("):
            steps.append(Begin(flags, keywords, date, catenated=True))
            self.parts = 0
            return self._part(cursor, steps) or self._rest_of_parts(cursor, steps)
        raise BadSyntax("Literal expected")

    def _part(self, cursor: Cursor, steps: list[Step]) -> bool:
        self.parts += 1
        if self.parts > IMAP_CATENATE_PARTS:
            raise BadSyntax("Too many parts of one message")
        name = cursor.atom()
        cursor.sp()
        if name == b"TEXT":
            if not cursor.announcement():
                raise BadSyntax("Literal expected")
            self.place = Place.PART
            steps.append(_LITERAL)
            return True
        if name != b"URL":
            raise BadSyntax("TEXT or URL expected")
        steps.append(Url(argument(cursor)))
        self.has_urls = True
        return False

    def _rest_of_parts(self, cursor: Cursor, steps: list[Step]) -> bool:
        while not cursor.take(0x29):
            cursor.sp()
            if self._part(cursor, steps):
                return True
        steps.append(_END)
        return False


def argument(cursor: Cursor) -> bytes:
    """An astring, which may be a literal that has not come yet. Argument."""
    if cursor.at_announced():
        raise Argument
    return cursor.astring()
