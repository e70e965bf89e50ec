"""A store in memory with the mailboxes' seam, and services around it: what IMAP's tests stand on.

Slow and obvious on purpose; where the real store exists, the same tests run against it (harness.py).
"""

import asyncio
import struct
import time
import zlib
from array import array
from types import SimpleNamespace
from typing import Any

from fastmta import _mime
from fastmta.model import flags as system_flags
from fastmta.model.errors import Refused
from fastmta.runtime.clock import ManualClock
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import local_cells
from fastmta.runtime.tasks import Tasks
from fastmta.runtime.turns import Turns
from fastmta.store.accounts import FIRST_MAILBOXES
from tests.support.limits import local_limits

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def email_id(row: Any) -> bytes:
    return b"M%x" % zlib.crc32(row.prefix + row.data)


def internal_date(seconds: int, tz_minutes: int) -> str:
    t = time.gmtime(seconds + tz_minutes * 60)
    sign = "-" if tz_minutes < 0 else "+"
    zone = abs(tz_minutes)
    return (
        f"{t.tm_mday:2d}-{MONTHS[t.tm_mon - 1]}-{t.tm_year:04d} {t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} "
        f"{sign}{zone // 60:02d}{zone % 60:02d}"
    )


class FakeBlob:
    def __init__(self) -> None:
        self.data = bytearray()
        self.congested = False
        self.on_drain: Any = None
        self.abandoned = False

    @property
    def size(self) -> int:
        return len(self.data)

    def feed(self, data: Any) -> int:
        self.data += data
        return 0

    def spill(self) -> int:
        return 0

    def abandon(self) -> None:
        self.abandoned = True


class FakeMailboxes:
    def __init__(self, store: "FakeStore") -> None:
        self._store = store
        self._boxes: dict[int, Any] = {}
        self._messages: dict[int, dict[int, Any]] = {}
        self._expunged: dict[int, list[tuple[int, int]]] = {}
        self._subscribed: set[str] = set()
        self._next_id = 1
        self._validity = 1000
        self.reaped = False  # whether the bytes of expunged messages have gone

    def _touch(self, box: Any) -> None:
        rows = self._messages[box.id].values()
        box.exists = len(rows)
        box.unseen = sum(1 for row in rows if not row.flags & system_flags.SEEN)
        box.size_bytes = sum(row.size for row in rows)
        box.deleted_count = sum(1 for row in rows if row.flags & system_flags.DELETED)

    def _changed(self, box: Any) -> None:
        self._touch(box)
        self._store.changed(box.id, box.highest_modseq)

    # --- reads ---

    def _view(self, box: Any) -> Any:
        return None if box is None else SimpleNamespace(**vars(box))

    def list(self, account_id: int) -> Any:
        return [self._view(box) for box in self._boxes.values() if box.account_id == account_id]

    def page(self, account_id: int, after: str = "", limit: int = 2, *, under: str = "") -> Any:
        names = sorted((box for box in self.list(account_id)), key=lambda box: box.name.encode())
        return [box for box in names if box.name.encode() > after.encode() and box.name.startswith(under)][:limit]

    def has_inferiors(self, account_id: int, name: str) -> bool:
        return bool(self.page(account_id, under=name + "/"))

    def get(self, account_id: int, name: str) -> Any:
        name = "INBOX" if name.upper() == "INBOX" else name
        for box in self._boxes.values():
            if box.account_id == account_id and box.name == name:
                return self._view(box)
        return None

    def by_id(self, mailbox_id: int) -> Any:
        return self._view(self._boxes.get(mailbox_id))

    quota = 0

    def room(self, account_id: int) -> Any:
        used = sum(row.size for rows in self._messages.values() for row in rows.values())
        return max(0, self.quota - used) if self.quota else None

    def usage(self, account_id: int) -> Any:
        sizes = [row.size for rows in self._messages.values() for row in rows.values()]
        return sum(sizes), len(sizes), self.quota

    def subscriptions(self, account_id: int, after: str = "", limit: int = 2) -> Any:
        return sorted(name for name in self._subscribed if name > after)[:limit]

    def is_subscribed(self, account_id: int, name: str) -> bool:
        return name in self._subscribed

    def uids(self, mailbox_id: int, after: int = 0, limit: int = -1) -> Any:
        uids = array("I", sorted(uid for uid in self._messages[mailbox_id] if uid > after))
        return uids if limit < 0 else uids[:limit]

    def rows(self, mailbox_id: int, uids: Any = None) -> Any:
        rows = self._messages[mailbox_id]
        return [SimpleNamespace(**vars(rows[uid])) for uid in (sorted(rows) if uids is None else uids) if uid in rows]

    def columns(self, mailbox_id: int, uids: Any) -> Any:
        rows = [self._messages[mailbox_id].get(uid) for uid in uids]
        keywords = [b"", *{row.keywords for row in rows if row is not None and row.keywords}]
        gone = SimpleNamespace(flags=0, size=0, internal_date_s=0, tz_minutes=0, prefix=b"", keywords=b"")
        here = bytes(row is not None for row in rows)
        rows = [row or gone for row in rows]
        return SimpleNamespace(
            here=here,
            flags=array("I", [row.flags for row in rows]),
            sizes=array("I", [row.size for row in rows]),
            days=array("I", [max(0, max(0, row.internal_date_s) + row.tz_minutes * 60) // 86400 for row in rows]),
            prefixes=array("I", [len(row.prefix) for row in rows]),
            words=array("I", [keywords.index(row.keywords) for row in rows]),
            keywords=keywords,
        )

    def summary(self, mailbox_id: int, after: int = 0, limit: int = -1) -> Any:
        rows = [row for row in self.rows(mailbox_id) if row.uid > after]
        rows = rows if limit < 0 else rows[:limit]
        keywords = {keyword for row in rows for keyword in row.keywords.split()}
        return (
            array("I", [row.uid for row in rows]),
            array("I", [row.flags for row in rows]),
            array("Q", [row.modseq for row in rows]),
            array("I", [row.size for row in rows]),
            keywords,
        )

    def fetch(
        self,
        mailbox_id: int,
        seqs: Any,
        uids: Any,
        items: int,
        start: int,
        max_bytes: int,
        *,
        recent_from: int = 2**32,
        sections: Any = None,
        modseq_cap: int = 2**64 - 1,
    ) -> Any:
        out = bytearray()
        while start < len(uids) and len(out) < max_bytes:
            row = self._messages[mailbox_id].get(uids[start])
            if row is not None:
                parts: list[bytes] = []
                if items & 1:
                    parts.append(b"UID %d" % row.uid)
                if items & 2:
                    recent = row.uid >= recent_from
                    parts.append(b"FLAGS (%b)" % system_flags.names(row.flags, row.keywords, recent=recent).encode())
                if items & 4:
                    parts.append(b'INTERNALDATE "%b"' % internal_date(row.internal_date_s, row.tz_minutes).encode())
                if items & 8:
                    parts.append(b"RFC822.SIZE %d" % row.size)
                if items & 16:
                    parts.append(b"ENVELOPE " + _mime.envelope_of(row.structure))
                if items & 32:
                    parts.append(b"BODY " + _mime.body_of(row.structure))
                if items & 64:
                    parts.append(b"BODYSTRUCTURE " + _mime.bodystructure_of(row.structure))
                if items & 128:
                    parts.append(b"MODSEQ (%d)" % min(row.modseq, modseq_cap))
                if items & 512:
                    parts.append(b'SAVEDATE "%b"' % internal_date(row.saved_s, 0).encode())
                if items & 1024:
                    parts.append(b"EMAILID (%b)" % email_id(row))
                if items & 2048:
                    parts.append(b"THREADID NIL")
                if items & 256:
                    if row.size > max_bytes:
                        break
                    parts.append(b"BODY[] {%d}\r\n%b" % (row.size, row.prefix + row.data))
                for label, packed, invert in sections or ():
                    names, at = [], 0
                    while at < len(packed):
                        names.append(packed[at + 1 : at + 1 + packed[at]])
                        at += 1 + packed[at]
                    fields = _mime.header_fields(row.prefix + row.data, names, invert)
                    parts.append(b"%b {%d}\r\n%b" % (label, len(fields), fields))
                head = b"* %d UIDFETCH (%b)\r\n" if items & 4096 else b"* %d FETCH (%b)\r\n"
                out += head % (row.uid if items & 4096 else seqs[start], b" ".join(parts))
            start += 1
        return bytes(out), start

    def changes(self, mailbox_id: int, since_modseq: int) -> Any:
        rows = [row for row in self.rows(mailbox_id) if row.modseq > since_modseq]
        gone = array("I", [uid for modseq, uid in self._expunged[mailbox_id] if modseq > since_modseq])
        return rows, gone

    def changes_page(self, mailbox_id: int, since_modseq: int, limit: int) -> Any:
        return (*self.changes(mailbox_id, since_modseq), 0)

    def changed_uids(self, mailbox_id: int, since_modseq: int, limit: int, *, expunged: bool = False) -> Any:
        pairs = self._expunged[mailbox_id] if expunged else [(r.modseq, r.uid) for r in self.rows(mailbox_id)]
        pairs = sorted(pair for pair in pairs if pair[0] > since_modseq)
        cut = pairs[limit - 1][0] if len(pairs) > limit else 0
        if cut:
            pairs = [pair for pair in pairs if pair[0] <= cut]
        return array("I", [uid for _, uid in pairs]), cut

    def forget_expunged(self, mailbox_id: int) -> None:
        """As the store does when there are too many records of expunged messages."""
        self._expunged[mailbox_id].clear()
        self._boxes[mailbox_id].floor_modseq = self._boxes[mailbox_id].highest_modseq

    def modseqs(self, mailbox_id: int, uids: Any) -> Any:
        rows = self._messages[mailbox_id]
        return array("Q", [rows[uid].modseq if uid in rows else 0 for uid in uids])

    def dates(self, mailbox_id: int, uids: Any, *, saved: bool = False) -> Any:
        rows = self._messages[mailbox_id]
        name = "saved_s" if saved else "internal_date_s"
        return array("q", [getattr(rows[uid], name) if uid in rows else 0 for uid in uids])

    def email_ids(self, mailbox_id: int, uids: Any) -> Any:
        rows = self._messages[mailbox_id]
        return [email_id(rows[uid]) if uid in rows else b"" for uid in uids]

    def structure(self, mailbox_id: int, uid: int) -> Any:
        row = self._messages[mailbox_id].get(uid)
        return None if row is None else row.structure

    def read(self, mailbox_id: int, uid: int, offset: int, length: int) -> Any:
        row = self._messages[mailbox_id].get(uid)
        return None if row is None else (row.prefix + row.data)[offset : offset + length]

    def read_on(self, row: Any, offset: int, length: int) -> Any:
        return None if self.reaped else (row.prefix + row.data)[offset : offset + length]

    def hold(self, row: Any) -> None:
        pass

    def release(self, row: Any) -> None:
        pass

    def new_blob(self) -> Any:
        return FakeBlob()

    # --- changes ---

    async def subscribe(self, account_id: int, name: str) -> None:
        self._subscribed.add(name)

    async def unsubscribe(self, account_id: int, name: str) -> None:
        self._subscribed.discard(name)

    async def create(self, account_id: int, name: str, special_use: str = "") -> Any:
        await asyncio.sleep(0)
        if self.get(account_id, name) is not None:
            raise Refused("exists", name)
        first = dict(FIRST_MAILBOXES)
        levels = name.split("/")
        for superior in ("/".join(levels[:n]) for n in range(1, len(levels))):
            if self.get(account_id, superior) is None:
                await self.create(account_id, superior)
        if not special_use and first.get(name) not in [box.special_use for box in self._boxes.values()]:
            special_use = first.get(name, "")
        self._validity += 1
        box = SimpleNamespace(
            id=self._next_id,
            account_id=account_id,
            name=name,
            uid_validity=self._validity,
            uid_next=1,
            highest_modseq=1,
            floor_modseq=0,
            exists=0,
            unseen=0,
            recent_uid=1,
            special_use=special_use,
            size_bytes=0,
            deleted_count=0,
        )
        self._next_id += 1
        self._boxes[box.id] = box
        self._messages[box.id] = {}
        self._expunged[box.id] = []
        return self._view(box)

    async def delete(self, mailbox_id: int) -> None:
        await asyncio.sleep(0)
        del self._boxes[mailbox_id]
        del self._messages[mailbox_id]
        self._store.changed(mailbox_id, 0)

    async def rename(self, account_id: int, old: str, new: str) -> None:
        await asyncio.sleep(0)
        if old == "INBOX":
            target = await self.create(account_id, new)
            source = self.get(account_id, "INBOX")
            await self.copy(source.id, self.uids(source.id), target.id, move=True)
            return
        for box in self._boxes.values():
            if box.name == old or box.name.startswith(old + "/"):
                box.name = new + box.name[len(old) :]
        levels = new.split("/")
        for superior in ("/".join(levels[:n]) for n in range(1, len(levels))):
            if self.get(account_id, superior) is None:
                await self.create(account_id, superior)

    async def append_many(self, mailbox_id: int, messages: Any, *, replaced: Any = None) -> Any:
        await asyncio.sleep(0)
        box = self._boxes.get(mailbox_id)
        if box is None:
            raise Refused("missing")
        freed = 0
        if replaced is not None:
            if replaced[1] not in self._messages[replaced[0]]:
                raise Refused("changed")
            freed = self._messages[replaced[0]][replaced[1]].size
        room = self.room(box.account_id)
        if room is not None and sum(len(each.prefix) + len(each.blob.data) for each in messages) > room + freed:
            raise Refused("quota")
        if replaced is not None:
            await self.expunge(replaced[0], array("I", replaced[1:]), False)
        added = [
            self._add(
                box,
                bytes(each.blob.data),
                each.prefix,
                each.flags,
                each.keywords,
                each.internal_date_s,
                each.tz_minutes,
                each.structure,
            )
            for each in messages
        ]
        return box.uid_validity, array("I", [uid for _, uid in added])

    def _add(
        self, box: Any, data: bytes, prefix: bytes, flags: int, keywords: bytes, date: int, tz: int, structure: bytes
    ) -> Any:
        uid = box.uid_next
        box.uid_next += 1
        box.highest_modseq += 1
        self._messages[box.id][uid] = SimpleNamespace(
            uid=uid,
            blob_id=uid,
            flags=flags,
            keywords=keywords,
            modseq=box.highest_modseq,
            internal_date_s=date,
            tz_minutes=tz,
            size=len(prefix) + len(data),
            prefix=prefix,
            data=data,
            structure=structure,
            saved_s=int(time.time()),
        )
        self._changed(box)
        return box.uid_validity, uid

    def apply_flags(
        self, mailbox_id: int, uids: bytes, mode: int, flags: int, keywords: bytes, unchanged_since: int
    ) -> Any:
        box = self._boxes.get(mailbox_id)
        if box is None:
            raise Refused("missing")
        touched = []
        failed = array("I")
        for (uid,) in struct.iter_unpack("<I", uids):
            row = self._messages[mailbox_id].get(uid)
            if row is None:
                continue
            if 0 <= unchanged_since < row.modseq:
                failed.append(uid)
                continue
            named = {word.lower(): word for word in row.keywords.split()}
            given = {word.lower(): word for word in keywords.split()}
            if mode == 0:
                new, words = flags, given
            elif mode == 1:
                new, words = row.flags | flags, {**given, **named}
            else:
                new = row.flags & ~flags
                words = {key: word for key, word in named.items() if key not in given}
            joined = b" ".join(words[key] for key in sorted(words))
            if (new, joined) != (row.flags, row.keywords):
                row.flags, row.keywords = new, joined
                touched.append(row)
        if touched:
            box.highest_modseq += 1
            for row in touched:
                row.modseq = box.highest_modseq
            self._changed(box)
        return (box.highest_modseq if touched else 0), failed.tobytes()

    async def change_flags(
        self, mailbox_id: int, uids: Any, mode: int, flags: int, keywords: bytes, unchanged_since: int = -1
    ) -> Any:
        await asyncio.sleep(0)
        modseq, left = self.apply_flags(mailbox_id, uids.tobytes(), mode, flags, keywords, unchanged_since)
        return modseq, array("I", left)

    async def set_flags(
        self, mailbox_id: int, uids: Any, mode: int, flags: int, keywords: bytes, unchanged_since: int = -1
    ) -> Any:
        return (await self.change_flags(mailbox_id, uids, mode, flags, keywords, unchanged_since))[1]

    async def expunge(self, mailbox_id: int, uids: Any = None, only_deleted: bool = True) -> Any:
        await asyncio.sleep(0)
        box, rows = self._boxes[mailbox_id], self._messages[mailbox_id]
        gone = array("I")
        for uid in sorted(rows) if uids is None else uids:
            if uid in rows and (not only_deleted or rows[uid].flags & system_flags.DELETED):
                gone.append(uid)
        if gone:
            box.highest_modseq += 1
            for uid in gone:
                del rows[uid]
                self._expunged[mailbox_id].append((box.highest_modseq, uid))
            self._changed(box)
        return gone

    async def copy(self, src_id: int, uids: Any, dst_id: int, *, move: bool = False) -> Any:
        await asyncio.sleep(0)
        target = self._boxes[dst_id]
        source_uids, target_uids = array("I"), array("I")
        for uid in uids:
            row = self._messages[src_id].get(uid)
            if row is not None:
                _, new = self._add(
                    target,
                    row.data,
                    row.prefix,
                    row.flags,
                    row.keywords,
                    row.internal_date_s,
                    row.tz_minutes,
                    row.structure,
                )
                source_uids.append(uid)
                target_uids.append(new)
        if move:
            await self.expunge(src_id, source_uids, False)
        return target.uid_validity, source_uids, target_uids

    async def take_recent(self, mailbox_id: int) -> int:
        await asyncio.sleep(0)
        box = self._boxes[mailbox_id]
        first: int = box.recent_uid
        if first != box.uid_next:
            box.recent_uid = box.uid_next
        return first


class FakeAnnotations:
    def __init__(self) -> None:
        self._values: dict[tuple[int, int], dict[bytes, bytes]] = {}

    def get(self, account_id: int, mailbox_id: int, entry: bytes) -> Any:
        return self._values.get((account_id, mailbox_id), {}).get(entry)

    def list(self, account_id: int, mailbox_id: int, limit: int = 1000) -> Any:
        return sorted(self._values.get((account_id, mailbox_id), {}).items())[:limit]

    async def set(self, account_id: int, mailbox_id: int, changes: Any, limit: int) -> None:
        await asyncio.sleep(0)
        values = dict(self._values.get((account_id, mailbox_id), {}))
        for entry, value in changes:
            if value is None:
                values.pop(entry, None)
            else:
                values[entry] = value
        if len(values) > limit:
            raise Refused("limit")
        self._values[account_id, mailbox_id] = values


class FakeStore:
    def __init__(self) -> None:
        self.mailboxes = FakeMailboxes(self)
        self.annotations = FakeAnnotations()
        self.observer: Any = None

    def changed(self, mailbox_id: int, modseq: int) -> None:
        if self.observer is not None:
            self.observer(mailbox_id)


class FakeAuthenticator:
    """`accounts`: address -> (password, account)."""

    def __init__(self) -> None:
        self.accounts: dict[str, tuple[str, Any]] = {}
        self.tries = 0

    def login_allowed(self, tls: bool, loopback: bool) -> bool:
        return tls or loopback

    def mechanisms(self, tls: bool, loopback: bool) -> tuple[str, ...]:
        return ("PLAIN", "LOGIN") if self.login_allowed(tls, loopback) else ()

    def try_now(self, credentials: Any, service: str) -> Any:
        return None

    async def authenticate(self, credentials: Any, service: str, peer_ip: str) -> Any:
        self.tries += 1
        await asyncio.sleep(0)
        password, account = self.accounts.get(credentials.authcid, ("", None))
        return account if account is not None and password == credentials.password else None


class FakeNotifier:
    def __init__(self) -> None:
        self.watchers: dict[int, list[Any]] = {}

    def subscribe(self, mailbox_id: int, watcher: Any) -> None:
        self.watchers.setdefault(mailbox_id, []).append(watcher)

    def unsubscribe(self, mailbox_id: int, watcher: Any) -> None:
        self.watchers.get(mailbox_id, []).remove(watcher)

    def tell(self, mailbox_id: int) -> None:
        for watcher in list(self.watchers.get(mailbox_id, ())):
            watcher.mailbox_changed(mailbox_id)


class FakeSweep:
    def __init__(self) -> None:
        self.items: set[Any] = set()

    def add(self, item: Any) -> None:
        self.items.add(item)

    def discard(self, item: Any) -> None:
        self.items.discard(item)


def fake_services(loop: asyncio.AbstractEventLoop, *, message_size_limit: int = 1_000_000) -> Any:
    """Services with a store in memory; one account `user@example.test`, password `secret`, with INBOX and Sent."""
    log = Log(level="error")
    store = FakeStore()
    services = SimpleNamespace(
        config=SimpleNamespace(message_size_limit=message_size_limit, imap_idle_notify_interval=120.0),
        store=store,
        authenticator=FakeAuthenticator(),
        contexts=SimpleNamespace(server_context=lambda: None),
        limits=local_limits(),
        notifier=FakeNotifier(),
        cells=local_cells(),
        log=log,
        clock=ManualClock(),
        loop=loop,
        tasks=Tasks(log),
        sweep=FakeSweep(),
        turns=Turns(loop),
        storage_ok=lambda: True,
    )
    store.observer = services.notifier.tell
    services.authenticator.accounts["user@example.test"] = (
        "secret",
        SimpleNamespace(id=1, address="user@example.test", inbox_id=1),
    )
    return services
