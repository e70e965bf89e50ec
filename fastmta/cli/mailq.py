"""`mailq`: the queue in the form that scripts have read since sendmail, as Postfix's showq prints it."""

import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from fastmta.cli.opened import run_with
from fastmta.cli.output import config_option, json_option, plain
from fastmta.config.load import load
from fastmta.config.schema import Config
from fastmta.model.envelope import RecipientState
from fastmta.model.ids import queue_id_text

if TYPE_CHECKING:
    from fastmta.store import MailStore
    from fastmta.store.queue import QueuedMessage, QueuedRecipient


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of the program `mailq`."""
    from fastmta.cli.main import run

    return run(command, "mailq", argv)


@click.command("mailq")
@json_option
@config_option
def command(as_json: bool, config_path: str | None) -> None:
    """Show the queue. Behind the queue id: * is being tried or about to be, ! is held."""
    show(load(config_path), as_json=as_json)


def show(config: Config, *, as_json: bool) -> None:
    """Prints the queue; JSON is one object a line, with Postfix's `postqueue -j` names."""

    async def work(_: Config, store: "MailStore") -> None:
        from fastmta.cli.selection import Selector, selected

        count = total = 0
        group: list[tuple[QueuedMessage, QueuedRecipient]] = []
        for each in selected(store, Selector()):
            if group and group[0][0].queue_id != each[0].queue_id:
                count, total = count + 1, total + group[0][0].envelope.size_bytes
                _print(group, count == 1, as_json)
                group = []
            group.append(each)
        if group:
            count, total = count + 1, total + group[0][0].envelope.size_bytes
            _print(group, count == 1, as_json)
        if as_json:
            return
        if count:
            print(f"-- {(total + 1023) // 1024} Kbytes in {count} Request{'' if count == 1 else 's'}.")
        else:
            print("Mail queue is empty")

    run_with(config, work)


def _print(group: "list[tuple[QueuedMessage, QueuedRecipient]]", is_first: bool, as_json: bool) -> None:
    message = group[0][0]
    envelope = message.envelope
    sender = _text(envelope.reverse_path) or "MAILER-DAEMON"
    states = {recipient.state for _, recipient in group}
    name = queue_id_text(message.queue_id)
    if as_json:
        queue = (
            "hold" if states == {RecipientState.HELD} else "active" if RecipientState.ACTIVE in states else "deferred"
        )
        reasons = [
            {"address": _text(r.tail.forward_path)} | ({"delay_reason": _text(r.last_reply)} if r.last_reply else {})
            for _, r in group
        ]
        line = {
            "queue_name": queue,
            "queue_id": name,
            "arrival_time": envelope.received_at_ms // 1000,
            "message_size": envelope.size_bytes,
            "sender": sender,
            "recipients": reasons,
        }
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        return
    if is_first:
        print("-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------")
    mark = "!" if RecipientState.HELD in states else "*" if RecipientState.ACTIVE in states else " "
    arrival = time.strftime("%a %b %e %H:%M:%S", time.localtime(envelope.received_at_ms / 1000))
    print(f"{name}{mark} {envelope.size_bytes:8} {arrival:20} {plain(sender)}")
    reason = None
    for _, recipient in sorted(group, key=lambda each: each[1].last_reply):
        if recipient.last_reply and recipient.last_reply != reason:
            reason = recipient.last_reply
            print(f"({plain(_text(reason))})".rjust(78))
        print(f"{'':43}{plain(_text(recipient.tail.forward_path))}")
    print()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
