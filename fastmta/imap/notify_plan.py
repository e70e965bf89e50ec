"""What a NOTIFY SET asks for (RFC 5465 §6, §8): which events of which mailboxes. Parsing only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from fastmta._imap import BadSyntax
from fastmta.imap import fetch_plan, mailbox_name
from fastmta.imap.mailbox_name import SEPARATOR, BadName
from fastmta.model.limits import IMAP_NOTIFY_GROUPS, IMAP_NOTIFY_MAILBOXES

if TYPE_CHECKING:
    from fastmta._imap import Cursor

NEW: Final = 1  # bits of events
EXPUNGE: Final = 2
FLAGS: Final = 4
NAME: Final = 8
SUBSCRIPTION: Final = 16
MESSAGES: Final = NEW | EXPUNGE | FLAGS
_EVENTS: Final = {
    b"MESSAGENEW": NEW,
    b"MESSAGEEXPUNGE": EXPUNGE,
    b"FLAGCHANGE": FLAGS,
    b"MAILBOXNAME": NAME,
    b"SUBSCRIPTIONCHANGE": SUBSCRIPTION,
}
#: Events of RFC 5465 that are not told here.
_OTHERS: Final = frozenset((b"ANNOTATIONCHANGE", b"MAILBOXMETADATACHANGE", b"SERVERMETADATACHANGE"))
SUPPORTED: Final = b"MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange"


class UnsupportedEvent(Exception):
    """An event that RFC 5465 or an extension of it knows, and this server does not."""


class Wish(msgspec.Struct):
    """Bits of events: of the selected mailbox, of all own ones, of those subscribed to, of names, and of subtrees."""

    status: bool = False
    selected: int = 0
    delayed: bool = False
    fetch: fetch_plan.Plan | None = None  # what is told of new messages of the selected mailbox
    personal: int = 0
    subscribed: int = 0
    names: dict[str, int] = {}
    trees: dict[str, int] = {}

    def of(self, name: str, *, own: bool, subscribed: bool) -> int:
        """The events that are wanted of a mailbox."""
        events = self.names.get(name, 0)
        if own:
            events |= self.personal
        if subscribed:
            events |= self.subscribed
        if self.trees:
            for above in ("", name, *mailbox_name.parents(name)):
                events |= self.trees.get(above, 0)
        return events

    @property
    def all_events(self) -> int:
        """Those of mailboxes other than the selected one."""
        events = self.personal | self.subscribed
        for wanted in (*self.names.values(), *self.trees.values()):
            events |= wanted
        return events


def parse(cursor: Cursor, *, utf8: bool) -> Wish:
    """What stands behind SET. BadSyntax, UnsupportedEvent."""
    wish = Wish()
    groups = names = 0
    cursor.sp()
    if not cursor.at(0x28):
        if cursor.atom() != b"STATUS":
            raise BadSyntax("STATUS or an event group expected")
        wish.status = True
        cursor.sp()
    chosen = False
    while True:
        cursor.open()
        kind = cursor.atom()
        if kind in (b"SELECTED", b"SELECTED-DELAYED"):
            if chosen:
                raise BadSyntax("The selected mailbox is named twice")
            chosen = True
            wish.delayed = kind == b"SELECTED-DELAYED"
            cursor.sp()
            wish.selected, wish.fetch = _events(cursor, selected=True)
        else:
            names += _other(cursor, kind, wish, utf8=utf8)
        cursor.close()
        groups += 1
        if groups > IMAP_NOTIFY_GROUPS or names > IMAP_NOTIFY_MAILBOXES:
            raise BadSyntax("Too many mailboxes are named")
        if not cursor.try_sp():
            cursor.end()
            return wish


def _other(cursor: Cursor, kind: bytes, wish: Wish, *, utf8: bool) -> int:
    """A group of mailboxes that need not be selected; how many names it has."""
    if kind in (b"PERSONAL", b"INBOXES"):  # every mailbox of an account may be delivered to
        cursor.sp()
        wish.personal |= _events(cursor)[0]
        return 0
    if kind == b"SUBSCRIBED":
        cursor.sp()
        wish.subscribed |= _events(cursor)[0]
        return 0
    if kind not in (b"SUBTREE", b"MAILBOXES"):
        raise BadSyntax("Unknown kind of mailboxes")
    cursor.sp()
    raw_names: list[bytes] = []
    if cursor.try_open():
        while True:
            raw_names.append(cursor.astring())
            if cursor.try_close():
                break
            cursor.sp()
    else:
        raw_names.append(cursor.astring())
    cursor.sp()
    events, _ = _events(cursor)
    into = wish.trees if kind == b"SUBTREE" else wish.names
    for raw in raw_names:
        try:
            name = mailbox_name.parse(raw, utf8=utf8).removesuffix(SEPARATOR)
        except BadName:
            continue  # no mailbox can be called so (§3.1)
        into[name] = into.get(name, 0) | events
    return len(raw_names)


def _events(cursor: Cursor, *, selected: bool = False) -> tuple[int, fetch_plan.Plan | None]:
    """A list of events, or NONE; and what MessageNew wants to be told. BadSyntax, UnsupportedEvent."""
    if not cursor.at(0x28):
        if cursor.atom() != b"NONE":
            raise BadSyntax("A list of events, or NONE, expected")
        return 0, None
    events = 0
    unsupported = False
    fetch = None
    cursor.open()
    while True:
        name = cursor.atom()
        bit = _EVENTS.get(name, 0)
        unsupported |= name in _OTHERS
        if not bit and name not in _OTHERS:
            raise BadSyntax("Unknown event")
        if selected and bit & ~MESSAGES:
            raise BadSyntax("Only events of messages are told of the selected mailbox")
        events |= bit
        closed = cursor.try_close()
        if not closed:
            cursor.sp()
            if selected and bit == NEW and cursor.at(0x28):
                fetch = fetch_plan.parse_new(cursor)
                closed = cursor.try_close()
                if not closed:
                    cursor.sp()
        if closed:
            break
    if unsupported:
        raise UnsupportedEvent
    both = NEW | EXPUNGE
    if selected and events & MESSAGES and events & both != both:  # elsewhere no number depends on it, and clients ask
        raise BadSyntax("MessageNew and MessageExpunge belong together")  # §5
    return events, fetch
