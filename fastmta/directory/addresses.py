"""An address taken apart for look-ups: local part without quotes, domain in its canonical form, extension split off."""

import re
from typing import Final, NamedTuple

import idna

_CONTROL: Final = re.compile("[\0-\x1f\x7f]")
_ATEXT: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~.")


class Address(NamedTuple):
    """`local_part` is unquoted and keeps its case; `domain` is lower-case A-labels or a literal in brackets."""

    local_part: str
    domain: str

    @property
    def key(self) -> str:
        """What tables and accounts are asked for: here local parts are the same in either case (RFC 5321 §2.4)."""
        return f"{self.local_part.lower()}@{self.domain}"

    @property
    def raw(self) -> bytes:
        """As a path, quoted where it has to be (RFC 5321 §4.1.2)."""
        return f"{quote(self.local_part)}@{self.domain}".encode("utf-8", "surrogateescape")

    @property
    def is_source_routed(self) -> bool:
        """Whether the local part names further hosts: u%h@d, g!u@d, "u@h"@d. Strangers get no such mail relayed."""
        return any(character in self.local_part for character in "%!@")


def parse(text: str) -> Address:
    """Takes `user@domain` apart; ValueError where there is no local part or no domain, and for control characters: a
    table may put together what a stranger wrote, and what has a line break would be a command to the next hop.
    """
    local_part, at, domain = text.rpartition("@")
    if not at or not local_part or not domain or _CONTROL.search(text):
        raise ValueError("not an address")
    return Address(unquote(local_part), canonical_domain(domain))


def canonical_domain(domain: str) -> str:
    """Lower case, A-labels, no final dot. ValueError: not a domain."""
    if domain.isascii():
        folded = domain.lower()
        return folded[:-1] if folded.endswith(".") else folded
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower().rstrip(".")
    except (UnicodeError, idna.IDNAError) as error:
        raise ValueError("not a domain") from error


def unquote(local_part: str) -> str:
    """The local part that a quoted string stands for: "a b" and a\\ b are the same mailbox (RFC 5321 §4.1.2)."""
    if len(local_part) < 2 or local_part[0] != '"' or local_part[-1] != '"':
        return local_part
    out, at, inner = [], 0, local_part[1:-1]
    while at < len(inner):
        if inner[at] == "\\" and at + 1 < len(inner):
            at += 1
        out.append(inner[at])
        at += 1
    return "".join(out)


def quote(local_part: str) -> str:
    """The local part as a dot-string, or as a quoted string where it is none."""
    plain = all(character in _ATEXT or character > "\x7f" for character in local_part)
    if plain and local_part and local_part[0] != "." and local_part[-1] != "." and ".." not in local_part:
        return local_part
    return '"' + local_part.replace("\\", "\\\\").replace('"', '\\"') + '"'


def split_extension(local_part: str, delimiters: str) -> tuple[str, str]:
    """(user, extension with its delimiter): "user+ext" -> ("user", "+ext"). Any character of `delimiters` separates.

    Postfix's exceptions hold: nothing before the delimiter, and `owner-list`, `list-request` where "-" is one.
    """
    if not delimiters:
        return local_part, ""
    folded = local_part.lower()
    if "-" in delimiters and (folded.startswith("owner-") or folded.endswith("-request")):
        return local_part, ""
    places = [place for place in (local_part.find(character) for character in delimiters) if place > 0]
    if not places:
        return local_part, ""
    place = min(places)
    return local_part[:place], local_part[place:]
