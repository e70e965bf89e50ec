"""The seams between rooms hold: no file leads back to itself, and a wrong call through a port fails mypy."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from fastmta.policy.plan import CHECKS
from tests.test_layers import PACKAGE, modules

REPOSITORY = PACKAGE.parent

#: Calls through ports; those that say `wrong` must be refused on their own line, and no others.
CALLS = """
from array import array

from fastmta._imap import FetchWriter
from fastmta.delivery import seams as delivery
from fastmta.imap import seams as imap
from fastmta.operations import users
from fastmta.operations.desk import Desk
from fastmta.operations.values import Subject
from fastmta.imap.session import Session
from fastmta.model.actor import Actor
from fastmta.model.rights import READ
from fastmta.operations.desk import Desk
from fastmta.pop3 import seams as pop3
from fastmta.store import MailStore


async def from_imap(services: imap.Services, session: Session) -> None:
    services.store.access.resolve(Actor(1), "INBOX", READ)
    services.store.access.resolve(Actor(1), "INBOX")  # wrong
    services.store.access.resolve(1, "INBOX", READ)  # wrong
    services.store.access.pages(1)  # wrong
    await services.store.access.create(session.account_id, "x")  # wrong
    services.store.mailboxes.get(1, "INBOX")  # wrong
    session.mailboxes.uids("INBOX")  # wrong
    session.mailboxes.rows(1)[0].subject  # wrong
    session.mailboxes.give_rows(1, array("I", [1]), array("I", [1]), 0, FetchWriter(1, 1))
    session.mailboxes.give_rows(1, array("I", [1]), array("I", [1]), 0, print)  # wrong
    session.mailboxes.read_on(1, 0, 10)  # wrong
    session.mailboxes.new_blob().feed("text")  # wrong
    size: str = session.access.resolve(session.actor, "x", READ).size_bytes  # wrong
    services.store.mailboxes.uids(1)
    services.store.mailboxes.uids("INBOX")  # wrong
    services.store.mailboxes.unread(1)  # wrong
    services.store.raw  # wrong
    await services.store.mailboxes.expunge(1, array("I", [1]))
    await services.store.mailboxes.expunge(1, [1])  # wrong
    await services.store.mailboxes.append(1, services.store.mailboxes.new_blob())  # wrong
    length: str = services.store.mailboxes.read(1, 1, 0, 10)  # wrong


async def from_pop3(services: pop3.Services) -> None:
    services.store.mailboxes.read(1, 1, 0, 10)
    services.store.mailboxes.read(1, b"1", 0, 10)  # wrong
    services.store.mailboxes.delete(1)  # wrong
    await services.store.mailboxes.expunge("all")  # wrong
    services.store.access.resolve("bill", "INBOX", READ)  # wrong
    services.store.mailboxes.read_on(services.store.mailboxes.rows(1), 0, 10)  # wrong
    services.store.mailboxes.rows(1)[0].flagged  # wrong


def from_delivery(services: delivery.Services) -> None:
    unit = services.store.new_unit()
    unit.move_recipient(1, 0, 0, 2, 1, 0, b"")
    unit.move_recipient(1, 0, 0, 2, 1, 0, "later")  # wrong
    unit.deliver_all(1)  # wrong
    services.store.submit(unit, None)
    services.store.submit(unit)  # wrong
    services.store.raw  # wrong
    services.store.new_blob().feed("text")  # wrong
    services.store.queue.no_such_thing()  # wrong


async def from_operations(desk: Desk) -> None:
    await desk.store.accounts.set_enabled("bill@example.test", True)
    await desk.store.accounts.set_enabled("bill@example.test")  # wrong
    desk.store.accounts.usage("bill@example.test")  # wrong
    desk.store.queue.hold("all")  # wrong
    desk.store.mailboxes.list("bill@example.test")  # wrong
    await desk.store.aliases.no_such_thing()  # wrong


async def from_acts(desk: Desk) -> None:
    held: int = await desk.store.queue.hold(1, [0])
    await desk.store.queue.hold("1")  # wrong
    await desk.store.queue.no_such_thing(1)  # wrong
    desk.store.accounts.page("bill")  # wrong
    known: users.Quota = await users.quota(desk, users.SetQuota("bill", "2G"))
    await users.quota(desk, Subject("bill"))  # wrong
    other: str = await users.show(desk, Subject("bill"))  # wrong


def the_real_one(store: MailStore, services: imap.MailStore) -> None:
    taken: imap.MailStore = store
    also: pop3.MailStore = store
    third: delivery.Store = store
    not_back: MailStore = services  # wrong
"""

#: The files of the checks are named by strings (policy/plan.py): each has a `build` that fits.
CALLS += "\nfrom fastmta.policy.check import Build\n" + "".join(
    f"from fastmta.policy.checks import {name}\n{name}_fits: Build = {name}.build\n" for name in CHECKS
)


def test_a_wrong_call_into_the_store_fails_mypy(tmp_path: Path) -> None:
    """In IMAP, POP3, delivery and operations; and the store that there is fits all of their ports."""
    source = tmp_path / "calls.py"
    source.write_text(CALLS)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(REPOSITORY / "pyproject.toml"), str(source)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        timeout=280,
    )
    found = {int(line) for line in re.findall(r"calls\.py:(\d+): error", done.stdout)}
    wrong = {n for n, line in enumerate(CALLS.split("\n"), 1) if line.endswith("# wrong")}
    assert found == wrong, done.stdout + done.stderr


# --- circles ---


KNOWN = dict(modules())


def imported(path: Path) -> Iterator[str]:
    """What a module imports as it is loaded; names of a package that are no modules are not looked up here."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                names = [f"{child.module}.{alias.name}" for alias in child.names]
                yield from names
                if not all(name.removeprefix("fastmta.") in KNOWN for name in names):  # modules beside it are meant
                    yield child.module
            else:
                yield from walk(child)

    yield from walk(ast.parse(path.read_text()))


def python_edges() -> dict[str, set[str]]:
    return {
        name: {
            target
            for each in imported(path)
            if (target := each.removeprefix("fastmta.")) in KNOWN and each.startswith("fastmta.") and target != name
        }
        for name, path in KNOWN.items()
    }


def compiled_edges() -> dict[str, set[str]]:
    """Includes, cimports and imports among .pyx, .pxd and .pxi."""
    sources = [path for kind in ("*.pyx", "*.pxd", "*.pxi") for path in PACKAGE.rglob(kind)]
    edges: dict[str, set[str]] = {}
    for path in sources:
        name = str(path.relative_to(PACKAGE))
        text = path.read_text()
        edges[name] = set(re.findall(r'^include "([^"]+)"', text, re.M))
        for module in re.findall(r"^(?:from|c?import) fastmta\.(_\w+)", text, re.M):
            face = module + (".pxd" if (PACKAGE / f"{module}.pxd").exists() else ".pyx")
            edges[name].add(face)
        if path.suffix == ".pyx" and path.with_suffix(".pxd").exists():
            edges[name].add(path.with_suffix(".pxd").name)
        edges[name].discard(name)
    return edges


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Files of which each leads to the next; empty where there is no circle."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("edges", [python_edges, compiled_edges], ids=["python", "compiled"])
def test_no_file_leads_back_to_itself(edges: "object") -> None:
    assert callable(edges)
    found = edges()
    assert sum(map(len, found.values())) > 30  # it looks
    assert circle(found) == []


def test_a_circle_would_be_found() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def reaches_behind(tree: ast.AST) -> bool:
    """Whether a module names `_store`, or the attribute `raw` of something called a store."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            if any(f"{module}{each.name}.".startswith("fastmta._store.") for each in node.names):
                return True
        if isinstance(node, ast.Attribute) and node.attr == "raw":
            owner = ast.unparse(node.value).partition("(")[0]
            if owner.rpartition(".")[2].endswith("store"):
                return True
    return False


def test_nobody_outside_the_store_reaches_behind_it() -> None:
    """`raw`, the store below the store, and `_store` itself are known to store/ alone."""
    assert [
        name
        for name, path in modules()
        if name.split(".")[0] != "store" and reaches_behind(ast.parse(path.read_text()))
    ] == []


@pytest.mark.parametrize(
    "line", ["services.store.raw.new_unit()", "x = self._store.raw", "open_store(path).raw", "import fastmta._store"]
)
def test_who_reaches_behind_the_store_would_be_found(line: str) -> None:
    assert reaches_behind(ast.parse(line))
    assert not reaches_behind(ast.parse(line.replace("raw", "queue").replace("_store", "_unit")))
