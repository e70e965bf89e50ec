"""The store against a dict: random operations, with a reopening and a kill as rules, equal after every step."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from array import array
from itertools import compress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastmta._store import Store
from fastmta.queue.moves import LEGAL
from fastmta.store import MailStore
from fastmta.store.check import check_store
from tests.store.composing import HOP, NOW_MS, append, blob_of, envelope, new_mailbox, run, tail, uids

BOXES = st.integers(0, 1)
FLAGS = st.integers(0, 31)
SIZES = st.sampled_from([0, 10, 4500, 70_000, 300_000])
UIDS = st.lists(st.integers(1, 8), max_size=4, unique=True)
QUOTA = 900_000

KILLED_WRITER = """
import os, signal, sys
from fastmta._store import Store
from tests.store.composing import append, blob_of
store = Store(sys.argv[1], sync=False)
blob = blob_of(store, b"z" * 600_000)
unit = store.new_unit()
append(unit, int(sys.argv[2]), blob.blob_id)
store.commit_sync(store.new_unit())
os.kill(os.getpid(), signal.SIGKILL)
"""


class StoreMachine(RuleBasedStateMachine):
    """Two mailboxes of one account with a quota, and a queue."""

    engine: str | None = None  # the one that the environment names

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fastmta-model-"))
        self.open()
        self.boxes = [new_mailbox(self.store, 1, name) for name in (b"INBOX", b"Other")]
        unit = self.store.new_unit()
        unit.quota(1, QUOTA)
        assert run(self.store, unit) == ""
        self.messages: list[dict[int, list[Any]]] = [{}, {}]  # uid -> [bytes, flags, keywords]
        self.next_uid = [1, 1]
        self.modseq = [1, 1]
        self.account_modseq = 1
        self.marks: list[tuple[int, list[dict[int, tuple[bytes, int, bytes]]]]] = []
        self.recipients: dict[tuple[int, int], list[int]] = {}  # (queue id, n) -> [state, due]
        self.bodies: dict[int, bytes] = {}

    def next_modseq(self) -> int:
        self.account_modseq += 1
        return self.account_modseq

    def open(self) -> None:
        self.store = Store(str(self.folder / "store"), sync=False, trash_delay_ms=0, engine=self.engine)
        self.mail = MailStore(self.store)

    def used(self) -> int:
        return sum(len(message[0]) for box in self.messages for message in box.values())

    @rule(
        box=BOXES,
        size=SIZES,
        flags=FLAGS,
        keywords=st.sampled_from([b"", b"a", b"b c"]),
        head=st.sampled_from([b"", b"A: b\r\n", b"Long: " + b"c" * 2500 + b"\r\n"]),
        cuts=st.lists(st.tuples(st.integers(0, 9000), st.integers(1, 5000)), max_size=3),
    )
    def append(
        self, box: int, size: int, flags: int, keywords: bytes, head: bytes, cuts: list[tuple[int, int]]
    ) -> None:
        data = (os.urandom(16) * (size // 16 + 1))[:size]
        blob = blob_of(self.store, data)
        blob.head = head
        hidden = set()
        for start, length in cuts:
            if start + length <= size:
                blob.cut(start, start + length)
                hidden.update(range(start, start + length))
        if hidden:
            data = bytes(octet for at, octet in enumerate(data) if at not in hidden)
        data = head + data
        size = len(data)
        unit = self.store.new_unit()
        unit.blob(blob)
        append(unit, self.boxes[box], blob.blob_id, flags=flags, keywords=keywords)
        expected = "quota" if size and self.used() + size > QUOTA else ""
        assert run(self.store, unit) == expected
        if not expected:
            self.modseq[box] = self.next_modseq()
            assert unit.results[0][1:] == (self.next_uid[box], self.modseq[box])
            self.messages[box][self.next_uid[box]] = [data[:size], flags, keywords]
            self.next_uid[box] += 1

    @rule(box=BOXES, which=UIDS, mode=st.integers(0, 2), flags=FLAGS, keyword=st.sampled_from([b"", b"a", b"d"]))
    def set_flags(self, box: int, which: list[int], mode: int, flags: int, keyword: bytes) -> None:
        unit = self.store.new_unit()
        unit.flags(self.boxes[box], uids(*which), mode, flags, keyword, -1)
        assert run(self.store, unit) == ""
        changed = False
        for uid in which:
            if uid not in self.messages[box]:
                continue
            message = self.messages[box][uid]
            words, given = set(message[2].split()), set(keyword.split())
            if mode == 0:
                after = [flags, given]
            elif mode == 1:
                after = [message[1] | flags, words | given]
            else:
                after = [message[1] & ~flags, words - given]
            wanted = [after[0], b" ".join(sorted(after[1]))]  # type: ignore[type-var]
            changed = changed or message[1:] != wanted
            message[1:] = wanted
        if changed:
            self.modseq[box] = self.next_modseq()

    @rule(box=BOXES, which=st.none() | UIDS, only_deleted=st.booleans(), retained=st.sampled_from([0, 9000, 1 << 30]))
    def expunge(self, box: int, which: list[int] | None, only_deleted: bool, retained: int = 0) -> None:
        unit = self.store.new_unit()
        unit.expunge(self.boxes[box], None if which is None else uids(*which), only_deleted, False, retained)
        assert run(self.store, unit) == ""
        gone = [
            uid
            for uid in (sorted(self.messages[box]) if which is None else which)
            if uid in self.messages[box] and (not only_deleted or self.messages[box][uid][1] & 8)
        ]
        assert unit.results == [uids(*gone)]
        for uid in gone:
            del self.messages[box][uid]
        if gone:
            self.modseq[box] = self.next_modseq()

    @rule(source=BOXES, into=BOXES, which=UIDS, moving=st.booleans())
    def copy(self, source: int, into: int, which: list[int], moving: bool) -> None:
        found = [uid for uid in which if uid in self.messages[source]]
        size = sum(len(self.messages[source][uid][0]) for uid in found)
        unit = self.store.new_unit()
        unit.copy(self.boxes[source], uids(*which), self.boxes[into], moving)
        refused = bool(not moving and size and self.used() + size > QUOTA)
        assert run(self.store, unit) == ("quota" if refused else "")
        if refused or not found:
            return
        self.modseq[into] = self.next_modseq()
        if moving and source != into:
            self.modseq[source] = self.next_modseq()
        for uid in found:
            message = self.messages[source].pop(uid) if moving else list(self.messages[source][uid])
            self.messages[into][self.next_uid[into]] = message
            self.next_uid[into] += 1

    @rule(states=st.lists(st.integers(1, 3), min_size=1, max_size=3), size=SIZES, lane=st.integers(0, 2))
    def enqueue(self, states: list[int], size: int, lane: int) -> None:
        blob, queue_id = blob_of(self.store, b"q" * size), self.store.new_id()
        unit = self.store.new_unit()
        unit.blob(blob)
        unit.enqueue(queue_id, blob.blob_id, envelope(tenant="Sender" if lane else ""))
        for n, state in enumerate(states):
            unit.recipient(queue_id, n, HOP, lane, state, NOW_MS + n, tail())
            self.recipients[queue_id, n] = [state, NOW_MS + n]
        self.bodies[queue_id] = b"q" * size
        assert run(self.store, unit) == ""

    @rule(pick=st.integers(0, 50), after=st.integers(1, 5), due=st.integers(0, 1000))
    def move(self, pick: int, after: int, due: int) -> None:
        if not self.recipients:
            return
        queue_id, n = sorted(self.recipients)[pick % len(self.recipients)]
        state = self.recipients[queue_id, n][0]
        legal = (state, after) in {(int(a), int(b)) for a, b in LEGAL}
        unit = self.store.new_unit()
        unit.move_recipient(queue_id, n, 0, after, 1, NOW_MS + due, b"r")
        assert run(self.store, unit) == ("" if legal else "state")
        if legal and after >= 4:
            del self.recipients[queue_id, n]
        elif legal:
            self.recipients[queue_id, n] = [after, NOW_MS + due]

    @rule(before=st.integers(0, 31), after=st.integers(1, 5), due=st.integers(0, 1000), few=st.booleans())
    def move_each(self, before: int, after: int, due: int, few: bool) -> None:
        places = sorted(self.recipients)[:: 3 if few else 1]
        unit = self.store.new_unit()
        keys = b"".join(queue_id.to_bytes(8, "big") + n.to_bytes(4, "big") for queue_id, n in places)
        unit.move_each(keys, before, NOW_MS + due, after)
        assert run(self.store, unit) == ""
        table = {(int(a), int(b)) for a, b in LEGAL}
        states = [self.recipients[place][0] for place in places]
        moves = [bool(before >> state & 1) and (state, after) in table for state in states]
        assert unit.results == [bytes(moves)]
        for place in compress(places, moves):
            if after >= 4:
                del self.recipients[place]
            else:
                self.recipients[place] = [after, NOW_MS + due]

    @rule(box=BOXES)
    def a_failing_unit_changes_nothing(self, box: int) -> None:
        blob = blob_of(self.store, b"w" * 5000)
        unit = self.store.new_unit()
        unit.blob(blob)
        append(unit, self.boxes[box], blob.blob_id)
        unit.fail_at(3)
        assert run(self.store, unit) in ("full", "quota")

    @rule()
    def reap(self) -> None:
        self.store.reap()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.open()

    @precondition(lambda self: not self.store.in_memory)
    @rule(box=BOXES)
    def another_process_is_killed(self, box: int) -> None:
        arguments = [str(self.folder / "store"), str(self.boxes[box])]
        done = subprocess.run(
            [sys.executable, "-c", KILLED_WRITER, *arguments], cwd=Path(__file__).parents[2], check=False
        )
        assert done.returncode == -signal.SIGKILL

    @invariant()
    def equal(self) -> None:
        if not hasattr(self, "store"):
            return
        for box, mailbox_id in enumerate(self.boxes):
            expected = self.messages[box]
            rows = self.mail.mailboxes.rows(mailbox_id)
            assert {row.uid: [row.flags, row.keywords] for row in rows} == {uid: m[1:] for uid, m in expected.items()}
            assert self.mail.mailboxes.uids(mailbox_id) == array("I", sorted(expected))
            assert self.mail.mailboxes.modseq(mailbox_id) == self.modseq[box]
            for uid, message in expected.items():
                assert self.mail.mailboxes.read(mailbox_id, uid, 0, 10**6) == message[0]
        self.told_of_the_account()
        assert self.mail.accounts.usage(1) == (self.used(), sum(map(len, self.messages)))
        states = [state for state, _ in self.recipients.values()]
        assert list(self.mail.queue.counts().values()) == [states.count(state) for state in (1, 2, 3)]
        due = {(row[0], row[2], row[3]) for row in self.mail.queue.due(HOP, NOW_MS * 2, 1000)}
        assert due == {(at, *key) for key, (state, at) in self.recipients.items() if state != 3}
        for queue_id, n in self.recipients:
            message = self.mail.queue.message(queue_id)
            assert message is not None
            assert self.mail.queue.read(message.blob_id, 0, 10**6) == self.bodies[queue_id]
            assert self.mail.queue.recipient(queue_id, n) is not None
        assert check_store(self.store).problems == []

    def told_of_the_account(self) -> None:
        """Whoever knew an account's state at one of the last moments hears of all that has changed since."""
        changes, mailboxes = self.mail.account_changes, self.mail.mailboxes
        assert changes.modseq(1) == self.account_modseq
        now = []
        for mailbox_id in self.boxes:
            rows = mailboxes.rows(mailbox_id)
            ids = mailboxes.email_ids(mailbox_id, array("I", [row.uid for row in rows]))
            now.append({row.uid: (name, row.flags, row.keywords) for row, name in zip(rows, ids, strict=True)})
        for since, then in self.marks:
            found, after = changes.mailboxes(1, since)
            assert after == b""
            assert set(found) == {each for each, at in zip(self.boxes, self.modseq, strict=True) if at > since}
            for mailbox_id, before, present in zip(self.boxes, then, now, strict=True):
                told = set(mailboxes.changed_uids(mailbox_id, since, 10_000)[0])
                assert told >= {uid for uid, row in present.items() if before.get(uid) != row}
                assert told <= present.keys()
                gone = {each.uid: each.email_id for each in changes.expunged(mailbox_id, since, 10_000)[0]}
                missed = {uid: row[0] for uid, row in before.items() if uid not in present}
                assert gone.items() >= missed.items()
                assert not gone.keys() & present.keys()
        self.marks = [*self.marks[-3:], (self.account_modseq, now)]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)


class MemoryMachine(StoreMachine):
    """The same over records in memory."""

    engine = "memory"


SETTINGS = settings(
    max_examples=int(os.environ.get("FASTMTA_MODEL_EXAMPLES", "50")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
TestStoreModel = StoreMachine.TestCase
TestStoreModel.settings = SETTINGS
TestMemoryModel = MemoryMachine.TestCase
TestMemoryModel.settings = SETTINGS
