"""`fastmta queue`: look into the queue and control it, with the server up or down.

Changes are the store's moves (fastmta/queue/README.md), so a running server obeys them within a second. Before `hold`
and `delete` a running server is asked what it is sending at that moment: those recipients are left alone, and said.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from fastmta.cli.confirm import confirm, yes_option
from fastmta.cli.failures import EX_DATAERR, EX_TEMPFAIL, EX_USAGE, CommandFailed
from fastmta.cli.opened import run, run_with
from fastmta.cli.output import age, config_option, json_option, plain, print_json, print_table, size, stamp
from fastmta.cli.selection import Selector, queue_id, selected, selector_options
from fastmta.config.schema import Config
from fastmta.model.envelope import RecipientState
from fastmta.model.errors import Refused
from fastmta.model.ids import queue_id_text

if TYPE_CHECKING:
    from fastmta.store import MailStore
    from fastmta.store.queue import QueuedMessage, QueuedRecipient

AT_ONCE: Final = 256  # moves on their way together, so that they share commits
READ_BYTES: Final = 262_144
Move = Callable[["MailStore", int, int | None], Awaitable[int]]


@click.group(
    epilog="\b\nExamples:\n  fastmta queue list --domain example.net --older 4h\n  fastmta queue show 0000000BCDFG\n"
    "  fastmta queue hold --sender bulk@example.org\n  fastmta queue delete --id 0000000BCDFG\n  fastmta queue flush"
)
def queue() -> None:
    """The queue. A command means what all its selectors mean together."""


@queue.command("list")
@selector_options
@click.option("--limit", type=click.IntRange(1), help="At most so many recipients.")
@json_option
@config_option
def list_(selector: Selector, limit: int | None, as_json: bool, config_path: str | None) -> None:
    """List queued recipients."""

    async def work(_: Config, store: "MailStore") -> None:
        found = _limited(selected(store, selector), limit)
        if as_json:
            separator = "["
            for message, recipient in found:
                sys.stdout.write(separator + json.dumps(record(message, recipient), ensure_ascii=False))
                separator = ",\n"
            sys.stdout.write("]\n" if separator != "[" else "[]\n")
            return
        now = time.time()
        rows = []
        for message, recipient in found:
            known = record(message, recipient)
            rows.append(
                (
                    known["queue_id"],
                    known["state"],
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
        recipients = [record(message, each) for each in store.queue.recipients(number)]
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
                for name in ("state", "next_hop", "attempts", "due_at", "original_recipient", "last_reply"):
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
    _change(config_path, everything if selector.is_empty else selector, _flushing(), "to be tried now", as_json)


@queue.command()
@selector_options
@json_option
@config_option
def hold(selector: Selector, as_json: bool, config_path: str | None) -> None:
    """Stop trying recipients until they are released."""
    _withdraw(config_path, _given(selector), lambda store, q, n: store.queue.hold(q, n), "held", as_json)


@queue.command()
@selector_options
@json_option
@config_option
def release(selector: Selector, as_json: bool, config_path: str | None) -> None:
    """Let held recipients go."""
    wished_ms = int(time.time() * 1000)
    move: Move = lambda store, q, n: store.queue.release(q, n, due_ms=wished_ms)  # noqa: E731
    _change(config_path, _given(selector), move, "released", as_json)


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

        async def again(store: "MailStore", number: int, n: int | None) -> int:
            for each in store.queue.recipients(number):
                if (n is None or each.n == n) and not each.hop.startswith(b"local:"):
                    route = router.route(each.tail.forward_path)
                    if route.refusal is None and route.hop and route.hop != each.hop:
                        await store.queue.reroute(number, each.n, route.hop, each.lane)
            return await store.queue.requeue(number, n, due_ms=wished_ms)

        return await apply(store, _given(selector), again)

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
    _withdraw(config_path, selector, lambda store, q, n: store.queue.delete(q, n), "deleted", as_json)


@queue.command()
@json_option
@config_option
def stats(as_json: bool, config_path: str | None) -> None:
    """Count recipients by state and by domain."""

    async def work(_: Config, store: "MailStore") -> dict[str, Any]:
        domains: Counter[str] = Counter()
        waiting: Counter[str] = Counter()
        messages: set[int] = set()
        size_bytes = 0
        for message, recipient in selected(store, Selector()):
            if message.queue_id not in messages:
                messages.add(message.queue_id)
                size_bytes += message.envelope.size_bytes
            domain = _text(recipient.tail.forward_path.lower().rpartition(b"@")[2])
            domains[domain] += 1
            waiting[domain] += recipient.state == RecipientState.DEFERRED
        oldest = store.queue.oldest_ms()
        return {
            "recipients": dict(store.queue.counts()),
            "messages": len(messages),
            "size": size_bytes,
            "oldest_seconds": None if oldest is None else max(0, round(time.time() - oldest / 1000)),
            "domains": [
                {"domain": domain, "recipients": count, "deferred": waiting[domain]}
                for domain, count in domains.most_common(50)
            ],
        }

    found = run(config_path, work)
    if as_json:
        print_json(found)
        return
    print(f"messages {found['messages']}, {size(found['size'])}")
    print("recipients " + ", ".join(f"{state} {count}" for state, count in found["recipients"].items()))
    if found["oldest_seconds"] is not None:
        print(f"oldest {age(found['oldest_seconds'])}")
    if found["domains"]:
        print()
        rows = [(each["domain"], each["recipients"], each["deferred"]) for each in found["domains"]]
        print_table(("DOMAIN", "RECIPIENTS", "DEFERRED"), rows, right=(1, 2))


def flush_all(config: Config) -> int:
    """What `sendmail -q` does."""
    return run_with(config, lambda _, store: apply(store, Selector(state=RecipientState.DEFERRED), _flushing()))


async def apply(store: "MailStore", selector: Selector, move: Move) -> int:
    """Makes a move with every selected recipient; how many it changed."""
    done = 0
    pending: set[tuple[int, int | None]] = set()

    async def settle() -> int:
        results = await asyncio.gather(*(_unless_refused(move, store, number, n) for number, n in pending))
        pending.clear()
        return sum(results)

    for message, recipient in selected(store, selector):
        pending.add((message.queue_id, recipient.n if selector.names_recipients else None))
        if len(pending) >= AT_ONCE:
            done += await settle()
    return done + await settle()


def record(message: "QueuedMessage", recipient: "QueuedRecipient") -> dict[str, Any]:
    """A queued recipient as `--json` gives it."""
    return {
        "queue_id": queue_id_text(message.queue_id),
        "n": recipient.n,
        "state": RecipientState(recipient.state).name.lower(),
        "sender": _text(message.envelope.reverse_path),
        "recipient": _text(recipient.tail.forward_path),
        "original_recipient": _text(recipient.tail.original),
        "next_hop": _text(recipient.hop),
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


def _change(config_path: str | None, selector: Selector, move: Move, done: str, as_json: bool) -> None:
    _tell(run(config_path, lambda _, store: apply(store, selector, move)), done, as_json)


def _withdraw(config_path: str | None, selector: Selector, move: Move, done: str, as_json: bool) -> None:
    """A move that takes recipients from a running server's hands: those on their way stay as they are."""

    async def work(config: Config, store: "MailStore") -> tuple[int, int]:
        changed = left = 0
        keys: list[tuple[int, int]] = []

        async def settle() -> None:
            nonlocal changed, left
            busy = _in_flight(config, keys)
            free = [key for key in keys if key not in busy]
            changed += sum(await asyncio.gather(*(_unless_refused(move, store, *key) for key in free)))
            left += len(busy)
            keys.clear()

        for message, recipient in selected(store, selector):
            keys.append((message.queue_id, recipient.n))
            if len(keys) >= AT_ONCE:
                await settle()
        await settle()
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


async def _unless_refused(move: Move, store: "MailStore", number: int, n: int | None) -> int:
    try:
        return await move(store, number, n)
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
