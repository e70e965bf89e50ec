"""`fastmta queue`: look into the queue and control it, with the server up or down."""

import sys
import time
from collections.abc import Callable
from typing import Any

import click
import msgspec

from fastmta.cli.derived import add_missing, command
from fastmta.cli.output import age, config_option, instant, json_option, plain, print_json, print_table, size
from fastmta.cli.performing import perform, visit_rows
from fastmta.cli.queue_moves import require_none_left, show_changed
from fastmta.cli.queue_shape import show_shape
from fastmta.cli.queue_stats import show_stats
from fastmta.cli.queue_top import show_top
from fastmta.operations import hops, listing, moves
from fastmta.operations.queued import Recipient
from fastmta.operations.selecting import Selector, required


@click.group(
    epilog="\b\nExamples:\n  fastmta queue list --domain example.net --older 4h\n  fastmta queue show 0000000BCDFG\n"
    "  fastmta queue hold --sender bulk@example.org\n  fastmta queue delete --id 0000000BCDFG\n  fastmta queue flush\n"
    "  fastmta queue shape --state deferred\n  fastmta queue suspend example.net"
)
def queue() -> None:
    """The queue. A command means what all its selectors mean together."""


def _list(config_path: str | None, asked: listing.ListQueue, as_json: bool) -> None:
    if as_json:
        separator = "["

        def write(rows: Any) -> None:
            nonlocal separator
            for each in rows:
                sys.stdout.write(separator + msgspec.json.encode(each).decode())
                separator = ",\n"

        visit_rows(config_path, listing.list_, asked, write)
        sys.stdout.write("]\n" if separator != "[" else "[]\n")
        return
    found: list[Recipient] = []
    visit_rows(config_path, listing.list_, asked, found.extend)
    now = time.time()
    rows = [
        (
            each.queue_id,
            "suspended" if each.suspended and each.state != "held" else each.state,
            age(now - instant(each.received_at)),
            size(each.size),
            each.attempts,
            each.sender or "<>",
            each.recipient,
            each.last_reply,
        )
        for each in found
    ]
    if rows:
        headings = ("QUEUE ID", "STATE", "AGE", "SIZE", "TRIES", "SENDER", "RECIPIENT", "LAST REPLY")
        print_table(headings, rows, right=(2, 3, 4))
    else:
        selects = asked.given().keys() - {"everything"}
        print("nothing in the queue is like that" if selects else "the queue is empty")


@queue.command()
@click.argument("id_text", metavar="ID")
@click.option("--content", is_flag=True, help="Write the message itself, as it lies in the queue.")
@json_option
@config_option
def show(id_text: str, content: bool, as_json: bool, config_path: str | None) -> None:
    """Show a message: envelope, recipients and, if asked, content."""
    asked = listing.OfMessage(id_text)
    found = msgspec.to_builtins(perform(config_path, listing.show, asked))
    if as_json:
        print_json(found)
    elif not content:
        for name, value in found.items():
            if name != "recipients" and value is not None:
                print(f"{name:17} {plain(str(value)) or '-'}")
        for each in found["recipients"]:
            print(f"{'recipient':17} {plain(each['recipient'])}")
            for name in (
                "state",
                "next_hop",
                "suspended_since",
                "suspended_by",
                "attempts",
                "due_at",
                "original_recipient",
                "last_reply",
            ):
                if each[name] not in ("", None):
                    print(f"  {name:15} {plain(str(each[name]))}")
    if content:
        _content(config_path, asked, False)


def _content(config_path: str | None, asked: listing.OfMessage, as_json: bool) -> None:
    """The octets of the message as they are; as JSON one string of base64."""
    if as_json:
        pieces: list[bytes] = []
        visit_rows(config_path, listing.content, asked, pieces.extend)
        print_json(msgspec.to_builtins(b"".join(pieces)))
        return
    sys.stdout.flush()
    visit_rows(config_path, listing.content, asked, sys.stdout.buffer.writelines)


def _changed(move: str) -> Callable[[Any], None]:
    return lambda found: show_changed(move, found.changed)


def _left(move: str) -> Callable[[Any], None]:
    return lambda found: require_none_left(move, found.in_flight)


def _sure(config_path: str | None, asked: Selector) -> str:
    required(asked)
    return "Delete what this selects, without telling the senders?"


def _hops(what: str, nothing: str) -> Callable[[list[hops.Hop]], None]:
    def show(done: list[hops.Hop]) -> None:
        for each in done:
            print(f"{'every next hop' if each.next_hop == '*' else each.next_hop} {what}")
        if not done:
            print(nothing)

    return show


for _command in (
    command(listing.list_, whole=_list),
    command(listing.content, whole=_content),
    command(listing.stats, show=lambda found: show_stats(msgspec.to_builtins(found))),
    command(listing.shape, show=lambda found: show_shape(msgspec.to_builtins(found))),
    command(moves.flush, show=_changed("flush")),
    command(moves.hold, show=_changed("hold"), finish=_left("hold")),
    command(moves.release, show=_changed("release")),
    command(moves.requeue, show=_changed("requeue")),
    command(moves.delete, show=_changed("delete"), question=_sure, finish=_left("delete")),
    command(hops.suspend, show=_hops("suspended", "suspended already")),
    command(hops.resume, show=_hops("resumed", "nothing was suspended")),
    command(hops.top, show=lambda found: show_top(msgspec.to_builtins(found))),
):
    queue.add_command(_command)
add_missing(queue, "queue")
