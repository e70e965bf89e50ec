"""What a store shows its readers, whatever its records look like: equal before and after an upgrade."""

import hashlib
from typing import Any

from fastmta.store import MailStore


def shown(mail: MailStore) -> dict[str, Any]:
    """Accounts, mailboxes, messages and queue, as plain values."""
    accounts = []
    for account in sorted(mail.accounts.list(), key=lambda each: each.id):
        boxes = [_mailbox(mail, box) for box in sorted(mail.mailboxes.list(account.id), key=lambda each: each.id)]
        names = sorted(mail.mailboxes.subscriptions(account.id))
        accounts.append([account.id, account.address, list(mail.accounts.usage(account.id)), names, boxes])
    return {"accounts": accounts, "queue": _queue(mail), "counts": mail.queue.counts()}


def _mailbox(mail: MailStore, box: Any) -> list[Any]:
    counts = [box.exists, box.unseen, box.recent_uid, box.size_bytes, box.deleted_count]
    fields = [box.id, box.name, box.uid_validity, box.uid_next, box.highest_modseq, box.floor_modseq, box.special_use]
    rows = []
    for row in mail.mailboxes.rows(box.id):
        structure = mail.mailboxes.structure(box.id, row.uid) or b""
        rows.append([
            row.uid, row.blob_id, row.flags, row.keywords.decode(), row.modseq, row.internal_date_s, row.tz_minutes,
            row.size, row.prefix.decode(), _digest(_all(mail, box.id, row.uid)), _digest(structure),
        ])  # fmt: skip
    changes = mail.mailboxes.changes(box.id, box.floor_modseq)
    return [*fields, counts, rows, list(changes.uids), list(changes.gone)]


def _all(mail: MailStore, mailbox_id: int, uid: int) -> bytes:
    data = b""
    while piece := mail.mailboxes.read(mailbox_id, uid, len(data), 100_000):
        data += piece
    return data


def _queue(mail: MailStore) -> list[Any]:
    out = []
    for message, recipients in _walked(mail):
        data = b""
        while piece := mail.queue.read(message.blob_id, len(data), 100_000):
            data += piece
        rows = [
            [
                r.n,
                r.hop.decode(),
                r.lane,
                int(r.state),
                r.attempts,
                r.due_ms,
                r.last_reply.decode(),
                r.tail.forward_path.decode(),
            ]
            for r in recipients
        ]
        out.append(
            [
                message.queue_id,
                message.blob_id,
                message.envelope.reverse_path.decode(),
                message.envelope.size_bytes,
                _digest(data),
                rows,
            ]
        )
    return out


def _walked(mail: MailStore) -> list[tuple[Any, list[Any]]]:
    pairs, _ = mail.queue.walk(limit=10_000)
    out: dict[int, tuple[Any, list[Any]]] = {}
    for message, recipient in pairs:
        out.setdefault(message.queue_id, (message, []))[1].append(recipient)
    return list(out.values())


def _digest(data: bytes) -> str:
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()[:16]}"
