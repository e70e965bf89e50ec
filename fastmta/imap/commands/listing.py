"""LIST, XLIST, LSUB, NAMESPACE, STATUS (RFC 3501 §6.3.8 to §6.3.10, RFC 2342, RFC 3348, RFC 5258, RFC 6154)."""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from typing import TYPE_CHECKING, Final

from fastmta import _imap
from fastmta.imap import list_plan, mailbox_name
from fastmta.imap.metadata_entries import Options, Place, metadata_lines
from fastmta.imap.session import Feature, State
from fastmta.model import rights
from fastmta.model.errors import Cold
from fastmta.model.flags import DELETED
from fastmta.model.limits import COLD_ROUNDS, IMAP_CHUNK_BYTES, MAILBOX_PAGE, MAILBOXES_A_PIECE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from fastmta._imap import Cursor
    from fastmta.imap.list_plan import ListPlan
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session
    from fastmta.store.mailbox_names import Mailbox

OTHERS: Final = b"Other Users"  # as store/access.py has them
PUBLIC: Final = b"Shared"
XLIST_NAMES: Final = {"\\Junk": "\\Spam", "\\All": "\\AllMail", "\\Flagged": "\\Starred"}  # as its clients know them


def _answer(session: Session, kind: bytes, attributes: list[bytes], name: str, extra: bytes = b"") -> bytes:
    return b'* %b (%b) "/" %b%b\r\n' % (kind, b" ".join(attributes), session.written_name(name), extra)


def _ordered(names: Collection[str]) -> list[str]:
    """INBOX first, then by name."""
    out = sorted(names)
    if "INBOX" in names:
        out.remove("INBOX")
        out.insert(0, "INBOX")
    return out


def each_mailbox(session: Session, found: dict[str, Mailbox]) -> Iterator[bytes]:
    """Reads the mailboxes that the session may list into `found`, a page before each b""."""
    for page in session.access.pages(session.actor):
        found.update((box.name, box) for box in page)
        yield b""


def each_subscription(session: Session, found: dict[str, None]) -> Iterator[bytes]:
    """The same of the names that the account subscribes to."""
    after = ""
    while page := session.access.subscriptions(session.actor, after):
        after = page[-1]
        found.update(dict.fromkeys(page))
        yield b""


def my_rights_line(session: Session, name: str, held: int) -> bytes:
    return b"* MYRIGHTS %b %b\r\n" % (session.written_name(name), _imap.astring(rights.with_virtual(held).encode()))


def write_list_line(session: Session, box: Mailbox, asked: str) -> None:
    """A mailbox's LIST response, as SELECT and RENAME have it in IMAP4rev2; OLDNAME where it was `asked` for by another
    name (RFC 9051 §6.3.9.7)."""
    session.write(list_line(session, box.name, box, (), asked if asked != box.name else ""))


def list_line(
    session: Session, name: str, box: Mailbox | None, attributes: tuple[bytes, ...] = (), old_name: str = ""
) -> bytes:
    """A LIST response that no LIST asked for; the box only tells special uses, and need not be given."""
    inferiors = session.access.has_inferiors(session.actor, name)
    told = [*attributes, b"\\HasChildren" if inferiors else b"\\HasNoChildren"]
    if box is not None:
        told += [use.encode("ascii") for use in box.special_use.split()]
    old = b' ("OLDNAME" (%b))' % session.written_name(old_name) if old_name else b""
    return _answer(session, b"LIST", told, name, old)


def list_(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    plan = list_plan.parse(cursor, options=True, utf8=session.utf8)
    if b"HIGHESTMODSEQ" in plan.status:
        session.enable(Feature.CONDSTORE)
    if plan.asks_root:
        if not plan.select:
            _write_root(session, b"LIST", plan.reference)
        return b"OK LIST completed"
    return listed(session, _list_lines(session, b"LIST", plan), b"OK LIST completed")


def xlist(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    """LIST as clients older than RFC 6154 ask for special uses."""
    plan = list_plan.parse(cursor, options=False, utf8=session.utf8)
    if plan.asks_root:
        _write_root(session, b"XLIST", plan.reference)
        return b"OK XLIST completed"
    return listed(session, _list_lines(session, b"XLIST", plan), b"OK XLIST completed")


def listed(session: Session, lines: Iterator[bytes], done: bytes) -> Answer:
    """Writes a listing's lines, at once or in turns where it is long; b"" stands for a name that is not asked for."""
    for line in lines:
        if line:
            session.write(line)
        if session.wire.turn_is_over() or session.wire.written() >= IMAP_CHUNK_BYTES:
            return _list_on(session, lines, done)
    return done


async def _list_on(session: Session, lines: Iterator[bytes], done: bytes) -> bytes:
    await session.wire.flush()
    for line in lines:
        if line:
            session.write(line)
        if session.wire.written() >= IMAP_CHUNK_BYTES:
            await session.wire.flush()
        else:
            await session.wire.pause()
        if session.state == State.LOGOUT:
            return b""
    return done


def _write_root(session: Session, kind: bytes, reference: str) -> None:
    """The hierarchy separator and the reference's root, RFC 3501 §6.3.8."""
    root = reference.partition("/")[0] + "/" if "/" in reference else ""
    session.write(_answer(session, kind, [b"\\Noselect"], root))


def _list_lines(session: Session, kind: bytes, plan: ListPlan) -> Iterator[bytes]:
    boxes: dict[str, Mailbox] = {}
    yield from each_mailbox(session, boxes)
    superior: set[str] = set()
    for number, name in enumerate(boxes, 1):
        superior.update(mailbox_name.parents(name))
        if number % MAILBOXES_A_PIECE == 0:
            yield b""
    subscribed: dict[str, None] = {}
    if b"SUBSCRIBED" in plan.select or b"SUBSCRIBED" in plan.returns:
        yield from each_subscription(session, subscribed)
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
                yield b""
                if not plan.matches(name):
                    inside.update(mailbox_name.parents(name))
        names = selected | inside
    for name in _ordered(names):
        if not plan.matches(name):
            yield b""
            continue
        box = boxes.get(name)
        attributes = _attributes(kind, name, box, superior, plan)
        if name in subscribed:
            attributes.append(b"\\Subscribed")
        extra = b' ("CHILDINFO" ("SUBSCRIBED"))' if name in inside and b"SUBSCRIBED" in plan.select else b""
        yield _answer(session, kind, attributes, name, extra)
        if box is not None and b"MYRIGHTS" in plan.returns:
            yield my_rights_line(session, name, box.rights)
        if box is None or not box.rights & rights.READ:
            continue
        if plan.status:
            yield from status_lines(session, name, box, plan.status)
        if plan.metadata:
            yield from metadata_lines(session, name, Place(box.account_id, box.id), plan.metadata, Options())


def _attributes(kind: bytes, name: str, box: Mailbox | None, superior: set[str], plan: ListPlan) -> list[bytes]:
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
    plan = list_plan.parse(cursor, options=False, utf8=session.utf8)
    return listed(session, _lsub_lines(session, plan), b"OK LSUB completed")


def _lsub_lines(session: Session, plan: ListPlan) -> Iterator[bytes]:
    """ "%" gives the parent of a subscribed name as \\Noselect (RFC 3501 §6.3.9)."""
    names: dict[str, None] = {}
    yield from each_subscription(session, names)
    existing: dict[str, Mailbox] = {}
    yield from each_mailbox(session, existing)
    parents_too = any(pattern.endswith("%") for pattern in plan.patterns)
    found: dict[str, list[bytes]] = {}
    for name in names:
        yield b""
        if plan.matches(name):
            found[name] = [] if name in existing else [b"\\Noselect"]
        elif parents_too:
            for parent in mailbox_name.parents(name):
                if parent not in names and plan.matches(parent):
                    found.setdefault(parent, [b"\\Noselect"])
    for name in _ordered(found):
        yield _answer(session, b"LSUB", found[name], name)


def namespace(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.end()
    shared = b'(("%b/" "/"))' % PUBLIC if session.access.has_public() else b"NIL"
    session.write(b'* NAMESPACE (("" "/")) (("%b/" "/")) %b\r\n' % (OTHERS, shared))
    return b"OK NAMESPACE completed"


def status(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    raw_name = cursor.astring()
    cursor.sp()
    items = list_plan.status_items(cursor)
    cursor.end()
    if b"HIGHESTMODSEQ" in items:
        session.enable(Feature.CONDSTORE)
    name = session.name_of(raw_name)
    try:
        box = session.mailboxes.hot(partial(session.box_named, name, rights.READ))
    except Cold as cold:
        return _status_when_there(session, cold, name, items)
    return _status(session, name, box, items)


def _status(session: Session, name: str, box: Mailbox | bytes, items: Collection[bytes]) -> Answer:
    if isinstance(box, bytes):
        return box
    return listed(session, status_lines(session, name, box, items), b"OK STATUS completed")


async def _status_when_there(session: Session, cold: Cold, name: str, items: Collection[bytes]) -> bytes:
    """STATUS of a mailbox whose record has to come from the disk."""
    found = partial(session.box_named, name, rights.READ)
    for _ in range(COLD_ROUNDS):
        await session.mailboxes.bring(cold)
        if session.state == State.LOGOUT:
            return b""
        try:
            box = session.mailboxes.hot(found)
            break
        except Cold as colder:
            cold = colder
    else:
        box = found()
    answer = _status(session, name, box, items)
    return answer or b"" if answer is None or isinstance(answer, bytes) else await answer


def status_lines(session: Session, name: str, box: Mailbox, items: Collection[bytes]) -> Iterator[bytes]:
    """The STATUS response; b"" after each page of a mailbox whose \\Recent messages are counted."""
    recent = 0
    last = max(0, box.recent_uid - 1) if b"RECENT" in items else box.uid_next
    while last < box.uid_next - 1:
        uids = session.mailboxes.uids(box.id, last, MAILBOX_PAGE)
        if not uids:
            break
        recent += bisect_left(uids, box.uid_next)
        last = uids[-1]
        yield b""
    deleted = 0
    last = 0 if b"DELETED-STORAGE" in items and box.deleted_count else box.uid_next
    while last < box.uid_next - 1:
        uids, flags, _modseqs, sizes, _words = session.mailboxes.summary(box.id, last, MAILBOX_PAGE)
        if not uids:
            break
        deleted += sum(size for size, each in zip(sizes, flags, strict=True) if each & DELETED)
        last = uids[-1]
        yield b""
    values = b" ".join(b"%b %b" % (item, _status_value(session, box, item, recent, deleted)) for item in items)
    yield b"* STATUS %b (%b)\r\n" % (session.written_name(name), values)


def _status_value(session: Session, box: Mailbox, item: bytes, recent: int, deleted: int) -> bytes:
    field = list_plan.STATUS_FIELDS.get(item)
    if field is not None:
        return b"%d" % getattr(box, field)
    if item == b"RECENT":
        return b"%d" % recent
    if item == b"DELETED-STORAGE":
        return b"%d" % deleted
    if item == b"MAILBOXID":
        return b"(%b)" % mailbox_name.object_id(box.id)
    limit = session.services.config.message_size_limit  # RFC 7889, APPENDLIMIT: one for all mailboxes
    return b"%d" % limit if limit else b"NIL"
