"""A message handed in on this machine: its recipients resolved, and one unit of the store that holds it all.

The same promise as at the SMTP port: when this returns, mailboxes and queue have it on stable storage. What a running
server has to do about it, its workers find within a second.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta.cli.failures import EX_NOUSER, EX_TEMPFAIL, EX_UNAVAILABLE, CommandFailed
from fastmta.config.schema import Config
from fastmta.model.envelope import Envelope, LocalTarget, QueuedTarget, RecipientState, RecipientTail
from fastmta.model.ids import queue_id_text
from fastmta.model.limits import SMTP_PATH_BYTES
from fastmta.model.reply import Reply

if TYPE_CHECKING:
    from fastmta._mime import Structure
    from fastmta._store import Blob
    from fastmta.store import MailStore

_LOCAL_HOP: Final = b"local:"


class Submission(msgspec.Struct, kw_only=True):
    """What is handed in. `header` and `body` have CRLF line ends; `received` makes the trace field for a queue id."""

    reverse_path: bytes
    recipients: list[str]
    header: bytes
    body: Iterable[bytes]
    client: str
    login: str = ""
    envid: bytes = b""
    ret: str = ""
    notify: int = 0


async def submit(config: Config, store: "MailStore", submission: Submission) -> str:
    """Accepts the message and gives its queue id. CommandFailed where nobody can be reached or it is too large."""
    from fastmta._parser import DataReceiver
    from fastmta.queue.scheduler import lane_for

    resolved = _resolve(config, store, submission.recipients)
    queue_id = store.queue.new_id()
    structure = _structure(resolved)
    receiver = DataReceiver(False, False)
    blob = store.raw.new_blob()
    try:
        await _fill(config, blob, structure, receiver, submission, queue_id)
        now_ms = int(time.time() * 1000)
        blob.bits = receiver.bits
        envelope = msgspec.msgpack.encode(
            Envelope(
                submission.reverse_path,
                now_ms,
                blob.size,
                receiver.bits,
                submission.client,
                submission.login,
                submission.envid,
                submission.ret,
                not all(address.isascii() for address in submission.recipients),
                "local",
            )
        )
        record = structure.finish() if structure is not None else b""
        lane = lane_for(blob.size, len(resolved))
        unit = store.raw.new_unit()
        unit.blob(blob)
        if any(isinstance(target, QueuedTarget) for target, _ in resolved):
            unit.enqueue(queue_id, blob.blob_id, envelope)
        minutes = time.localtime().tm_gmtoff // 60
        for n, (target, original) in enumerate(resolved):
            path = target.address if isinstance(target, LocalTarget) else target.forward_path
            tail = msgspec.msgpack.encode(
                RecipientTail(path, notify=submission.notify, original=original if original != path else b"")
            )
            if isinstance(target, QueuedTarget):
                state = RecipientState.HELD if target.held else RecipientState.ACTIVE
                unit.recipient(queue_id, n, target.hop, lane, state, now_ms, tail)
            else:
                prefix = b"Return-Path: <%s>\r\nDelivered-To: %s\r\n" % (submission.reverse_path, target.address)
                unit.deliver(
                    target.mailbox_id, blob.blob_id, prefix, 0, b"", now_ms // 1000, minutes,
                    record, queue_id, n, _LOCAL_HOP, tail, envelope,
                )  # fmt: skip
        await store.commit(unit)
    except BaseException:
        blob.abandon()
        raise
    return queue_id_text(queue_id)


def _resolve(
    config: Config, store: "MailStore", recipients: list[str]
) -> list[tuple[LocalTarget | QueuedTarget, bytes]]:
    """(target, recipient that it comes from), each mailbox and path once. Recipients that nobody has bounce, unless
    there is no other: then the command fails, since a program that waits can be told at once.
    """
    from fastmta.delivery.routing import Router
    from fastmta.local.directory import LocalDirectory

    directory = LocalDirectory(config, store, Router(config))
    out: dict[LocalTarget | QueuedTarget, bytes] = {}
    mailboxes: set[int] = set()
    refused: list[tuple[bytes, Reply]] = []
    for text in recipients:
        try:
            raw = directory.qualify(text).raw
        except ValueError:
            raw = text.encode("utf-8", "surrogateescape")
        resolution = directory.resolve(raw, may_relay=True)
        if len(raw) > SMTP_PATH_BYTES:
            refused.append((raw, Reply(553, "5.1.3", "Address too long")))
        elif resolution.refusal is not None:
            refused.append((raw, resolution.refusal))
        for target in resolution.targets if len(raw) <= SMTP_PATH_BYTES else ():
            if isinstance(target, LocalTarget):
                if target.mailbox_id in mailboxes:
                    continue
                mailboxes.add(target.mailbox_id)
            out.setdefault(target, raw)
    if not out:
        reply = next((reply for _, reply in refused if reply.is_temporary), refused[0][1])
        code = EX_TEMPFAIL if reply.is_temporary else EX_NOUSER if reply.enhanced.startswith("5.1.") else EX_UNAVAILABLE
        raise CommandFailed(str(reply), code)
    for raw, reply in refused:
        word = "retry" if reply.is_temporary else "error"
        hop = f"{word}:{reply.enhanced} {reply.text}".encode("utf-8", "surrogateescape")[:200]
        out.setdefault(QueuedTarget(raw, hop), raw)
    return list(out.items())


def _structure(resolved: list[tuple[LocalTarget | QueuedTarget, bytes]]) -> "Structure | None":
    from fastmta._mime import Structure

    return Structure() if any(isinstance(target, LocalTarget) for target, _ in resolved) else None


async def _fill(
    config: Config,
    blob: "Blob",
    structure: "Structure | None",
    receiver: "object",
    submission: Submission,
    queue_id: int,
) -> None:
    drained = asyncio.Event()
    blob.on_drain = drained.set
    limit = config.message_size_limit

    def pieces() -> Iterable[bytes]:
        yield _received(config, submission, queue_id)
        yield submission.header
        yield from submission.body

    size = 0
    for piece in pieces():
        size += len(piece)
        if limit and size > limit:
            raise CommandFailed(f"message file too big: more than {limit} bytes", EX_UNAVAILABLE)
        receiver.feed(piece)  # type: ignore[attr-defined]
        blob.feed(piece)
        if structure is not None:
            structure.feed(piece)
        if blob.congested:
            drained.clear()
            await drained.wait()


def _received(config: Config, submission: Submission, queue_id: int) -> bytes:
    """The trace field of a local hand-in, as Postfix's pickup writes it (RFC 5321 §4.4)."""
    where = f"by {config.myhostname} (FastMTA, {submission.client})"
    return f"Received: {where}\r\n\tid {queue_id_text(queue_id)}; {date_text()}\r\n".encode("utf-8", "replace")


def date_text(at: float | None = None) -> str:
    """An instant in local time as RFC 5322 §3.3 writes it, whatever the locale."""
    moment = time.localtime(at)
    sign, minutes = ("+", moment.tm_gmtoff // 60) if moment.tm_gmtoff >= 0 else ("-", -moment.tm_gmtoff // 60)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[moment.tm_wday]
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[moment.tm_mon - 1]
    clock = f"{moment.tm_hour:02}:{moment.tm_min:02}:{moment.tm_sec:02}"
    return f"{day}, {moment.tm_mday} {month} {moment.tm_year} {clock} {sign}{minutes // 60:02}{minutes % 60:02}"
