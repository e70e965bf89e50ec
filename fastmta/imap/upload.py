"""Messages on their way in, by APPEND and REPLACE (RFC 3501 §6.3.11, RFC 3502, RFC 8508).

Invariants: what can be known to fail is answered before a literal is asked for; the bytes are kept as they are given;
all messages of a command become visible in one step, or none does; whatever ends it early gives back what it took.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta import _imap, _mime
from fastmta._imap import BadSyntax, Cursor
from fastmta.imap.append_plan import Argument, Begin, End, Literal, Step, Stretches, Url
from fastmta.imap.mailbox_name import BadName
from fastmta.imap.session import GONE, UNAVAILABLE, SessionEnded, Sync, parse_verb
from fastmta.imap.url import Source, resolve
from fastmta.model.appended import Appended
from fastmta.model.errors import Refused, StorageFailure
from fastmta.model.flags import ALL_KEYWORDS
from fastmta.model.limits import (
    IMAP_COMMAND_UPLOAD_BYTES,
    IMAP_COPY_BYTES,
    IMAP_TRANSFER_TIMEOUT_S,
    IMAP_UPLOAD_RATE,
)

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Sequence

    from fastmta._mime import Structure
    from fastmta._unit import Blob
    from fastmta.imap.session import Session

NO_MAILBOX = b"NO [TRYCREATE] Mailbox does not exist"
LEFT = b"NO The upload was given up"  # the client has gone, and what it brought is discarded: nobody hears it


class Verdict:
    """What becomes of an announced literal. Plain numbers, as session.State."""

    ACCEPTED: Final = 0
    ARGUMENT: Final = 1  # it is an argument of the command
    REFUSED: Final = 2  # the tagged answer has been given


class Target(msgspec.Struct, frozen=True):
    """Where the messages go, and whose quota they take. `replaced`: a mailbox, a uid of it and its size, which goes in
    the same step. `lost`: flags that the session may not set there (RFC 4314 §4).
    """

    verb: bytes
    mailbox_id: int
    owner_id: int
    replaced: tuple[int, int, int] | None = None
    lost: int = 0


_NOTHING_BEGUN: Final = Begin(0, b"", None)
_UNLIMITED: Final = 2**63
_EMPTY: Final = b"NO [CANNOT] An empty message can't be stored"


class Upload:
    """One command between its first literal and its end."""

    __slots__ = (
        "_begin",
        "_begun_at",
        "_counted",
        "_octets",
        "_session",
        "_size",
        "_sources",
        "blob",
        "messages",
        "stretches",
        "structure",
        "tag",
        "target",
        "waiting",
    )

    def __init__(self, session: Session, tag: bytes, target: Target) -> None:
        services, account_id, counted = session.services, session.account_id, session.counted
        if counted is None or counted.account_id != account_id:
            session.counted = counted = services.limits.upload(session.peer_ip, account_id)
        self.tag = tag
        self.target = target
        self.stretches = Stretches(target.replaced is not None)
        self.messages: list[Appended] = []
        self.blob: Blob | None = None  # of the message that is coming
        self.structure: Structure | None = None
        self.waiting: Future[None] | None = None  # for the store to have written some
        self._session = session
        self._counted = counted
        self._begun_at = services.loop.time()
        self._octets = 0  # announced in all
        self._size = 0  # of the message that is coming, as far as it is announced
        self._begin = _NOTHING_BEGUN
        self._sources: deque[Source] = deque()  # of the stretch's URLs, held until they have been copied

    @property
    def ends_at(self) -> float:
        """On the loop's clock: when all that was announced must have come."""
        return float(self._begun_at + IMAP_TRANSFER_TIMEOUT_S + self._octets / IMAP_UPLOAD_RATE)

    # --- what is asked for ---

    def refusal(self, steps: Sequence[Step], size: int) -> bytes | None:
        """Why a stretch, with a literal of this size at its end, can't be done; else what it takes is counted.

        Its URLs have been resolved.
        """
        added = copied = 0
        total = self._size
        limit = self._session.services.config.message_size_limit or _UNLIMITED
        sources = iter(self._sources)
        for step in steps:
            if type(step) is Literal:
                total += size
                added += size
                if total == 0 and not self._catenates(steps):
                    return _EMPTY
            elif type(step) is End:
                if total == 0:
                    return _EMPTY
            elif type(step) is Begin:
                total = 0
                if step.utf8 and not self._session.utf8:
                    return b"BAD ENABLE UTF8=ACCEPT first"
            else:
                length = next(sources).length
                total += length
                copied += length
            if total > limit:
                return b"NO [TOOBIG] Message is larger than %d octets" % limit
        refusal = self._no_room(added, copied) if added + copied else None
        if refusal is None:
            self._size = total
            self._octets += added + copied
        return refusal

    async def resolve(self, steps: Sequence[Step]) -> bytes | None:
        """Finds and holds what the URLs of a stretch name, or gives the refusal. SessionEnded."""
        for step in steps:
            if not isinstance(step, Url):
                continue
            source = resolve(self._session, step.raw)
            if isinstance(source, bytes):
                return source
            self._session.mailboxes.hold(source.row)
            self._sources.append(source)
            await self._session.wire.pause()
            if self._session.upload is not self:
                raise SessionEnded
        return None

    def _catenates(self, steps: Sequence[Step]) -> bool:
        begins = [step for step in steps if isinstance(step, Begin)]
        return (begins[-1] if begins else self._begin).catenated

    def _no_room(self, added: int, copied: int) -> bytes | None:
        """Counts what is announced or `copied` as under way, or gives the refusal: the account has no room for it, with
        all else that it has announced.

        A single first literal may be of any size. What is copied costs the client no more than a URL, so it is bounded.
        """
        session, octets = self._session, self._octets
        if not session.services.storage_ok():
            return UNAVAILABLE
        wanted = added + copied
        if (octets or copied) and octets + wanted > IMAP_COMMAND_UPLOAD_BYTES:
            return b"NO [LIMIT] Too much in one command"
        room = session.mailboxes.room(self.target.owner_id, self.target.mailbox_id)
        begun = self._counted.announce(wanted) if octets else self._counted.begin(wanted)
        if room is not None:
            if self.target.replaced is not None:  # RFC 8508 §3.4
                room += self.target.replaced[2]
            announced = session.services.limits.appending(self._counted.account_id)
            if (max(wanted, announced) if begun else wanted + announced) > room:
                return b"NO [OVERQUOTA] Quota exceeded"
        return None if begun else b"NO [LIMIT] Too many unfinished uploads"

    # --- doing it ---

    def perform(self, steps: Sequence[Step]) -> Awaitable[None] | None:
        """Does a stretch that was not refused. What it gives must be awaited."""
        for at, step in enumerate(steps):
            if type(step) is Begin:
                if self._message_begins(step):
                    return self._perform_later(steps[at:])
            elif type(step) is End:
                self._message_is_whole()
            elif type(step) is Url:
                return self._perform_later(steps[at:])
        return None

    def _message_begins(self, step: Begin) -> bool:
        """True where the store has to write some of the message before it first."""
        self._begin = step
        self.blob = self._session.mailboxes.new_blob()
        self.structure = _mime.Structure()
        if not self.messages:
            return False
        waits = self.messages[-1].blob  # for this one, and not in memory
        waits.spill()
        return bool(waits.congested)

    async def _perform_later(self, steps: Sequence[Step]) -> None:
        """From a URL on, or from a Begin that is done already and for which the store has to write. SessionEnded."""
        if type(steps[0]) is Begin:
            await self._until_written(self.messages[-1].blob)
            steps = steps[1:]
        for step in steps:
            if type(step) is Url:
                await self._copy()
            elif type(step) is End:
                self._message_is_whole()
            elif type(step) is Begin and self._message_begins(step):
                await self._until_written(self.messages[-1].blob)

    async def _copy(self) -> None:
        """Copies the next source into the message that is coming. Refused, SessionEnded."""
        source, blob = self._sources[0], self.blob
        assert blob is not None, "no message is coming"
        at = 0
        while at < source.length:
            wanted = min(source.length - at, IMAP_COPY_BYTES)
            data: bytes | None
            if source.data is not None:
                data = source.data[at : at + wanted]
            else:
                waiting = self._session.mailboxes.need_on(source.row, source.offset + at, wanted)
                if waiting is not None:
                    await waiting
                data = self._session.mailboxes.read_on(source.row, source.offset + at, wanted)
            if not data:
                raise Refused("source")
            self.feed(data)
            at += len(data)
            await self._session.wire.pause()
            if self._session.upload is not self:
                raise SessionEnded
            await self._until_written(blob)
        self._session.mailboxes.release(self._sources.popleft().row)

    async def _until_written(self, blob: Blob) -> None:
        """Waits until the store has written enough of a blob. SessionEnded."""
        while blob.congested:
            self.waiting = self._session.services.loop.create_future()
            blob.on_drain = self._release
            await self.waiting
            self.waiting = None
            if self._session.upload is not self:
                raise SessionEnded
        blob.on_drain = None

    def _message_is_whole(self) -> None:
        begin, blob, structure, lost = self._begin, self.blob, self.structure, self.target.lost
        assert blob is not None and structure is not None, "no message is coming"
        date_s, tz_minutes = begin.date or (int(self._session.services.clock.now()), 0)
        flags, keywords = begin.flags & ~lost, b"" if lost & ALL_KEYWORDS else begin.keywords
        self.messages.append(Appended(blob, structure.finish(), date_s, tz_minutes, flags, keywords))
        blob.on_drain = None
        self.blob = self.structure = None

    def feed(self, data: bytes | memoryview) -> None:
        """Takes a piece of the message; the view is not kept."""
        assert self.blob is not None and self.structure is not None, "no message is coming"
        self.blob.feed(data)
        self.structure.feed(data)

    def abandon(self) -> None:
        """There will be no message: what it took of memory, disk and the account's bound is given back."""
        blobs = [message.blob for message in self.messages]
        if self.blob is not None:
            blobs.append(self.blob)
        for blob in blobs:
            blob.on_drain = None
            blob.abandon()
        self._end()

    def _end(self) -> None:
        """It is no longer an unfinished upload."""
        self._counted.end()
        for source in self._sources:
            self._session.mailboxes.release(source.row)
        self._sources.clear()
        self._release()

    def _release(self) -> None:
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)

    async def store(self) -> bytes:
        """Files the messages, all or none; the tagged answer."""
        session, target = self._session, self.target
        replaced = target.replaced[:2] if target.replaced is not None else None
        try:
            validity, uids = await session.mailboxes.append_many(target.mailbox_id, self.messages, replaced=replaced)
        except Refused as refusal:
            if refusal.code == "missing":
                return NO_MAILBOX
            if refusal.code == "changed":
                return GONE
            raise
        finally:
            self._end()
        session.filed(target.mailbox_id, uids)
        code = b"[APPENDUID %d %b]" % (validity, _imap.uid_set(uids))
        if replaced is None:
            return b"OK %b %b completed" % (code, target.verb)
        session.write(b"* OK %b Replacement stored\r\n" % code)  # before the EXPUNGE, RFC 8508 §4.3
        return b"OK %b completed" % target.verb


# --- what the connection calls ---


def announced(session: Session, text: bytes, size: int) -> int | Awaitable[int]:
    """A literal of `size` octets was announced behind `text`, which begins the command or goes on with it."""
    upload, tag, verb = session.upload, b"*", b""
    try:
        cursor = Cursor(text)
        if upload is None:
            tag = cursor.tag()
            cursor.sp()
            verb = parse_verb(cursor)
            begun = _begun(session, tag, verb, cursor)
            if isinstance(begun, bytes):
                return _refused(session, tag, begun)
            upload = begun
        tag, verb = upload.tag, upload.target.verb
        steps, following = upload.stretches.read(cursor)
        if following.has_urls:
            session.upload = upload
            upload.stretches = following
            return _accepted_later(session, upload, steps, size)
        answer = upload.refusal(steps, size)
    except Argument:
        return Verdict.ARGUMENT
    except BadSyntax as error:
        return _bad(session, tag, verb, error)
    except BadName as error:
        answer = b"NO [CANNOT] %b" % str(error).encode("ascii", "replace")
    if upload is None:
        return _refused(session, tag, answer or UNAVAILABLE)
    session.upload = upload  # so that a refusal gives back what it took
    if answer is not None:
        return _refused(session, tag, answer)
    upload.stretches = following
    try:
        pending = upload.perform(steps)
    except StorageFailure as error:
        return _refused(session, tag, session.storage_failed(error))
    return Verdict.ACCEPTED if pending is None else _performed_later(session, upload, pending)


def _begun(session: Session, tag: bytes, verb: bytes, cursor: Cursor) -> Upload | bytes:
    """The upload that a command's first words ask for, or its refusal. BadSyntax, BadName, Argument."""
    entry = session.entry(verb)
    if isinstance(entry, str) or entry.target is None:
        return b"BAD %b" % (entry.encode("ascii") if isinstance(entry, str) else b"Unknown command")
    target = entry.target(session, verb, cursor)
    return target if isinstance(target, bytes) else Upload(session, tag, target)


def _bad(session: Session, tag: bytes, verb: bytes, error: BadSyntax) -> int:
    session.drop_upload()
    session.bad(tag, f"{verb.decode('ascii')}: {error}" if verb else "Invalid tag")
    return Verdict.REFUSED


def _refused(session: Session, tag: bytes, answer: bytes) -> int:
    session.drop_upload()
    session.finish(tag, answer, Sync.NOTHING)
    return Verdict.REFUSED


async def _accepted_later(session: Session, upload: Upload, steps: Sequence[Step], size: int) -> int:
    """A stretch with URLs: they are looked up, counted, and what they name is copied, one after the other."""

    async def done() -> bytes:
        refusal = await upload.resolve(steps) or upload.refusal(steps, size)
        if refusal is not None:
            return refusal
        pending = upload.perform(steps)
        if pending is not None:
            await pending
        return b"OK"

    return _verdict(session, upload, await session.outcome(done()))


async def _performed_later(session: Session, upload: Upload, pending: Awaitable[None]) -> int:
    async def done() -> bytes:
        await pending
        return b"OK"

    return _verdict(session, upload, await session.outcome(done()))


def _verdict(session: Session, upload: Upload, text: bytes) -> int:
    if text == b"OK" and session.upload is upload:
        return Verdict.ACCEPTED
    return _refused(session, upload.tag, text) if text else Verdict.REFUSED


def feed(session: Session, data: bytes | memoryview) -> bool:
    """A piece of the literal. False where the store took no more: the rest of the command is to be dropped."""
    upload = session.upload
    if upload is None:
        return False
    try:
        upload.feed(data)
    except StorageFailure as error:
        tag = upload.tag
        session.drop_upload()
        session.write(b"%b %b\r\n" % (tag, session.storage_failed(error)))
        return False
    return True


def ended(session: Session, text: bytes) -> Awaitable[None] | None:
    """The command's line has ended behind its last literal. What it gives must be awaited."""
    upload = session.upload
    if upload is None:
        return session.bad(b"*", "No APPEND is under way")
    try:
        answer = _finished(session, upload, Cursor(text))
    except BadSyntax as error:
        _bad(session, upload.tag, upload.target.verb, error)
        return None
    except StorageFailure as error:
        answer = session.storage_failed(error)
    if isinstance(answer, bytes):
        _refused(session, upload.tag, answer)
        return None
    return session.run(upload.tag, answer, Sync.ALL)


def whole(session: Session, tag: bytes, target: Target, cursor: Cursor) -> bytes | Awaitable[bytes]:
    """A command whose last stretch follows its target: no literal of it is a message. BadSyntax, StorageFailure."""
    upload = session.upload = Upload(session, tag, target)
    try:
        answer = _finished(session, upload, cursor)
    except (BadSyntax, StorageFailure):
        session.drop_upload()
        raise
    if isinstance(answer, bytes):
        session.drop_upload()
    return answer


def _finished(session: Session, upload: Upload, cursor: Cursor) -> bytes | Awaitable[bytes]:
    """The command's last stretch: its refusal, or what answers it. BadSyntax, StorageFailure."""
    steps, following = upload.stretches.read(cursor)
    if steps and type(steps[-1]) is Literal:
        raise BadSyntax("Literal expected")
    if following.has_urls:
        return _store_later(session, upload, _copied(upload, steps))
    refusal = upload.refusal(steps, 0)
    if refusal is not None:
        return refusal
    pending = upload.perform(steps)
    if pending is not None:
        return _store_later(session, upload, pending)
    session.upload = None  # from here on the store owns its blobs
    return upload.store()


async def _copied(upload: Upload, steps: Sequence[Step]) -> bytes | None:
    """Does a last stretch with URLs, or gives its refusal. Refused, SessionEnded."""
    refusal = await upload.resolve(steps) or upload.refusal(steps, 0)
    if refusal is None and (pending := upload.perform(steps)) is not None:
        await pending
    return refusal


async def _store_later(session: Session, upload: Upload, pending: Awaitable[bytes | None]) -> bytes:
    """Files the messages when what the last stretch asks for has been done; `pending` gives a refusal, or None."""
    try:
        refusal = await pending
        if refusal is not None:
            return refusal
        if session.upload is not upload:
            return LEFT
        session.upload = None
    finally:
        if session.upload is upload:
            session.drop_upload()
    return await upload.store()
