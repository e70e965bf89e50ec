"""One session's view of its selected mailbox: which message has which number, and what the client has been told.

Invariants: numbers change only where `sync` is called with expunge=True, or where an expunging command says so; a
message that is gone meanwhile keeps its number until then (RFC 3501 §7.4.1, RFC 2180 §4). Nothing is told twice but
where two readings overlap, which is harmless. A view costs a few hundred bytes: uids are kept as runs.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Final

from fastmta import _imap
from fastmta.imap import fetch_plan
from fastmta.imap.fetch_lines import NEVER_RECENT, fetch_lines
from fastmta.model import flags as system_flags
from fastmta.model.limits import IMAP_CHANGES_PAGE, IMAP_CHUNK_BYTES, IMAP_KEYWORDS_TOLD, MAILBOX_PAGE
from fastmta.model.rights import kept_flags

if TYPE_CHECKING:
    from fastmta.imap.message_set import Chosen
    from fastmta.imap.seams import Mailboxes, Updating
    from fastmta.store.mailbox_names import Mailbox
    from fastmta.store.mailboxes import Changes

_TOLD_AT_ONCE: Final = 32  # messages whose flags, however many keywords they have, are no more than a chunk
_SYSTEM: Final = b"\\Answered \\Flagged \\Deleted \\Seen \\Draft"
NO_KEYWORDS: Final[frozenset[bytes]] = frozenset()

Write = Callable[[bytes], None]
Hold = Callable[[], Awaitable[bool]]


async def _no_wait() -> bool:
    return True


class MailboxGone(Exception):
    """The selected mailbox was deleted by somebody else."""


class View:
    """`modseq`: changes up to it have been seen. `gone`: expunged meanwhile, not told yet.

    `own`: modseqs of what this session changed, which the client knows of. `mixed`: messages that others changed too
    before the client heard of it; they are told although the last change is the session's own.
    """

    __slots__ = (
        "_reckoned",
        "_untold_from",
        "arrived",
        "contexts",
        "frozen",
        "gone",
        "hold",
        "kept",
        "keywords",
        "mailbox_id",
        "mixed",
        "modseq",
        "own",
        "owner_id",
        "read_only",
        "recent",
        "saved",
        "takes_recent",
        "tells_flags",
        "uid_next",
        "uid_only",
        "uids",
        "with_modseq",
        "with_uid",
    )

    def __init__(self, box: Mailbox, *, read_only: bool) -> None:
        self.mailbox_id = box.id
        self.owner_id = box.account_id
        self.kept = kept_flags(box.rights)  # flags that the session may not change, as it was selected
        self.read_only = read_only
        self.uids = _imap.UidMap()
        self.modseq = box.highest_modseq
        self.uid_next = box.uid_next
        self.recent: tuple[tuple[int, int], ...] = ()  # [low, high) ranges of uids that are \Recent in this session
        self.keywords = NO_KEYWORDS  # those that a FLAGS response has named
        self.gone: array[int] | None = None
        self.own: tuple[int, ...] = ()
        self.mixed: set[int] = set()
        self.hold: Hold = _no_wait  # hands over what was written and lets others work; False: the session has ended
        self.saved: array[int] = array("I")  # pairs of uids: what "$" stands for (RFC 5182)
        self.with_modseq = False  # CONDSTORE: flags are told with their modseq
        self.with_uid = False  # QRESYNC: FETCH with the uid, and VANISHED instead of EXPUNGE
        self.uid_only = False  # no number is told: UIDFETCH and VANISHED (RFC 9586)
        self.takes_recent = True  # IMAP4rev2 has no \Recent (RFC 9051 appendix E)
        self.frozen = False  # the client wants to hear nothing of it (RFC 5465 §3.1): it stays as it was told
        self.tells_flags = True  # whether flags that others change are told
        self.arrived: array[int] | None = None  # new messages that are to be told by FETCH too, where some are
        self.contexts: Updating | None = None  # searches that are kept up to date
        self._untold_from = -1  # the modseq up to which all expunges have been told, where later ones have not; else -1
        self._reckoned = 0  # while the session changes flags: the mailbox's modseq with all that is reckoned with

    # --- \Recent (RFC 3501 §2.3.2) ---

    def claim(self, low: int, high: int) -> None:
        """Messages low..high-1 are \\Recent here, and in no other session."""
        if low >= high or not self.takes_recent:
            return
        if self.recent and self.recent[-1][1] >= low:
            self.recent = (*self.recent[:-1], (self.recent[-1][0], max(high, self.recent[-1][1])))
        else:
            self.recent = (*self.recent, (low, high))

    def recent_count(self) -> int:
        count = 0
        for low, high in self.recent:
            count += self.uids.count_from(low) - (self.uids.count_from(high) if high < 2**32 else 0)
        return count

    def is_recent(self, uid: int) -> bool:
        return any(low <= uid < high for low, high in self.recent)

    def recent_segments(self, uids: array[int], highest: int = 0) -> list[tuple[int, int, int]]:
        """(begin, end, recent_from) slices of a uid array for `fetch_lines`; nearly always one. No uid is above the
        `highest`; 0: the last one's.
        """
        if not self.recent or not uids:
            return [(0, len(uids), NEVER_RECENT)]
        if len(self.recent) == 1 and self.recent[0][1] > (highest or uids[-1]):
            return [(0, len(uids), self.recent[0][0])]
        out: list[tuple[int, int, int]] = []
        begin = 0
        for n in range(1, len(uids) + 1):
            if n == len(uids) or self.is_recent(uids[n]) != self.is_recent(uids[begin]):
                out.append((begin, n, 0 if self.is_recent(uids[begin]) else NEVER_RECENT))
                begin = n
        return out

    # --- flags ---

    def tell_flags(self, write: Write) -> None:
        """FLAGS and PERMANENTFLAGS (RFC 3501 §7.2.6, §7.1)."""
        known = b"".join(b" " + keyword for keyword in sorted(self.keywords))
        write(b"* FLAGS (%b%b)\r\n" % (_SYSTEM, known))
        if self.read_only:
            write(b"* OK [PERMANENTFLAGS ()] Read-only mailbox\r\n")
        else:
            write(b"* OK [PERMANENTFLAGS (%b)] Flags permitted\r\n" % self._permanent(known))

    def _permanent(self, known: bytes) -> bytes:
        if not self.kept:
            return _SYSTEM + known + b" \\*"
        names = [name for bit, name in system_flags.NAMES.items() if not self.kept & bit]
        permitted = " ".join(names).encode("ascii")
        return permitted if self.kept & system_flags.ALL_KEYWORDS else permitted + known + b" \\*"

    def learn_keywords(self, keywords: set[bytes], write: Write) -> None:
        """Names keywords in FLAGS before a response uses them."""
        known = {keyword.lower() for keyword in self.keywords}
        new = {keyword for keyword in keywords if keyword.lower() not in known}
        if len(new) + len(known) > IMAP_KEYWORDS_TOLD:
            new = set(sorted(new)[: max(0, IMAP_KEYWORDS_TOLD - len(known))])
        if new:
            self.keywords = self.keywords | new
            self.tell_flags(write)

    def namer(self, write: Write) -> Callable[[set[bytes]], None]:
        """For fetch_lines: names the keywords of what was just read, and may have changed after `sync` looked."""
        return lambda lists: self.learn_keywords({keyword for words in lists for keyword in words.split()}, write)

    # --- changes ---

    @property
    def modseq_cap(self) -> int:
        """The highest MODSEQ that may be told while numbers must stay, after `sync`.

        A client takes the highest one that it has seen for the state that it knows (RFC 7162 §3.2.5). One above an
        expunge that has not been told would have it lose that for ever.
        """
        return self._untold_from if self._untold_from >= 0 else self.modseq

    async def before_own_change(self, mailboxes: Mailboxes) -> None:
        """Awaited before the session changes flags: what others changed will be told afterwards. Raises MailboxGone."""
        since = self.modseq
        own = frozenset(self.own)
        while not self.frozen:
            highest = mailboxes.modseq(self.mailbox_id)
            if not highest:
                raise MailboxGone
            self._reckoned = highest
            if highest <= max(since, *self.own, 0):
                return
            page = mailboxes.changes(self.mailbox_id, since, IMAP_CHANGES_PAGE)
            self.mixed.update(
                uid
                for uid, modseq in zip(page.uids, page.modseqs, strict=True)
                if modseq not in own and uid < self.uid_next
            )
            if not page.until or not await self.hold():
                return
            since = page.until

    def own_change(self, modseq: int, uids: array[int]) -> None:
        """A unit of the session's has changed flags of some of these messages; 0: of none."""
        if not modseq or self.frozen:
            return
        if self.contexts is not None:
            self.contexts.note(uids)
        self.own = (*self.own, modseq)
        if modseq != self._reckoned + 1:
            self.mixed.update(uids)  # somebody's change came in between, perhaps of one of these
        self._reckoned = modseq

    def sync(
        self, mailboxes: Mailboxes, write: Write, *, expunge: bool, anyway: bool = False
    ) -> Coroutine[Any, Any, None] | None:
        """Tells what has changed since the last time. Gives a coroutine where new messages must be claimed first.

        Nothing where the view is frozen, unless it is told `anyway`.
        Raises MailboxGone. Without `expunge` no number changes and no EXPUNGE is told (RFC 3501 §7.4.1).
        """
        highest = mailboxes.modseq(self.mailbox_id)
        if not highest:
            raise MailboxGone
        if self.frozen and not anyway:
            return None
        if expunge and self._untold_from >= 0 and self.with_modseq:
            return self._lift_cap(mailboxes, write)
        own, self.own = self.own, ()
        if not self.mixed:
            for modseq in own:
                if modseq == self.modseq + 1:
                    self.modseq = modseq  # nobody but ourselves, and what we did is known
        if expunge and self.gone is not None and len(self.gone) > IMAP_CHANGES_PAGE:
            return self._tell_in_turns(mailboxes, write, expunge, frozenset(own))
        if highest == self.modseq:
            if expunge:
                self.tell_gone(write)
            return None
        box = mailboxes.by_id(self.mailbox_id)
        if box is None:
            raise MailboxGone
        claims = self.takes_recent and not self.read_only
        if claims and self.uid_next < box.uid_next and box.recent_uid < box.uid_next:
            return self._claim_and_tell(mailboxes, write, expunge, frozenset(own))
        page = mailboxes.changes(self.mailbox_id, self.modseq, IMAP_CHANGES_PAGE)
        forgotten = box.floor_modseq > self.modseq
        if page.until or len(page.uids) > _TOLD_AT_ONCE or (forgotten and self.uids.count > MAILBOX_PAGE):
            return self._tell_in_turns(mailboxes, write, expunge, frozenset(own))
        if forgotten:
            # Records of expunges have been dropped since: what is missing is found by comparing.
            page.gone = self.uids.missing(mailboxes.uids(self.mailbox_id))
        told = self._take(write, box, page, expunge, frozenset(own), self.uid_next)
        for lines in self._lines(mailboxes, write, told):
            write(lines)
        return None

    async def _lift_cap(self, mailboxes: Mailboxes, write: Write) -> None:
        """Tells the expunges that have waited, then the modseqs above the cap that were told as the cap, then the rest.

        Without the second a conditional STORE of the client's would fail where nobody has changed anything.
        """
        since, until = self._untold_from, self.modseq
        if not await self._tell_gone_in_turns(write):
            return
        while since < until:
            page = mailboxes.changes(self.mailbox_id, since, IMAP_CHANGES_PAGE)
            told = page.uids[: bisect_right(page.modseqs, until)]  # a later one is a change that is told below
            for lines in self._lines(mailboxes, write, told, fetch_plan.MODSEQ):
                write(lines)
            since = page.until or until
            if not await self.hold():
                return
        pending = self.sync(mailboxes, write, expunge=True)
        if pending is not None:
            await pending

    async def _claim_and_tell(self, mailboxes: Mailboxes, write: Write, expunge: bool, own: frozenset[int]) -> None:
        taken = await mailboxes.take_recent(self.mailbox_id)
        box = mailboxes.by_id(self.mailbox_id)
        if box is None:
            raise MailboxGone
        self.claim(*taken)
        await self._tell_in_turns(mailboxes, write, expunge, own)

    async def _tell_in_turns(self, mailboxes: Mailboxes, write: Write, expunge: bool, own: frozenset[int]) -> None:
        """Many changes, a page at a time; each ends with a unit's last change, so it is a state that there was."""
        box = mailboxes.by_id(self.mailbox_id)
        if box is None:
            raise MailboxGone
        missing = None
        if box.floor_modseq > self.modseq:
            present = array("I")
            while True:
                page_uids = mailboxes.uids(self.mailbox_id, present[-1] if present else 0, MAILBOX_PAGE)
                present.extend(page_uids)
                if len(page_uids) < MAILBOX_PAGE:
                    break
                if not await self.hold():
                    return
            missing = self.uids.missing(present)
        mixed: set[int] = set()
        known = self.uid_next
        while True:
            box = mailboxes.by_id(self.mailbox_id)
            if box is None:
                raise MailboxGone
            page = mailboxes.changes(self.mailbox_id, self.modseq, IMAP_CHANGES_PAGE)
            if page.until and self.uid_next < box.uid_next:
                await self._learn_arrivals(mailboxes, write, box)
            if missing is not None:
                page.gone, missing = missing, None
            if page.gone:
                self.gone = page.gone if self.gone is None else self.gone + page.gone
                page.gone = array("I")
                if self._untold_from < 0:
                    self._untold_from = self.modseq
            if expunge and not await self._tell_gone_in_turns(write):
                return
            mixed |= self.mixed
            self.mixed = mixed
            told = self._take(write, box, page, expunge, own, known)
            for lines in self._lines(mailboxes, write, told):
                write(lines)
                if len(lines) >= IMAP_CHUNK_BYTES and not await self.hold():
                    return
            if not page.until or not await self.hold():
                return

    async def _tell_gone_in_turns(self, write: Write) -> bool:
        """`tell_gone` from the highest number down, some hundreds at a time; False where the session has ended."""
        gone, self.gone = sorted(self.gone or ()), None
        for end in range(len(gone), 0, -IMAP_CHANGES_PAGE):
            self.gone = array("I", gone[max(0, end - IMAP_CHANGES_PAGE) : end])
            self.tell_gone(write)
            if not await self.hold():
                return False
        return True

    async def _learn_arrivals(self, mailboxes: Mailboxes, write: Write, box: Mailbox) -> None:
        """By uid and not by change: a flag set on a new message moves its change behind those of later ones."""
        arrived = array("I")
        last = self.uid_next - 1
        while last < box.uid_next - 1:
            page = mailboxes.uids(self.mailbox_id, last, MAILBOX_PAGE)
            if not page:
                break
            last = page[-1]
            arrived.extend(page[: bisect_left(page, box.uid_next)])
            if not await self.hold():
                return
        self._add(write, box, arrived)

    def _add(self, write: Write, box: Mailbox, arrived: array[int]) -> None:
        self.uid_next = max(box.uid_next, arrived[-1] + 1 if arrived else 0)
        if arrived:
            if self.read_only and box.recent_uid <= arrived[-1]:
                self.claim(max(box.recent_uid, arrived[0]), arrived[-1] + 1)
            self.uids.extend(arrived)
            self.tell_count(write)
            if self.arrived is not None:
                self.arrived.extend(arrived)

    @property
    def has_more(self) -> bool:
        """Whether more is to be told of what `sync` has told: results of searches, and new messages by FETCH."""
        return bool(self.arrived) or (self.contexts is not None and self.contexts.pending)

    def tell_count(self, write: Write) -> None:
        """How many messages there are."""
        write(b"* %d EXISTS\r\n" % self.uids.count)
        if self.takes_recent:
            write(b"* %d RECENT\r\n" % self.recent_count())

    def _take(
        self, write: Write, box: Mailbox, page: Changes, expunge: bool, own: frozenset[int], known: int
    ) -> array[int]:
        """One page of changes; gives the messages whose flags are to be told. Those from `known` on are new."""
        before, self.modseq = self.modseq, page.until or max(self.modseq, box.highest_modseq)
        if page.gone:
            self.gone = page.gone if self.gone is None else self.gone + page.gone
            if self._untold_from < 0:
                self._untold_from = before
        if expunge:
            self.tell_gone(write)
        if self.contexts is not None and page.uids:
            self.contexts.note(page.uids)
        mixed, self.mixed = self.mixed, set()
        changed = array("I")
        for uid, modseq in zip(page.uids, page.modseqs, strict=True):
            if self.tells_flags and uid < known and (modseq not in own or uid in mixed):
                changed.append(uid)
        if not page.until:
            self._add(write, box, array("I", sorted(uid for uid in page.uids if uid >= self.uid_next)))
        self.learn_keywords({keyword for words in page.keywords for keyword in words.split()}, write)
        return changed

    def _lines(
        self, mailboxes: Mailboxes, write: Write, uids: array[int], items: int = fetch_plan.FLAGS
    ) -> Iterator[bytes]:
        """FETCH responses with `items`, a chunk at a time; nothing of messages that the client has not been told of."""
        seqs, uids = self.uids.seqs_of(uids)
        items |= fetch_plan.MODSEQ if self.with_modseq else 0
        items |= fetch_plan.UIDONLY if self.uid_only else fetch_plan.UID if self.with_uid else 0
        for begin, end, recent_from in self.recent_segments(uids, self.uid_next - 1):
            while begin < end:
                lines, begin = fetch_lines(
                    mailboxes,
                    self.mailbox_id,
                    seqs[:end],
                    uids[:end],
                    items,
                    begin,
                    IMAP_CHUNK_BYTES,
                    recent_from=recent_from,
                    modseq_cap=self.modseq_cap,
                    name=self.namer(write),
                )
                yield lines

    def tell_gone(self, write: Write) -> None:
        """EXPUNGE or VANISHED responses for what is gone; the numbers behind move up."""
        if self.gone is not None:
            vanished = array("I")
            if self.contexts is not None:
                self.contexts.gone(self, self.gone, write)
            if self.with_uid or self.uid_only:
                vanished.extend(uid for uid in sorted(set(self.gone)) if self.uids.seq_of(uid))
            responses = self.uids.expunge(self.gone)
            self.gone = None
            self._untold_from = -1
            if vanished:
                responses = b"* VANISHED %b\r\n" % _imap.uid_set(vanished)
            if responses:
                write(responses)

    def lost(self, named: Chosen) -> int:
        """How many of these have been expunged by somebody and not told yet."""
        return 0 if self.gone is None else sum(map(named.has, set(self.gone)))
