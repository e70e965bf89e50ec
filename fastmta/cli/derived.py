"""Commands made from the table of acts: the request's fields are their arguments and options, the act's text their
help. A field without a default is an argument, the others are options; `--json` prints the result as it is.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeVar, get_args, get_origin

import click
import msgspec

from fastmta.cli.confirm import confirm
from fastmta.cli.output import config_option, json_option, plain, print_json, print_table
from fastmta.cli.performing import collect, perform
from fastmta.operations.acts import Act, Rows, in_family

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R")


def command(
    act: Act[Q, R],
    *,
    show: Callable[[Any], None] | None = None,
    key: Callable[[Any], Any] | None = None,
    question: Callable[[str | None, Q], str] | None = None,
    finish: Callable[[Any], None] | None = None,
    whole: Callable[[str | None, Q, bool], int | None] | None = None,
) -> click.Command:
    """The command of an act. `show` prints the result for people, `key` orders its rows; with a `question` the command
    asks before it acts, or wants --yes. `finish` has the last word, also with --json. `whole` does all of it, for
    rows that are printed as they come, and may give the exit code.
    """
    has_result = act.result is not None and act.result is not type(None)

    def run(config_path: str | None, as_json: bool = False, yes: bool = False, **given: Any) -> int | None:
        asked = act.request(**{name: value for name, value in given.items() if value is not None})
        if question is not None and not yes:
            confirm(question(config_path, asked), yes)
        found: Any
        if whole is not None:
            return whole(config_path, asked, as_json)
        if isinstance(act, Rows):
            found = sorted(collect(config_path, act, asked), key=key) if key else collect(config_path, act, asked)
        else:
            found = perform(config_path, act, asked)
        if as_json:
            print_json(msgspec.to_builtins(found))
        elif has_result:
            (show or show_plainly)(found)
        if finish is not None:
            finish(found)
        return None

    function: Callable[..., Any] = config_option(run)
    if has_result:
        function = json_option(function)
    if question is not None:
        function = click.option("--yes", is_flag=True, help="Do not ask.")(function)
    for field in reversed(msgspec.structs.fields(act.request)):
        function = _parameter(field)(function)
    return click.command(act.name.rpartition(".")[2].replace("_", "-"), help=act.__doc__)(function)


def add_missing(group: click.Group, words: str) -> None:
    """Gives a group, such as "queue" or "mailbox.share", the commands of acts that have none of their own there."""
    for act in in_family(words.partition(".")[0]):
        above, _, name = act.name.rpartition(".")
        if above == words and name.replace("_", "-") not in group.commands:
            group.add_command(command(act))


def _parameter(field: msgspec.structs.FieldInfo) -> Callable[[Any], Any]:
    kind, meta = _unwrapped(field.type)
    extra = (meta.extra or {}) if meta is not None else {}
    text = meta.description if meta is not None else None
    names = [*([extra["short"]] if "short" in extra else []), extra.get("option", "--" + field.name.replace("_", "-"))]
    several = get_origin(kind) is tuple
    if field.required or extra.get("argument"):
        metavar = extra.get("metavar")
        return click.argument(field.name, nargs=-1 if several else 1, required=field.required, metavar=metavar)
    if kind is bool:
        return click.option(*names, field.name, is_flag=True, help=text)
    if several:
        return click.option(*names, field.name, multiple=True, help=text)
    shown = field.default if field.default not in (None, "") else None
    return click.option(
        *names,
        field.name,
        type=_click_type(kind, meta),
        default=field.default,
        help=text,
        show_default=shown is not None,
    )


def _unwrapped(kind: Any) -> tuple[Any, msgspec.Meta | None]:
    """The type without Annotated and None, and what is said of it."""
    meta = None
    while get_origin(kind) is Annotated:
        kind, *metas = get_args(kind)
        meta = next((each for each in metas if isinstance(each, msgspec.Meta)), meta)
    parts = [each for each in get_args(kind) if each is not type(None)]
    if get_origin(kind) is not tuple and len(parts) == 1:
        inner, inside = _unwrapped(parts[0])
        return inner, meta or inside
    return kind, meta


def _click_type(kind: Any, meta: msgspec.Meta | None) -> Any:
    if kind is int and meta is not None:
        low, high = (None if bound is None else int(bound) for bound in (meta.ge, meta.le))
        return click.IntRange(low, high)
    if meta is not None and meta.extra and "choices" in meta.extra:
        return click.Choice(meta.extra["choices"], case_sensitive=False)
    return {int: int, float: float}.get(kind, str)


def show_plainly(found: Any) -> None:
    """A result as its fields have it: rows as a table, one record as a line a field."""
    value = msgspec.to_builtins(found)
    if isinstance(value, list):
        if value:
            headings = [name.replace("_", " ").upper() for name in value[0]]
            print_table(headings, [[_cell(each) for each in row.values()] for row in value])
    elif isinstance(value, dict):
        for name, each in value.items():
            print(f"{name:17} {plain(_cell(each)) or '-'}")
    else:
        print(plain(_cell(value)))


def _cell(value: Any) -> str:
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
