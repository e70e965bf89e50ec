"""`fastmta queue list` beside a running server: asked at its socket, without click, msgspec or the store.

Monitoring calls it every few seconds, so what it loads is most of what it costs. Without a server the store is
read, and no more is loaded than that takes. Whatever it does not understand is left to the command of the same name.
"""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from fastmta.admin.control import NotRunning
from fastmta.cli.failures import guarded
from fastmta.cli.output import age, instant, print_table, size
from fastmta.cli.queue_listing import Row, ask, from_store, may_open_store
from fastmta.config.brief import Brief, read_brief
from fastmta.model.errors import ConfigError, FastMTAError

_STATES: Final = ("active", "deferred", "held")
_SELECTORS: Final = ("--sender", "--recipient", "--domain", "--hop", "--error")


class _Asked:
    """The command line, as far as it is understood."""

    def __init__(self) -> None:
        self.config_path: str | None = None
        self.as_json = False
        self.selects = False
        self.selection: dict[str, Any] = {}


def quick(arguments: Sequence[str]) -> int | None:
    """Does `queue list` and gives the exit code; None where that is for the whole program to do."""
    asked = _parse(list(arguments))
    if asked is None:
        return None
    rows: list[Row] = []
    try:
        brief = read_brief(asked.config_path)
        ask(brief, "queue.list", asked.selection, rows.append)
    except NotRunning:
        if not may_open_store(brief):
            return None  # the whole program says so
        return guarded("fastmta", lambda: _list_store(brief, asked))
    except ConfigError:
        return None
    except FastMTAError as error:
        failed = error
        return guarded("fastmta", lambda: _raise(failed))
    return guarded("fastmta", lambda: _print(rows, asked))


def _raise(error: FastMTAError) -> None:
    raise error


def _list_store(brief: Brief, asked: _Asked) -> None:
    rows: list[Row] = []
    from_store(brief, asked.selection, rows.append)
    _print(rows, asked)


def _parse(left: list[str]) -> _Asked | None:
    asked = _Asked()
    words: list[str] = []
    while left:
        argument = left.pop(0)
        name, equals, value = argument.partition("=")
        if argument == "--json":
            asked.as_json = True
        elif argument == "--all":
            pass
        elif not argument.startswith("-"):
            words.append(argument)
        elif name in ("-c", "--config", "--state", "--limit", *_SELECTORS):
            if not equals:
                if not left:
                    return None
                value = left.pop(0)
            if not _take(asked, name, value):
                return None
        else:
            return None
    return asked if words == ["queue", "list"] else None


def _take(asked: _Asked, name: str, value: str) -> bool:
    if name in ("-c", "--config"):
        asked.config_path = value
    elif name == "--state":
        if value.lower() not in _STATES:
            return False
        asked.selection["state"] = value.lower()
    elif name == "--limit":
        if not value.isascii() or not value.isdigit() or not 0 < int(value) < 2**31:
            return False
        asked.selection["limit"] = int(value)
    else:
        text = value.strip() if name == "--hop" else value.strip().lower()
        if name == "--domain":
            text = text.removeprefix("@")
        elif name in ("--sender", "--recipient"):
            text = text.removeprefix("<").removesuffix(">")
        if not text.isprintable() or len(text) > 500 or not text.isascii():
            return False
        asked.selection[name.removeprefix("--")] = text
    asked.selects = asked.selects or name in ("--state", *_SELECTORS)
    return True


def _print(rows: list[Row], asked: _Asked) -> None:
    if asked.as_json:
        lines = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
        sys.stdout.write("[" + ",\n".join(lines) + "]\n")
        return
    now = time.time()
    table = [
        (
            row["queue_id"],
            "suspended" if row["suspended"] and row["state"] != "held" else row["state"],
            age(now - instant(row["received_at"])),
            size(row["size"]),
            row["attempts"],
            row["sender"] or "<>",
            row["recipient"],
            row["last_reply"],
        )
        for row in rows
    ]
    if table:
        headings = ("QUEUE ID", "STATE", "AGE", "SIZE", "TRIES", "SENDER", "RECIPIENT", "LAST REPLY")
        print_table(headings, table, right=(2, 3, 4))
    else:
        print("nothing in the queue is like that" if asked.selects else "the queue is empty")
