"""LIST, XLIST, LSUB, NAMESPACE, STATUS (RFC 3501 §6.3.8 to §6.3.10, RFC 2342, RFC 3348, RFC 5258, RFC 6154)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastmta import _imap
from fastmta._imap import BadSyntax
from fastmta.imap import list_plan, mailbox_name

if TYPE_CHECKING:
    from collections.abc import Collection

    from fastmta._imap import Cursor
    from fastmta.imap.list_plan import ListPlan
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

STATUS_ITEMS: Final = frozenset({b"MESSAGES", b"RECENT", b"UIDNEXT", b"UIDVALIDITY", b"UNSEEN"})
XLIST_NAMES: Final = {"\\Junk": "\\Spam", "\\All": "\\AllMail", "\\Flagged": "\\Starred"}  # as its clients know them


def _answer(kind: bytes, attributes: list[bytes], name: str, extra: bytes = b"") -> bytes:
    raw_name = _imap.astring(mailbox_name.encode(name))
    return b'* %b (%b) "/" %b%b\r\n' % (kind, b" ".join(attributes), raw_name, extra)


def _ordered(names: Collection[str]) -> list[str]:
    return sorted(names, key=lambda name: (name != "INBOX", name))


def list_(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    plan = list_plan.parse(cursor, options=True)
    if plan.asks_root:
        if not plan.select:
            _write_root(session, b"LIST", plan.reference)
        return b"OK LIST completed"
    _write_list(session, b"LIST", plan)
    return b"OK LIST completed"


def xlist(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    """LIST as clients older than RFC 6154 ask for special uses."""
    plan = list_plan.parse(cursor, options=False)
    if plan.asks_root:
        _write_root(session, b"XLIST", plan.reference)
    else:
        _write_list(session, b"XLIST", plan)
    return b"OK XLIST completed"


def _write_root(session: Session, kind: bytes, reference: str) -> None:
    """The hierarchy separator and the reference's root, RFC 3501 §6.3.8."""
    root = reference.partition("/")[0] + "/" if "/" in reference else ""
    session.write(_answer(kind, [b"\\Noselect"], root))


def _write_list(session: Session, kind: bytes, plan: ListPlan) -> None:
    boxes = {box.name: box for box in session.mailboxes.list(session.account_id)}
    superior: set[str] = set()
    for name in boxes:
        superior.update(mailbox_name.parents(name))
    with_subscriptions = b"SUBSCRIBED" in plan.select or b"SUBSCRIBED" in plan.returns
    subscribed = frozenset(session.mailboxes.subscriptions(session.account_id)) if with_subscriptions else frozenset()
    names = boxes.keys() | superior
    selected: set[str] | None = None
    if b"SUBSCRIBED" in plan.select:
        selected = set(subscribed)
    if b"SPECIAL-USE" in plan.select:
        used = {name for name, box in boxes.items() if box.special_use}
        selected = used if selected is None else selected & used
    inside: set[str] = set()  # RECURSIVEMATCH: superiors of what is selected (RFC 5258 §3.5)
    if selected is not None:
        if b"RECURSIVEMATCH" in plan.select:
            for name in selected:
                if not plan.matches(name):
                    inside.update(mailbox_name.parents(name))
        names = selected | inside
    for name in _ordered(names):
        if not plan.matches(name):
            continue
        box = boxes.get(name)
        attributes = _attributes(kind, name, box, superior, plan)
        if name in subscribed:
            attributes.append(b"\\Subscribed")
        extra = b' ("CHILDINFO" ("SUBSCRIBED"))' if name in inside and b"SUBSCRIBED" in plan.select else b""
        session.write(_answer(kind, attributes, name, extra))


def _attributes(kind: bytes, name: str, box: Any, superior: set[str], plan: ListPlan) -> list[bytes]:
    out: list[bytes] = []
    if box is None:
        out.append(b"\\NonExistent" if plan.extended else b"\\Noselect")
    out.append(b"\\HasChildren" if name in superior else b"\\HasNoChildren")
    if kind == b"XLIST" and name == "INBOX":
        out.append(b"\\Inbox")
    if box is not None and box.special_use:
        uses = box.special_use.split()
        if kind == b"XLIST":
            uses = [XLIST_NAMES.get(use, use) for use in uses]
        out.extend(use.encode("ascii") for use in uses)
    return out


def lsub(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    """ "%" gives the parent of a subscribed name as \\Noselect (RFC 3501 §6.3.9)."""
    plan = list_plan.parse(cursor, options=False)
    names = session.mailboxes.subscriptions(session.account_id)
    existing = {box.name for box in session.mailboxes.list(session.account_id)}
    parents_too = any(pattern.endswith("%") for pattern in plan.patterns)
    known = frozenset(names)
    found: dict[str, list[bytes]] = {}
    for name in names:
        if plan.matches(name):
            found[name] = [] if name in existing else [b"\\Noselect"]
        elif parents_too:
            for parent in mailbox_name.parents(name):
                if parent not in known and plan.matches(parent):
                    found.setdefault(parent, [b"\\Noselect"])
    for name in _ordered(found):
        session.write(_answer(b"LSUB", found[name], name))
    return b"OK LSUB completed"


def namespace(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.end()
    session.write(b'* NAMESPACE (("" "/")) NIL NIL\r\n')
    return b"OK NAMESPACE completed"


def status(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    raw_name = cursor.astring()
    cursor.sp()
    cursor.open()
    items: list[bytes] = []
    while True:
        item = cursor.atom()
        if item not in STATUS_ITEMS:
            raise BadSyntax("Unknown status item")
        if item not in items:
            items.append(item)
        if cursor.try_close():
            break
        cursor.sp()
    cursor.end()
    name = mailbox_name.parse(raw_name)
    box = session.mailboxes.get(session.account_id, name)
    if box is None:
        return b"NO [NONEXISTENT] Mailbox does not exist"
    values = b" ".join(b"%b %d" % (item, _status_value(session, box, item)) for item in items)
    session.write(b"* STATUS %b (%b)\r\n" % (_imap.astring(mailbox_name.encode(name)), values))
    return b"OK STATUS completed"


def _status_value(session: Session, box: Any, item: bytes) -> int:
    if item == b"MESSAGES":
        return int(box.exists)
    if item == b"UIDNEXT":
        return int(box.uid_next)
    if item == b"UIDVALIDITY":
        return int(box.uid_validity)
    if item == b"UNSEEN":
        return int(box.unseen)
    if box.recent_uid >= box.uid_next:
        return 0
    return sum(1 for uid in session.mailboxes.uids(box.id) if uid >= box.recent_uid)
