"""Writes a small store as this program keeps it, and what it shows: run by the program of each format left behind.

    python -m tests.store.old_stores.make_store format_1

gives tests/store/old_stores/format_1.mdb.xz and .json, which no later program writes again.
"""

import asyncio
import json
import lzma
import shutil
import sys
import tempfile
from array import array
from pathlib import Path

from fastmta._mime import Structure
from fastmta.model.envelope import Envelope, RecipientTail
from fastmta.runtime.clock import ManualClock
from fastmta.store import MailStore
from fastmta.store.backup import backup
from fastmta.store.queue import Outcome
from tests.store.showing import shown

HERE = Path(__file__).parent
PREFIX = b"Return-Path: <>\r\nDelivered-To: first@example.org\r\n"
SIZES = (
    1,
    900,
    1_023,
    1_024,
    1_025,
    4_064,
    4_079,
    4_080,
    4_200,
    5_104,
    9_000,
    61_423,
    61_424,
    61_425,
    62_448,
    62_449,
    200_000,
    700_000,
)


def message(size: int) -> bytes:
    """Exactly `size` octets of mail."""
    head = (
        b"Received: by old.example; Thu, 1 Jan 1970 00:00:01 +0000\r\nSubject: %d\r\nTo: a@example.org\r\n\r\n" % size
    )
    text = head + b"".join(b"line %d of %d\r\n" % (number, size) for number in range(size // 16 + 1))
    return text[:size]


async def fill(mail: MailStore) -> None:
    """Mail of all sizes that a record may care about, in every state."""
    first = await mail.accounts.add("first@example.org", "hash", quota_bytes=50_000_000)
    second = await mail.accounts.add("second@example.org", "hash")
    await mail.mailboxes.subscribe(first.id, "Sent")
    sent = mail.mailboxes.get(first.id, "Sent")
    assert sent is not None
    for number, size in enumerate(SIZES):
        blob, parser = mail.mailboxes.new_blob(), Structure()
        blob.feed(message(size))
        parser.feed(message(size))
        await mail.mailboxes.append(
            first.inbox_id, blob, prefix=PREFIX if number % 2 else b"",
            flags=number % 16, keywords=b"$Label1 work" if number % 3 == 0 else b"", internal_date_s=1_000_000 + number,
            tz_minutes=60 * (number % 3), structure=parser.finish(),
        )  # fmt: skip
    await mail.mailboxes.copy(first.inbox_id, array("I", [1, 7, 14, 17]), sent.id)
    await mail.mailboxes.copy(first.inbox_id, array("I", [2, 18]), second.inbox_id)
    await mail.mailboxes.expunge(first.inbox_id, array("I", [3, 16]), only_deleted=False)
    await mail.mailboxes.take_recent(first.inbox_id)
    for number, size in enumerate((1, 4_200, 61_425, 700_000)):
        blob = mail.mailboxes.new_blob()
        blob.feed(message(size))
        envelope = Envelope(b"sender@example.net", 1_700_000_000_000 + number, size, 0)
        recipients = [
            (b"smtp:example.net", 0, 1, 1_700_000_000_000, RecipientTail(b"r%d@example.net" % n)) for n in range(3)
        ]
        queue_id = await mail.queue.add(envelope, recipients, blob)
        if number % 2:
            await mail.queue.hold(queue_id, 1)
            await mail.queue.delete(queue_id, 2)
        else:
            reply = b"451 4.3.0 <r1@example.net>: try again"
            await mail.queue.finish([Outcome(queue_id, 1, 0, 2, 3, 1_700_000_500_000, reply)])


def main() -> None:
    """Makes the files."""
    name = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        mail = MailStore.open(Path(folder) / "store", sync=False, trash_delay_ms=0, clock=ManualClock())
        asyncio.run(fill(mail))
        (HERE / f"{name}.json").write_text(json.dumps(shown(mail), indent=1) + "\n")
        mail.raw.reap()
        backup(mail, Path(folder) / "copy")
        mail.close()
        with (
            open(Path(folder) / "copy" / "data.mdb", "rb") as source,
            lzma.open(HERE / f"{name}.mdb.xz", "wb") as target,
        ):
            shutil.copyfileobj(source, target)


if __name__ == "__main__":
    main()
