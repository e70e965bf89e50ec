"""APPEND (RFC 3501 §6.3.11) with APPENDUID (RFC 4315 §3): the message goes to the store as it comes.

What can be known to fail is answered before the literal is asked for. The bytes are kept as they are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastmta import _mime
from fastmta._imap import BadSyntax, Cursor
from fastmta.imap import mailbox_name
from fastmta.imap.dates import parse_date_time
from fastmta.imap.flag_names import parse_flags
from fastmta.imap.mailbox_name import BadName
from fastmta.imap.session import LOGGED_IN, UNAVAILABLE, Sync
from fastmta.model.errors import StorageFailure
from fastmta.model.limits import IMAP_TRANSFER_TIMEOUT_S, IMAP_UPLOAD_RATE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastmta.imap.seams import Answer, Counted
    from fastmta.imap.session import Session


class Upload:
    """One APPEND between its literal's announcement and its end."""

    __slots__ = ("_ended", "blob", "date", "flags", "keywords", "mailbox_id", "structure", "tag", "time_s")

    def __init__(
        self,
        tag: bytes,
        mailbox_id: int,
        flags: int,
        keywords: bytes,
        date: tuple[int, int],
        blob: Any,
        time_s: float,
        ended: Callable[[], None],
    ) -> None:
        self.tag = tag
        self.mailbox_id = mailbox_id
        self.flags = flags
        self.keywords = keywords
        self.date = date
        self.blob = blob
        self.structure = _mime.Structure()
        self.time_s = time_s  # within which all of it must have come
        self._ended: Callable[[], None] | None = ended

    def feed(self, data: Any) -> None:
        """Takes a piece of the message; the view is not kept."""
        self.blob.feed(data)
        self.structure.feed(data)

    def abandon(self) -> None:
        """It will never be a message: what it took of memory, disk and the account's bound is given back."""
        self.blob.on_drain = None
        self.blob.abandon()
        self.end()

    def end(self) -> None:
        """It is no longer an unfinished upload."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()


def run(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    """A whole APPEND line without the message's literal."""
    raise BadSyntax("Literal expected")


def begin(session: Session, raw: bytes, size: int) -> bool:
    """The literal was announced: whether it is taken. Where not, the tagged answer has been written.

    `raw` is the command up to its literal, announcement included.
    """
    cursor = Cursor(raw)
    try:
        tag = cursor.tag()
    except BadSyntax:
        session.bad(b"*", "Invalid tag")
        return False
    try:
        answer = _begin(session, tag, cursor, size)
    except BadSyntax as error:
        session.bad(tag, f"APPEND: {error}")
        return False
    except BadName as error:
        answer = b"NO [CANNOT] %b" % str(error).encode("ascii", "replace")
    if answer is None:
        return True
    session.write(b"%b %b\r\n" % (tag, answer))
    return False


def _begin(session: Session, tag: bytes, cursor: Cursor, size: int) -> bytes | None:
    cursor.sp()
    cursor.atom()
    if not session.state & LOGGED_IN:
        return b"BAD Log in first"
    cursor.sp()
    raw_name = cursor.astring()
    cursor.sp()
    names: list[bytes] = []
    if cursor.at(0x28):
        names = cursor.flag_list()
        cursor.sp()
    date = (int(session.services.clock.now()), 0)
    if cursor.at(0x22):
        date = parse_date_time(cursor.string())
        cursor.sp()
    if not cursor.take(0x7B):
        raise BadSyntax("Literal expected")
    cursor.number()
    cursor.take(0x2B)
    if not cursor.take(0x7D) or not cursor.at_end():
        raise BadSyntax("Literal expected")
    flags, keywords = parse_flags(names)
    box = session.mailboxes.get(session.account_id, mailbox_name.parse(raw_name))
    if box is None:
        return b"NO [TRYCREATE] Mailbox does not exist"
    limit = session.services.config.message_size_limit
    if limit and size > limit:
        return b"NO [TOOBIG] Message is larger than %d octets" % limit
    if size == 0:
        return b"NO [CANNOT] An empty message can't be stored"
    if not session.services.storage_ok():
        return UNAVAILABLE
    counted = session.services.limits.upload(session.peer_ip, session.account_id)
    refusal = _no_room(session, size, counted)
    if refusal is not None:
        return refusal
    try:
        blob = session.mailboxes.new_blob()
    except StorageFailure:
        counted.end()
        raise
    session.upload = Upload(tag, box.id, flags, keywords, date, blob, time_for(size), counted.end)
    return None


def _no_room(session: Session, size: int, counted: Counted) -> bytes | None:
    """Counts the message as under way, or gives the refusal: the account has no room for all that it has announced."""
    begun = counted.begin(size)
    announced = session.services.limits.appending(session.account_id)
    room = session.mailboxes.room(session.account_id)
    if room is not None and (max(size, announced) if begun else size + announced) > room:
        counted.end()
        return b"NO [OVERQUOTA] Quota exceeded"
    return None if begun else b"NO [LIMIT] Too many unfinished uploads"


def time_for(size: int) -> float:
    """Seconds within which an upload must have ended."""
    return IMAP_TRANSFER_TIMEOUT_S + size / IMAP_UPLOAD_RATE


def feed(session: Session, data: Any) -> bool:
    """A piece of the literal. False where the store took no more: the rest of the command is to be dropped."""
    upload = session.upload
    if upload is None:
        return False
    try:
        upload.feed(data)
    except StorageFailure as error:
        session.upload = None
        upload.abandon()
        session.write(b"%b %b\r\n" % (upload.tag, session.storage_failed(error)))
        return False
    return True


def end(session: Session, rest: bytes) -> Awaitable[None] | None:
    """The literal is whole and the command's line has ended. What it gives must be awaited."""
    upload, session.upload = session.upload, None
    if upload is None:
        return session.bad(b"*", "No APPEND is under way")
    if rest.strip(b" "):
        upload.abandon()
        return session.bad(upload.tag, "APPEND: Only one message a command")
    return session.run(upload.tag, _store(session, upload), Sync.ALL)


async def _store(session: Session, upload: Upload) -> bytes:
    upload.blob.on_drain = None
    date_s, tz_minutes = upload.date
    try:
        validity, uid = await session.mailboxes.append(
            upload.mailbox_id,
            upload.blob,
            flags=upload.flags,
            keywords=upload.keywords,
            internal_date_s=date_s,
            tz_minutes=tz_minutes,
            structure=upload.structure.finish(),
        )
    finally:
        upload.end()
    return b"OK [APPENDUID %d %d] APPEND completed" % (validity, uid)
