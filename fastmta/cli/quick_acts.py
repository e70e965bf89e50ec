"""Commands that scripts and monitoring call often, without click, and beside a running server without msgspec or the
store too: what they load is most of what they cost. The server is asked at its control socket; without one, what only
reads the store is done here. Whatever is not understood is left to the command of the same name.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final, NamedTuple

from fastmta.admin.control import NoAnswer, NotRunning, answers
from fastmta.cli.asking import shown_progress, sudo_user
from fastmta.cli.failures import guarded
from fastmta.cli.output import print_json, print_table
from fastmta.cli.queue_moves import require_none_left, show_changed
from fastmta.cli.quick_line import SELECTORS, Line, read_line
from fastmta.config.brief import read_brief
from fastmta.model.errors import ActFailed, ConfigError

Row = dict[str, Any]
NUMBER_DIGITS: Final = 9


class Quick(NamedTuple):
    """An act, and how its result is shown; of one that gives rows, all of them, ordered by `key`."""

    act: str
    where: str  # the module in which it is an attribute
    attribute: str
    show: Callable[[Any], None]
    key: Callable[[Row], Any] | None = None
    reads: bool = True  # it changes nothing, and may be done here
    options: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()  # options that are whole numbers
    short: Mapping[str, str] = MappingProxyType({})  # other names of options and flags
    finish: Callable[[Any], None] = lambda found: None


def _users(rows: list[Row]) -> None:
    from fastmta.cli.user_listing import listed

    listed([SimpleNamespace(**row) for row in rows])


def _by_domain(row: Row) -> tuple[str, str]:
    from fastmta.cli.user_listing import order

    return order(SimpleNamespace(**row))


def _aliases(rows: list[Row]) -> None:
    print_table(("ALIAS", "TARGETS"), [(row["address"], ", ".join(row["targets"])) for row in rows])


def _stats(found: Row) -> None:
    from fastmta.cli.queue_stats import show_stats

    show_stats(found)


def _shape(found: Row) -> None:
    from fastmta.cli.queue_shape import show_shape

    show_shape(found)


def _top(found: list[Row]) -> None:
    from fastmta.cli.queue_top import show_top

    show_top(found)


def _move(name: str, *, withdraws: bool = False, flags: tuple[str, ...] = ()) -> Quick:
    def finish(found: Row) -> None:
        if withdraws:
            require_none_left(name, found["in_flight"])

    return Quick(
        f"queue.{name}",
        "fastmta.operations.moves",
        name,
        lambda found: show_changed(name, found["changed"]),
        reads=False,
        options=("--id", "--older", *SELECTORS),
        flags=("--all", *flags),
        finish=finish,
    )


QUICK: Final[dict[tuple[str, ...], Quick]] = {
    ("user", "list"): Quick("user.list", "fastmta.operations.users", "list_", _users, _by_domain),
    ("alias", "list"): Quick("alias.list", "fastmta.operations.aliases", "list_", _aliases, lambda row: row["address"]),
    ("queue", "stats"): Quick("queue.stats", "fastmta.operations.listing", "stats", _stats, flags=("--exact",)),
    ("queue", "shape"): Quick(
        "queue.shape",
        "fastmta.operations.listing",
        "shape",
        _shape,
        options=("--id", "--older", *SELECTORS),
        flags=("--all", "--senders"),
        numbers=("--limit", "--first", "--buckets"),
        short={"-s": "--senders", "-l": "--limit", "-t": "--first", "-b": "--buckets"},
    ),
    ("queue", "top"): Quick("queue.top", "fastmta.operations.hops", "top", _top, numbers=("--limit",)),
    ("queue", "flush"): _move("flush"),
    ("queue", "hold"): _move("hold", withdraws=True),
    ("queue", "release"): _move("release"),
    ("queue", "requeue"): _move("requeue"),
    ("queue", "delete"): _move("delete", withdraws=True, flags=("--yes",)),
}


def quick(arguments: Sequence[str]) -> int | None:
    """Does one of them and gives the exit code; None where that is for the whole program to do."""
    quick = next((each for words, each in QUICK.items() if set(words) <= set(arguments)), None)
    line = None
    if quick is not None:
        line = read_line(arguments, (*quick.options, *quick.numbers), ("--json", *quick.flags), quick.short)
    if quick is None or line is None or QUICK.get(tuple(line.words)) is not quick:
        return None
    if "--yes" in quick.flags and "--yes" not in line.flags:
        return None  # the whole program asks
    request = _request(line, quick)
    if request is None:
        return None
    if not request and not quick.reads and quick.act != "queue.flush":
        return None
    try:
        found = _found(quick, line.config_path, request)
    except (NotRunning, ConfigError):
        return None
    except Exception as error:
        failed = error
        return guarded("fastmta", lambda: _raise(failed))
    return guarded("fastmta", lambda: _tell(quick, found, "--json" in line.flags))


def _raise(error: Exception) -> None:
    raise error


def _tell(quick: Quick, found: Any, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        quick.show(found)
    quick.finish(found)


def _request(line: Line, quick: Quick) -> dict[str, Any] | None:
    """The act's request: fields are options without their dashes. None where a number is none."""
    request: dict[str, Any] = {name[2:]: values[-1] for name, values in line.values.items()}
    if "id" in request:
        request["ids"] = line.values["--id"]
        del request["id"]
    if "state" in request:
        request["state"] = request["state"].lower()
    if "--all" in line.flags:
        request["everything"] = True
    request |= {flag[2:]: True for flag in ("--exact", "--senders") if flag in line.flags}
    for name in quick.numbers:
        if name[2:] in request:
            text = request[name[2:]]
            if not text.isdigit() or len(text) > NUMBER_DIGITS:
                return None
            request[name[2:]] = int(text)
    return request


def _found(quick: Quick, config_path: str | None, request: dict[str, Any]) -> Any:
    """The result, or all rows. NotRunning where nobody can be asked and the whole program has to do it."""
    brief = read_brief(config_path)
    rows: list[Row] = []
    command = {"do": "act", "act": quick.act, "request": request, **sudo_user()}
    with shown_progress(quick.act) as told:
        try:
            for line in answers(brief, command):
                rows += line.get("rows", ())
                if "done" in line:
                    told(line["done"], line["total"], line["what"])
                elif line.get("ok"):
                    return line["result"] if quick.key is None else sorted(rows, key=quick.key)
                elif "ok" in line:
                    if line.get("alone"):
                        raise NotRunning("no worker is ready")
                    raise ActFailed(str(line.get("error", "the server refused")), line.get("kind", "busy"))
        except NotRunning:
            if not quick.reads:
                raise
        except NoAnswer:
            what = "" if quick.reads else "; what it had changed until then stays so"
            raise ActFailed(f"the worker that did this has ended{what}; try again", "busy") from None
    return _read_here(quick, brief.config_file, request)


def _read_here(quick: Quick, config_path: str, request: dict[str, Any]) -> Any:
    from importlib import import_module

    from fastmta.cli.lean import msgspec_alone

    msgspec_alone()
    import msgspec

    from fastmta.cli.performing import here

    act = getattr(import_module(quick.where), quick.attribute)
    rows: list[Any] = []
    try:
        asked = msgspec.convert(request, act.request)
    except msgspec.ValidationError as error:
        raise ActFailed(f"{quick.act}: {error}", "usage") from None
    found = here(config_path, act, asked, rows.extend)
    if quick.key is None:
        return msgspec.to_builtins(found)
    return sorted(msgspec.to_builtins(rows), key=quick.key)
