"""An SMTP reply (RFC 5321 §4.2) with its enhanced status code (RFC 2034, RFC 3463)."""

import msgspec


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One reply: `code` of three digits, `enhanced` such as "5.7.1" or "" for none, `text` of one or more lines."""

    code: int
    enhanced: str = ""
    text: str = ""

    def encode(self) -> bytes:
        """The reply's wire form, CRLF included; every line of it carries the enhanced code."""
        lines = self.text.split("\n")
        lead = f"{self.enhanced} " if self.enhanced else ""
        out = [f"{self.code}-{lead}{line}\r\n" for line in lines[:-1]]
        out.append(f"{self.code} {lead}{lines[-1]}\r\n")
        return "".join(out).encode("utf-8", "replace")

    def prepared(self) -> "Reply":
        """An equal reply that is encoded already: for one that is said often."""
        return _Prepared(self.code, self.enhanced, self.text, self.encode())

    @property
    def is_positive(self) -> bool:
        return 200 <= self.code < 400

    @property
    def is_temporary(self) -> bool:
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        return 500 <= self.code < 600

    def softened(self) -> "Reply":
        """The same as a temporary failure, where it is a permanent one (RFC 5321 §4.2.1)."""
        if not self.is_permanent:
            return self
        enhanced = f"4{self.enhanced[1:]}" if self.enhanced.startswith("5") else self.enhanced
        return Reply(self.code - 100, enhanced, self.text)

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}".replace("\n", " ").replace("  ", " ")


class _Prepared(Reply, frozen=True, gc=False):
    wire: bytes = b""

    def encode(self) -> bytes:
        return self.wire
