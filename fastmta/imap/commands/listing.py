"""LIST, LSUB, NAMESPACE, STATUS (RFC 3501 §6.3.8 to §6.3.10, RFC 2342, RFC 3348, RFC 6154)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastmta import _imap
from fastmta._imap import BadSyntax
from fastmta.imap import mailbox_name

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

STATUS_ITEMS: Final = frozenset({b"MESSAGES", b"RECENT", b"UIDNEXT", b"UIDVALIDITY", b"UNSEEN"})


def _pattern(cursor: Cursor) -> tuple[str, str]:
    """(reference, pattern): what is matched is one behind the other."""
    cursor.sp()
    reference = mailbox_name.decode(cursor.astring())
    cursor.sp()
    raw_pattern = cursor.list_mailbox()
    cursor.end()
    if not raw_pattern:
        return reference, ""
    pattern = mailbox_name.decode(raw_pattern)
    return reference, mailbox_name.canonical(reference + pattern)


def _matches(pattern: str, name: str) -> bool:
    if _imap.list_match(pattern, name):
        return True
    # INBOX in any case: "inb*" finds it too.
    return name == "INBOX" and _imap.list_match(pattern.upper(), name)


def _answer(kind: bytes, attributes: list[bytes], name: str) -> bytes:
    raw_name = _imap.astring(mailbox_name.encode(name))
    return b'* %b (%b) "/" %b\r\n' % (kind, b" ".join(attributes), raw_name)


def list_(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    reference, pattern = _pattern(cursor)
    if not pattern:
        # The hierarchy separator and the reference's root, RFC 3501 §6.3.8.
        root = reference.partition("/")[0] + "/" if "/" in reference else ""
        session.write(_answer(b"LIST", [b"\\Noselect"], root))
        return b"OK LIST completed"
    boxes = {box.name: box for box in session.mailboxes.list(session.account_id)}
    superior: set[str] = set()
    for name in boxes:
        superior.update(mailbox_name.parents(name))
    for name in sorted(boxes.keys() | superior, key=lambda name: (name != "INBOX", name)):
        if _matches(pattern, name):
            box = boxes.get(name)
            attributes = [] if box is not None else [b"\\Noselect"]
            attributes.append(b"\\HasChildren" if name in superior else b"\\HasNoChildren")
            if box is not None and box.special_use:
                attributes.append(box.special_use.encode("ascii"))
            session.write(_answer(b"LIST", attributes, name))
    return b"OK LIST completed"


def lsub(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    """ "%" gives the parent of a subscribed name as \\Noselect (RFC 3501 §6.3.9)."""
    _reference, pattern = _pattern(cursor)
    names = session.mailboxes.subscriptions(session.account_id)
    existing = {box.name for box in session.mailboxes.list(session.account_id)}
    found: dict[str, list[bytes]] = {}
    for name in names:
        if _matches(pattern, name):
            found[name] = [] if name in existing else [b"\\Noselect"]
        elif pattern.endswith("%"):
            for parent in mailbox_name.parents(name):
                if parent not in names and _matches(pattern, parent):
                    found.setdefault(parent, [b"\\Noselect"])
    for name in sorted(found, key=lambda name: (name != "INBOX", name)):
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
