"""The grammar of SPF records and their macros (RFC 7208 §4.5, §4.6.1, §7, §12): text to terms, and no look-up."""

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote

from fastmta.model.limits import SPF_KEPT_BYTES, SPF_KEPT_RECORDS, SPF_RECORD_BYTES

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MODIFIER: Final = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)\Z", re.DOTALL)
_MECHANISM: Final = re.compile(r"([+?~-]?)([A-Za-z][A-Za-z0-9]*)(.*)\Z", re.DOTALL)
_CIDR: Final = re.compile(r"(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?\Z")
_MACRO: Final = re.compile(r"%(?:\{([A-Za-z])([0-9]*)(r?)([.+,/_=-]*)\}|([%_-])|(.?))", re.IGNORECASE | re.DOTALL)
_LETTERS: Final = frozenset("slodiphv")
_EXPLAINING: Final = frozenset("crt")
_TOP_LABEL: Final = re.compile(r"(?!-)(?=[A-Za-z0-9-]*[A-Za-z-])[A-Za-z0-9-]+(?<!-)\Z")
_MECHANISMS: Final = frozenset(("all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"))
_NAME_BYTES: Final = 253
# Visible ASCII and the space; not the backslash, by which zone files escape.
_QUERYABLE: Final = re.compile(r"(?:[ -\-/-\[\]-~]{1,63}\.)*[ -\-/-\[\]-~]{1,63}\Z")
QUALIFIERS: Final = {"": "pass", "+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}


class RecordError(ValueError):
    """The record breaks the grammar: permerror, and the text says where."""


class Mechanism(NamedTuple):
    """One mechanism. `domain` is a domain-spec, "" where it is the current domain; prefix lengths are for a and mx."""

    result: str
    kind: str
    domain: str = ""
    network: Network | None = None
    prefix4: int = 32
    prefix6: int = 128


class Record(NamedTuple):
    mechanisms: tuple[Mechanism, ...]
    redirect: str
    explanation: str


def is_record(text: bytes) -> bool:
    """Whether a TXT record is an SPF record at all (§4.5)."""
    return text[:6].lower() == b"v=spf1" and text[6:7] in (b"", b" ")


def parse_record(raw: bytes) -> Record:
    """All terms; RecordError for anything that the grammar has not, wherever it stands (§4.6). Kept by its text."""
    return _kept_record(raw) if len(raw) <= SPF_KEPT_BYTES else _parse(raw)


def _parse(raw: bytes) -> Record:
    if len(raw) > SPF_RECORD_BYTES:
        raise RecordError(f"the record has {len(raw)} octets, over {SPF_RECORD_BYTES}")
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError as error:
        raise RecordError("the record is not ASCII") from error
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, str] = {}
    for term in text[6:].split(" "):
        if not term:
            continue
        modifier = _MODIFIER.match(term)
        if modifier is None:
            mechanisms.append(_mechanism(term))
            continue
        name, value = modifier[1].lower(), modifier[2]
        if name in ("redirect", "exp"):
            if name in modifiers:
                raise RecordError(f"{name}= stands twice")
            _check_domain_spec(value)
            modifiers[name] = value
        else:
            check_macros(value)
    return Record(tuple(mechanisms), modifiers.get("redirect", ""), modifiers.get("exp", ""))


_kept_record: Final = lru_cache(SPF_KEPT_RECORDS)(_parse)


def _mechanism(term: str) -> Mechanism:
    match = _MECHANISM.match(term)
    kind = match[2].lower() if match else ""
    if match is None or kind not in _MECHANISMS:
        raise RecordError(f"unknown mechanism {term[:40]!r}")
    result, rest = QUALIFIERS[match[1]], match[3]
    if kind == "all":
        if rest:
            raise RecordError("all takes no argument")
        return Mechanism(result, kind)
    if kind in ("ip4", "ip6"):
        return Mechanism(result, kind, network=_network(kind, rest))
    if kind in ("include", "exists"):
        if not rest.startswith(":"):
            raise RecordError(f"{kind} needs a domain")
        _check_domain_spec(rest[1:])
        return Mechanism(result, kind, rest[1:])
    prefix4, prefix6 = 32, 128
    if kind in ("a", "mx"):
        cidr = _CIDR.search(rest)
        assert cidr is not None  # an empty end always matches
        prefix4 = int(cidr[1]) if cidr[1] else 32
        prefix6 = int(cidr[2]) if cidr[2] else 128
        if prefix4 > 32 or prefix6 > 128:
            raise RecordError("a prefix length is too large")
        rest = rest[: cidr.start()]
    if rest:
        if not rest.startswith(":"):
            raise RecordError(f"{kind} has an argument that is none")
        _check_domain_spec(rest[1:])
    return Mechanism(result, kind, rest[1:], None, prefix4, prefix6)


def _network(kind: str, rest: str) -> Network:
    address, slash, length = rest[1:].partition("/")
    if not rest.startswith(":") or "%" in address or (slash and not re.fullmatch("0|[1-9][0-9]{0,2}", length)):
        raise RecordError(f"{kind} is malformed")
    make = ipaddress.IPv4Network if kind == "ip4" else ipaddress.IPv6Network
    try:
        return make(f"{address}/{length}" if slash else address, strict=False)
    except ValueError as error:
        raise RecordError(f"{kind} is malformed") from error


def check_macros(text: str, *, explaining: bool = False) -> None:
    """RecordError where `text` is no macro-string (§7.1)."""
    if any(not "!" <= char <= "~" for char in text if not (explaining and char == " ")):
        raise RecordError("a macro-string has a character that is not allowed")
    for match in _MACRO.finditer(text):
        letter = (match[1] or "").lower()
        if match[5]:
            continue
        if not letter or (letter not in _LETTERS and not (explaining and letter in _EXPLAINING)):
            raise RecordError("a macro that does not exist")
        if match[2] and not 1 <= _kept(match[2]) <= 128:
            raise RecordError("a macro that keeps no label")


def _check_domain_spec(text: str) -> None:
    check_macros(text)
    if not text:
        raise RecordError("a domain is missing")
    last = None
    for match in _MACRO.finditer(text):
        last = match
    if last is not None and last.end() == len(text) and last[1]:
        return  # ends in a macro-expand
    head, dot, label = text.removesuffix(".").rpartition(".")
    if not dot or not head or not _TOP_LABEL.match(label):
        raise RecordError("a domain has no valid top label")


def _kept(digits: str) -> int:
    """The number of labels that a macro keeps; 1000 stands for all that are too many."""
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= 3 else 1000


def expand(text: str, values: Mapping[str, str]) -> str:
    """A macro-string with the values of its letters put in (§7.3). `values` has every letter that may stand in it."""

    def one(match: "re.Match[str]") -> str:
        if match[5]:
            return {"%": "%", "_": " ", "-": "%20"}[match[5]]
        letter = match[1]
        value = values[letter.lower()]
        if match[2] or match[3] or match[4]:
            parts = re.split("[" + re.escape(match[4] or ".") + "]", value)
            if match[3]:
                parts.reverse()
            value = ".".join(parts[-_kept(match[2]) :] if match[2] else parts)
        return quote(value, safe="-._~", errors="surrogateescape") if letter.isupper() else value

    return _MACRO.sub(one, text)


def shortened(name: str) -> str:
    """A name that is too long loses labels on its left (§7.3)."""
    name = name.removesuffix(".")
    if len(name) <= _NAME_BYTES:
        return name
    return name[-_NAME_BYTES - 1 :].partition(".")[2] or name  # "" where the last label alone is too long


def letters_in(text: str) -> frozenset[str]:
    """Which letters a macro-string asks for."""
    return frozenset(match[1].lower() for match in _MACRO.finditer(text) if match[1])


def is_queryable(name: str) -> bool:
    """Whether a name can be asked for in the DNS; one that cannot does not exist (§4.8, RFC 8616 §4)."""
    return len(name) <= _NAME_BYTES and bool(_QUERYABLE.match(name))
