"""Over-long lines on their way out, folded as Postfix folds them: CR LF SPACE behind smtp_line_length_limit octets.

It is a change of the message, header or body alike, and a signature over what it changes breaks: `signatures` names
those that a message carries, for the log. Only messages that arrival found to have such a line come here.

Left to others: line ends and dots (the connection); a folded line begins with a space, so it never needs a dot.
"""

from typing import Final

from fastmta.smtp.header_words import field_name, fields

_SIGNATURES: Final = ((b"dkim-signature", "DKIM"), (b"arc-message-signature", "ARC"))


class Folder:
    """Folds one message, given in pieces that may be cut anywhere. `limit` counts octets without CRLF, over 1.

    `folded`: how many lines were too long.
    """

    __slots__ = ("_column", "_is_folded", "_limit", "folded")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._column = 0  # octets of the present line that have left
        self._is_folded = False  # the present line has been counted
        self.folded = 0

    def fold(self, piece: bytes) -> bytes:
        """The piece, whose lines end in CRLF, as it goes out."""
        lines = piece.split(b"\n")
        if self._column + len(lines[0]) <= self._limit >= max(map(len, lines)):
            self._column = len(lines[-1]) + (self._column if len(lines) == 1 else 0) - lines[-1].endswith(b"\r")
            self._is_folded &= len(lines) == 1
            return piece
        out: list[bytes] = []
        for line in lines[:-1]:
            self._line(line, out)
            out.append(b"\n")
            self._column = 0
            self._is_folded = False
        self._line(lines[-1], out)
        return b"".join(out)

    def _line(self, line: bytes, out: list[bytes]) -> None:
        """A line, or a part of one, without its LF. A CR is the line end's and has no length."""
        at, end = 0, len(line) - line.endswith(b"\r")
        while self._column + end - at > self._limit:
            step = self._limit - self._column
            out += line[at : at + step], b"\r\n "
            at += step
            self._column = 1
            self.folded += not self._is_folded
            self._is_folded = True
        self._column += end - at
        out.append(line[at:])


def signatures(header: bytes) -> tuple[str, ...]:
    """The signatures that a message with this header carries: DKIM, ARC, multipart/signed."""
    names: dict[bytes, bytes] = {}
    for field in fields(header):
        names.setdefault(field_name(field), field)
    found = [label for name, label in _SIGNATURES if name in names]
    if names.get(b"content-type", b"").partition(b":")[2].strip().lower().startswith(b"multipart/signed"):
        found.append("multipart/signed")
    return tuple(found)
