"""Threads (RFC 5256 §3): ORDEREDSUBJECT and REFERENCES, and REFS, which has no merging by subject.

Pure: messages in, lines out. What is long is a generator that yields between its steps, for the caller to pause.
Recursion there is none: a peer's mail chooses how deep a thread is. Messages and the places of those that are not here
are numbers, and what is known of them lies in arrays: an object for each of a hundred thousand would be looked at by
every collection of garbage meanwhile, which no pause can divide, and take 35 MB.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Generator, Iterator, Sequence
from typing import Final

from fastmta.model.limits import IMAP_REFERENCES, IMAP_THREAD_DEPTH, IMAP_THREAD_PLACES

STEP: Final = 256  # numbers looked at before others get their turn
PIECE: Final = 1024  # words of one piece of a response
_ID: Final = re.compile(rb"<([^<>\s]{1,900})>")

Steps = Generator[None, None, None]


def message_ids(raw: bytes | None) -> list[bytes]:
    """The message identifiers of a field, the last ones where there are very many."""
    return _ID.findall(raw)[-IMAP_REFERENCES:] if raw else []


class _Table:
    """Numbers by a name's hash, which Python keys anew in each process: 12 octets a place, half of them free."""

    def __init__(self, most: int) -> None:
        size = 1 << max(4, (2 * most).bit_length())
        self._mask = size - 1
        self._hashes = array("q", [0]) * size
        self._numbers = array("i", [0]) * size

    def place(self, hashed: int) -> int:
        """Where the number of this hash is, or would be."""
        place = hashed & self._mask
        while (known := self._hashes[place]) and known != hashed:
            place = (place + 1) & self._mask
        return place

    def has(self, place: int) -> bool:
        return self._hashes[place] != 0

    def number(self, place: int) -> int:
        return self._numbers[place]

    def put(self, place: int, hashed: int, number: int) -> None:
        self._hashes[place] = hashed
        self._numbers[place] = number


class Forest:
    """Threads: the numbers of their first messages, and of each its first child and who follows it under its parent.

    Numbers from `messages` on are places of messages that are not here; after Threads.link they are roots only.
    """

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.roots = array("i")
        self.first = array("i")
        self.following = array("i")

    def arrange(self, parents: array[int], order: Sequence[int]) -> Steps:
        """Threads, and the children of each, in the order that the messages are given in."""
        first, following = array("i", [-1]) * len(parents), array("i", [-1]) * len(parents)
        last = array("i", [-1]) * len(parents)
        roots = array("i")
        for count, number in enumerate(order):
            parent = parents[number]
            if parent < 0:
                roots.append(number)
            elif first[parent] < 0:
                first[parent] = last[parent] = number
                if parent >= self.messages:  # ordered by its first child
                    roots.append(parent)
            else:
                following[last[parent]] = last[parent] = number
            if count % STEP == 0:
                yield
        self.first, self.following, self.roots = first, following, roots

    def shown(self, root: int) -> int:
        """The message that a thread is ordered and named by: its own, or that of its first child."""
        return root if root < self.messages else self.first[root]

    def latest(self, root: int, dates: Sequence[int]) -> Generator[None, None, int]:
        """The date of a thread's latest message."""
        highest, count, stack = 0, 0, [root]
        while stack:
            number = stack.pop()
            if number < self.messages:
                highest = max(highest, dates[number])
            if number != root and self.following[number] >= 0:
                stack.append(self.following[number])
            if self.first[number] >= 0:
                stack.append(self.first[number])
            count += 1
            if count % STEP == 0:
                yield
        return highest

    def lines(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """The threads of a THREAD response, (1 2 (3)(4 5)), in pieces; a message is told by its place in `numbers`."""
        first, following = self.first, self.following
        out: list[bytes] = []
        for root in self.roots:
            # What is still to be written: a message twice, and 1 more where it begins a branch; or -1, a branch's end.
            stack = [2 * root + 1]
            while stack:
                if len(out) >= PIECE:
                    yield b"".join(out)
                    out.clear()
                task = stack.pop()
                if task < 0:
                    out.append(b")")
                    continue
                number, begins = task >> 1, task & 1
                if begins:
                    out.append(b"(")
                    if following[number] >= 0:
                        stack.append(2 * following[number] + 1)
                    stack.append(-1)
                is_here = number < self.messages
                if is_here:
                    out.append(b"%d" % numbers[number] if begins else b" %d" % numbers[number])
                child = first[number]
                if child < 0:
                    continue
                if not is_here:
                    stack.append(2 * child + 1)
                elif following[child] < 0:
                    stack.append(2 * child)
                else:
                    out.append(b" ")
                    stack.append(2 * child + 1)
        yield b"".join(out)


class Threads:
    """REFERENCES: `add` all messages, then `refer` each in order, then `link`."""

    def __init__(self, messages: int) -> None:
        self.forest = Forest(messages)
        self.dates = array("q", [0]) * messages
        self._messages = messages
        self._names = _Table(messages + min(IMAP_THREAD_PLACES, messages * IMAP_REFERENCES))
        self._parents = array("i", [-1]) * messages  # and of each place, behind them
        self._children = array("i", [0]) * messages  # how many have this parent
        self._replies = array("q", [0]) * messages
        self._subjects = array("q", [0]) * messages
        self._answers = bytearray(messages)  # its subject is that of a reply or a forward

    def add(
        self, at: int, message_id: bytes | None, reply_to: bytes | None, date: int, subject: str, answers: bool
    ) -> None:
        """One message. `reply_to`: what it answers, where it has no references (RFC 5256 §3 step 1)."""
        self.dates[at] = date
        self._subjects[at] = hash(subject) if subject else 0
        self._answers[at] = answers
        if reply_to:
            self._replies[at] = _hashed(reply_to)
        if message_id:
            hashed = _hashed(message_id)
            place = self._names.place(hashed)
            if not self._names.has(place):  # a second one of a name is a message of its own
                self._names.put(place, hashed, at)

    def refer(self, at: int, references: Sequence[bytes]) -> Steps:
        """Finds the parent of a message that was added, by the names that it gives."""
        names = [_hashed(name) for name in references]
        if not names and self._replies[at]:
            names.append(self._replies[at])
        parent = -1
        for hashed in names:
            one = self._number(hashed)
            if one < 0:
                continue
            if parent >= 0 and self._parents[one] < 0 and one != at and not (yield from self._is_above(one, parent)):
                self._put_under(one, parent)
            parent = one
        self._put_under(at, -1)
        if parent >= 0 and not (yield from self._is_above(at, parent)):
            self._put_under(at, parent)

    def _number(self, hashed: int) -> int:
        """Of the message of this name, or of a place for it; -1 where there are too many of these."""
        place = self._names.place(hashed)
        if self._names.has(place):
            return self._names.number(place)
        number = len(self._parents)
        if number - self._messages >= IMAP_THREAD_PLACES:
            return -1
        self._names.put(place, hashed, number)
        self._parents.append(-1)
        self._children.append(0)
        return number

    def _put_under(self, number: int, parent: int) -> None:
        if self._parents[number] >= 0:
            self._children[self._parents[number]] -= 1
        self._parents[number] = parent
        if parent >= 0:
            self._children[parent] += 1

    def _is_above(self, number: int, other: int) -> Generator[None, None, bool]:
        """Whether `other` is `number` or below it. Beyond a depth that no honest thread has, it is taken to be."""
        if number == other:
            return True
        if not self._children[number]:
            return False
        for count in range(1, IMAP_THREAD_DEPTH + 1):
            other = self._parents[other]
            if other < 0:
                return False
            if other == number:
                return True
            if count % STEP == 0:
                yield
        return True

    def link(self, order: Sequence[int], *, by_subject: bool) -> Steps:
        """Steps 2 to 6. `order`: the messages that were added, by date."""
        yield from self._prune(order)
        yield from self.forest.arrange(self._parents, order)
        if by_subject:
            yield from self._merge()
            yield from self.forest.arrange(self._parents, order)

    def _prune(self, order: Sequence[int]) -> Steps:
        """Step 3: places without a message go, their children in their stead, but for a root that has several."""
        parents, messages = self._parents, self._messages
        tops = array("i", [-1]) * (
            len(parents) - messages
        )  # of a place: the message above it, or the root that it is under
        children = array("i", [0]) * len(tops)
        done = 0
        for number in order:
            above = parents[number]
            way: list[int] = []
            while above >= messages and tops[above - messages] < 0:
                way.append(above)
                following = parents[above]
                if following < 0:
                    tops[above - messages] = above
                    break
                above = following
                done += 1
                if done % STEP == 0:
                    yield
            if above >= messages:
                above = tops[above - messages]
            for place in way:
                tops[place - messages] = above
            if above >= messages:
                children[above - messages] += 1
            parents[number] = above
            done += 1
            if done % STEP == 0:
                yield
        for count, number in enumerate(order):
            if parents[number] >= messages and children[parents[number] - messages] == 1:
                parents[number] = -1
            if count % STEP == 0:
                yield

    def _merge(self) -> Steps:
        """Step 5: threads of one subject become one."""
        forest, parents, messages, answers = self.forest, self._parents, self._messages, self._answers
        table = _Table(len(forest.roots))
        for count, root in enumerate(forest.roots):
            subject = self._subjects[forest.shown(root)]
            if subject:
                place = table.place(subject)
                other = table.number(place) if table.has(place) else -1
                if other < 0 or (other < messages and (root >= messages or (answers[other] and not answers[root]))):
                    table.put(place, subject, root)
            if count % STEP == 0:
                yield
        for count, root in enumerate(forest.roots):
            if count % STEP == 0:
                yield
            subject = self._subjects[forest.shown(root)]
            if not subject:
                continue
            place = table.place(subject)
            other = table.number(place)
            if other == root:
                continue
            if other >= messages and root >= messages:
                child = forest.first[root]
                while child >= 0:
                    parents[child] = other
                    child = forest.following[child]
            elif other >= messages or (answers[root] and not answers[other]):
                parents[root] = other
            else:
                both = len(parents)
                parents.append(-1)
                parents[other] = parents[root] = both
                table.put(place, subject, both)


def by_subject(order: Sequence[int], subjects: Sequence[str]) -> Generator[None, None, Forest]:
    """ORDEREDSUBJECT: `order` is by subject, then date. All others of a thread are children of its first."""
    forest = Forest(len(subjects))
    parents = array("i", [-1]) * len(subjects)
    root = -1
    for count, number in enumerate(order):
        if root >= 0 and subjects[root] == subjects[number]:
            parents[number] = root
        else:
            root = number
        if count % STEP == 0:
            yield
    yield from forest.arrange(parents, order)
    return forest


def _hashed(name: bytes) -> int:
    return hash(name) or 1
