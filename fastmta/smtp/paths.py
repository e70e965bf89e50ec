"""Paths as the world writes them: RFC 5321 §4.1.2, and what Postfix's defaults take beside it.

`read_path` first tries the letter (`_parser.split_path`). What does not fit is read once more, leniently: no angle
brackets, or two of them; spaces and comments around an address; dots at odd places; no domain, which means `origin`; a
final dot of the domain; a backslash in front of any character; local parts over 64 octets. What comes out is a path by
the letter again, its local part quoted where it has to be, so nobody behind us meets the odd form.

Left to others: whether the address is ours (the directory), and the ESMTP parameters behind the path.
"""

import re
from collections.abc import Sequence
from typing import Final, Protocol

from fastmta._parser import is_domain, split_path, unquote
from fastmta.model.limits import LOG_RECIPIENTS, SMTP_DOMAIN_BYTES, SMTP_PATH_BYTES

_ATEXT: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~")
_SPACE: Final = 0x20
_LITERAL: Final = re.compile(rb"\[[0-9A-Za-z.:-]+\]")


def read_path(text: bytes, *, forward: bool, strict: bool, origin: bytes) -> tuple[bytes, bytes, bool]:
    """The path at the start of `text`: (mailbox without brackets, the rest, whether it needs SMTPUTF8).

    The null path is b"", the forward path `<postmaster>` stays without a domain. `text` holds no control octets and is
    valid UTF-8. Raises ValueError: "syntax" or "length".
    """
    try:
        return split_path(text, forward=forward)
    except ValueError as error:
        if strict:
            raise
        return _Lenient(text).read(forward, origin, error)


class _Lenient:
    """One reading of one path, octet by octet; each step moves on, so it is linear."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0

    def read(self, forward: bool, origin: bytes, error: ValueError) -> tuple[bytes, bytes, bool]:
        if not self._text:
            raise ValueError("syntax")
        brackets = 0
        while self._peek() == ord("<"):
            brackets += 1
            self._at += 1
            self._spaces()
        if brackets and self._peek() == ord("@"):
            self._source_route()
        local, place = self._words()
        self._spaces(only=bool(brackets))
        for _ in range(brackets):
            if self._peek() != ord(">"):
                raise ValueError("syntax") from error
            self._at += 1
        rest = self._text[self._at :]
        if rest[:1].strip(b" "):
            raise ValueError("syntax") from error
        mailbox = self._mailbox(local, place, forward, origin)
        if len(mailbox) + 2 > SMTP_PATH_BYTES:
            raise ValueError("length") from error
        return mailbox, rest, not mailbox.isascii()

    def _peek(self) -> int:
        return self._text[self._at] if self._at < len(self._text) else -1

    def _spaces(self, *, only: bool = True) -> None:
        """Passes over spaces and comments (RFC 5322 §3.2.2); a space ends a path that has no brackets."""
        while only and self._peek() == _SPACE:
            self._at += 1
        while self._peek() == ord("("):
            depth = 0
            while True:
                octet = self._peek()
                depth += (octet == ord("(")) - (octet == ord(")"))
                if octet == ord("\\"):
                    self._at += 1
                if octet < 0:
                    raise ValueError("syntax")
                self._at += 1
                if not depth:
                    break
            while only and self._peek() == _SPACE:
                self._at += 1

    def _source_route(self) -> None:
        """Drops `@a,@b:` (RFC 5321 §4.1.1.3); without its colon the "@" begins a domain."""
        colon = self._text.find(b":", self._at)
        hosts = self._text[self._at : colon].split(b",") if colon > 0 else []
        if hosts and all(host.startswith(b"@") and is_domain(host[1:]) for host in hosts):
            self._at = colon + 1

    def _words(self) -> tuple[list[bytes], int]:
        """The pieces up to the end of the address, without quotes, and which of them is the last "@" (-1: none)."""
        pieces: list[bytes] = []
        place = -1
        while True:
            octet = self._peek()
            if octet == ord('"'):
                pieces.append(self._quoted())
            elif octet == ord("\\") and self._at + 1 < len(self._text):
                pieces.append(self._text[self._at + 1 : self._at + 2])
                self._at += 2
            elif octet == ord("["):
                literal = _LITERAL.match(self._text, self._at)
                if literal is None or place != len(pieces) - 1:
                    raise ValueError("syntax")
                pieces.append(literal[0])
                self._at = literal.end()
            elif octet == ord("@"):
                place = len(pieces)
                pieces.append(b"@")
                self._at += 1
            elif octet == ord("("):
                self._spaces()
            elif octet in _ATEXT or octet == ord(".") or octet >= 128:
                start = self._at
                while (octet := self._peek()) in _ATEXT or octet == ord(".") or octet >= 128:
                    self._at += 1
                pieces.append(self._text[start : self._at])
            else:
                return pieces, place

    def _quoted(self) -> bytes:
        out = bytearray()
        self._at += 1
        while (octet := self._peek()) != ord('"'):
            if octet == ord("\\"):
                self._at += 1
                octet = self._peek()
            if octet < 0:
                raise ValueError("syntax")
            out.append(octet)
            self._at += 1
        self._at += 1
        return bytes(out)

    def _mailbox(self, pieces: list[bytes], place: int, forward: bool, origin: bytes) -> bytes:
        local = b"".join(pieces if place < 0 else pieces[:place])
        domain = origin if place < 0 else b"".join(pieces[place + 1 :])
        if place < 0 and not local:
            if forward or len(self._text) > self._at:
                raise ValueError("syntax")
            return b""  # MAIL FROM:<""> and the like are the null path
        if place < 0 and forward and local.lower() == b"postmaster":
            return local
        if len(domain) > 1:
            domain = domain.removesuffix(b".")
        if len(domain) > SMTP_DOMAIN_BYTES:
            raise ValueError("length")
        if not is_domain(domain):
            raise ValueError("syntax")
        return unquote(b'"' + local.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"@' + domain)


_NAME: Final = re.compile(rb"\[[0-9A-Za-z.:-]+\]|[0-9A-Za-z._-]+|[0-9A-Fa-f.:]+")
_ODD: Final = re.compile(rb"[^0-9A-Za-z._-]")


def safe_name(raw: bytes) -> bytes:
    """The word behind EHLO as we keep and write it: octets that no name or address literal has become "?".

    So it can neither end a comment of Received nor begin a field of another kind (RFC 5321 §4.4), whatever it was.
    """
    name = raw[:SMTP_DOMAIN_BYTES]
    if len(name) > 1:
        name = name.removesuffix(b".")  # the absolute form of the DNS, which some clients send
    return name if _NAME.fullmatch(name) else _ODD.sub(b"?", name)


def named_path(argument: bytes) -> bytes:
    """The address in the argument of MAIL or RCPT, as far as it has one."""
    path = argument[argument.find(b":") + 1 :].strip()
    return path[1:].partition(b">")[0] if path.startswith(b"<") else path.partition(b" ")[0]


class Accepted(Protocol):
    """A recipient that was accepted."""

    @property
    def forward_path(self) -> bytes: ...


def paths_of(recipients: Sequence[Accepted] | None) -> list[bytes] | None:
    """The addresses of a message's recipients as the log names them: up to a bound; None: it has none."""
    return [each.forward_path for each in (recipients or ())[:LOG_RECIPIENTS]] or None
