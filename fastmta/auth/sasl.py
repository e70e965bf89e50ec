"""SASL as rules (RFC 4422): mechanism and responses in, challenges and at last credentials out.

No socket, no base64 line handling of a protocol, no password is checked here. One `Sasl` serves one AUTH command; the
next command takes a new one. Responses are bounded before they are decoded (RFC 4954 §4 lets a line be 12,288 octets).
"""

import binascii
from typing import Final

import msgspec

from fastmta.model.limits import SASL_RESPONSE_BYTES

MECHANISMS: Final = ("PLAIN", "LOGIN")


class Challenge(msgspec.Struct, frozen=True, gc=False):
    """The server speaks next; `raw` is not yet base64."""

    raw: bytes


class Credentials(msgspec.Struct, frozen=True, gc=False):
    """What the client claims to be; nothing in it has been believed yet. `authzid` is "" where it named nobody else."""

    authcid: str
    password: str
    authzid: str = ""
    mechanism: str = "PLAIN"

    def __repr__(self) -> str:
        return f"Credentials({self.authcid!r}, mechanism={self.mechanism!r})"  # a password never reaches a log


class Failure(msgspec.Struct, frozen=True, gc=False):
    """The exchange is over. `code` is one of:

    mechanism  not one that we offer          SMTP 504 5.5.4, IMAP NO, POP3 -ERR
    syntax     bad base64 or a bad message    SMTP 501 5.5.2, IMAP BAD
    cancelled  the client sent "*"            SMTP 501 5.7.0, IMAP BAD
    too-long   a response over the bound      SMTP 500 5.5.6, IMAP BAD
    """

    code: str


Step = Challenge | Credentials | Failure


class Sasl:
    """One exchange. `start` once, then `respond` for each answer to a Challenge. Order is enforced, not trusted."""

    __slots__ = ("_allowed", "_mechanism", "_user")

    def __init__(self, allowed: tuple[str, ...] = MECHANISMS) -> None:
        self._allowed = allowed
        self._mechanism = ""
        self._user: str | None = None

    def start(self, mechanism: str, initial: bytes | None) -> Step:
        """Begins with the decoded initial response, or None where the client sent none."""
        name = mechanism.upper()
        if name not in self._allowed or name not in MECHANISMS:
            return Failure("mechanism")
        self._mechanism = name
        if initial is not None:
            return self.respond(initial)
        return Challenge(b"" if name == "PLAIN" else b"Username:")

    def respond(self, response: bytes) -> Step:
        """Takes a decoded response."""
        if len(response) > SASL_RESPONSE_BYTES:
            return Failure("too-long")
        if self._mechanism == "PLAIN":
            return _plain(response)
        if self._mechanism == "LOGIN":
            return self._login(response)
        return Failure("mechanism")

    def respond_line(self, raw_line: bytes) -> Step:
        """Takes a response as it came, base64 without CRLF; "*" alone cancels (RFC 4954 §4, RFC 9051 §6.2.2)."""
        if raw_line == b"*":
            return Failure("cancelled")
        decoded = decode_base64(raw_line)
        return decoded if isinstance(decoded, Failure) else self.respond(decoded)

    def start_line(self, mechanism: str, raw_initial: bytes | None) -> Step:
        """`start` with the initial response as it came: base64, "=" for the empty one, None for none."""
        if raw_initial is None:
            return self.start(mechanism, None)
        if mechanism.upper() not in self._allowed:
            return Failure("mechanism")
        if raw_initial == b"=":
            return self.start(mechanism, b"")
        decoded = decode_base64(raw_initial)
        return decoded if isinstance(decoded, Failure) else self.start(mechanism, decoded)

    def _login(self, response: bytes) -> Step:
        text = _text(response)
        if text is None:
            return Failure("syntax")
        if self._user is None:
            if not text:
                return Failure("syntax")
            self._user = text
            return Challenge(b"Password:")
        return Credentials(self._user, text, "", "LOGIN") if text else Failure("syntax")


def decode_base64(raw: bytes) -> bytes | Failure:
    """Strict base64 (RFC 4648 §4): no white space, right padding; bounded before anything is allocated."""
    if len(raw) > (SASL_RESPONSE_BYTES + 2) // 3 * 4:
        return Failure("too-long")
    try:
        return binascii.a2b_base64(raw, strict_mode=True)
    except binascii.Error:
        return Failure("syntax")


def _plain(response: bytes) -> Step:
    """RFC 4616 §2: [authzid] NUL authcid NUL passwd, UTF-8, the last two not empty."""
    parts = response.split(b"\0")
    if len(parts) != 3:
        return Failure("syntax")
    authzid, authcid, password = (_text(part) for part in parts)
    if authzid is None or not authcid or not password:
        return Failure("syntax")
    return Credentials(authcid, password, authzid, "PLAIN")


def _text(raw: bytes) -> str | None:
    if b"\0" in raw:
        return None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
