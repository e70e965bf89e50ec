"""Acts of operations/ as commands have them done: by a worker of the server that runs, over its control socket, else
in this process on the store itself. Both ways it is the same function.
"""

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from fastmta.admin.control import NoAnswer, NotRunning, answers
from fastmta.config.brief import read_brief
from fastmta.model.errors import ActFailed
from fastmta.operations.acts import Act, Rows

if TYPE_CHECKING:
    from fastmta.config.schema import Config
    from fastmta.model.events import Actor
    from fastmta.operations.desk import Desk
    from fastmta.store import MailStore

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R")


def perform(config_path: str | None, act: Act[Q, R], asked: Q) -> R:
    """Does an act and gives its result; what it raises has a line and an exit code (cli/failures.py)."""
    result: R = _perform(config_path, act, asked, lambda rows: None)
    return result


def collect(config_path: str | None, act: Rows[Q, R], asked: Q) -> list[R]:
    """All rows of an act that gives such."""
    found: list[R] = []
    _perform(config_path, act, asked, found.extend)
    return found


def visit_rows(config_path: str | None, act: Rows[Q, R], asked: Q, visit: Callable[[Iterable[R]], None]) -> None:
    """Calls `visit` with the rows as they come, some at a time."""
    _perform(config_path, act, asked, visit)


def _perform(config_path: str | None, act: Act[Any, Any], asked: msgspec.Struct, visit: Callable[..., None]) -> Any:
    if act.caller:
        return here(config_path, act, asked, visit)
    brief = read_brief(config_path)
    command = {"do": "act", "act": act.name, "request": msgspec.to_builtins(asked), **sudo_user()}
    bar = _Bar(act.name)
    try:
        for line in answers(brief, command):
            if "rows" in line:
                visit(msgspec.convert(line["rows"], list[act.result]))  # type: ignore[name-defined]
            elif "done" in line:
                bar.show(line["done"], line["total"])
            elif line["ok"]:
                return None if isinstance(act, Rows) else msgspec.convert(line["result"], act.result)
            elif not line.get("alone"):
                raise ActFailed(str(line.get("error", "the server refused")), line.get("kind", "busy"))
    except NotRunning:
        pass
    except NoAnswer:
        what = "; what it had changed until then stays so" if act.changes else ""
        raise ActFailed(f"the worker that did this has ended{what}; try again", "busy") from None
    finally:
        bar.end()
    return here(brief.config_file, act, asked, visit)


def here(
    config_path: str | None, act: Act[Any, Any], asked: msgspec.Struct, visit: Callable[..., None] = lambda rows: None
) -> Any:
    """Does an act in this process."""
    from fastmta.cli.opened import run_with
    from fastmta.config.load import load
    from fastmta.operations.carrying import carry_out

    async def visit_page(page: list[Any]) -> None:
        visit(page)

    async def work(config: "Config", store: "MailStore") -> Any:
        return await carry_out(act, desk(config, store, bar.show), asked, visit_page)

    bar = _Bar(act.name)
    try:
        return run_with(load(config_path), work)
    finally:
        bar.end()


def desk(config: "Config", store: "MailStore", progress: Callable[[int, int], None]) -> "Desk":
    """The desk of a command that has opened the store itself, beside a server or without one."""
    from fastmta.cli.beside import Owners, Told
    from fastmta.operations.desk import Desk

    return Desk(config, store, store.clock, actor(), Told(config), Owners(config), progress=progress, gives_way=True)


def actor() -> "Actor":
    """Who runs this command."""
    from fastmta.model.events import Actor
    from fastmta.runtime.identity import user_name

    return Actor(os.getuid(), user_name(os.getuid()), sudo_user().get("sudo_user"))


def sudo_user() -> dict[str, str]:
    """Who stands behind root, where sudo says it."""
    behind = os.environ.get("SUDO_USER") if os.getuid() == 0 else None
    return {"sudo_user": behind[:100]} if behind else {}


class _Bar:
    """Progress on a terminal: one line that is written over."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown = False
        self._seen = sys.stderr.isatty()

    def show(self, done: int, total: int) -> None:
        if self._seen and done:
            self._shown = True
            of = f" of {total}" if total else ""
            print(f"\r{self._name}: {done}{of}\033[K", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shown:
            self._shown = False
            print("\r\033[K", end="", file=sys.stderr, flush=True)
