"""Addresses out of a header field, for `sendmail -t` (RFC 5322 §3.4): phrases, comments and groups are left behind.

One pass over the characters. What cannot be an address is an error: a message that goes to half its readers is worse
than one that is refused.
"""


def parse_addresses(value: str) -> list[str]:
    """The addr-specs of an unfolded field value, as written; ValueError for what is none."""
    return _Scanner(value).addresses()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._words: list[str] = []  # of the address being read; "" stands for white space between
        self._angle: str | None = None
        self._out: list[str] = []
        self._in_group = False

    def addresses(self) -> list[str]:
        text = self._text
        if any(ord(character) < 32 and character != "\t" for character in text) or "\x7f" in text:
            raise ValueError("control characters in an address field")
        while self._at < len(text):
            character = text[self._at]
            if character in " \t":
                self._words.append("")
                self._at += 1
            elif character == "(":
                self._skip_comment()
            elif character == '"':
                self._words.append(self._until('"'))
            elif character == "[":
                self._words.append(self._until("]"))
            elif character == "<":
                if self._angle is not None:
                    raise ValueError(f"two addresses without a comma near {self._near()}")
                self._angle = self._until(">")[1:-1].strip()
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
                self._out.append(angle)
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
        self._out.append("".join(pieces))

    def _near(self) -> str:
        return repr(self._text[max(0, self._at - 20) : self._at + 20])
