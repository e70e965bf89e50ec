"""`mailq`: the queue in the form that scripts have read since sendmail, as Postfix's showq prints it.

Any local user may ask a running server; with the server down only who may read the store sees the queue.
"""

import gc
import sys
import time
from collections.abc import Sequence
from typing import Final

from fastmta.cli.failures import EX_USAGE, CommandFailed, guarded
from fastmta.cli.output import instant, plain
from fastmta.cli.queue_listing import Row, each_row
from fastmta.config.brief import Brief, read_brief

USAGE: Final = "usage: mailq [--json] [-c FILE]"
HELP: Final = f"""\
U{USAGE[1:]}

Show the queue. Behind the queue id: * is being tried or about to be, ! is held.
--json prints an object a line, as postqueue -j does.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of the program `mailq`."""
    if argv is None:
        gc.disable()  # what goes round in circles goes with the process, which is short
    return guarded("mailq", lambda: run(list(sys.argv[1:] if argv is None else argv)))


def run(arguments: list[str], config_path: str | None = None) -> int:
    """Does what the arguments say; flags of other systems' mailq are ignored."""
    as_json = False
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--json":
            as_json = True
        elif argument in ("--help", "-h"):
            print(HELP, end="")
            return 0
        elif argument in ("-c", "-C", "--config"):
            if not left:
                raise CommandFailed(f"{argument} needs a file; {USAGE}", EX_USAGE)
            config_path = left.pop(0)
        elif argument.startswith("--config="):
            config_path = argument.partition("=")[2]
        elif argument not in ("-v", "-bp"):
            raise CommandFailed(f"unknown argument {argument!a}; {USAGE}", EX_USAGE)
    show(read_brief(config_path), as_json=as_json)
    return 0


def show(brief: Brief, *, as_json: bool) -> None:
    """Prints the queue; JSON is one object a line, with Postfix's `postqueue -j` names."""
    printer = _Printer(as_json)
    each_row(brief, printer.row)
    printer.end()


class _Printer:
    """Gathers the rows of one message, and prints them together."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._group: list[Row] = []
        self._messages = 0
        self._bytes = 0

    def row(self, row: Row) -> None:
        if self._group and self._group[0]["queue_id"] != row["queue_id"]:
            self._message()
        self._group.append(row)

    def end(self) -> None:
        self._message()
        if self._as_json:
            return
        if self._messages:
            plural = "" if self._messages == 1 else "s"
            print(f"-- {(self._bytes + 1023) // 1024} Kbytes in {self._messages} Request{plural}.")
        else:
            print("Mail queue is empty")

    def _message(self) -> None:
        group, self._group = self._group, []
        if not group:
            return
        self._messages += 1
        self._bytes += group[0]["size"]
        if self._as_json:
            _print_json(group)
        else:
            _print(group, self._messages == 1)


def _print_json(group: list[Row]) -> None:
    import json

    states = {row["state"] for row in group}
    message = group[0]
    line = {
        "queue_name": "hold" if states == {"held"} else "active" if "active" in states else "deferred",
        "queue_id": message["queue_id"],
        "arrival_time": instant(message["received_at"]),
        "message_size": message["size"],
        "sender": message["sender"] or "MAILER-DAEMON",
        "recipients": [
            {"address": row["recipient"]} | ({"delay_reason": row["last_reply"]} if row["last_reply"] else {})
            for row in group
        ],
    }
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")


def _print(group: list[Row], is_first: bool) -> None:
    states = {row["state"] for row in group}
    message = group[0]
    if is_first:
        print("-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------")
    mark = "!" if "held" in states else "*" if "active" in states else " "
    arrival = time.strftime("%a %b %e %H:%M:%S", time.localtime(instant(message["received_at"])))
    print(f"{message['queue_id']}{mark} {message['size']:8} {arrival:20} {plain(message['sender'] or 'MAILER-DAEMON')}")
    reason = None
    for row in sorted(group, key=lambda each: str(each["last_reply"])):
        if row["last_reply"] and row["last_reply"] != reason:
            reason = row["last_reply"]
            print(f"({plain(reason)})".rjust(78))
        print(f"{'':43}{plain(row['recipient'])}")
    print()
