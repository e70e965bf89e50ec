"""One message on its way over one connection: its recipients, what became of each, and its addresses on the wire."""

import idna
import msgspec

from fastmta.model.envelope import Envelope, RecipientTail
from fastmta.model.reply import Reply
from fastmta.smtp.conversion import Conversion


class Transaction(msgspec.Struct, eq=False):
    """One message for some recipients on one connection, and what became of each.

    `results` has a reply for each recipient that is decided, else None; recipients in `again` have none, since the
    server took only a part of them. `utf8_header`: the header itself has 8-bit bytes, so that a server without SMTPUTF8
    must not get it. `sender` is the reverse path on this wire, `front` what stands before the stored octets.
    `conversion`: how the message is made 7-bit for a server that takes no more. `unconverted`: such a server gets it as
    it is (disable_mime_output_conversion). `only_asks`: the server is asked up to RCPT, and gets no message.
    `sender_refused`: MAIL was refused. `growth`: octets by which the stored message is longer where it is changed as it
    leaves; `bits`: its arrival bits, and those of the change.

    A Struct, which is made in C: one is made for each delivery, and has many fields.
    """

    envelope: Envelope
    recipients: list[RecipientTail]
    sender: bytes = b""  # the envelope's, unless another is set
    front: bytes = b""
    results: list[Reply | None] = msgspec.field(default_factory=list)
    accepted: list[int] = msgspec.field(default_factory=list)
    again: list[int] = msgspec.field(default_factory=list)
    utf8_header: bool = False
    conversion: Conversion | None = None
    unconverted: bool = False
    only_asks: bool = False
    sender_refused: bool = False
    growth: int = 0
    bits: int = 0
    by: bytes = b""  # the parameter of MAIL that says what is left of its time (RFC 2852)
    paths: list[bytes] | None = None  # of the recipients on this wire, where they are others than theirs
    dsn_passed_on: bool = False  # the server knows DSN (RFC 3461), so it reports success itself

    def __post_init__(self) -> None:
        self.sender = self.envelope.reverse_path
        self.bits = self.envelope.bits
        self.results = [None] * len(self.recipients)

    @property
    def ident(self) -> str:
        """What the message is called here, for a server that wants to hear who handed it in; "": nothing."""
        return ""

    @property
    def size_bytes(self) -> int:
        """Octets that leave, before stuffing."""
        return self.envelope.size_bytes + self.growth + len(self.front)

    def undecided(self) -> list[int]:
        """The recipients that have neither a result nor are to be sent again."""
        again = self.again
        return [n for n, result in enumerate(self.results) if result is None and n not in again]

    def decide(self, reply: Reply) -> None:
        """One reply for all that are undecided."""
        for n in self.undecided():
            self.results[n] = reply


def ascii_path(path: bytes) -> bytes | None:
    """The path with its domain as A-labels; None where the local part itself needs SMTPUTF8."""
    if path.isascii():
        return path
    local_part, _, domain = path.rpartition(b"@")
    if not local_part.isascii():
        return None
    try:
        return local_part + b"@" + idna.encode(domain.decode("utf-8"), uts46=True)
    except (UnicodeError, idna.IDNAError):
        return None


def xtext(raw: bytes) -> bytes:
    """RFC 3461 §4: everything but printable ASCII, and "+" and "=" themselves, as +XX."""
    return b"".join(bytes((octet,)) if 33 <= octet <= 126 and octet not in b"+=" else b"+%02X" % octet for octet in raw)


def softened(reply: Reply) -> Reply:
    """The reply as a temporary one, with what the server said."""
    if not reply.is_permanent:
        return reply
    return Reply(450, f"4{reply.enhanced[1:]}" if reply.enhanced else "4.0.0", f"{reply.code} {reply.text}")
