"""`fastmta queue list` beside a running server: asked at its socket, without click, msgspec or the store.

Monitoring calls it every few seconds, so what it loads is most of what it costs. Without a server the store is
read, and no more is loaded than that takes. Whatever it does not understand is left to the command of the same name.
"""

import sys
import time
from collections.abc import Sequence
from typing import Any

from fastmta.admin.control import NotRunning
from fastmta.cli.failures import guarded
from fastmta.cli.output import age, instant, print_table, size
from fastmta.cli.queue_listing import Row, ask, from_store, may_open_store
from fastmta.cli.quick_line import SELECTORS, read_line
from fastmta.config.brief import Brief, read_brief
from fastmta.model.errors import ConfigError, FastMTAError


class _Asked:
    """The command line, as far as it is understood."""

    def __init__(self) -> None:
        self.config_path: str | None = None
        self.as_json = False
        self.selects = False
        self.selection: dict[str, Any] = {}


def quick(arguments: Sequence[str]) -> int | None:
    """Does `queue list` and gives the exit code; None where that is for the whole program to do."""
    asked = _parse(arguments)
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


def _parse(arguments: Sequence[str]) -> _Asked | None:
    line = read_line(arguments, ("--limit", "--older", *SELECTORS), ("--json", "--all"))
    if line is None or line.words != ["queue", "list"]:
        return None
    asked = _Asked()
    asked.config_path = line.config_path
    asked.as_json = "--json" in line.flags
    for name, values in line.values.items():
        value = values[-1]
        if name == "--limit":
            if not value.isdigit() or not 0 < int(value) < 2**31:
                return None
            asked.selection["limit"] = int(value)
        else:
            asked.selects = True
            asked.selection[name.removeprefix("--")] = value.lower() if name == "--state" else value
    return asked


def _print(rows: list[Row], asked: _Asked) -> None:
    if asked.as_json:
        import json

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
