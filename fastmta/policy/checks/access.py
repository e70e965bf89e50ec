"""access(5): tables by client, name and address, and the actions that their values name.

A table is looked at again at most once a second. What cannot be read, or names no action, defers: guessing would let
in whom the administrator meant to keep out.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from fastmta.config.restrictions import Restriction, normalised, parse
from fastmta.config.schema import Config
from fastmta.config.values import split_list
from fastmta.directory.maps import TableSet
from fastmta.model.errors import TemporaryFailure
from fastmta.model.reply import Reply
from fastmta.model.routes import written_filter
from fastmta.model.verdict import Action, Verdict
from fastmta.runtime.clock import Clock

_REFRESH_S: Final = 1.0
_CODED: Final = re.compile(r"([45])\d\d$")
_ENHANCED: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
# The last digit of X.1.N, about a sender and about a recipient.
_SENDERS: Final = {"1": "7", "2": "8", "3": "7", "4": "7", "6": "7", "7": "7", "8": "8"}
_RECIPIENTS: Final = {**dict(zip("123456", "123456", strict=True)), "7": "3", "8": "2"}
_FIELD: Final = re.compile(r"[!-9;-~]+:[^\r\n\0]*")
_ACCEPT: Final = ("now", Verdict(Action.ACCEPT))
MISTAKEN: Final = Reply(451, "4.3.5", "Server configuration error")
UNREADABLE: Final = Reply(451, "4.3.0", "Temporary lookup failure")


class AccessTables:
    """The tables of one configuration, each read once."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._delimiters = config.recipient_delimiter
        self._code = config.access_map_reject_code
        self._defer_code = config.access_map_defer_code
        self._classes = frozenset(config.smtpd_restriction_classes)
        self._base = Path(config.config_file or "/").parent
        self._clock = clock
        self._tables: dict[str, TableSet] = {}
        self._relaying = config.relay_clientcerts
        self._looked_at = clock.monotonic()

    def decide(
        self, name: str, key: tuple[str, ...], what: str, kind: str
    ) -> tuple[str, Verdict] | list[Restriction] | None:
        """What a table says of a key: ("client", name, address), ("certificate", fingerprints...), ("domain", name),
        ("address", ip), ("login", name) or ("mail", address).
        """
        try:
            found = self.find(name, key)
        except TemporaryFailure:
            return "now", Verdict(Action.DEFER, UNREADABLE, reason=f"{name} cannot be read")
        return None if found is None else self.action(found[1], what, kind, f"{name}: {found[0]}")

    def find(self, name: str, key: tuple[str, ...]) -> tuple[str, str] | None:
        """(what was found, its value) of a key. Raises TemporaryFailure."""
        table = self._table(name)
        whole = key[1:]  # what else is looked up are parts of these
        for form in self._forms(key):
            value = table.get(form, whole=form in whole or form == "<>")
            if value is not None:
                return form, value.strip()
        return None

    def problem(self, value: str) -> str:
        """Why a value of a table cannot be obeyed; "" where it can."""
        found = self.action(value.strip(), "x", "Client host", "")
        if isinstance(found, tuple) and found[1].reply is MISTAKEN:
            return f"{value.strip()[:80]}: no action of access(5), and no restriction that is known here"
        return ""

    def relays(self, fingerprints: Iterable[str]) -> bool:
        """Whether relay_clientcerts has one of them. Raises TemporaryFailure."""
        return any(self._table(name).get(each) is not None for each in fingerprints for name in self._relaying)

    def _table(self, name: str) -> TableSet:
        now = self._clock.monotonic()
        if now - self._looked_at >= _REFRESH_S:
            self._looked_at = now
            for each in self._tables.values():
                each.refresh()
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = TableSet((name,))
        return table

    def _forms(self, key: tuple[str, ...]) -> Iterator[str]:
        """The keys to look up, in the order of access(5)."""
        match key:
            case ("client", name, address):
                yield from _domains(name)
                yield from _networks(address)
            case ("certificate", *fingerprints):
                yield from fingerprints
            case ("address", address):
                yield from _networks(address)
            case ("login", name):
                yield name
            case ("domain", name):
                yield from _domains(name)
            case ("mail", address):
                yield from self._addresses(address)

    def _addresses(self, address: str) -> Iterator[str]:
        if not address:
            yield "<>"
            return
        user, at, domain = address.rpartition("@")
        if not at:
            user, domain = address, ""
        bare = user
        for delimiter in self._delimiters:
            bare = bare.partition(delimiter)[0] or bare
        yield address
        if bare != user:
            yield f"{bare}@{domain}"
        yield from _domains(domain)
        yield f"{user}@"
        if bare != user:
            yield f"{bare}@"

    def action(self, value: str, what: str, kind: str, reason: str) -> tuple[str, Verdict] | list[Restriction] | None:
        """What a value says of `what`, restrictions that are to be asked about it, or None: nothing."""
        word, _, text = value.partition(" ")
        word, text = word.upper(), text.strip()
        if word == "OK" or value.isdigit():  # digits alone come from what notes who has logged in
            return _ACCEPT
        if _CODED.match(word):
            return self._refuse(int(word), text, "Access denied", what, kind, reason)
        match word:
            case "DUNNO":
                return None
            case "REJECT":
                return self._refuse(self._code, text, "Access denied", what, kind, reason)
            case "DEFER":
                return self._refuse(self._defer_code, text, "Access denied", what, kind, reason)
            case "DEFER_IF_PERMIT" | "DEFER_IF_REJECT":
                default = "Service unavailable - try again later"
                return word[6:].lower(), self._refuse(self._defer_code, text, default, what, kind, reason)[1]
            case "DISCARD":
                return "now", Verdict(Action.DISCARD, reason=text or reason)
            case "HOLD":
                return "now", Verdict(Action.HOLD, reason=text or reason)
            case "WARN" | "INFO":
                return "now", Verdict(reason=f"{word.lower()}: {text or reason}")
            case "REDIRECT" if "@" in text:
                return "now", Verdict(Action.REDIRECT, target=text.encode("utf-8", "surrogateescape"), reason=reason)
            case "BCC" if "@" in text:
                return "now", Verdict(copies=(text.encode("utf-8", "surrogateescape"),), reason=reason)
            case "FILTER" if _is_filter(text):
                return "now", Verdict(through=text, reason=f"{reason}: filter {text}")
            case "PREPEND" if _FIELD.fullmatch(text):
                return "now", Verdict(fields=(f"{text}\r\n".encode("utf-8", "surrogateescape"),), reason=reason)
        try:
            return parse(normalised(split_list(value), self._base, self._classes))
        except ValueError:
            return "now", Verdict(Action.DEFER, MISTAKEN, reason=f"{reason}: no action {word}")

    def _refuse(self, code: int, text: str, default: str, what: str, kind: str, reason: str) -> tuple[str, Verdict]:
        enhanced = f"{code // 100}.7.1"
        given = _ENHANCED.match(text)
        if given is not None:  # its class is the code's
            enhanced, text = _about(f"{code // 100}{given[1][1:]}", kind), text[given.end() :]
        shown = "".join(c if 32 <= ord(c) < 127 else "?" for c in what[:320])
        reply = Reply(code, enhanced, f"<{shown}>: {kind} rejected: {text or default}")
        return "now", Verdict(Action.DEFER if code < 500 else Action.REJECT, reply, reason=reason)


def _about(enhanced: str, kind: str) -> str:
    """access(5), "enhanced status codes": X.1.N says something of a sender or of a recipient, as the case is."""
    if not enhanced.startswith(".1.", 1):
        return enhanced
    if kind not in ("Sender address", "Recipient address"):
        return f"{enhanced[0]}.0.0"
    return enhanced[:4] + (_SENDERS if kind[0] == "S" else _RECIPIENTS).get(enhanced[4:], "0")


def _is_filter(text: str) -> bool:
    try:
        written_filter(text)
    except ValueError:
        return False
    return True


def _domains(name: str) -> Iterator[str]:
    """A name and the domains above it; what is an address has none."""
    bare = name.rstrip(".")
    if bare.replace(".", "").isdigit():
        yield bare
        return
    while bare:
        yield bare
        bare = bare.partition(".")[2]


def _networks(address: str) -> Iterator[str]:
    """An address and what it begins with, octet by octet, or group by group."""
    mark = ":" if ":" in address else "."
    while address:
        yield address
        address = address.rpartition(mark)[0].rstrip(mark)
