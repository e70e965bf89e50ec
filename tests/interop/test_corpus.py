"""A corpus of hard messages (tests/mime/hard.py) beside Debian's Dovecot: structure, parts, searches, order, threads.

BODY[] is what went in, always. FASTMTA_DIALOGS=1000 in the environment makes the run long: 680 messages, else 102. What
differs, and why, stands in DIFFERENT and in the rules below; docs/imap-corpus.md tells it in words.
"""

import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.imap.harness import Client, make_world
from tests.mime import hard
from tests.mime.wire import read_value
from tests.support import dovecot

pytestmark = pytest.mark.skipif(bool(dovecot.missing()), reason=dovecot.missing())

CORPUS = hard.corpus(40 if int(os.environ.get("FASTMTA_DIALOGS", "0")) >= 1000 else 6)
NAMES = list(CORPUS)
#: Where Dovecot 2.3 answers otherwise, by item: the kinds of messages. The reasons are in docs/imap-corpus.md.
DIFFERENT = {
    "ENVELOPE": {"no_addresses", "encoded_words"},
    "BODYSTRUCTURE": {"parameters", "types", "empty", "huge", "boundaries", "nested", "colliding", "inside"},
    "BODY": {"parameters", "types", "empty", "huge", "boundaries", "nested", "colliding", "inside"},
    "BODY[n]": {"types", "empty"},
    "BODY[n.MIME]": {"types", "empty"},
    "BINARY[n]": {"types", "empty", "doubled"},
    "BINARY.SIZE[n]": {"types", "empty", "doubled"},
}
_ONCE = (b"date", b"subject", b"", b"", b"", b"", b"", b"", b"in-reply-to", b"message-id")  # places in an ENVELOPE
_ITEM = re.compile(rb"([A-Z0-9.]+(?:\[[^\]]*\])?) ")
_LITERAL = re.compile(rb"~?\{(\d+)\}\r\n")
WHOLE = "BODY.PEEK[] RFC822.SIZE ENVELOPE BODYSTRUCTURE BODY BODY.PEEK[HEADER] BODY.PEEK[TEXT]"

_FIELDS = (
    'SUBJECT "Re:"',
    "SUBJECT café",
    "SUBJECT Grü",
    'SUBJECT "folded twice"',
    'SUBJECT "a b c"',
    'SUBJECT "tab in"',
    "SUBJECT level",
    "FROM ann",
    'FROM "Comment Name"',
    'FROM "quoted local"',
    "FROM Team",
    'TO "bob@y.test"',
    "TO undisclosed",
    "TO JÜRGEN",
    'CC "@x.test"',
    "CC n99",
    "BCC f@x",
    'TO "MAILER-DAEMON"',
    "HEADER Message-ID 1@x",
    'HEADER Message-ID ""',
    "HEADER Message-ID 2@x",
    "HEADER In-Reply-To 3@x",
    "HEADER In-Reply-To 5@x",
    'HEADER Date "Mon, 2"',
    'HEADER Date "Tue, 3"',
    "SUBJECT first",
    "NOT SUBJECT second",
    "HEADER Subject second",
    "FROM one@x",
    "FROM two@x",
    "TO c@x",
    "CC e@x",
    "HEADER X-Field-7 7",
    "HEADER References 12.xxx",
    "HEADER Content-Type multipart",
    'HEADER "Sub ject" blank',
    'HEADER Subject ""',
    'HEADER X-Empty ""',
    "HEADER Content-Description café",
    "HEADER Content-Disposition attachment",
    "HEADER MIME-Version 1",
    'HEADER Nope ""',
)
_TEXTS = ("BODY text", "BODY Grüße", "BODY alpha", 'BODY "From x"', 'BODY "a="', "BODY é", "BODY core", "TEXT alpha")
_TEXTS += ("TEXT x.test", "TEXT filename", "TEXT café", "TEXT level", 'NOT TEXT "x.test"', "OR BODY one SUBJECT nested")
_ROWS = (
    "LARGER 5000",
    "SMALLER 300",
    "LARGER 500 SMALLER 600",
    "ON 1-Feb-2026",
    "SENTON 2-Mar-2026",
    "SINCE 9-Feb-2026",
)
#: Of kinds whose header Dovecot reads otherwise (DIFFERENT), fields differ in searches too.
_SAME_FIELDS = set(hard.KINDS) - {"eight_bit", "encoded_words", "no_addresses", "headers", "line_ends"}
_ONE_PART = {"huge", "dates", "addresses", "encodings", "parameters"}  # of whom BODY is the same to both
_SORT = ("ARRIVAL", "CC", "DATE", "FROM", "SIZE", "SUBJECT", "TO", "REVERSE SUBJECT", "SUBJECT DATE", "REVERSE FROM")
_SORTED = ("nested", "colliding", "boundaries", "parameters", "empty", "inside", "types", "encodings")


class Wire:
    """Dovecot at a socket: response lines as octets, literals within them."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), 60)
        self._file = self._socket.makefile("rb")
        self._file.readline()
        self._number = 0
        self.ok(b"LOGIN user secret")

    def do(self, command: bytes) -> list[bytes]:
        self._number += 1
        tag = b"t%d " % self._number
        self._socket.sendall(tag + command + b"\r\n")
        lines: list[bytes] = []
        while not lines or not lines[-1].startswith(tag):
            line = self._file.readline()
            assert line, lines
            while found := re.search(rb"\{(\d+)\}\r\n$", line):
                line += self._file.read(int(found[1])) + self._file.readline()
            lines.append(line[:-2])
        lines[-1] = lines[-1].removeprefix(tag)
        return lines

    def ok(self, command: bytes) -> list[bytes]:
        lines = self.do(command)
        assert lines[-1].startswith(b"OK"), (command, lines[-1])
        return lines[:-1]

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class Both:
    """The same mail on both sides; `names` are the messages' by number."""

    def __init__(self, ours: Client, theirs: Wire) -> None:
        self.ours, self.theirs = ours, theirs
        self.names: list[str] = []

    async def fill(self, mailbox: str, names: list[str]) -> None:
        self.names = names
        for each in (f"CREATE {mailbox}", f"SELECT {mailbox}"):
            self.theirs.do(each.encode())
            await self.ours.do(each)
        for number, name in enumerate(names):
            date = b'"%02d-Feb-2026 10:00:00 +0000"' % (number % 28 + 1)
            command = b"APPEND %b %b {%d+}\r\n%b" % (mailbox.encode(), date, len(CORPUS[name]), CORPUS[name])
            self.theirs.ok(command)
            await self.ours.ok(command)
        self.theirs.ok(b"NOOP")
        await self.ours.ok("NOOP")

    async def fetch(self, number: int, items: str) -> tuple[dict[bytes, Any], dict[bytes, Any]]:
        command = f"FETCH {number} ({items})"
        return _items(self.theirs.do(command.encode())), _items(await self.ours.do(command))


@pytest_asyncio.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    with dovecot.Dovecot({"user": "secret"}) as running:
        world = await make_world(tmp_path, message_size_limit=10_000_000)
        theirs = Wire(running.host, running.port("imap"))
        yield Both(await world.login(), theirs)
        theirs.close()
        await world.close()


def _items(lines: list[bytes]) -> dict[bytes, Any]:
    """The items of FETCH responses, by name."""
    out: dict[bytes, Any] = {}
    for line in lines:
        head = re.match(rb"\* \d+ FETCH \(", line)
        at = head.end() if head else len(line)
        while at < len(line):
            item = _ITEM.match(line, at)
            assert item, line[at : at + 60]
            at = item.end()
            if literal := _LITERAL.match(line, at):
                at = literal.end() + int(literal[1])
                out[item[1]] = line[literal.end() : at]
            else:
                out[item[1]], at = read_value(line, at)
            assert line[at : at + 1] in (b" ", b")")
            at = at + 1 if line[at : at + 1] == b" " else len(line)
    return out


# --- what is the same though it is written otherwise ---


def _words(value: Any) -> Any:
    """Dovecot makes one space of all blanks."""
    if isinstance(value, list):
        return [_words(each) for each in value]
    return b" ".join(value.split()) if isinstance(value, bytes) else value


def _envelope(value: list[Any], text: bytes) -> list[Any]:
    """Without fields that may stand once and stand there again: Dovecot takes the last one, and ours is the first."""
    header = text.partition(b"\r\n\r\n")[0].lower()
    names = re.findall(rb"(?m)^([!-9;-~]+)[ \t]*:", header)
    return [None if names.count(name) > 1 else _words(each) for name, each in zip(_ONCE, value, strict=True)]


def _pairs(value: Any) -> Any:
    return sorted(zip(value[::2], value[1::2], strict=True)) if isinstance(value, list) else value


def _structure(value: list[Any]) -> list[Any]:
    """Parameters in no order. The size of a message within is not looked at: Dovecot counts the delimiter's CRLF to one
    that ends in its header or in a multipart.
    """
    if isinstance(value[0], list):
        count = next(place for place, each in enumerate(value) if not isinstance(each, list))
        rest = value[count:]
        out = [_structure(each) for each in value[:count]]
        return [*out, rest[0], *(_pairs(each) for each in rest[1:2]), *_disposed(rest[2:])]
    kind = [each.lower() for each in value[:2]]
    out = [*kind, _pairs(value[2]), *_words(value[3:6])]
    if kind == [b"message", b"rfc822"]:
        return [*out, _words(value[7]), _structure(value[8]), *value[10:11], *_disposed(value[11:])]
    end = 8 if kind[0] == b"text" else 7
    return [*out, *value[6:end], *value[end : end + 1], *_disposed(value[end + 1 :])]


def _disposed(value: list[Any]) -> list[Any]:
    first = [[value[0][0], _pairs(value[0][1])]] if value and value[0] else value[:1]
    return [*first, *_words(value[1:])]


def _parts(structure: list[Any], place: str = "") -> Iterator[tuple[str, str]]:
    """Each part's number, and whether it is a leaf, a multipart or a message."""
    if not isinstance(structure[0], list):
        yield from _part(structure, f"{place}1")
        return
    for number, each in enumerate((each for each in structure if isinstance(each, list)), 1):
        if structure[number - 1] is not each:
            return  # an extension's list
        yield from _part(each, f"{place}{number}")


def _part(structure: list[Any], place: str) -> Iterator[tuple[str, str]]:
    if isinstance(structure[0], list):
        yield place, "multipart"
        yield from _parts(structure, f"{place}.")
    elif [each.lower() for each in structure[:2]] == [b"message", b"rfc822"]:
        yield place, "message"
        yield from _parts(structure[8], f"{place}.")
    else:
        yield place, "leaf"


def _same_octets(item: str, kind: str, theirs: bytes, ours: bytes) -> bool:
    """Whose is the CRLF before a delimiter? Ours is the delimiter's (RFC 2046 §5.1.1); Dovecot gives it to the body of
    a multipart or message before it, though not to the header of one that ends in its header.
    """
    if theirs == ours:
        return True
    return kind != "leaf" and not item.endswith((".MIME]", ".HEADER]")) and theirs == ours + b"\r\n"


# --- the comparison ---


async def test_structure_and_parts_are_dovecots(both: Both) -> None:
    await both.fill("corpus", NAMES)
    wrong: list[str] = []
    compared = 0

    def differs(item: str, name: str, theirs: object, ours: object) -> None:
        if name.rpartition("-")[0] not in DIFFERENT.get(item, ()):
            wrong.append(f"{name} {item}\n  theirs {theirs!r:.600}\n  ours   {ours!r:.600}")

    for number, name in enumerate(NAMES, 1):
        text = CORPUS[name]
        theirs, ours = await both.fetch(number, WHOLE)
        assert ours[b"BODY[]"] == ours[b"BODY[HEADER]"] + ours[b"BODY[TEXT]"] == text
        assert ours[b"RFC822.SIZE"] == len(text)
        if name.startswith("line_ends"):
            continue  # Dovecot keeps lines, not octets: a bare CR before CRLF is gone
        assert theirs[b"BODY[]"] == text and theirs[b"BODY[HEADER]"] == ours[b"BODY[HEADER]"]
        compared += 1
        if _envelope(theirs[b"ENVELOPE"], text) != _envelope(ours[b"ENVELOPE"], text):
            differs("ENVELOPE", name, theirs[b"ENVELOPE"], ours[b"ENVELOPE"])
        for item in (b"BODYSTRUCTURE", b"BODY"):
            if _structure(theirs[item]) != _structure(ours[item]):
                differs(item.decode(), name, theirs[item], ours[item])
        parts = list(_parts(ours[b"BODYSTRUCTURE"]))
        if parts != list(_parts(theirs[b"BODYSTRUCTURE"])):
            continue  # told above
        for place, kind in parts:
            items = [f"BODY[{place}]", f"BODY[{place}.MIME]"]
            items += [f"BODY[{place}.HEADER]", f"BODY[{place}.TEXT]"] if kind == "message" else []
            theirs, ours = await both.fetch(number, " ".join(items).replace("BODY", "BODY.PEEK"))
            for item in items:
                their, our = theirs[item.encode()] or b"", ours[item.encode()] or b""
                if not _same_octets(item, kind, their, our):
                    differs(item.replace(place, "n"), name, their, our)
            if kind == "leaf":
                theirs, ours = await both.fetch(number, f"BINARY.PEEK[{place}] BINARY.SIZE[{place}]")
                for each in theirs.keys() & ours.keys():  # none of theirs, but NO, where a part's encoding is damaged
                    if (theirs.get(each) or b"") != (ours.get(each) or b""):
                        differs(each.decode().replace(place, "n"), name, theirs.get(each), ours.get(each))
    assert compared == len(NAMES) - len(CORPUS) // len(hard.KINDS)
    assert not wrong, f"{len(wrong)} differ\n" + "\n".join(wrong[:20])


def _search(program: str) -> bytes:
    words = re.findall(rb'"[^"]*"|\S+', program.encode())
    coded = (word if word.isascii() else b"{%d+}\r\n%b" % (len(word.strip(b'"')), word.strip(b'"')) for word in words)
    return b"SEARCH CHARSET UTF-8 " + b" ".join(coded)


async def test_searches_are_dovecots(both: Both) -> None:
    """Dovecot is asked twice: before it has noted anything of the messages, and when its cache has the fields."""
    await both.fill("searched", NAMES)
    wrong: list[str] = []
    cold = {program: both.theirs.ok(_search(program)) for program in _FIELDS}
    both.theirs.ok(b"CLOSE")
    both.theirs.ok(b"SELECT searched")
    for program in _FIELDS + _TEXTS + _ROWS:
        assert cold.get(program) in (None, both.theirs.ok(_search(program)))
        found = []
        for lines in (both.theirs.ok(_search(program)), await both.ours.ok(_search(program))):
            numbers = [int(each) for line in lines if line.startswith(b"* SEARCH") for each in line.split()[2:]]
            found.append({NAMES[number - 1] for number in numbers})
        theirs, ours = found
        if program in _FIELDS:
            same = _SAME_FIELDS
        elif program in _TEXTS:
            same = _ONE_PART
        else:
            same = set(hard.KINDS) - {"line_ends", "dates"}
        differing = sorted(name for name in theirs ^ ours if name.rpartition("-")[0] in same)
        if differing:
            wrong.append(
                f"{program}: only theirs {sorted(set(differing) - ours)}, only ours {sorted(set(differing) & ours)}"
            )
        assert ours or len(NAMES) < 600 or program == _FIELDS[-1], program
    assert not wrong, "\n".join(wrong)


async def test_order_and_threads_are_dovecots(both: Both) -> None:
    await both.fill("sorted", [name for name in NAMES if name.rpartition("-")[0] in _SORTED])
    for keys in _SORT:
        command = f"SORT ({keys}) UTF-8 ALL"
        (theirs,) = (line for line in both.theirs.ok(command.encode()) if line.startswith(b"* SORT"))
        (ours,) = await both.ours.ok(command)
        assert ours == theirs, keys
    for algorithm in ("REFERENCES", "REFS"):
        command = f"THREAD {algorithm} UTF-8 ALL"
        (theirs,) = (line for line in both.theirs.ok(command.encode()) if line.startswith(b"* THREAD"))
        (ours,) = await both.ours.ok(command)
        assert ours == theirs, algorithm
