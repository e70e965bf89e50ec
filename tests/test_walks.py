"""The walks of docs/architecture.md: what is named there exists, each room is entered once on one way, and the walks
that are watched go as they say.

In a walk `room/file:name` is a function, a class or a method; a name alone stands in the file that was named last;
what is asked on the way stands in brackets; behind "Back:" another way begins.
"""

import ast
import asyncio
import re
import sys
from functools import cache
from itertools import groupby
from pathlib import Path
from types import FrameType

import pytest

from tests.e2e import test_one_process as two_servers
from tests.support.dns_thread import dns_stub
from tests.support.mail import letter, wait_for_messages
from tests.support.ports import free_port

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "fastmta"
TEXT = (REPOSITORY / "docs" / "architecture.md").read_text()

_PLACE = re.compile(r"`([a-z_0-9]+(?:/[a-z_0-9]+)*)(?::([A-Za-z_0-9.]+))?`")
_NAME = re.compile(r"`([A-Za-z_][A-Za-z_0-9.]*)`")
_CYTHON = re.compile(r"^(\s*)(?:cdef|cpdef|def|class)\b[^=(]*?\b(\w+)(?:\(|:\s*$|\s*\()", re.M)


def walks() -> dict[str, str]:
    """The text of each walk by its heading."""
    section = TEXT.partition("\n## The walks\n")[2].partition("\n## ")[0]
    parts = re.split(r"^\*\*(.+?)\.\*\* ", section, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def files_of(place: str) -> list[Path]:
    """The sources that a place means: a module, an extension with its parts, or one part of an extension."""
    if place.startswith("_"):
        extension, _, part = place.partition("/")
        if part:
            return [path for path in [PACKAGE / f"{extension}_parts" / f"{part}.pxi"] if path.exists()]
        return [*PACKAGE.glob(f"{extension}.pyx"), *PACKAGE.glob(f"{extension}_parts/*.pxi")]
    return [path for path in [PACKAGE / f"{place}.py"] if path.exists()]


@cache
def names_in(path: Path) -> frozenset[str]:
    """What a source defines: functions, classes, Class.method; and a class's attributes and slots."""
    text = path.read_text()
    if path.suffix != ".py":
        found = set()
        outer = ""
        for indent, name in _CYTHON.findall(text):
            found.add(name)
            if not indent.strip("\n"):
                outer = name
            else:
                found.add(f"{outer}.{name}")
        return frozenset(found)
    found = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                    found |= {each.name, f"{node.name}.{each.name}"}
    return frozenset(found)


def missing(text: str) -> list[str]:
    """What a walk names and the package has not."""
    bad = []
    last: list[Path] = []
    for token in re.findall(r"`[^`]+`", text):
        if (place := _PLACE.fullmatch(token)) and ("/" in token or ":" in token):
            last = files_of(place[1])
            if not last or (place[2] and not any(place[2] in names_in(path) for path in last)):
                bad.append(token)
        elif name := _NAME.fullmatch(token):
            if not any(name[1] in names_in(path) for path in last):
                bad.append(token)
        else:
            bad.append(token)
    return bad


@pytest.mark.parametrize("walk", walks())
def test_what_a_walk_names_exists(walk: str) -> None:
    assert missing(walks()[walk]) == []


def ways(text: str) -> list[list[str]]:
    """The places of each way of a walk, without what is asked in brackets."""
    plain = re.sub(r"\([^()`]*(?:`[^`]*`[^()`]*)*\)", "", text)
    return [[place[0] for place in _PLACE.finditer(way) if ":" in place[0]] for way in plain.split("*Back:*")]


def room(place: str) -> str:
    return re.split(r"[/:]", place.strip("`"))[0]


@pytest.mark.parametrize("walk", walks())
def test_each_room_is_entered_once_on_one_way(walk: str) -> None:
    for way in ways(walks()[walk]):
        rooms = [name for name, _ in groupby(room(place) for place in way)]
        assert sorted(set(rooms)) == sorted(rooms), f"a room is entered twice: {rooms}"


def test_a_room_that_is_entered_twice_would_be_found() -> None:
    way = (
        "`smtp/session:Rules` (`store/queue:Queue`), `policy/run:Run`, `smtp/server:SmtpServer`. *Back:* `smtp/paths:x`"
    )
    assert [[room(place) for place in each] for each in ways(way)] == [["smtp", "policy", "smtp"], ["smtp"]]


# --- the walks that are watched ---


class Watched:
    """The calls of some Python functions of the package, in their order."""

    def __init__(self, places: set[str]) -> None:
        self.calls: list[str] = []
        self._places = places
        self._root = f"{PACKAGE}/"

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(self._root):
            place = f"{code.co_filename[len(self._root) : -3]}:{code.co_qualname}"
            if place in self._places:
                self.calls.append(place)


def _called(way: list[str]) -> list[str]:
    """The functions in Python among a way's places."""
    return [
        name
        for place in way
        if not room(place).startswith("_") and not re.search(r"[:.][A-Z]\w*$", name := place.strip("`"))
    ]


def test_the_watched_walks_go_as_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A letter goes from one whole server to another one, and is read there over IMAP."""
    monkeypatch.setenv("FASTMTA_TEST_ENGINE", "memory")
    port = free_port("0.0.0.0")
    sent = letter("a walk", sender=two_servers.MARK, to=two_servers.BILL)
    found = [[_called(way) for way in ways(text)] for text in walks().values() if text.startswith("*Watched.*")]
    assert len(found) == 3
    watched = Watched({place for walk in found for way in walk for place in way})

    async def scene(dns: str) -> None:
        relay = two_servers._site(tmp_path / "a", two_servers.RELAY_HOST, "relay.example.net", "example.net", port, dns)
        smtp = two_servers._site(tmp_path / "b", two_servers.SMTP_HOST, "smtp.example.org", "example.org", port, dns)
        async with two_servers._serving(relay, two_servers.MARK), two_servers._serving(smtp, two_servers.BILL):
            sys.setprofile(watched)
            await asyncio.to_thread(two_servers._submit, relay, sent)
            arrived = (two_servers.BILL, two_servers.PASSWORD, 1, two_servers.TIMEOUT_S)
            await asyncio.to_thread(wait_for_messages, smtp, *arrived)
            await asyncio.to_thread(two_servers._over_imap, smtp)

    before = sys.getprofile()
    with dns_stub(two_servers.ZONES) as dns:
        try:
            asyncio.run(scene(dns.address))
        finally:
            sys.setprofile(before)
    for walk in found:
        for way in walk:
            calls = iter(watched.calls)
            assert [place for place in way if place not in calls] == [], "these do not follow the one before them"
