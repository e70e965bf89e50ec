"""The milter protocol, version 6, without sockets: packets, terms, macros, and a header as filters change it.

A packet is its length (four octets), a letter and data. The MTA's side is here: it offers all that a filter may ask
for, and refuses a filter that takes more, or answers what was not negotiated.
"""

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from enum import IntFlag
from typing import Final, NamedTuple

from fastmta.authentication.message import Field
from fastmta.directory.addresses import parse
from fastmta.model.limits import MILTER_CHANGES, MILTER_PACKET_BYTES, SMTP_PATH_BYTES
from fastmta.model.reply import Reply

VERSION: Final = 6
_LEAST_VERSION: Final = 2


class Actions(IntFlag):
    """What a filter may ask for at the end of a message."""

    ADD_HEADERS = 0x1
    CHANGE_BODY = 0x2
    ADD_RECIPIENTS = 0x4
    REMOVE_RECIPIENTS = 0x8
    CHANGE_HEADERS = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40
    ADD_WITH_PARAMETERS = 0x80
    MACRO_LISTS = 0x100


class Steps(IntFlag):
    """What a filter does not want to be told (NO), or does not reply to (SILENT)."""

    NO_CONNECT = 0x1
    NO_HELO = 0x2
    NO_MAIL = 0x4
    NO_RCPT = 0x8
    NO_BODY = 0x10
    NO_HEADER = 0x20
    NO_EOH = 0x40
    SILENT_HEADER = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    SILENT_CONNECT = 0x1000
    SILENT_HELO = 0x2000
    SILENT_MAIL = 0x4000
    SILENT_RCPT = 0x8000
    SILENT_DATA = 0x10000
    SILENT_UNKNOWN = 0x20000
    SILENT_EOH = 0x40000
    SILENT_BODY = 0x80000
    LEADING_SPACE = 0x100000


_OFFERED_ACTIONS: Final = 0x1FF  # numbers: ~ of a flag leaves out what has no name
_NEEDED: Final = {
    b"h": Actions.ADD_HEADERS,
    b"i": Actions.ADD_HEADERS,
    b"m": Actions.CHANGE_HEADERS,
    b"q": Actions.QUARANTINE,
    b"b": Actions.CHANGE_BODY,
    b"+": Actions.ADD_RECIPIENTS,
    b"2": Actions.ADD_WITH_PARAMETERS,
    b"-": Actions.REMOVE_RECIPIENTS,
    b"e": Actions.CHANGE_SENDER,
}
_OFFERED_STEPS: Final = 0x1FF7FF
#: Of each command: what leaves it out, what leaves its reply out, and its macros, as Postfix has them.
_COMMANDS: Final[dict[bytes, tuple[Steps, Steps, tuple[str, ...]]]] = {
    b"C": (Steps.NO_CONNECT, Steps.SILENT_CONNECT, ("j", "{daemon_name}", "v", "{client_name}", "{client_addr}", "_")),
    b"H": (
        Steps.NO_HELO,
        Steps.SILENT_HELO,
        ("{tls_version}", "{cipher}", "{cipher_bits}", "{cert_subject}", "{cert_issuer}"),
    ),
    b"M": (
        Steps.NO_MAIL,
        Steps.SILENT_MAIL,
        ("i", "{auth_type}", "{auth_authen}", "{mail_addr}", "{mail_host}", "{mail_mailer}"),
    ),
    b"R": (Steps.NO_RCPT, Steps.SILENT_RCPT, ("i", "{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}")),
    b"T": (Steps.NO_DATA, Steps.SILENT_DATA, ("i",)),
    b"L": (Steps.NO_HEADER, Steps.SILENT_HEADER, ()),
    b"N": (Steps.NO_EOH, Steps.SILENT_EOH, ("i",)),
    b"B": (Steps.NO_BODY, Steps.SILENT_BODY, ()),
    b"E": (Steps(0), Steps(0), ("i",)),
}
_LISTED: Final = (b"C", b"H", b"M", b"R", b"T", b"E", b"N")  # by the number that a filter's macro lists have
_NAME: Final = re.compile(rb"[!-9;-~]{1,200}")
_REPLY: Final = re.compile(r"([45]\d\d)(?:[ -]|$)(?:([45]\.\d{1,3}\.\d{1,3})(?: |$))?(.*)")
_REPLY_LINES: Final = 32


class MilterError(ValueError):
    """The filter has broken the protocol."""


def packet(letter: bytes, data: bytes = b"") -> bytes:
    """One packet."""
    return struct.pack(">I", len(data) + 1) + letter + data


def packet_octets(length: bytes) -> int:
    """How many octets follow a packet's length. Raises MilterError."""
    (octets,) = struct.unpack(">I", length)
    if not 1 <= octets <= MILTER_PACKET_BYTES:
        raise MilterError(f"a packet of {octets} octets")
    return int(octets)


def strings(*texts: bytes) -> bytes:
    """Texts as packets have them; a NUL would end one early."""
    return b"".join(text.replace(b"\0", b"?") + b"\0" for text in texts)


OFFER: Final = packet(b"O", struct.pack(">III", VERSION, _OFFERED_ACTIONS, _OFFERED_STEPS))


class Terms:
    """What a filter has negotiated."""

    def __init__(self, letter: bytes, data: bytes) -> None:
        if letter != b"O" or len(data) < 12:
            raise MilterError("no answer to the negotiation")
        version, actions, steps = struct.unpack(">III", data[:12])
        if not _LEAST_VERSION <= version <= VERSION:
            raise MilterError(f"version {version}")
        if actions & ~_OFFERED_ACTIONS:
            raise MilterError(f"asks for actions {actions & ~_OFFERED_ACTIONS:#x}, which are not offered")
        if steps & ~_OFFERED_STEPS:
            raise MilterError(f"asks for steps {steps & ~_OFFERED_STEPS:#x}, which are not offered")
        self.actions = Actions(actions)
        self.steps = Steps(steps)
        self._macros = {letter: names for letter, (_, _, names) in _COMMANDS.items()}
        self._macros.update(_macro_lists(data[12:]))

    def wants(self, command: bytes) -> bool:
        return not self.steps & _COMMANDS[command][0]

    def is_answered(self, command: bytes) -> bool:
        return not self.steps & _COMMANDS[command][1]

    def command(self, letter: bytes, data: bytes, macros: Mapping[str, str]) -> bytes:
        """A command behind the macros that go with it, those that are known."""
        known = [(name, macros[name]) for name in self._macros[letter] if macros.get(name)]
        if not known and not self._macros[letter]:
            return packet(letter, data)
        pairs = [text.replace("\0", "?").encode("utf-8", "replace") for pair in known for text in pair]
        return packet(b"D", letter + strings(*pairs)) + packet(letter, data)

    def field(self, field: Field) -> bytes:
        """The data of a header field: lines apart by LF."""
        name, _, value = field.raw.partition(b":")
        value = value.removesuffix(b"\r\n").replace(b"\r\n", b"\n")
        return strings(name.rstrip(), value if self.steps & Steps.LEADING_SPACE else value.lstrip(b" \t"))


def _macro_lists(data: bytes) -> dict[bytes, tuple[str, ...]]:
    """The macros that a filter asks for: a command's number and their names, again and again."""
    found = {}
    while len(data) >= 5:
        (number,) = struct.unpack(">I", data[:4])
        names, end, data = data[4:].partition(b"\0")
        if not end or number >= len(_LISTED):
            raise MilterError("a malformed list of macros")
        words = names.decode("latin-1").replace(",", " ").split()
        found[_LISTED[number]] = tuple(_macro(word) for word in words)
    return found


def _macro(name: str) -> str:
    bare = name.strip("{}")
    return bare if len(bare) == 1 else f"{{{bare}}}"


def parse_reply(data: bytes) -> Reply:
    """The data of a reply code, "550 5.7.1 text", perhaps of several lines."""
    text = data.partition(b"\0")[0].decode("utf-8", "replace").replace("%%", "%")
    lines = text.rstrip("\r\n").replace("\r\n", "\n").split("\n")
    matches = [_REPLY.fullmatch(line) for line in lines[:_REPLY_LINES]]
    first = matches[0]
    if first is None:
        raise MilterError("a malformed reply code")
    code = int(first[1])
    enhanced = first[2] if first[2] and first[2][0] == first[1][0] else f"{code // 100}.7.1"
    said = [match[3] if match is not None else "" for match in matches]
    shown = "\n".join("".join(c if c.isprintable() else "?" for c in line[:400]) for line in said)
    return Reply(code, enhanced, shown)


class Change(NamedTuple):
    """One change of the header: `letter` h adds, i inserts at a place, m changes one of that name (from 1)."""

    letter: bytes
    place: int
    name: bytes
    value: bytes


class Changes:
    """What a filter asks for at the end of one message. It counts only once the filter has said its last word."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.header: list[Change] = []
        self.recipients: list[tuple[bytes, bytes]] = []  # ("+" or "-", address), in the order of the filter
        self.sender: bytes | None = None
        self.quarantine = ""

    def take(self, letter: bytes, data: bytes) -> bytes | None:
        """One packet before the last; gives the octets of another body. Raises MilterError."""
        needed = _NEEDED.get(letter)
        if needed is None or not self._terms.actions & needed:
            raise MilterError(f"answered {letter!r}, which was not negotiated")
        match letter:
            case b"b":
                return data
            case b"q":
                self.quarantine = data.partition(b"\0")[0].decode("utf-8", "replace")[:400] or "quarantined"
            case b"e":
                self.sender = _address(data, empty=True)
            case b"+" | b"2" | b"-":
                self._count(self.recipients)
                self.recipients.append((b"-" if letter == b"-" else b"+", _address(data)))
            case _:
                self._count(self.header)
                self._take_field(letter, data)
        return None

    def _count(self, changes: Sequence[object]) -> None:
        if len(changes) >= MILTER_CHANGES:
            raise MilterError(f"more than {MILTER_CHANGES} changes")

    def _take_field(self, letter: bytes, data: bytes) -> None:
        index = 0
        if letter != b"h":
            if len(data) < 4:
                raise MilterError("a change without index")
            (index,) = struct.unpack(">I", data[:4])
            data = data[4:]
        texts = data.split(b"\0")
        if len(texts) != 3 or texts[2] or not _NAME.fullmatch(texts[0]):
            raise MilterError("a malformed header field")
        self.header.append(Change(letter, index, texts[0], texts[1]))


def _address(data: bytes, *, empty: bool = False) -> bytes:
    """The address in "<user@domain>\\0parameters\\0". What would be a line of its own to the next hop is none."""
    text = data.partition(b"\0")[0].strip()
    if text.startswith(b"<") and text.endswith(b">"):
        text = text[1:-1]
    if not text and empty:
        return text
    try:
        parse(text.decode("utf-8"))
    except ValueError:
        raise MilterError("a malformed address") from None
    if len(text) > SMTP_PATH_BYTES or b"<" in text or b">" in text:
        raise MilterError("a malformed address")
    return text


class _Shown:
    """A field as filters see it. `at`: where it lies in what came; -1: a filter has made it, -2: the server adds it."""

    __slots__ = ("at", "field", "is_gone")

    def __init__(self, field: Field, at: int) -> None:
        self.field = field
        self.at = at
        self.is_gone = False  # a filter has deleted it


class Header:
    """The header that filters see, one after the other: fields that the server adds, and those that came.

    Whoever sends a message chooses how many fields a filter takes out of how many, so a change looks none through.
    """

    def __init__(self, came: Iterable[Field], added: Iterable[Field] = ()) -> None:
        self._shown = [_Shown(field, -2) for field in added]
        self._by_name: dict[bytes, list[_Shown]] = {}  # those that are there, top down; empty: not known
        self.cuts: list[tuple[int, int]] = []  # of what came
        at = 0
        for field in came:
            self._shown.append(_Shown(field, at))
            at += len(field.raw)

    @property
    def fields(self) -> list[Field]:
        return [each.field for each in self._shown if each.field.name and not each.is_gone]

    @property
    def new(self) -> tuple[bytes, ...]:
        """The fields that filters have made, top down."""
        return tuple(each.field.raw for each in self._shown if each.at == -1 and not each.is_gone)

    def apply(self, changes: Iterable[Change], *, leading_space: bool) -> None:
        """Carries out what one filter has asked for."""
        for change in changes:
            field = _field(change, leading_space)
            match change.letter:
                case b"h":
                    self._append(field)
                case b"i":
                    self._insert(change.place, field)
                case _:
                    self._change(change, field)

    def _named(self, name: bytes) -> list[_Shown]:
        if not self._by_name:
            for each in self._shown:
                if not each.is_gone:
                    self._by_name.setdefault(each.field.name, []).append(each)
        return self._by_name.setdefault(name, [])

    def _append(self, field: Field) -> None:
        made = _Shown(field, -1)
        self._named(field.name).append(made)
        self._shown.append(made)

    def _insert(self, place: int, field: Field) -> None:
        made = _Shown(field, -1)
        alike = self._named(field.name)
        self._shown = [each for each in self._shown if not each.is_gone]  # places count what is there
        self._shown.insert(min(max(place - 1, 0), len(self._shown)), made)
        if alike:
            self._by_name.clear()
        else:
            alike.append(made)

    def _change(self, change: Change, field: Field) -> None:
        found = self._named(field.name)
        which = max(change.place, 1) - 1
        if which >= len(found):
            if change.value:
                self._append(field)
            return
        old = found[which]
        if old.at == -2:
            return  # the server's own field stays
        if old.at >= 0:
            self.cuts.append((old.at, len(old.field.raw)))
        old.field, old.at = field, -1
        if not change.value:
            old.is_gone = True
            del found[which]


def _field(change: Change, leading_space: bool) -> Field:
    """A field that cannot end the header, whatever its value."""
    lines = change.value.replace(b"\r", b"").split(b"\n")
    lines = [lines[0], *(line for line in lines[1:] if line.strip())]
    folded = b"\r\n".join([lines[0], *(line if line[:1] in b" \t" else b"\t" + line for line in lines[1:])])
    return Field(change.name.lower(), change.name + (b":" if leading_space else b": ") + folded + b"\r\n")
