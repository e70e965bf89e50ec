"""`fastmta queue`: look into the queue and control it, with the server up or down.

Changes are the store's moves (fastmta/queue/README.md), so a running server obeys them within a second. Before `hold`
and `delete` a running server is asked what it is sending at that moment: those recipients are left alone, and said.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import click

from fastmta.cli.acts import Told, tell, tell_recipients
from fastmta.cli.confirm import confirm, yes_option
from fastmta.cli.failures import EX_DATAERR, EX_TEMPFAIL, EX_USAGE, CommandFailed
from fastmta.cli.opened import run, run_with
from fastmta.cli.output import age, config_option, json_option, plain, print_json, print_table, size, stamp
from fastmta.cli.queue_hops import resume, suspend, top
from fastmta.cli.queue_shape import shape
from fastmta.cli.selection import Selector, queue_id, selected, selector_options
from fastmta.config.schema import Config
from fastmta.model.envelope import RecipientState
from fastmta.model.errors import Refused
from fastmta.model.ids import queue_id_text

if TYPE_CHECKING:
    from fastmta.store import MailStore
    from fastmta.store.queue import QueuedMessage, QueuedRecipient
    from fastmta.store.suspensions import ByHop

AT_ONCE: Final = 256  # moves on their way together, so that they share commits
READ_BYTES: Final = 262_144
Move = Callable[["MailStore", int, list[int]], Awaitable[int]]  # of these recipients of a message
_MOVED: Final = {  # act -> the states that it ends
    "queue.flush": (RecipientState.DEFERRED,),
    "queue.release": (RecipientState.HELD,),
    "queue.requeue": (RecipientState.DEFERRED, RecipientState.HELD),
}


@click.group(
    epilog="\b\nExamples:\n  fastmta queue list --domain example.net --older 4h\n  fastmta queue show 0000000BCDFG\n"
    "  fastmta queue hold --sender bulk@example.org\n  fastmta queue delete --id 0000000BCDFG\n  fastmta queue flush\n"
    "  fastmta queue shape --state deferred\n  fastmta queue suspend example.net"
)
def queue() -> None:
    """The queue. A command means what all its selectors mean together."""


for _command in (shape, top, suspend, resume):
    queue.add_command(_command)


@queue.command("list")
@selector_options
@click.option("--limit", type=click.IntRange(1), help="At most so many recipients.")
@json_option
@config_option
def list_(selector: Selector, limit: int | None, as_json: bool, config_path: str | None) -> None:
    """List queued recipients."""

    async def work(_: Config, store: "MailStore") -> None:
        found = _limited(selected(store, selector), limit)
        stopped = store.suspensions.by_hop()
        if as_json:
            separator = "["
            for message, recipient in found:
                sys.stdout.write(separator + json.dumps(record(message, recipient, stopped), ensure_ascii=False))
                separator = ",\n"
            sys.stdout.write("]\n" if separator != "[" else "[]\n")
            return
        now = time.time()
        rows = []
        for message, recipient in found:
            known = record(message, recipient, stopped)
            rows.append(
                (
                    known["queue_id"],
                    "suspended" if known["suspended"] and known["state"] != "held" else known["state"],
                    age(now - message.envelope.received_at_ms / 1000),
                    size(message.envelope.size_bytes),
                    known["attempts"],
                    known["sender"] or "<>",
                    known["recipient"],
                    known["last_reply"],
                )
            )
        if rows:
            print_table(
                ("QUEUE ID", "STATE", "AGE", "SIZE", "TRIES", "SENDER", "RECIPIENT", "LAST REPLY"),
                rows,
                right=(2, 3, 4),
            )
        else:
            print(
                "the queue is empty"
                if selector.is_empty or selector.everything
                else "nothing in the queue is like that"
            )

    run(config_path, work)


@queue.command()
@click.argument("id_text", metavar="ID")
@click.option("--content", is_flag=True, help="Write the message itself, as it lies in the queue.")
@json_option
@config_option
def show(id_text: str, content: bool, as_json: bool, config_path: str | None) -> None:
    """Show a message: envelope, recipients and, if asked, content."""
    number = queue_id(id_text)

    async def work(_: Config, store: "MailStore") -> None:
        message = store.queue.message(number)
        if message is None:
            raise CommandFailed(f"no message {id_text} in the queue", EX_DATAERR)
        stopped = store.suspensions.by_hop()
        recipients = [record(message, each, stopped) for each in store.queue.recipients(number)]
        envelope = message.envelope
        head = {
            "queue_id": queue_id_text(number),
            "sender": _text(envelope.reverse_path),
            "received_at": stamp(envelope.received_at_ms / 1000),
            "size": envelope.size_bytes,
            "client": envelope.client,
            "authenticated_as": envelope.authenticated_as,
            "protocol": envelope.protocol,
            "envid": _text(envelope.envid),
        }
        if as_json:
            print_json({**head, "recipients": recipients})
        elif not content:
            for name, value in head.items():
                print(f"{name:17} {plain(str(value)) or '-'}")
            for each in recipients:
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
            sys.stdout.flush()
            offset = 0
            while piece := store.queue.read(message.blob_id, offset, READ_BYTES):
                sys.stdout.buffer.write(piece)
                offset += len(piece)

    run(config_path, work)


@queue.command()
@selector_options
@json_option
@config_option
def flush(selector: Selector, as_json: bool, config_path: str | None) -> None:
    """Try deferred recipients now; without a selector all of them."""
    everything = Selector(state=RecipientState.DEFERRED)
    _change(
        config_path,
        everything if selector.is_empty else selector,
        _flushing(),
        "to be tried now",
        as_json,
        "queue.flush",
    )


@queue.command()
@selector_options
@json_option
@config_option
def hold(selector: Selector, as_json: bool, config_path: str | None) -> None:
    """Stop trying recipients until they are released."""
    _withdraw(config_path, _given(selector), lambda store, q, n: store.queue.hold(q, n), "held", as_json, "queue.hold")


@queue.command()
@selector_options
@json_option
@config_option
def release(selector: Selector, as_json: bool, config_path: str | None) -> None:
    """Let held recipients go."""
    wished_ms = int(time.time() * 1000)
    move: Move = lambda store, q, n: store.queue.release(q, n, due_ms=wished_ms)  # noqa: E731
    _change(config_path, _given(selector), move, "released", as_json, "queue.release")


@queue.command()
@selector_options
@json_option
@config_option
def requeue(selector: Selector, as_json: bool, config_path: str | None) -> None:
    """Route recipients again by the present configuration and try them now, held ones too."""
    from fastmta.delivery.routing import Router

    async def work(config: Config, store: "MailStore") -> int:
        router = Router(config)
        wished_ms = int(time.time() * 1000)

        async def again(store: "MailStore", number: int, n: list[int]) -> int:
            for each in store.queue.recipients(number, n):
                if not each.hop.startswith(b"local:"):
                    route = router.route(each.tail.forward_path)
                    if route.refusal is None and route.hop and route.hop != each.hop:
                        await store.queue.reroute(number, each.n, route.hop, each.lane)
            return await store.queue.requeue(number, n, due_ms=wished_ms)

        return await apply(config, store, _given(selector), again, "queue.requeue")

    _tell(run(config_path, work), "requeued", as_json)


@queue.command()
@selector_options
@yes_option
@json_option
@config_option
def delete(selector: Selector, yes: bool, as_json: bool, config_path: str | None) -> None:
    """Delete recipients without telling their senders; a message goes with its last one."""
    _given(selector)
    confirm("Delete what this selects, without telling the senders?", yes)
    _withdraw(config_path, selector, lambda store, q, n: store.queue.delete(q, n), "deleted", as_json, "queue.delete")


@queue.command()
@click.option("--exact", is_flag=True, help="Count messages, bytes and domains of a long queue too: this walks it.")
@json_option
@config_option
def stats(exact: bool, as_json: bool, config_path: str | None) -> None:
    """Count recipients by state, next hop and domain."""
    from fastmta.cli.queue_stats import figures, show

    async def work(config: Config, store: "MailStore") -> dict[str, Any]:
        return figures(config, store, exact)

    found = run(config_path, work)
    if as_json:
        print_json(found)
    else:
        show(found)


def flush_all(config: Config) -> int:
    """What `sendmail -q` does."""
    selector = Selector(state=RecipientState.DEFERRED)
    return run_with(config, lambda _, store: apply(config, store, selector, _flushing(), "queue.flush"))


async def apply(config: Config, store: "MailStore", selector: Selector, move: Move, act: str) -> int:
    """Makes a move with every selected recipient, those of one message together; how many it changed."""
    done = 0
    numbers: dict[int, list[int]] = {}
    told: dict[int, list[Told]] = {}

    async def settle() -> int:
        moved = await asyncio.gather(*(_unless_refused(move(store, number, of)) for number, of in numbers.items()))
        gone = (told[number] for number, count in zip(numbers, moved, strict=True) if count)
        tell_recipients(config, act, chain.from_iterable(gone))
        numbers.clear()
        told.clear()
        return sum(moved)

    for seen, (message, recipient) in enumerate(selected(store, selector), 1):
        numbers.setdefault(message.queue_id, []).append(recipient.n)
        lines = told.setdefault(message.queue_id, [])
        if recipient.state in _MOVED[act]:
            lines.append(_told(message, recipient))
        if seen % AT_ONCE == 0:
            done += await settle()
    done += await settle()
    tell(config, act, changed=done, selection=selector.shown)
    return done


def _told(message: "QueuedMessage", recipient: "QueuedRecipient") -> Told:
    return queue_id_text(message.queue_id), _text(recipient.tail.forward_path)


def record(message: "QueuedMessage", recipient: "QueuedRecipient", stopped: "ByHop") -> dict[str, Any]:
    """A queued recipient as `--json` gives it. `stopped`: what is suspended."""
    suspension = stopped.of(recipient.hop)
    return {
        "queue_id": queue_id_text(message.queue_id),
        "n": recipient.n,
        "state": RecipientState(recipient.state).name.lower(),
        "sender": _text(message.envelope.reverse_path),
        "recipient": _text(recipient.tail.forward_path),
        "original_recipient": _text(recipient.tail.original),
        "next_hop": _text(recipient.hop),
        "suspended": suspension is not None,
        "suspended_since": None if suspension is None else stamp(suspension.since_ms / 1000),
        "suspended_by": None if suspension is None else suspension.by,
        "attempts": recipient.attempts,
        "due_at": None if recipient.state == RecipientState.HELD else stamp(recipient.due_ms / 1000),
        "received_at": stamp(message.envelope.received_at_ms / 1000),
        "size": message.envelope.size_bytes,
        "last_reply": _text(recipient.last_reply),
    }


def _flushing() -> Move:
    """One wish, however long it takes: a destination that dies meanwhile is not tried again for it."""
    wished_ms = int(time.time() * 1000)
    return lambda store, number, n: store.queue.flush(number, n, due_ms=wished_ms)


def _change(config_path: str | None, selector: Selector, move: Move, done: str, as_json: bool, act: str) -> None:
    count = run(config_path, lambda config, store: apply(config, store, selector, move, act))
    _tell(count, done, as_json)


def _withdraw(config_path: str | None, selector: Selector, move: Move, done: str, as_json: bool, act: str) -> None:
    """A move that takes recipients from a running server's hands: those on their way stay as they are."""

    async def work(config: Config, store: "MailStore") -> tuple[int, int]:
        changed = left = 0
        found: dict[tuple[int, int], Told] = {}

        async def settle() -> None:
            nonlocal changed, left
            busy = _in_flight(config, list(found))
            free: dict[int, list[int]] = {}  # the recipients of a message are moved together
            for number, n in found:
                if (number, n) not in busy:
                    free.setdefault(number, []).append(n)
            moved = await asyncio.gather(*(_unless_refused(move(store, number, free[number])) for number in free))
            gone = {number for number, count in zip(free, moved, strict=True) if count}
            tell_recipients(config, act, (told for key, told in found.items() if key[0] in gone and key not in busy))
            changed += sum(moved)
            left += len(busy)
            found.clear()

        for message, recipient in selected(store, selector):
            found[message.queue_id, recipient.n] = _told(message, recipient)
            if len(found) >= AT_ONCE:
                await settle()
        await settle()
        tell(config, act, changed=changed, in_flight=left or None, selection=selector.shown)
        return changed, left

    changed, left = run(config_path, work)
    if as_json:
        print_json({"changed": changed, "in_flight": left})
    else:
        _tell(changed, done, as_json)
    if left:
        some = "1 recipient is" if left == 1 else f"{left} recipients are"
        raise CommandFailed(f"{some} being sent at this moment, hence not {done}; try again", EX_TEMPFAIL)


def _in_flight(config: Config, keys: list[tuple[int, int]]) -> set[tuple[int, int]]:
    """Which of them a running server is sending; it begins none of the others for some seconds."""
    from fastmta.admin.control import NotRunning, request

    if not keys:
        return set()
    try:
        answer = request(config, {"do": "withdraw", "recipients": keys})
    except NotRunning:
        return set()
    if not answer.get("ok"):
        raise CommandFailed(str(answer.get("error", "the server refused")), EX_TEMPFAIL)
    return {(number, n) for number, n in answer["busy"]}


async def _unless_refused(move: Awaitable[int]) -> int:
    try:
        return await move
    except Refused:
        return 0  # it has left the queue, or its state, meanwhile


def _tell(count: int, done: str, as_json: bool) -> None:
    if as_json:
        print_json({"changed": count})
    else:
        print(f"{count} recipient{'' if count == 1 else 's'} {done}")


def _given(selector: Selector) -> Selector:
    if selector.is_empty:
        raise CommandFailed("which? give a selector, or --all for everything", EX_USAGE)
    return selector


def _limited(
    found: "Iterator[tuple[QueuedMessage, QueuedRecipient]]", limit: int | None
) -> "Iterator[tuple[QueuedMessage, QueuedRecipient]]":
    for number, each in enumerate(found):
        if limit is not None and number >= limit:
            return
        yield each


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
