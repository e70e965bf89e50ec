"""What a negative reply means, by lines of a file (replies.txt here, and an administrator's own before it).

Expressions are RE2's, so what a server says cannot make one slow. A reply has one class, "other" where no line fits.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastmta.model.limits import REPLIES_KEPT, REPLY_KEPT_CHARACTERS
from fastmta.model.reply import Reply
from fastmta.runtime.metrics import REPLY_CLASSES as CLASSES

_SHIPPED: Final = Path(__file__).with_name("replies.txt")
_CODES: Final = re.compile(r"\*|[45]\d{0,2}|[45]\.(?:\d{1,3}(?:\.\d{0,3})?)?")
_SAID: Final = re.compile(r"(?:^|said: )([45]\d\d)[ -](?:([45]\.\d{1,3}\.\d{1,3}) )?(.*)", re.DOTALL)
_LOOKED: Final = 2000  # characters of a reply


class Line(NamedTuple):
    """`codes`: what a code or enhanced code begins with; empty for any. `search`: of a compiled expression."""

    name: str
    codes: tuple[str, ...]
    search: Any


def parse_lines(text: str, where: str) -> list[Line]:
    """The lines of a file. ValueError names the first that is none."""
    import re2  # type: ignore[import-untyped]  # only what delivers needs it

    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = False
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = line.split(None, 2)
        if len(words) != 3 or words[0] not in CLASSES:
            raise ValueError(f"{where}:{number}: expected a class ({', '.join(CLASSES)}), codes, and an expression")
        codes = words[1].split(",")
        if not all(_CODES.fullmatch(code) for code in codes):
            raise ValueError(f"{where}:{number}: expected codes such as 4, 421, 4.7.28 or *, not {words[1]}")
        try:
            compiled = re2.compile(words[2].strip(), options)
        except re2.error as error:
            said = error.args[0] if error.args else ""
            reason = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
            raise ValueError(f"{where}:{number}: RE2 cannot do this: {reason}") from None
        found.append(Line(words[0], () if "*" in codes else tuple(codes), compiled.search))
    return found


class ReplyClasses:
    """The lines in force. What was found is remembered: a destination in trouble says the same to every recipient."""

    __slots__ = ("_by_codes", "_known", "_lines")

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = list(lines)
        self._by_codes: dict[tuple[int, str], list[Line]] = {}  # the lines that fit a code and an enhanced code
        self._known: dict[Reply, str] = {}

    @classmethod
    def of(cls, own_file: str = "") -> "ReplyClasses":
        """The shipped lines, behind those of a file. OSError, ValueError: it cannot be used."""
        own = parse_lines(Path(own_file).read_text("utf-8"), own_file) if own_file else []
        return cls([*own, *parse_lines(_SHIPPED.read_text("utf-8"), _SHIPPED.name)])

    @classmethod
    def usable(cls, own_file: str) -> "ReplyClasses":
        """The same; where the file cannot be used, the shipped lines alone."""
        try:
            return cls.of(own_file)
        except (OSError, ValueError):
            return cls.of()

    def of_reply(self, reply: Reply) -> str:
        """The class of a 4yz or 5yz."""
        name = self._known.get(reply)
        if name is None:
            name = self._sought(reply)
            if len(reply.text) <= REPLY_KEPT_CHARACTERS:
                if len(self._known) >= REPLIES_KEPT:
                    self._known.clear()
                self._known[reply] = name
        return name

    def _sought(self, reply: Reply) -> str:
        text = reply.text[:_LOOKED].encode("utf-8", "replace").decode()  # a table's octets may be no text
        return next((line.name for line in self._of_codes(reply.code, reply.enhanced) if line.search(text)), "other")

    def _of_codes(self, code: int, enhanced: str) -> list[Line]:
        found = self._by_codes.get((code, enhanced))
        if found is None:
            digits = str(code)
            found = [
                line
                for line in self._lines
                if not line.codes or any(_begins(digits, enhanced, each) for each in line.codes)
            ]
            if len(self._by_codes) >= REPLIES_KEPT:
                self._by_codes.clear()
            self._by_codes[code, enhanced] = found
        return found

    def of_text(self, text: str) -> str:
        """The class of a reply as the queue keeps it: "host NAME said: 450 4.7.1 text", or the reply alone."""
        found = _SAID.search(text)
        return self.of_reply(Reply(int(found[1]), found[2] or "", found[3])) if found else "other"


def _begins(code: str, enhanced: str, wanted: str) -> bool:
    if "." not in wanted:
        return code.startswith(wanted)
    return enhanced.startswith(wanted) if wanted.endswith(".") else enhanced == wanted
