"""CONDSTORE and QRESYNC (RFC 7162): clients that go and come back end with what the mailbox has."""

import random
import re
import struct
from array import array
from typing import Any

import pytest

from fastmta import _imap
from fastmta._store import TABLE_CHANGE, TABLE_MAILBOX
from fastmta.model.flags import NAMES
from tests.imap.harness import Client, World

FLAGS = [b"\\Seen", b"\\Answered", b"\\Flagged", b"\\Draft", b"$Label", b"Work"]
_FETCH = re.compile(rb"\* (\d+) FETCH \((.*)\)", re.DOTALL)


def numbers(raw: bytes) -> list[int]:
    out: list[int] = []
    for part in raw.split(b","):
        low, _, high = part.partition(b":")
        out.extend(range(int(low), int(high or low) + 1))
    return out


class Copy:
    """A client's copy of INBOX, kept over its connections: uid -> flags, and the modseq up to which it is true."""

    def __init__(self, world: World, qresync: bool) -> None:
        self.world = world
        self.qresync = qresync
        self.client: Client | None = None
        self.cache: dict[int, frozenset[bytes]] = {}
        self.modseq = 0
        self.validity = 0
        self.uids: list[int] = []  # by sequence number; 0: not known yet
        self.heard = 0

    def hear(self, lines: list[bytes]) -> None:
        for line in lines:
            code = re.search(rb"\[HIGHESTMODSEQ (\d+)\]", line)
            if code:
                self.heard = max(self.heard, int(code[1]))
            code = re.search(rb"\[UIDVALIDITY (\d+)\]", line)
            if code:
                self.validity = int(code[1])
            if line.startswith(b"* VANISHED (EARLIER) "):
                for uid in numbers(line[21:]):
                    assert uid not in self.uids, "an earlier one has no number"
                    self.cache.pop(uid, None)
            elif line.startswith(b"* VANISHED "):
                assert self.qresync
                for uid in numbers(line[11:]):
                    assert uid in self.uids or 0 in self.uids, f"{uid} vanished and was not there"
                    below = max((n + 1 for n, known in enumerate(self.uids) if 0 < known < uid), default=0)
                    # One that came and went before it was asked for stands behind those that are below it.
                    self.uids.pop(self.uids.index(uid) if uid in self.uids else self.uids.index(0, below))
                    self.cache.pop(uid, None)
            elif line.endswith(b" EXPUNGE") and line.startswith(b"* "):
                assert not self.qresync, "EXPUNGE after ENABLE QRESYNC"
                self.cache.pop(self.uids.pop(int(line.split()[1]) - 1), None)
            elif line.endswith(b" EXISTS"):
                self.uids += [0] * (int(line.split()[1]) - len(self.uids))
            else:
                self._hear_fetch(line)

    def _hear_fetch(self, line: bytes) -> None:
        match = _FETCH.fullmatch(line)
        if not match:
            return
        seq, text = int(match[1]), match[2]
        uid = re.search(rb"UID (\d+)", text)
        if uid:
            assert self.uids[seq - 1] in (0, int(uid[1]))
            self.uids[seq - 1] = int(uid[1])
        flags = re.search(rb"FLAGS \(([^)]*)\)", text)
        if flags and self.uids[seq - 1]:
            self.cache[self.uids[seq - 1]] = frozenset(flags[1].split()) - {b"\\Recent"}
        modseq = re.search(rb"MODSEQ \((\d+)\)", text)
        if modseq:
            self.heard = max(self.heard, int(modseq[1]))

    async def do(self, command: str) -> None:
        """A command that tells everything at its end, and a look at what has arrived."""
        assert self.client is not None
        self.hear(await self.client.do(command))
        while 0 in self.uids:
            first = self.uids.index(0) + 1
            self.hear(await self.client.do(f"FETCH {first}:* (UID FLAGS MODSEQ)"))
            self.hear(await self.client.do("NOOP"))
        self.modseq = max(self.modseq, self.heard)

    async def connect(self) -> None:
        self.client = await self.world.login()
        self.uids, self.heard = [], 0
        if not self.qresync:
            await self.do("SELECT INBOX (CONDSTORE)" if not self.modseq else "SELECT INBOX")
            self.cache = {uid: flags for uid, flags in self.cache.items() if uid in self.uids}
            return
        await self.client.ok("ENABLE QRESYNC")
        known = ""
        if self.cache and self.world.random.random() < 0.5:
            uids = sorted(self.cache)
            known = f" {_imap.uid_set(array('I', uids)).decode()}"
            if self.world.random.random() < 0.5:
                seqs = array("I", range(1, len(uids) + 1))
                known += f" ({_imap.uid_set(seqs).decode()}{known})"
        if not self.modseq:
            await self.do("SELECT INBOX")
        else:
            self.hear(await self.client.do(f"SELECT INBOX (QRESYNC ({self.validity} {self.modseq}{known}))"))
            await self.do("NOOP")

    async def leave(self) -> None:
        assert self.client is not None
        self.client.transport.close()
        await self.client.settle()
        self.client = None


async def change(world: World, writer: Client, rng: random.Random) -> None:
    uids = list(world.store.mailboxes.uids(world.inbox))
    some = _imap.uid_set(array("I", sorted(rng.sample(uids, min(len(uids), rng.randint(1, 4)))))).decode() or "1"
    choice = rng.random()
    if choice < 0.3 or not uids:
        await writer.append(b"Subject: x\r\n\r\n")
    elif choice < 0.7:
        sign = rng.choice(["+", "-", ""])
        flag = rng.choice(FLAGS).decode()
        condition = rng.choice(["", "", f"(UNCHANGEDSINCE {rng.randint(0, 200)}) "])
        await writer.do(f"UID STORE {some} {condition}{sign}FLAGS{rng.choice(['', '.SILENT'])} ({flag})")
    elif choice < 0.85:
        await writer.do(f"UID STORE {some} +FLAGS.SILENT (\\Deleted)")
        await writer.do(rng.choice(["EXPUNGE", f"UID EXPUNGE {some}"]))
    elif choice < 0.93:
        await writer.do(f"UID MOVE {some} Sent")
    else:
        await writer.do(f"UID COPY {some} INBOX")
    if rng.random() < 0.5:
        await writer.do("NOOP")


@pytest.mark.parametrize("seed", range(6))
async def test_clients_that_come_back_end_equal_to_the_mailbox(world: World, seed: int) -> None:
    rng: Any = random.Random(seed)
    world.random = rng
    writers = [await world.login("INBOX"), await world.login("INBOX")]
    copies = [Copy(world, True), Copy(world, True), Copy(world, False)]
    for _ in range(250):
        if rng.random() < 0.6:
            await change(world, rng.choice(writers), rng)
            if rng.random() < 0.05:
                await forget_expunged(world)
            continue
        copy = rng.choice(copies)
        if copy.client is None:
            await copy.connect()
        elif rng.random() < 0.3:
            await copy.leave()
        elif rng.random() < 0.5:
            await copy.do("NOOP")
        elif copy.uids:
            # Own changes, and a command by number, after which nothing is safe to be counted on.
            seq = rng.randint(1, len(copy.uids))
            command = rng.choice(["+FLAGS (\\Seen)", "-FLAGS.SILENT (\\Seen)", "+FLAGS.SILENT (Work)"])
            before = set(copy.cache.get(copy.uids[seq - 1], ()))
            lines = await copy.client.do(f"STORE {seq} {command}")
            uid = copy.uids[seq - 1]
            if ".SILENT" in command and lines[-1].startswith(b"OK") and uid in copy.cache:
                flag = command.split("(")[1][:-1].encode()
                copy.cache[uid] = frozenset(before | {flag} if command[0] == "+" else before - {flag})
            copy.hear(lines)
    for copy in copies:
        if copy.client is None:
            await copy.connect()
        await copy.do("NOOP")
        rows = world.store.mailboxes.rows(world.inbox)
        want = {
            row.uid: {name.encode() for bit, name in NAMES.items() if row.flags & bit} | {*row.keywords.split()}
            for row in rows
        }
        if not copy.qresync:
            assert set(copy.cache) == set(want)
        else:
            assert copy.cache == want
            assert copy.uids == list(want)


def test_absent_gives_the_uids_between_those_that_are_there() -> None:
    rng = random.Random(1)
    for _ in range(300):
        uids = sorted(rng.sample(range(1, 60), rng.randint(0, 40)))
        view = _imap.UidMap()
        view.extend(array("I", uids))
        low, high = sorted(rng.sample(range(1, 80), 2))
        below = rng.randint(0, 70)
        pairs = view.absent(array("I", (low, high)), below)
        text = _imap.pair_set(pairs)
        want = [uid for uid in range(low, high + 1) if uid < below and uid not in uids]
        assert (numbers(text) if text else []) == want
    view = _imap.UidMap()
    view.extend(array("I", (2**32 - 1,)))
    assert view.absent(array("I", (1, 2**32 - 1)), 2**32 - 1) == array("I", (1, 2**32 - 2))


async def forget_expunged(world: World) -> None:
    """As the store does when there are over 20,000 records of expunged messages."""
    store = world.store
    unit = store.new_unit()
    mailbox = store.mailboxes.by_id(world.inbox)
    key = world.inbox.to_bytes(8, "big")
    for row, _ in store.raw.scan(TABLE_CHANGE, key + b"\1", b"", 100_000):
        unit.delete(TABLE_CHANGE, row)
    record = bytearray(store.raw.get(TABLE_MAILBOX, key))
    struct.pack_into("<I", record, 32, 0)  # expunged_rows
    struct.pack_into("<Q", record, 48, mailbox.highest_modseq)  # floor_modseq
    unit.put(TABLE_MAILBOX, key, bytes(record))
    await store.commit(unit)
    assert store.mailboxes.by_id(world.inbox).floor_modseq == mailbox.highest_modseq


async def test_expunges_that_are_forgotten_are_told_by_what_is_not_there(world: World) -> None:
    client = await world.login("INBOX")
    for _ in range(6):
        await client.append(b"x")
    await client.ok("UID STORE 2,4:5 +FLAGS.SILENT (\\Deleted)")
    await client.ok("EXPUNGE")
    await forget_expunged(world)
    other = await world.login()
    await other.ok("ENABLE QRESYNC")
    validity = world.store.mailboxes.by_id(world.inbox).uid_validity
    lines = await other.ok(f"SELECT INBOX (QRESYNC ({validity} 2))")
    assert b"* VANISHED (EARLIER) 2,4:5" in lines
    # Pairs that the client knew of spare what lies before the last that is still true.
    lines = await other.ok(f"SELECT INBOX (QRESYNC ({validity} 2 1:6 (1,2,3 1,3,4)))")
    assert b"* VANISHED (EARLIER) 4:5" in lines
    lines = await other.ok("UID FETCH 1:3 FLAGS (CHANGEDSINCE 2 VANISHED)")
    assert lines[0] == b"* VANISHED (EARLIER) 2"


@pytest.mark.parametrize("store_kind", ["memory"])
async def test_a_resync_of_a_large_mailbox_tells_only_what_has_changed(world: World) -> None:
    client = await world.login("INBOX")
    await client.append(b"x")
    for _ in range(14):
        await client.ok("UID COPY 1:* INBOX")
    uids = world.store.mailboxes.uids(world.store.mailboxes.get(world.account_id, "INBOX").id)
    assert len(uids) == 16384
    modseq = int((await client.ok("STATUS INBOX (HIGHESTMODSEQ)"))[-1].split(b"HIGHESTMODSEQ ")[1][:-1])
    await client.ok("NOOP")
    await client.ok("STORE 5,7000,16000 +FLAGS.SILENT (\\Flagged)")
    await client.ok("STORE 1,100:110 +FLAGS.SILENT (\\Deleted)")
    await client.ok("EXPUNGE")
    lines = await client.ok(f"UID FETCH 1:* FLAGS (CHANGEDSINCE {modseq})")
    assert len(lines) == 3
    everything = await client.ok("UID FETCH 1:* UID (CHANGEDSINCE 1)")
    assert len(everything) == 16384 - 12
    mask = await client.ok(f"SEARCH MODSEQ {modseq + 1}")
    assert mask[0].startswith(b"* SEARCH 4 6988 15988 (MODSEQ ")


@pytest.mark.parametrize("cut", [1, 3, 7])
async def test_conditional_commands_may_come_in_any_pieces(world: World, cut: int) -> None:
    client = await world.login("INBOX")
    await client.append(b"x")
    await client.ok("NOOP")
    raw = b"z1 ENABLE QRESYNC\r\nz2 STORE 1 (UNCHANGEDSINCE 1) +FLAGS (\\Seen)\r\n"
    raw += b"z3 UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)\r\n"
    out = b""
    for begin in range(0, len(raw), cut):
        out += await client.send(raw[begin : begin + cut])
    assert b"* ENABLED QRESYNC\r\n" in out
    assert b"z2 OK [MODIFIED 1] " in out
    assert b"* 1 FETCH (UID 1 FLAGS (\\Recent) MODSEQ (2))\r\nz3 OK" in out
