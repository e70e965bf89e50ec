"""The author's domains: what stands behind the @ in From (RFC 5322 §3.6.2), read so that no trick hides one.

A reader's program may take a malformed field otherwise than we do. So where a field is not what the grammar has (a
quote or comment that does not end, several angle brackets, text behind one), each domain that a reading finds counts.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from fastmta.authentication.message import Field, named
from fastmta.model.limits import DMARC_AUTHORS, DMARC_FROM_BYTES

_QUOTED: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_MARK: Final = re.compile(r'\\.|["()]', re.DOTALL)
_DOMAIN: Final = re.compile(r"[A-Za-z0-9._\-\u0080-\U0010ffff]+")
_PLAIN_BYTES: Final = 256
_DOTS: Final = re.compile(r"[.\u3002\uff0e\uff61]")
_DOMAIN_CHARS: Final = 300  # that are kept of a domain: the DNS has room for fewer, so it is none still
_END: Final = re.compile(r"[,;:]")


# A display name of words or one quoted string, and one address: read alike by everybody, and most mail has it.
_PLAIN: Final = re.compile(
    rb"[ \t]*(?:(?:[A-Za-z0-9._ \t=?/+-]*|\"[^\"\\\r\n]*\"[ \t]*)"
    rb"<[A-Za-z0-9._=+-]+@([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)>"
    rb"|[A-Za-z0-9._=+-]+@([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*))[ \t]*\r\n\Z"
)


class TooManyAuthors(ValueError):
    """From is longer, or has more domains, than are judged; `first` is one of them, or ""."""

    def __init__(self, first: str) -> None:
        super().__init__(first)
        self.first = first


def author_domains(fields: Sequence[Field]) -> tuple[str, ...]:
    """The domains of all addresses of all From fields, as A-labels, each once, in order. Addresses without one are not
    there; literals neither. Raises TooManyAuthors over DMARC_AUTHORS domains.
    """
    found: dict[str, None] = {}
    seen: set[str] = set()
    authors = named(fields, b"from")
    if len(authors) == 1:
        plain = _PLAIN.match(authors[0].value) if len(authors[0].raw) <= _PLAIN_BYTES else None
        if plain is not None:
            return ((plain[1] or plain[2]).decode("ascii").lower(),)
    too_long = sum(len(field.raw) for field in authors) > DMARC_FROM_BYTES
    for field in authors:
        text = field.value[:DMARC_FROM_BYTES].decode("utf-8", "replace")
        for address in _addresses(text):
            written = _written_domain(address)
            if not written or written in seen:
                continue
            seen.add(written)
            if len(seen) > DMARC_AUTHORS:
                raise TooManyAuthors(next(iter(found), ""))
            domain = _a_labels(written)
            if domain:
                found[domain] = None
    if too_long:
        raise TooManyAuthors(next(iter(found), ""))
    return tuple(found)


def author_addresses(fields: Sequence[Field]) -> tuple[str, ...]:
    """All that a reader may take for an address of an author, in all From fields, each once; bounded as the domains."""
    found: dict[str, None] = {}
    for field in named(fields, b"from")[: DMARC_AUTHORS + 1]:
        for address in _addresses(field.value[:DMARC_FROM_BYTES].decode("utf-8", "replace")):
            clean = "".join(address.split())
            if clean:
                found[clean] = None
            if len(found) > DMARC_AUTHORS:
                return tuple(found)
    return tuple(found)


def _addresses(text: str) -> Iterator[str]:
    """What may be an address, by the grammar and by readers that know it less."""
    clean, whole = _clean(text)
    yield from _mailboxes(clean)
    if not whole:
        yield from _mailboxes(text.replace('"', " ").replace("(", " ").replace(")", " "))


def _clean(text: str) -> tuple[str, bool]:
    """Without comments; a quoted string is q, so that nothing in it has a meaning. False: a quote, a comment or a
    parenthesis is alone.
    """
    out: list[str] = []
    depth, at, whole = 0, 0, True
    while True:
        match = _MARK.search(text, at)
        if match is None:
            break
        mark = match[0]
        if not depth:
            out.append(text[at : match.start()])
        at = match.end()
        if mark == "(":
            depth += 1
        elif mark == ")":
            whole &= depth > 0
            depth -= depth > 0
        elif mark == '"' and not depth:
            quoted = _QUOTED.match(text, match.start())
            if quoted is None:
                return "".join(out), False
            out.append("q")
            at = quoted.end()
        elif len(mark) == 2 and not depth:
            out.append(mark[1])  # a backslash has no meaning here
    if not depth:
        out.append(text[at:])
    return "".join(out), whole and not depth


def _mailboxes(text: str) -> Iterator[str]:
    """Each piece between commas, semicolons and colons (after a group's name or a source route), in or out of angle
    brackets.
    """
    for part in _END.split(text):
        if "<" in part:
            yield from part.replace(">", "<").split("<")[1:]  # a display name may hold an @, and often does
        else:
            yield part


def _written_domain(address: str) -> str:
    """What stands behind the last @, without white space around dots and what cannot belong to a domain."""
    local_part, _, domain = address.rpartition("@")
    if not local_part.strip():  # a host of a source route, or no address
        return ""
    text = ".".join(label.strip() for label in domain.split("."))
    match = _DOMAIN.match(text)
    return match[0].lower().strip(".") if match is not None else ""


def _a_labels(domain: str) -> str:
    """The domain for the DNS. What cannot be there keeps its place below a domain that can: it has an owner too."""
    domain = domain[-_DOMAIN_CHARS:]
    if domain.isascii():
        return domain
    import idna

    try:
        if len(domain) < _DOMAIN_CHARS:
            return idna.encode(domain, uts46=True).decode("ascii")
    except (UnicodeError, idna.IDNAError):
        pass
    return ".".join(_a_label(label) for label in _DOTS.split(domain))


def _a_label(label: str) -> str:
    """A label that IDNA does not have as older programs ask for it, or cut where there is no room for it anyway."""
    return label if label.isascii() else "xn--" + label[:64].encode("punycode").decode("ascii")
