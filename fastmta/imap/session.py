"""The rules of an IMAP session (RFC 3501): its states, which command is legal in which, and how a command is answered.

A session takes whole commands and writes responses to its Wire; it knows no socket, loop, clock or store but through
the seams. A command that can be answered at once is a plain function; one that has to wait gives an awaitable, and no
further command is taken until it is done. At a command's end the session tells what other sessions have changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta._imap import FATAL, LITERAL_TOO_BIG, BadSyntax, Cursor
from fastmta.imap import mailbox_name
from fastmta.imap.mailbox_name import BadName
from fastmta.imap.view import MailboxGone, View
from fastmta.model import rights
from fastmta.model.actor import NOBODY
from fastmta.model.errors import Refused, StorageFailure, StoreDamaged
from fastmta.model.limits import IMAP_BAD_COMMANDS, IMAP_PAREN_DEPTH

if TYPE_CHECKING:
    from array import array

    from fastmta.imap.message_set import Chosen
    from fastmta.imap.seams import Access, Answer, Counted, Mailboxes, Services, Watching, Wire
    from fastmta.imap.upload import Target, Upload
    from fastmta.store.mailbox_names import Mailbox


class SessionEnded(Exception):
    """The peer has left while its command was under way: nobody is there to be answered, and nothing is wrong."""


class State:
    """RFC 3501 §3. Bits, so that a command lists the states it is legal in; plain numbers, since an IntFlag's `&` costs
    more than the rest of a short command.
    """

    NOT_AUTHENTICATED: Final = 1
    AUTHENTICATED: Final = 2
    SELECTED: Final = 4
    LOGOUT: Final = 8


ANY: Final = State.NOT_AUTHENTICATED | State.AUTHENTICATED | State.SELECTED
LOGGED_IN: Final = State.AUTHENTICATED | State.SELECTED


class Feature:
    """What a client has asked for, and is answered by for the rest of the session (RFC 5161, RFC 7162 §3.1)."""

    NONE: Final = 0
    CONDSTORE: Final = 1
    QRESYNC: Final = 2
    UTF8: Final = 4  # RFC 9755
    REV2: Final = 8  # RFC 9051
    UIDONLY: Final = 16  # RFC 9586


class Sync:
    """What a command tells at its end of the changes that others made."""

    NOTHING: Final = 0
    NO_EXPUNGE: Final = 1  # FETCH, STORE, SEARCH and COPY by number: numbers stay (RFC 3501 §7.4.1)
    ALL: Final = 2


class Command(msgspec.Struct, frozen=True):
    """One line of the command table."""

    run: Callable[[Session, bytes, Cursor], Answer]
    states: int
    sync: int = Sync.NOTHING
    target: Callable[[Session, bytes, Cursor], Target | bytes] | None = None  # of one that uploads messages


def parse_verb(cursor: Cursor) -> bytes:
    """A command's name in upper case; "UID" and the name behind it are one. BadSyntax."""
    name = cursor.atom()
    if name != b"UID":
        return name
    cursor.sp()
    return b"UID " + cursor.atom()


REFUSALS: Final = {
    "exists": b"NO [ALREADYEXISTS] Mailbox already exists",
    "missing": b"NO [NONEXISTENT] Mailbox does not exist",
    "changed": b"NO [INUSE] Changed by another session meanwhile, try again",
    "source": b"NO [EXPUNGEISSUED] A message that was to be copied from has gone meanwhile",
    "many": b"NO [LIMIT] Too many mailboxes",
    "quota": b"NO [OVERQUOTA] Quota exceeded",
    "forbidden": b"NO [NOPERM] Permission denied",
    "elsewhere": b"NO [CANNOT] A mailbox can't become another account's",
}
FAILURES: Final = (BadSyntax, BadName, Refused, StorageFailure, MailboxGone, SessionEnded)  # of commands that wait
GONE: Final = b"NO [EXPUNGEISSUED] Some of the messages no longer exist"
UNAVAILABLE: Final = b"NO [UNAVAILABLE] Storage is not available now, try again later"
DAMAGED: Final = b"NO [SERVERBUG] Not all of this mailbox can be read, the administrator has been told"
ASKED_FOR_CHANGES: Final = frozenset((b"OK NOOP completed", b"OK CHECK completed", b"OK IDLE completed"))
EXPUNGED: Final = frozenset(
    b"OK %b completed" % verb for verb in (b"EXPUNGE", b"UID EXPUNGE", b"MOVE", b"REPLACE", b"UID REPLACE")
)
_DECISIONS: Final = (b"NO [OVERQUOTA]", b"NO [LIMIT]", b"NO [UNAVAILABLE]", b"NO [PRIVACYREQUIRED]")
# Commands that name messages, or answer, by number: not after ENABLE UIDONLY (RFC 9586 §3.1).
BY_NUMBER: Final = frozenset((b"FETCH", b"STORE", b"COPY", b"MOVE", b"SEARCH", b"SORT", b"THREAD", b"REPLACE"))
UID_REQUIRED: Final = "[UIDREQUIRED] Messages are named by uid alone after ENABLE UIDONLY"
SERVER_BUG: Final = b"NO [SERVERBUG] Internal error, the administrator has been told"


class Session:
    """One connection's session. `services` and the command table are shared by all."""

    __slots__ = (
        "__weakref__",
        "actor",
        "address",
        "bad_commands",
        "certified",
        "commands",
        "counted",
        "enabled",
        "failed_logins",
        "idle_tag",
        "loopback",
        "made",
        "named",
        "on_line",
        "opened_by",
        "peer_ip",
        "seat",
        "service",
        "services",
        "state",
        "tag",
        "tls",
        "upload",
        "view",
        "watching",
        "wire",
    )

    def __init__(
        self,
        services: Services,
        wire: Wire,
        commands: dict[bytes, Command],
        *,
        service: str,
        tls: bool,
        peer_ip: str,
        loopback: bool,
    ) -> None:
        self.services = services
        self.wire = wire
        self.commands = commands
        self.service = service
        self.tls = tls
        self.certified = ""  # the login name in the client's certificate
        self.peer_ip = peer_ip
        self.loopback = loopback
        self.state: int = State.NOT_AUTHENTICATED
        self.actor = NOBODY
        self.address = ""
        self.opened_by = b""  # the mark of an app password
        self.view: View | None = None
        self.tag = b"*"  # of the command that runs
        self.idle_tag: bytes | None = None
        self.on_line: Callable[[bytes], Awaitable[None] | None] | None = None  # who takes the next SASL response
        self.named: Chosen | None = None  # the messages that the running command named by number
        self.made: array[int] | None = None  # the uids that it filed in the selected mailbox, while somebody asks
        self.watching: Watching | None = None  # once NOTIFY was given
        self.upload: Upload | None = None
        self.counted: Counted | None = None  # what the account's uploads hold here, once there was one
        self.bad_commands = 0
        self.failed_logins = 0
        self.enabled: int = Feature.NONE
        self.seat = services.limits.seat(service, peer_ip)

    # --- what a command may use ---

    def write(self, data: bytes) -> None:
        self.wire.write(data)

    @property
    def selected(self) -> View:
        """The view of the selected mailbox; only in state SELECTED. SessionEnded where the peer has left meanwhile."""
        view = self.view
        if view is None:
            if self.state == State.LOGOUT:
                raise SessionEnded
            raise RuntimeError("no mailbox is selected")
        return view

    @property
    def account_id(self) -> int:
        """0 where nobody has logged in."""
        return self.actor.account_id

    @property
    def access(self) -> Access:
        """The mailboxes by their names; ask as `actor`."""
        return self.services.store.access

    @property
    def mailboxes(self) -> Mailboxes:
        """The mailboxes by their ids."""
        return self.services.store.mailboxes

    @property
    def utf8(self) -> bool:
        """Whether mailbox names are UTF-8 on the wire."""
        return bool(self.enabled & (Feature.UTF8 | Feature.REV2))

    def name_of(self, raw: bytes) -> str:
        """The mailbox name that an argument stands for. BadName."""
        return mailbox_name.parse(raw, utf8=self.utf8)

    def spelled(self, raw: bytes) -> str:
        """The name that an argument was written as, INBOX in any case. BadName."""
        return mailbox_name.decode(raw, utf8=self.utf8)

    def written_name(self, name: str) -> bytes:
        """A mailbox name as this client reads it."""
        return mailbox_name.written(name, utf8=self.utf8)

    def box_named(self, name: str, right: int, missing: bytes = REFUSALS["missing"]) -> Mailbox | bytes:
        """The mailbox that a name means here, on which the session has this right; or the refusal."""
        try:
            return self.access.resolve(self.actor, name, right)
        except Refused as refusal:
            return missing if refusal.code == "missing" else REFUSALS[refusal.code]

    @property
    def rights(self) -> int:
        """What the session may do in the selected mailbox, as of now."""
        view = self.selected
        return self.access.rights(self.actor, view.owner_id, view.mailbox_id)

    def require_readable(self) -> None:
        """MailboxGone where somebody else's mailbox is selected that may not be read any more."""
        view = self.view
        if view is not None and view.owner_id != self.actor.account_id and not self.rights & rights.READ:
            raise MailboxGone

    def select(self, view: View) -> None:
        self.view = view
        if view.owner_id != self.account_id:
            self.services.notifier.subscribe(view.owner_id, self)  # rights may be taken away
        view.hold = self._hold
        self._tell_features(view)
        if self.watching is not None:
            self.watching.apply(view)
        self.state = State.SELECTED

    def enable(self, features: int) -> None:
        """From here on; a selected mailbox tells where its modseqs stand (RFC 7162 §3.1)."""
        if features & Feature.QRESYNC:
            features |= Feature.CONDSTORE
        fresh = features & ~self.enabled
        self.enabled |= features
        if self.view is not None:
            self._tell_features(self.view)
            if fresh & Feature.CONDSTORE:
                self.write(b"* OK [HIGHESTMODSEQ %d] Highest\r\n" % self.view.modseq_cap)
            if fresh & Feature.UIDONLY and self.view.contexts is not None:
                self.view.contexts.end_numbered(self.write)

    def _tell_features(self, view: View) -> None:
        view.with_modseq = bool(self.enabled & Feature.CONDSTORE)
        view.with_uid = bool(self.enabled & Feature.QRESYNC)
        view.uid_only = bool(self.enabled & Feature.UIDONLY)
        if self.enabled & Feature.REV2:
            view.takes_recent = False
            view.recent = ()

    async def _hold(self) -> bool:
        await self.wire.flush()
        return self.state != State.LOGOUT

    def unselect(self) -> None:
        """Forgets the selected mailbox, if there is one, and hears of its changes no more."""
        if self.view is not None:
            self.services.notifier.unsubscribe(self.view.mailbox_id, self)
            if self.view.owner_id != self.account_id:
                self.services.notifier.unsubscribe(self.view.owner_id, self)
            self.view = None
            self.state = State.AUTHENTICATED

    def watch_nothing(self) -> None:
        """As before the first NOTIFY."""
        if self.watching is not None:
            self.watching.end(self)
            self.watching = None

    def renames(self, *names: str) -> None:
        """The session is about to change the list, or its subscriptions, by these names."""
        if self.watching is not None:
            self.watching.own_names(*names)

    def filed(self, mailbox_id: int, uids: array[int]) -> None:
        """The session has put messages into a mailbox."""
        if self.view is not None and self.view.mailbox_id == mailbox_id and self.view.arrived is not None:
            self.made = uids
        if self.watching is not None:
            self.watching.own_messages(self, mailbox_id, len(uids))

    def drop_upload(self) -> None:
        """Gives up the message that is under way, if there is one."""
        if self.upload is not None:
            self.upload.abandon()
            self.upload = None

    def log_out(self) -> None:
        self.drop_upload()
        self.unselect()
        self.watch_nothing()
        self.state = State.LOGOUT
        self.wire.close()

    # --- commands ---

    def command(self, raw: bytes) -> Awaitable[None] | None:
        """Runs one command. What it gives must be awaited before the next one is run."""
        cursor = Cursor(raw, IMAP_PAREN_DEPTH)
        try:
            tag = cursor.tag()
        except BadSyntax:
            return self.bad(b"*", "Invalid tag")
        try:
            cursor.sp()
            name = parse_verb(cursor)
        except BadSyntax as error:
            return self.bad(tag, str(error))
        entry = self.entry(name)
        if isinstance(entry, str):
            return self.bad(tag, entry)
        self.tag = tag
        try:
            if entry.states == State.SELECTED:
                self.require_readable()
            answer = entry.run(self, tag, cursor)
        except BadSyntax as error:
            return self.bad(tag, str(error) if str(error).startswith("[") else f"{name.decode('ascii')}: {error}")
        except BadName as error:
            answer = b"NO [CANNOT] %b" % str(error).encode("ascii", "replace")
        except StorageFailure as error:
            answer = self.storage_failed(error)
        except MailboxGone:
            answer = self.mailbox_gone()
        self.bad_commands = 0
        if answer is None:
            return None
        if isinstance(answer, bytes):
            return self.finish(tag, answer, entry.sync)
        return self.run(tag, answer, entry.sync)

    def entry(self, name: bytes) -> Command | str:
        """The command of this name, or why it is not legal now."""
        entry = self.commands.get(name)
        if entry is None:
            return "Unknown command"
        if not entry.states & self.state:
            return self._wrong_state(entry.states)
        if self.enabled & Feature.UIDONLY and name in BY_NUMBER:
            return UID_REQUIRED
        return entry

    def _wrong_state(self, legal: int) -> str:
        if self.state == State.NOT_AUTHENTICATED:
            return "Log in first"
        return "No mailbox selected" if legal == State.SELECTED else "Not valid in this state"

    def bad(self, tag: bytes, text: str) -> Awaitable[None] | None:
        """BAD (RFC 3501 §7.1.3); too many in a row end the session."""
        self.write(b"%b BAD %b\r\n" % (tag, text.encode("ascii", "backslashreplace")))
        self.bad_commands += 1
        if self.bad_commands >= IMAP_BAD_COMMANDS and self.state != State.LOGOUT:
            self.write(b"* BYE Too many invalid commands\r\n")
            self.log_out()
        return None

    async def run(self, tag: bytes, answer: Awaitable[bytes], sync: int = Sync.NOTHING) -> None:
        """Waits for a command's answer and gives it; b"" where the command answers by other ways."""
        try:
            text = await answer
        except FAILURES as error:
            text = self._failed(error)
        if not text:
            return  # the command answers by other ways
        pending = self.finish(tag, text, sync)
        if pending is not None:
            await pending

    async def outcome(self, answer: Awaitable[bytes]) -> bytes:
        """The tagged text of a command that had to wait, failures included."""
        try:
            return await answer
        except FAILURES as error:
            return self._failed(error)

    def _failed(self, error: Exception) -> bytes:
        """What a command that had to wait answers to one of FAILURES."""
        if isinstance(error, BadSyntax):
            return b"BAD %b" % str(error).encode("ascii", "backslashreplace")
        if isinstance(error, BadName):
            return b"NO [CANNOT] %b" % str(error).encode("ascii", "replace")
        if isinstance(error, Refused):
            return REFUSALS.get(error.code, b"NO Refused")
        if isinstance(error, StorageFailure):
            return self.storage_failed(error)
        return self.mailbox_gone() if isinstance(error, MailboxGone) else b""

    def storage_failed(self, error: StorageFailure) -> bytes:
        """The tagged text of a command that the store failed; damage has been logged already, once for each place."""
        if isinstance(error, StoreDamaged):
            return DAMAGED
        self.services.log.error("imap.storage", error=error)
        return UNAVAILABLE

    def _refused(self, text: bytes) -> None:
        """A limit or quota of ours is told; what a client asked in vain only to who follows it."""
        log = self.services.log
        event = log.info if text.startswith(_DECISIONS) else log.debug
        event("imap.refused", account=self.address or None, client=self.peer_ip, reply=text)

    def finish(self, tag: bytes, text: bytes, sync: int) -> Awaitable[None] | None:
        """Tells what has changed, then the tagged response."""
        if text.startswith(b"NO"):
            self._refused(text)
        if sync and self.view is not None:
            try:
                self.require_readable()
                # Own expunges are told also where others' changes are not wanted.
                pending = self.view.sync(
                    self.mailboxes, self.wire.write, expunge=sync == Sync.ALL, anyway=text in EXPUNGED
                )
            except MailboxGone:
                self.mailbox_gone()
                return None
            except StorageFailure as error:
                text = self._untold(text, error)
                pending = None
            if pending is not None or self.view.has_more:
                return self._finish_later(tag, text, pending)
        self._close_command(tag, text)
        return None

    async def _finish_later(self, tag: bytes, text: bytes, pending: Awaitable[None] | None) -> None:
        try:
            if pending is not None:
                await pending
            await self.tell_results()
            if self.watching is not None:
                await self.watching.tell_arrived(self)
        except MailboxGone:
            self.mailbox_gone()
            return
        except Refused as error:
            self.services.log.error("imap.storage", error=error)
        except StorageFailure as error:
            text = self._untold(text, error)
        self._close_command(tag, text)

    def _untold(self, text: bytes, error: StorageFailure) -> bytes:
        """What a command ends with where it cannot be told what has changed; one that only asks for that has failed."""
        failure = self.storage_failed(error)
        if text in ASKED_FOR_CHANGES:
            return failure
        self.write(b"* %b\r\n" % failure)
        return text

    def _close_command(self, tag: bytes, text: bytes) -> None:
        if self.named is not None:
            # Messages named by number were gone already (RFC 2180 §4.1.2); by uid they are passed over.
            if text.startswith(b"OK") and self.view is not None and self.view.lost(self.named):
                text = GONE
            self.named = None
        if text in EXPUNGED and self.view is not None and self.enabled & Feature.CONDSTORE:
            text = b"OK [HIGHESTMODSEQ %d]%b" % (self.view.modseq, text[2:])  # RFC 7162 §3.2.7
        self.write(b"%b %b\r\n" % (tag, text))

    def mailbox_gone(self) -> bytes:
        """RFC 2180 §3.3: the session cannot go on."""
        if self.state != State.LOGOUT:
            self.write(b"* BYE The selected mailbox was deleted\r\n")
            self.log_out()
        return b"NO [NONEXISTENT] The selected mailbox was deleted"

    def too_big(self, event: int, raw: bytes) -> Awaitable[None] | None:
        """A line or a literal over its limit (an event of the parser), refused by the tag that came with it."""
        try:
            tag = self.upload.tag if self.upload is not None else Cursor(raw).tag()
        except BadSyntax:
            tag = b"*"
        self.drop_upload()
        if event == FATAL:
            self.write(b"* BYE [TOOBIG] %b is too large\r\n" % (b"Literal" if raw else b"Line"))
            self.log_out()
            return None
        if event == LITERAL_TOO_BIG:
            return self.bad(tag, "[TOOBIG] Literal is too large")
        if self.idle_tag is not None or self.on_line is not None:
            return self.line(b"*")  # no DONE and no SASL response: the command that awaits one ends with BAD
        return self.bad(tag, "[TOOBIG] Command is too long")

    # --- a raw line: a SASL response, or DONE ---

    def line(self, raw: bytes) -> Awaitable[None] | None:
        if self.idle_tag is not None:
            return self._done(raw)
        taker, self.on_line = self.on_line, None
        if taker is not None:
            return taker(raw)
        return self.bad(b"*", "Unexpected line")

    def _done(self, raw: bytes) -> Awaitable[None] | None:
        """The end of IDLE (RFC 2177)."""
        tag, self.idle_tag = self.idle_tag or b"*", None
        if raw.upper() != b"DONE":
            return self.bad(tag, "Expected DONE")
        return self.finish(tag, b"OK IDLE completed", Sync.ALL)

    # --- the notifier's watcher ---

    def mailbox_changed(self, mailbox_id: int) -> None:
        """Called on the loop after a commit, for a mailbox or an account's list. A session in IDLE is told now, and one
        that has given NOTIFY; any other at its command's end.
        """
        view, watching = self.view, self.watching
        if watching is not None and watching.note(mailbox_id):
            self.wire.changed()
        if (
            (self.idle_tag is not None or watching is not None)
            and view is not None
            and mailbox_id in (view.mailbox_id, view.owner_id)
        ):
            self.wire.changed()

    def tell_idle(self) -> Awaitable[None] | None:
        """Tells a session in IDLE, or one that has given NOTIFY, what has changed. What it gives must be awaited."""
        watching = self.watching
        if watching is None and (self.idle_tag is None or self.view is None):
            return None
        pending = None
        try:
            self.require_readable()
            if self.view is not None:
                at_once = self.idle_tag is not None or watching is None or not watching.delayed
                pending = self.view.sync(self.mailboxes, self.wire.write, expunge=at_once)
        except MailboxGone:
            self.mailbox_gone()
            return None
        except StorageFailure as error:
            self.write(b"* %b\r\n" % self.storage_failed(error))
            return None
        if watching is not None:
            pending = watching.tell(self, pending)
        if pending is None and (self.view is None or not self.view.has_more):
            return None
        return self._tell_later(pending)

    async def tell_results(self) -> None:
        """How the results of searches have changed that are kept up to date."""
        view = self.view
        if view is not None and view.contexts is not None:
            await view.contexts.tell(self, view)

    async def _tell_later(self, pending: Awaitable[None] | None) -> None:
        try:
            if pending is not None:
                await pending
            if self.watching is None:
                await self.tell_results()
        except MailboxGone:
            self.mailbox_gone()
        except (Refused, StorageFailure) as error:
            self.services.log.error("imap.storage", error=error)

    def ended(self) -> None:
        """The connection is gone."""
        self.drop_upload()
        self.idle_tag = None
        self.unselect()
        self.watch_nothing()
        self.state = State.LOGOUT
