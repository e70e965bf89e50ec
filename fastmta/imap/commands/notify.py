"""NOTIFY (RFC 5465): the client hears of what happens in the mailboxes that it names, also between its commands.

Of each mailbox that is watched a session keeps what it has told of it last, and nothing of what has happened since: the
store says what has become of it when the session's turn comes. A list that has changed is read again and compared.

Invariants: at most IMAP_NOTIFY_MAILBOXES of a session and IMAP_NOTIFY_WATCHES of a worker, else NOTIFICATIONOVERFLOW;
nothing is written while a message is being uploaded; between two pieces of work the session pauses where its turn is
over; only what the user may look up and read is told.
"""

from __future__ import annotations

from array import array
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta import _imap
from fastmta.imap import mailbox_name, notify_plan
from fastmta.imap.commands.fetch import tell_new
from fastmta.imap.commands.listing import OTHERS, PUBLIC, each_subscription, list_line, status_lines
from fastmta.imap.message_set import Chosen
from fastmta.imap.notify_plan import EXPUNGE, FLAGS, MESSAGES, NAME, NEW, SUBSCRIPTION, UnsupportedEvent, Wish
from fastmta.imap.session import Feature, SessionEnded, State
from fastmta.model import rights
from fastmta.model.errors import StorageFailure
from fastmta.model.limits import IMAP_CHUNK_BYTES, IMAP_NOTIFY_MAILBOXES, IMAP_NOTIFY_WATCHES

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session
    from fastmta.imap.view import View
    from fastmta.store.mailbox_names import Mailbox

_OVERFLOW: Final = b"[NOTIFICATIONOVERFLOW] Too many mailboxes to watch"
_AT_ONCE: Final = 25  # mailboxes looked at without asking whether the turn is over: 0.1 ms
_SEEN: Final = rights.LOOKUP | rights.READ
_ROOTS: Final = tuple(root.decode() + "/" for root in (OTHERS, PUBLIC))


class TooMany(Exception):
    """More mailboxes than a session, or all of a worker's, may watch."""


class Watched(msgspec.Struct, gc=False):
    """A mailbox, and what the client knows of it."""

    name: str
    events: int
    readable: bool
    uid_next: int = 1
    exists: int = 0
    unseen: int = 0
    modseq: int = 0
    fresh: bool = True  # nothing of it has been told

    def take(self, box: Mailbox) -> None:
        self.uid_next, self.exists, self.unseen = box.uid_next, box.exists, box.unseen
        self.modseq, self.fresh = box.highest_modseq, False


def run(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    action = cursor.atom()
    if action == b"NONE":
        cursor.end()
        wish = Wish()
    elif action == b"SET":
        try:
            wish = notify_plan.parse(cursor, utf8=session.utf8)
        except UnsupportedEvent:
            return b"NO [BADEVENT (%b)] Not all of these events can be told" % notify_plan.SUPPORTED
    else:
        raise _imap.BadSyntax("SET or NONE expected")
    return _set(session, wish)


async def _set(session: Session, wish: Wish) -> bytes:
    old = session.watching
    new = Watching(wish)
    session.watching = new  # from here on it hears of changes
    try:
        lines = await new.read_list(session)
    except (TooMany, StorageFailure) as error:
        new.end(session)
        session.watching = old
        if old is not None:
            old.look_again()
        if isinstance(error, StorageFailure):
            raise
        return b"NO " + _OVERFLOW
    view = session.view
    if view is not None:  # SET implies a NOOP (§3.1)
        view.frozen = False
        pending = view.sync(session.mailboxes, session.write, expunge=True)
        if pending is not None:
            await pending
    if session.state == State.LOGOUT:
        return b""
    if old is not None:
        old.end(session)
    if session.view is not None:
        new.apply(session.view)
    await _write(session, lines)
    if wish.status:
        await new.tell_status(session)
    return b"OK NOTIFY completed"


async def _write(session: Session, lines: list[bytes]) -> None:
    for line in lines:
        session.write(line)
        await _paused(session)


async def _paused(session: Session) -> None:
    """Hands over what was written where it is much, and lets others work where the turn is over. SessionEnded."""
    if session.wire.written() >= IMAP_CHUNK_BYTES:
        await session.wire.flush()
    elif session.wire.turn_is_over():
        await session.wire.pause()
    if session.state == State.LOGOUT:
        raise SessionEnded


class Watching:
    """What one session watches; nothing, after NOTIFY NONE."""

    __slots__ = ("_boxes", "_changed", "_list_changed", "_own_names", "_owners", "_subscribed", "wish")

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self._boxes: dict[int, Watched] = {}
        self._owners: set[int] = set()  # accounts whose lists are watched
        self._subscribed: set[str] = set()
        self._changed: dict[int, None] = {}
        self._list_changed = False
        self._own_names: set[str] = set()  # that the session itself has made, renamed, removed or subscribed to

    # --- what the session calls ---

    @property
    def delayed(self) -> bool:
        """Whether an EXPUNGE waits for a command that allows it."""
        return self.wish.delayed

    def apply(self, view: View) -> None:
        """A mailbox is selected, or the wishes are new."""
        view.frozen = not self.wish.selected
        view.tells_flags = bool(self.wish.selected & FLAGS)
        view.arrived = array("I") if self.wish.fetch is not None else None

    def note(self, number: int) -> bool:
        """A mailbox, or an account's list, has changed; whether the session has to look at it."""
        if number in self._owners:
            self._list_changed = True
            return True
        if number in self._boxes:
            self._changed[number] = None
            return True
        return False

    def look_again(self) -> None:
        """Changes may have been missed."""
        self._list_changed = True
        self._changed = dict.fromkeys(self._boxes)

    def own_names(self, *names: str) -> None:
        """The session is about to change these mailboxes, or its subscription to them: it need not be told (§5)."""
        if self._boxes or self._owners:
            self._own_names.update(names)

    def own_messages(self, session: Session, mailbox_id: int, count: int) -> None:
        """The session has filed messages there: where nobody else did, it need not be told (§5)."""
        watched = self._boxes.get(mailbox_id)
        box = session.mailboxes.by_id(mailbox_id) if watched is not None else None
        if watched is None or box is None:
            return
        if box.exists == watched.exists + count and box.uid_next == watched.uid_next + count:
            watched.take(box)

    def end(self, session: Session) -> None:
        """Nothing is watched any more."""
        notifier = session.services.notifier
        for number in (*self._boxes, *self._owners):
            notifier.unsubscribe(number, session)
        self._boxes.clear()
        self._owners.clear()
        self._changed.clear()

    async def tell(self, session: Session, pending: Awaitable[None] | None) -> None:
        """Tells all that has changed; `pending` is what is left to tell of the selected mailbox."""
        if pending is not None:
            await pending
        await session.tell_results()
        await self.tell_arrived(session)
        if self._list_changed:
            try:
                await _write(session, await self.read_list(session, first=False))
            except TooMany:
                self.end(session)
                self.wish = Wish()
                if session.view is not None:
                    self.apply(session.view)
                session.write(b"* OK %b\r\n" % _OVERFLOW)
                return
        changed, self._changed = self._changed, {}
        for mailbox_id in changed:
            watched = self._boxes.get(mailbox_id)
            if watched is None or (session.view is not None and session.view.mailbox_id == mailbox_id):
                continue
            box = session.access.by_id(session.actor, mailbox_id)
            if box is not None and box.rights & _SEEN == _SEEN:
                items = self._news(session, watched, box)
                watched.take(box)
                if items:
                    await _write(session, list(status_lines(session, box.name, box, items)))
            await _paused(session)

    async def tell_arrived(self, session: Session) -> None:
        """FETCH responses for messages that are new in the selected mailbox, but not those that the session filed."""
        while (view := session.view) is not None and view.arrived and self.wish.fetch is not None:
            arrived, view.arrived = view.arrived, array("I")
            if session.made is not None:
                own, session.made = session.made, None
                arrived = array("I", sorted(set(arrived) - set(own)))
            await tell_new(session, self.wish.fetch, Chosen.of_uids(view, arrived))
            await _paused(session)

    async def tell_status(self, session: Session) -> None:
        """STATUS of every mailbox whose messages are watched, but for the selected one (§3.1)."""
        for mailbox_id, watched in list(self._boxes.items()):
            if not watched.events & MESSAGES or (session.view is not None and session.view.mailbox_id == mailbox_id):
                continue
            box = session.access.by_id(session.actor, mailbox_id)
            if box is not None and box.rights & _SEEN == _SEEN:
                watched.take(box)
                items = [b"MESSAGES", b"UIDNEXT", b"UIDVALIDITY"]
                items += [b"UNSEEN", b"HIGHESTMODSEQ"] if watched.events & FLAGS else []
                await _write(session, list(status_lines(session, box.name, box, items)))

    # --- messages of other mailboxes ---

    def _news(self, session: Session, watched: Watched, box: Mailbox) -> list[bytes]:
        """The items of a STATUS that says what has changed; [] where it is not wanted (§5.1 to §5.3)."""
        events = watched.events
        condstore = bool(session.enabled & Feature.CONDSTORE)
        items: list[bytes] = []
        if events & (NEW | EXPUNGE) and (box.uid_next, box.exists) != (watched.uid_next, watched.exists):
            items += [b"UIDNEXT", b"MESSAGES"]
        if events & FLAGS and box.unseen != watched.unseen:
            items.append(b"UNSEEN")
        if condstore and box.highest_modseq != watched.modseq and (items or events & FLAGS):
            items.append(b"HIGHESTMODSEQ")
        if (watched.fresh and events & MESSAGES) or (items and events & FLAGS):
            items.append(b"UIDVALIDITY")
        return items

    # --- the list ---

    async def read_list(self, session: Session, *, first: bool = True) -> list[bytes]:
        """Finds the mailboxes that are meant, as they are now; the LIST responses for what has changed since the last
        time, or at first for those that may not be read. TooMany, StorageFailure.
        """
        wish, notifier = self.wish, session.services.notifier
        self._list_changed = False
        own_names, self._own_names = self._own_names, set()
        subscribed: set[str] = set()
        if wish.all_events:
            self._watch_lists(session, {session.account_id})
            subscribed = await self._subscriptions(session)
        found: dict[int, Watched] = {}
        known_names = {*wish.names, *(watched.name for watched in self._boxes.values())}
        owners = set(self._owners)
        for page in session.access.pages(session.actor) if wish.all_events else ():
            for box in page:
                own = box.account_id == session.account_id
                events = wish.of(box.name, own=own, subscribed=box.name in subscribed)
                if not events:
                    continue
                if len(found) == IMAP_NOTIFY_MAILBOXES:
                    raise TooMany
                readable = box.rights & _SEEN == _SEEN
                kept = events if readable else events & ~MESSAGES
                found[box.id] = watched = self._of(box, kept, readable)
                owners.add(box.account_id)
                if box.id not in self._boxes:
                    self._boxes[box.id] = watched
                    notifier.subscribe(box.id, session)
                    if first or (box.uid_next == 1 and box.name not in known_names):
                        watched.take(box)
                    if watched.fresh or session.mailboxes.modseq(box.id) != box.highest_modseq:
                        self._changed[box.id] = None
                if len(found) % _AT_ONCE == 0:
                    await _paused(session)
            await _paused(session)
        if notifier.watches > IMAP_NOTIFY_WATCHES:
            raise TooMany
        self._watch_lists(session, owners)
        lines = self._no_access(session, found) if first else await self._differences(session, found, own_names)
        if not first:
            lines += self._subscription_lines(session, subscribed, own_names)
        for mailbox_id in self._boxes.keys() - found.keys():
            notifier.unsubscribe(mailbox_id, session)
        self._boxes, self._subscribed = found, subscribed
        return lines

    def _of(self, box: Mailbox, events: int, readable: bool) -> Watched:
        known = self._boxes.get(box.id)
        if known is None:
            return Watched(box.name, events, readable)
        return Watched(
            box.name, events, readable, known.uid_next, known.exists, known.unseen, known.modseq, known.fresh
        )

    def _watch_lists(self, session: Session, owners: set[int]) -> None:
        for owner_id in owners - self._owners:
            session.services.notifier.subscribe(owner_id, session)
        self._owners |= owners

    async def _subscriptions(self, session: Session) -> set[str]:
        if not (self.wish.subscribed or self.wish.all_events & SUBSCRIPTION):
            return set()
        names: dict[str, None] = {}
        for _ in each_subscription(session, names):
            if len(names) > IMAP_NOTIFY_MAILBOXES:
                raise TooMany
            await _paused(session)
        return set(names)

    def _no_access(self, session: Session, found: dict[int, Watched]) -> list[bytes]:
        return [
            list_line(session, watched.name, None, (b"\\NoAccess",))
            for watched in found.values()
            if not watched.readable
        ]

    async def _differences(self, session: Session, found: dict[int, Watched], own_names: set[str]) -> list[bytes]:
        """LIST responses for what was made, renamed, removed, and shared or not shared any more (§5.4, §5.9)."""
        names = {watched.name: mailbox_id for mailbox_id, watched in found.items()}
        renamed = {
            old.name: found[mailbox_id].name
            for mailbox_id, old in self._boxes.items()
            if mailbox_id in found and found[mailbox_id].name != old.name
        }
        lines: dict[str, bytes] = {}
        touched: set[str] = set()  # superiors of what was made or removed
        for mailbox_id, watched in found.items():
            old = self._boxes.get(mailbox_id)
            name = watched.name
            if old is watched and watched.events & NAME:  # subscribed to just now, so it is new
                lines[name] = self._line(session, watched)
                touched.update(mailbox_name.parents(name)[-1:])
            elif old is not None and old.name != name and old.events & NAME and not _is_inferior(old.name, renamed):
                lines[name] = self._line(session, watched, old.name)
            elif old is not None and old.readable != watched.readable:
                lines[name] = self._line(session, watched)
            await _paused(session)
        for mailbox_id, old in self._boxes.items():
            if mailbox_id not in found and old.name not in names and old.events & NAME:
                lines[old.name] = list_line(session, old.name, None, (b"\\NonExistent",))
                touched.update(mailbox_name.parents(old.name)[-1:])
            await _paused(session)
        for name in touched - lines.keys():
            superior = names.get(name)
            if superior is not None and found[superior].events & NAME:
                lines[name] = self._line(session, found[superior])
        own_names |= {name for each in own_names for name in mailbox_name.parents(each)}
        return [line for name, line in lines.items() if name not in own_names and name != "INBOX"]

    def _line(self, session: Session, watched: Watched, old_name: str = "") -> bytes:
        attributes: tuple[bytes, ...] = () if watched.readable else (b"\\NoAccess",)
        if session.access.is_subscribed(session.actor, watched.name):
            attributes += (b"\\Subscribed",)
        return list_line(session, watched.name, None, attributes, old_name)

    def _subscription_lines(self, session: Session, subscribed: set[str], own_names: set[str]) -> list[bytes]:
        """LIST responses for names that are subscribed to now, or not any more (§5.5)."""
        lines: list[bytes] = []
        if not self.wish.all_events & SUBSCRIPTION:
            return lines
        for name in sorted(subscribed ^ self._subscribed):
            own = not name.startswith(_ROOTS)
            if name in own_names or not self.wish.of(name, own=own, subscribed=True) & SUBSCRIPTION:
                continue
            box = session.box_named(name, rights.LOOKUP)
            attributes: tuple[bytes, ...] = (b"\\Subscribed",) if name in subscribed else ()
            attributes += (b"\\NonExistent",) if isinstance(box, bytes) else ()
            lines.append(list_line(session, name, None if isinstance(box, bytes) else box, attributes))
        return lines


def _is_inferior(name: str, renamed: dict[str, str]) -> bool:
    """Whether a mailbox has its new name because one above it was renamed: it is not told (§5.4)."""
    return any(
        above in renamed and renamed[name] == renamed[above] + name[len(above) :]
        for above in mailbox_name.parents(name)
    )
