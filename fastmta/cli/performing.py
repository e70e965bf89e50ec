"""Acts of operations/ as commands have them done: by a worker of the server that runs, over its control socket, else
in this process on the store itself. Both ways it is the same function.
"""

import os
from collections.abc import Callable, Coroutine, Iterable
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from fastmta.admin.control import ControlConfig, NoAnswer, NotRunning, answers
from fastmta.cli.asking import shown_progress, sudo_user
from fastmta.config.brief import read_brief
from fastmta.model.errors import ActFailed
from fastmta.operations.acts import Act, Rows

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from fastmta.config.schema import Config
    from fastmta.model.events import Actor
    from fastmta.operations.desk import BareDesk, Desk, Progress
    from fastmta.operations.explaining import Delivering
    from fastmta.store import MailStore

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R")


def perform(config_path: str | None, act: Act[Q, R], asked: Q, progress: "Progress | None" = None) -> R:
    """Does an act and gives its result; what it raises has a line and an exit code (cli/failures.py).

    `progress` is told how far it has come, instead of a terminal.
    """
    result: R = _perform(config_path, act, asked, lambda rows: None, progress)
    return result


def collect(config_path: str | None, act: Rows[Q, R], asked: Q) -> list[R]:
    """All rows of an act that gives such."""
    found: list[R] = []
    _perform(config_path, act, asked, found.extend)
    return found


def visit_rows(config_path: str | None, act: Rows[Q, R], asked: Q, visit: Callable[[Iterable[R]], None]) -> None:
    """Calls `visit` with the rows as they come, some at a time."""
    _perform(config_path, act, asked, visit)


def _perform(
    config_path: str | None,
    act: Act[Any, Any],
    asked: msgspec.Struct,
    visit: Callable[..., None],
    progress: "Progress | None" = None,
) -> Any:
    if act.caller:
        return here(config_path, act, asked, visit, progress)
    brief = read_brief(config_path)
    command = {"do": "act", "act": act.name, "request": msgspec.to_builtins(asked), **sudo_user()}
    with _progress(act.name, progress) as told:
        try:
            for line in answers(brief, command):
                if "rows" in line:
                    visit(msgspec.convert(line["rows"], list[act.result]))  # type: ignore[name-defined]
                elif "done" in line:
                    told(line["done"], line["total"], line["what"])
                elif line["ok"]:
                    return None if isinstance(act, Rows) else msgspec.convert(line["result"], act.result)
                elif not line.get("alone"):
                    raise ActFailed(str(line.get("error", "the server refused")), line.get("kind", "busy"))
        except NotRunning:
            pass
        except NoAnswer:
            what = "; what it had changed until then stays so" if act.changes else ""
            raise ActFailed(f"the worker that did this has ended{what}; try again", "busy") from None
    return here(brief.config_file, act, asked, visit, progress)


def here(
    config_path: str | None,
    act: Act[Any, Any],
    asked: msgspec.Struct,
    visit: Callable[..., None] = lambda rows: None,
    progress: "Progress | None" = None,
) -> Any:
    """Does an act in this process: one that never waits without a loop, and without the configuration as far as it
    asks for none.
    """
    from fastmta.operations.carrying import carry_out

    async def visit_page(page: list[Any]) -> None:
        visit(page)

    with _progress(act.name, progress) as told:
        if not act.waits:
            from fastmta.cli.opened import existing_store

            brief = read_brief(config_path)
            with existing_store(brief.data_directory) as found:
                if found is not None:
                    whole = cache(lambda: load(brief.config_file))
                    own = desk(whole, found, told, where=lambda: brief)
                    return _driven(carry_out(act, own, asked, visit_page))
        import asyncio

        from fastmta.cli.opened import run_with

        if not act.opens:
            return asyncio.run(carry_out(act, bare_desk(cache(lambda: load(config_path)), told), asked, visit_page))

        async def work(config: "Config", store: "MailStore") -> Any:
            return await carry_out(act, desk(lambda: config, store, told), asked, visit_page)

        return run_with(load(config_path), work)


def load(config_path: str | None) -> "Config":
    from fastmta.config.load import load

    return load(config_path)


def bare_desk(config: "Callable[[], Config]", progress: "Progress") -> "BareDesk":
    """The desk of a command whose act needs no store."""
    from fastmta.cli.beside import Supervisor, Told
    from fastmta.operations.desk import BareDesk

    return BareDesk(config, actor(), Told(config), Supervisor(config), progress)


def desk(
    config: "Callable[[], Config]",
    store: "MailStore",
    progress: "Progress",
    where: "Callable[[], ControlConfig] | None" = None,
) -> "Desk":
    """The desk of a command that has opened the store itself, beside a server or without one. `where`: what of the
    configuration is known already.
    """
    from fastmta.cli.beside import Owners, Supervisor, Told
    from fastmta.operations.desk import Desk

    return Desk(
        config,
        store,
        store.clock,
        actor(),
        Told(config),
        Supervisor(config),
        Owners(where or config),
        lambda: delivering(config(), store),
        progress=progress,
        gives_way=True,
    )


def delivering(config: "Config", store: "MailStore") -> "AbstractAsyncContextManager[Delivering]":
    """What delivers, built for one question."""
    from fastmta.operations import alone

    return alone.delivering(config, store)


def actor() -> "Actor":
    """Who runs this command."""
    from fastmta.model.events import Actor
    from fastmta.runtime.identity import user_name

    return Actor(os.getuid(), user_name(os.getuid()), sudo_user().get("sudo_user"))


def _progress(name: str, given: "Progress | None") -> "AbstractContextManager[Progress]":
    """What is told of progress: `given`, or what a terminal shows."""
    return shown_progress(name) if given is None else nullcontext(given)


def _driven(work: Coroutine[Any, Any, R]) -> R:
    """What a coroutine gives that never waits."""
    try:
        work.send(None)
    except StopIteration as ended:
        found: R = ended.value
        return found
    finally:
        work.close()
    raise RuntimeError("an act that was said never to wait has waited")
