"""Addresses out of a header field (RFC 5322 §3.4): phrases, comments and groups are left behind. One pass over the
characters, whatever they are.
"""


def parse_addresses(value: str) -> list[str]:
    """The addr-specs of an unfolded field value, as written; ValueError for what is none."""
    return _Scanner(value).addresses()


def lenient_addresses(value: str) -> list[str]:
    """The same, where what stands between two commas and is no address is given as it is; ValueError for control
    characters only. A user's slip in one address is told by a report and does not keep the message from the others.
    """
    try:
        return parse_addresses(value)
    except ValueError:
        _require_printable(value)
    out: list[str] = []
    for item in value.split(","):
        try:
            out += parse_addresses(item)
        except ValueError:
            out.append(item.strip())
    return [address for address in out if address]


def bare_names(value: str) -> list[int]:
    """Where in a field value an address without a domain ends; ValueError where it is no list of addresses."""
    scanner = _Scanner(value)
    scanner.addresses()
    return scanner.bare_ends


def _require_printable(text: str) -> None:
    if any(ord(character) < 32 and character != "\t" for character in text) or "\x7f" in text:
        raise ValueError("control characters in an address field")


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._words: list[str] = []  # of the address being read; "" stands for white space between
        self._angle: str | None = None
        self._out: list[str] = []
        self._in_group = False
        self._word_end = 0  # behind the last word of the address, or in front of its ">"
        self.bare_ends: list[int] = []

    def addresses(self) -> list[str]:
        text = self._text
        _require_printable(text)
        while self._at < len(text):
            character = text[self._at]
            if character in " \t":
                self._words.append("")
                self._at += 1
            elif character == "(":
                self._skip_comment()
            elif character in '"[':
                self._words.append(self._until('"' if character == '"' else "]"))
                self._note_end()
            elif character == "<":
                if self._angle is not None:
                    raise ValueError(f"two addresses without a comma near {self._near()}")
                inner = self._until(">")[1:-1]
                self._angle = inner.strip()
                self._word_end = self._at - 1 - (len(inner) - len(inner.rstrip()))
                self._words = []
            elif character == ":" and not self._in_group and self._angle is None:
                self._in_group, self._words = True, []  # what stood before is the group's name
                self._at += 1
            elif character == ";" and self._in_group:
                self._end()
                self._in_group = False
                self._at += 1
            elif character == ",":
                self._end()
                self._at += 1
            else:
                self._word()
        self._end()
        return self._out

    def _word(self) -> None:
        start = self._at
        while self._at < len(self._text) and self._text[self._at] not in ' \t("[<:;,':
            self._at += 1
        if self._at == start:  # a ":" or ";" where none belongs
            raise ValueError(f"unexpected {self._text[start]!r} near {self._near()}")
        self._words.append(self._text[start : self._at])
        self._note_end()

    def _note_end(self) -> None:
        if self._angle is None:
            self._word_end = self._at

    def _until(self, closing: str) -> str:
        """From the opening character at the place to its closing one, both included."""
        start = self._at
        self._at += 1
        while self._at < len(self._text) and self._text[self._at] != closing:
            if self._text[self._at] == "\\":
                self._at += 1
            elif self._text[self._at] == '"' and closing == ">":
                self._until('"')
                continue
            self._at += 1
        self._at += 1
        if self._at > len(self._text):
            raise ValueError(f"no closing {closing} near {self._near()}")
        return self._text[start : self._at]

    def _skip_comment(self) -> None:
        depth = 0
        while self._at < len(self._text):
            character = self._text[self._at]
            self._at += 2 if character == "\\" else 1
            depth += (character == "(") - (character == ")")
            if depth == 0:
                self._words.append("")
                return
        raise ValueError("no closing ) of a comment")

    def _end(self) -> None:
        words, angle = self._words, self._angle
        self._words, self._angle = [], None
        if angle is not None:
            if any(words):
                raise ValueError(f"text behind <{angle}>")
            if angle.startswith("@") and ":" in angle:  # a source route, which nobody obeys (RFC 5321 §3.6.1)
                angle = angle.partition(":")[2]
            if angle:
                self._found(angle)
            return
        while words and not words[-1]:
            words.pop()
        while words and not words[0]:
            words.pop(0)
        if not words:
            return
        pieces: list[str] = []
        for n, word in enumerate(words):
            if word:
                pieces.append(word)
                continue
            beside = (words[n - 1][-1:], next((w[:1] for w in words[n:] if w), ""))
            if words[n - 1] and not ("@" in beside or "." in beside):
                raise ValueError(f"{' '.join(filter(None, words))} is not an address")
        self._found("".join(pieces))

    def _found(self, address: str) -> None:
        self._out.append(address)
        if "@" not in address and "!" not in address:
            self.bare_ends.append(self._word_end)

    def _near(self) -> str:
        return repr(self._text[max(0, self._at - 20) : self._at + 20])
