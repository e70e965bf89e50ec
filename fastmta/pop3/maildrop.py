"""Messages of the store as POP3 shows them: octet counts as sent, and bodies in stuffed blocks.

A message goes out as it is stored, prefix in front, with a CRLF added where its last line has none (RFC 1939 §3 ends
every line so), and that CRLF counts in its size. Which messages those are is looked up once for each and remembered,
since a message never changes. Lines are stuffed after every LF, so a bare one can't fake the final ".".

Invariants: every block is a copy, so a slow reader can't be given another message's bytes; a message that is expunged
while it is being sent is sent to its end, but where its bytes go too, `MessageGone` is raised, and the connection must
end without the final ".".
"""

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Iterator
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, TypeVar

from fastmta import _mime
from fastmta._parser import stuff
from fastmta.model import rights
from fastmta.model.actor import Actor
from fastmta.model.errors import Cold, Refused
from fastmta.model.limits import COLD_ROUNDS, MAILBOX_PAGE, POP3_BLOCK_BYTES, POP3_ENDS_CHECKED, POP3_ENDS_REMEMBERED
from fastmta.pop3.seams import MailStore
from fastmta.pop3.session import Maildrop

if TYPE_CHECKING:
    from fastmta.store.mailboxes import MessageRow

_END = b"\r\n"
T = TypeVar("T")
Opening = Iterator[Maildrop | Cold | None]


class MessageGone(Exception):
    """Another session expunged the message and its bytes are no longer there."""


class _Ends:
    """What is known of a mailbox's message ends."""

    __slots__ = ("checked", "open", "uid_validity")

    def __init__(self, uid_validity: int) -> None:
        self.uid_validity = uid_validity
        self.checked = 0  # the highest uid looked at
        self.open = array("I")  # uids without a final CRLF, ascending


class MaildropReader:
    """Opens maildrops for the sessions of one process."""

    def __init__(self, store: MailStore) -> None:
        self._access = store.access
        self._mailboxes = store.mailboxes
        self._ends: OrderedDict[int, _Ends] = OrderedDict()

    async def bring(self, cold: Cold) -> None:
        """Returns when what `open` has met is in memory."""
        await self._mailboxes.bring(cold)

    def open(self, actor: Actor, hidden: bytes = b"") -> Opening:
        """Yields None while there is more to look at, so that a big new INBOX opens in turns, and Cold for what is to
        be brought to memory before; then the maildrop, without the messages of keyword `hidden`, which DELE gives
        instead of removing.

        Yields nothing where the mailbox is gone.
        """
        try:
            mailbox = yield from self._hot(lambda: self._access.resolve(actor, "INBOX", rights.READ))
        except Refused:
            return
        mailbox_id = mailbox.id
        uids, flags, sizes, shown, last = array("I"), array("I"), array("Q"), bytearray(), 0
        cold_rounds = 0
        while last < mailbox.uid_next - 1:
            try:
                page = self._mailboxes.summary(mailbox_id, last, MAILBOX_PAGE, cold_rounds < COLD_ROUNDS)
            except Cold as cold:
                cold_rounds += 1
                yield cold
                continue
            if not page[0]:
                break
            cold_rounds, last = 0, page[0][-1]
            uids.extend(page[0])
            flags.extend(page[1])
            sizes.extend(array("Q", page[3]))
            if hidden:
                shown += self._shown(mailbox_id, page[0], page[4], hidden)
            if len(page[0]) == MAILBOX_PAGE:
                yield None
        ends = self._ends.pop(mailbox_id, None)
        if ends is None or ends.uid_validity != mailbox.uid_validity:
            ends = _Ends(mailbox.uid_validity)
        found = array("I")
        for index in range(len(uids) - 1, -1, -1):
            if uids[index] <= ends.checked:
                break
            end = partial(self._end, mailbox_id, uids[index], sizes[index])
            if (yield from self._hot(end)) not in (_END, None):
                found.append(uids[index])
            if (len(uids) - index) % POP3_ENDS_CHECKED == 0:
                yield None
        if len(uids):
            ends.checked = max(ends.checked, uids[-1])
        found.reverse()
        found = ends.open + found
        ends.open = array("I")
        for n, uid in enumerate(found, 1):
            index = bisect_left(uids, uid)
            if index < len(uids) and uids[index] == uid:
                ends.open.append(uid)
                sizes[index] += len(_END)
            if n % MAILBOX_PAGE == 0:
                yield None
        self._ends[mailbox_id] = ends
        if len(self._ends) > POP3_ENDS_REMEMBERED:
            self._ends.popitem(last=False)
        if 0 in shown:  # at last, since what is known of ends is of all messages: a keyword may be taken away
            uids, flags, sizes = (array(each.typecode, compress(each, shown)) for each in (uids, flags, sizes))
        named = partial(self._mailboxes.uidl, mailbox_id) if self._mailboxes.uidls(mailbox_id, 0, 1) else None
        yield Maildrop(mailbox_id, mailbox.uid_validity, uids, sizes, flags, hidden, named)

    def _shown(self, mailbox_id: int, uids: "array[int]", used: set[bytes], hidden: bytes) -> bytes:
        """An octet for each message of a page: 0 for those that have the keyword, in any case of letters."""
        hidden = hidden.lower()
        if hidden not in {word.lower() for word in used}:
            return b"\1" * len(uids)
        rows = self._mailboxes.flags_of(mailbox_id, uids)
        found = {uid for uid, _, words in rows if hidden in words.lower().split()}
        return bytes(uid not in found for uid in uids)

    def _end(self, mailbox_id: int, uid: int, size: int) -> bytes | None:
        """The last two octets of a message; those of an empty one are as good as a line's end."""
        return self._mailboxes.read(mailbox_id, uid, max(0, size - 2), 2) if size else _END

    def _hot(self, read: Callable[[], T]) -> Generator[Cold, None, T]:
        """What is read, when all of it is in memory."""
        for _ in range(COLD_ROUNDS):
            try:
                return self._mailboxes.hot(read)
            except Cold as cold:
                yield cold
        return read()

    def blocks(self, drop: Maildrop, index: int, body_lines: int | None) -> "Iterator[bytes | Awaitable[None]]":
        """The whole response to RETR, or to TOP with a number of body lines, in blocks. What comes between them is to
        be awaited: the next one is not in memory. MessageGone, StorageFailure.
        """
        uid = drop.uids[index]
        rows = self._mailboxes.rows(drop.mailbox_id, array("I", (uid,)))
        if not rows:
            raise MessageGone
        size = rows[0].size
        whole = size
        if body_lines is not None:
            structure = self._mailboxes.structure(drop.mailbox_id, uid)
            text = None if structure is None else _mime.find_part(structure, "TEXT", len(rows[0].prefix))
            if text is None:
                raise MessageGone
            whole = min(text[0], size)
        status = b"+OK\r\n" if body_lines is not None else b"+OK %d octets\r\n" % drop.sizes[index]
        return self._stuffed(rows[0], whole, body_lines or 0, status)

    def _stuffed(self, row: "MessageRow", whole: int, lines: int, status: bytes) -> "Iterator[bytes | Awaitable[None]]":
        """`status`, the first `whole` octets, then `lines` more lines, stuffed, and the end."""
        size = row.size
        offset = 0
        line_start = True
        tail = _END  # nothing is a complete line as well
        out = status
        while offset < whole or (lines and offset < size):
            if offset:
                yield out
                out = b""
            limit = whole if offset < whole else size
            length = min(POP3_BLOCK_BYTES, limit - offset)
            try:
                block = self._mailboxes.read_on(row, offset, length, True)
            except Cold:
                waiting = self._mailboxes.need_on(row, offset, length)
                if waiting is not None:
                    yield waiting
                block = self._mailboxes.read_on(row, offset, length)
            if not block:
                raise MessageGone
            if offset >= whole:
                block, lines = _first_lines(block, lines)
            offset += len(block)
            tail = (tail + block[-2:])[-2:]
            block, line_start = stuff(block, line_start)
            out += block
        yield out + (b".\r\n" if tail == _END else b"\r\n.\r\n")


def _first_lines(block: bytes, lines: int) -> tuple[bytes, int]:
    """The part of `block` up to the end of the `lines`-th line, and how many lines are still wanted."""
    have = block.count(b"\n")
    if have < lines:
        return block, lines - have
    rest = block.split(b"\n", lines)[-1]
    return block[: len(block) - len(rest)], 0
