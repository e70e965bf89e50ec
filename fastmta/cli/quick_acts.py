"""Listings of acts beside a running server, asked at its control socket without click, msgspec or the store.

What they load is most of what such a command costs. Whatever is not understood here, and every call without a server,
is left to the command of the same name.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Final

from fastmta.admin.control import answers
from fastmta.cli.failures import guarded
from fastmta.cli.output import print_json, print_table
from fastmta.cli.user_listing import listed, order
from fastmta.config.brief import read_brief
from fastmta.model.errors import FastMTAError

Print = Callable[[list[dict[str, Any]]], None]


def _users(rows: list[dict[str, Any]]) -> None:
    listed([SimpleNamespace(**row) for row in rows])


def _aliases(rows: list[dict[str, Any]]) -> None:
    print_table(("ALIAS", "TARGETS"), [(row["address"], ", ".join(row["targets"])) for row in rows])


LISTINGS: Final[dict[tuple[str, ...], tuple[str, Callable[[Any], Any], Print]]] = {
    ("user", "list"): ("user.list", lambda row: order(SimpleNamespace(**row)), _users),
    ("alias", "list"): ("alias.list", lambda row: row["address"], _aliases),
}


def quick(arguments: Sequence[str]) -> int | None:
    """Does a listing and gives the exit code; None where that is for the whole program to do."""
    words: list[str] = []
    config_path, as_json = None, False
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--json":
            as_json = True
        elif argument in ("-c", "--config") and left:
            config_path = left.pop(0)
        elif argument.startswith("-"):
            return None
        else:
            words.append(argument)
    if tuple(words) not in LISTINGS:
        return None
    act, key, show = LISTINGS[tuple(words)]
    rows: list[dict[str, Any]] = []
    try:
        for line in answers(read_brief(config_path), {"do": "act", "act": act, "request": {}}):
            rows += line.get("rows", ())
            if not line.get("ok", True):
                return None
    except FastMTAError:
        return None  # the whole program finds the words for it, or does it itself
    rows.sort(key=key)
    return guarded("fastmta", lambda: print_json(rows) if as_json else show(rows))
