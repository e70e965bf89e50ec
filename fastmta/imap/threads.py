"""Threads (RFC 5256 §3): ORDEREDSUBJECT and REFERENCES, and REFS, which has no merging by subject.

Pure: messages in, lines out. What is long is a generator that yields between its steps, for the caller to pause.
Recursion there is none: a peer's mail chooses how deep a thread is.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Generator, Iterator, Sequence
from typing import Final

from fastmta.model.limits import IMAP_REFERENCES, IMAP_THREAD_DEPTH, IMAP_THREAD_PLACES

STEP: Final = 256  # nodes looked at before others get their turn
RUN: Final = 1024  # nodes sorted in one go: about a millisecond
PIECE: Final = 16_384  # words of one piece of a response
_ID: Final = re.compile(rb"<([^<>\s]{1,900})>")


class Node:
    """A message, or a place for one that is not here (`at` is -1)."""

    __slots__ = ("answers", "at", "below", "children", "date", "parent", "subject")

    def __init__(self) -> None:
        self.at = -1  # place among the messages, by which equal dates are ordered
        self.parent: Node | None = None
        self.children: list[Node] = []  # filled when all links are known
        self.below = 0  # how many have this parent, until then
        self.date = 0
        self.subject = ""
        self.answers = False  # its subject is that of a reply or a forward

    @property
    def shown(self) -> Node:
        """The message that a thread is ordered and named by: its own, or that of its first child."""
        node = self
        while node.at < 0 and node.children:
            node = node.children[0]
        return node

    def adopt(self, child: Node) -> None:
        """Takes a root as a child."""
        child.parent = self
        self.children.append(child)

    def put_under(self, parent: Node | None) -> None:
        """Another parent, while links are being found."""
        if self.parent is not None:
            self.parent.below -= 1
        self.parent = parent
        if parent is not None:
            parent.below += 1


def _order(node: Node) -> tuple[int, int]:
    shown = node.shown
    return shown.date, shown.at


def message_ids(raw: bytes | None) -> list[bytes]:
    """The message identifiers of a field, the last ones where there are very many."""
    return _ID.findall(raw)[-IMAP_REFERENCES:] if raw else []


class Threads:
    """REFERENCES: `add` each message in order, then `link` and `lines`."""

    def __init__(self) -> None:
        self._nodes: dict[bytes | int, Node] = {}
        self._places = 0  # nodes of messages that are named and have not come
        self.roots: list[Node] = []

    def add(self, at: int, message_id: bytes | None, references: Sequence[bytes], date: int, subject: str) -> Node:
        """One message; without references those of In-Reply-To are given, at most one (RFC 5256 §3 step 1)."""
        known = self._nodes.get(message_id) if message_id else None
        if known is not None and known.at < 0:
            node = known
            self._places -= 1
        else:  # a second one of a name is a message of its own
            node = self._nodes[message_id if message_id and known is None else at] = Node()
        node.at, node.date, node.subject = at, date, subject
        parent: Node | None = None
        for name in references:
            one = self._nodes.get(name)
            if one is None:
                if self._places >= IMAP_THREAD_PLACES:
                    continue
                self._places += 1
                one = self._nodes[name] = Node()
            if parent is not None and one.parent is None and one is not node and not _is_above(one, parent):
                one.put_under(parent)
            parent = one
        node.put_under(None)
        if parent is not None and not _is_above(node, parent):
            node.put_under(parent)
        return node

    def link(self, *, by_subject: bool) -> Generator[None, None, None]:
        """Steps 2 to 6."""
        top: list[Node] = []
        for count, node in enumerate(self._nodes.values()):
            if node.parent is None:
                top.append(node)
            else:
                node.parent.children.append(node)
            if count % STEP == 0:
                yield
        self._nodes = {}
        self.roots = yield from _pruned(top)
        yield from self._by_date()
        if by_subject:
            yield from self._merge()
            yield from self._by_date()

    def _by_date(self) -> Generator[None, None, None]:
        """Step 6: by date, at every level; children first, since a place without a message has its first child's."""
        order: list[Node] = []
        stack = list(self.roots)
        while stack:
            node = stack.pop()
            if len(node.children) > 1:
                order.append(node)
            stack.extend(node.children)
            if len(stack) % STEP == 0:
                yield
        for count, node in enumerate(reversed(order)):
            node.children = yield from _sorted(node.children)
            if count % STEP == 0:
                yield
        self.roots = yield from _sorted(self.roots)

    def _merge(self) -> Generator[None, None, None]:
        """Step 5: threads of one subject become one."""
        table: dict[str, Node] = {}
        for count, root in enumerate(self.roots):
            subject = root.shown.subject
            if subject:
                other = table.get(subject)
                if (
                    other is None
                    or (root.at < 0 <= other.at)
                    or (other.at >= 0 and other.answers and root.at >= 0 and not root.answers)
                ):
                    table[subject] = root
            if count % STEP == 0:
                yield
        kept: dict[int, Node] = {}
        for count, root in enumerate(self.roots):
            other = table.get(root.shown.subject) if root.shown.subject else None
            if other is None or other is root:
                kept[id(root)] = root
            elif other.at < 0 and root.at < 0:
                for child in list(root.children):
                    child.parent = other
                other.children.extend(root.children)
                root.children = []
            elif other.at < 0 or (root.answers and not other.answers):
                other.adopt(root)
            else:
                subject = root.shown.subject
                both = Node()
                kept.pop(id(other), None)
                both.adopt(other)
                both.adopt(root)
                table[subject] = kept[id(both)] = both
            if count % STEP == 0:
                yield
        self.roots = [root for root in kept.values() if root.parent is None and (root.at >= 0 or root.children)]


def _is_above(node: Node, other: Node) -> bool:
    """Whether `other` is `node` or below it. Beyond a depth that no honest thread has, it is taken to be."""
    if node is other:
        return True
    if not node.below:
        return False
    for _ in range(IMAP_THREAD_DEPTH):
        if other.parent is None:
            return False
        other = other.parent
        if other is node:
            return True
    return True


def _pruned(top: list[Node]) -> Generator[None, None, list[Node]]:
    """Step 3: places without a message go, their children in their stead."""
    order: list[Node] = []
    stack = list(top)
    while stack:
        node = stack.pop()
        order.append(node)
        stack.extend(node.children)
        if len(order) % STEP == 0:
            yield
    done = 0
    for node in reversed(order):  # children before their parents
        children: list[Node] = []
        for child in node.children:
            if child.at >= 0:
                children.append(child)
            else:  # the shorter list is added to the longer, so a long way of places costs no more than its length
                fewer, children = sorted((children, child.children), key=len)
                children.extend(fewer)
            done += 1
            if done % STEP == 0:
                yield
        node.children = children
    out: list[Node] = []
    for node in top:
        if node.at < 0 and len(node.children) == 1:
            node.children[0].parent = None
            out.append(node.children[0])
        elif node.at >= 0 or node.children:
            out.append(node)
    return out


def _sorted(nodes: list[Node]) -> Generator[None, None, list[Node]]:
    """By date, equal ones by their place; many in runs, which are merged."""
    if len(nodes) <= RUN:
        return sorted(nodes, key=_order)
    runs: list[list[Node]] = []
    for begin in range(0, len(nodes), RUN):
        runs.append(sorted(nodes[begin : begin + RUN], key=_order))
        yield
    out: list[Node] = []
    for node in heapq.merge(*runs, key=_order):
        out.append(node)
        if len(out) % STEP == 0:
            yield
    return out


def by_subject(
    order: Sequence[int], subjects: Sequence[str], dates: Sequence[int]
) -> Generator[None, None, list[Node]]:
    """ORDEREDSUBJECT: `order` is by subject, then date. All others of a thread are children of its first."""
    roots: list[Node] = []
    for count, at in enumerate(order):
        node = Node()
        node.at, node.date, node.subject = at, dates[at], subjects[at]
        if roots and roots[-1].subject == node.subject:
            roots[-1].children.append(node)
        else:
            roots.append(node)
        if count % STEP == 0:
            yield
    return roots


def latest(root: Node) -> Generator[None, None, int]:
    """The date of a thread's latest message."""
    highest, stack, count = 0, [root], 0
    while stack:
        node = stack.pop()
        highest = max(highest, node.date)
        stack.extend(node.children)
        count += 1
        if count % STEP == 0:
            yield
    return highest


def lines(roots: Sequence[Node], numbers: Sequence[int]) -> Iterator[bytes]:
    """The threads of a THREAD response, (1 2 (3)(4 5)), in pieces: a thread each, and several of a long one."""
    for root in roots:
        out: list[bytes] = []
        # What is still to be written: a node with whether it begins a branch, or a branch's end.
        stack: list[tuple[Node, bool] | None] = [(root, True)]
        while stack:
            if len(out) >= PIECE:
                yield b"".join(out)
                out.clear()
            task = stack.pop()
            if task is None:
                out.append(b")")
                continue
            node, begins = task
            if begins:
                out.append(b"(")
                stack.append(None)
            if node.at >= 0:
                out.append(b"%d" % numbers[node.at] if begins else b" %d" % numbers[node.at])
            if len(node.children) == 1:
                stack.append((node.children[0], node.at < 0))
            elif node.children:
                if node.at >= 0:
                    out.append(b" ")
                stack.extend((child, True) for child in reversed(node.children))
        yield b"".join(out)
