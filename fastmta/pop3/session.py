"""The rules of a POP3 session (RFC 1939, 2449, 2595, 5034, 6856): a command line in, a reply or an action out.

States and commands stand in ALLOWED; a pair that is not listed is -ERR by construction. The session knows neither
socket nor store: it is told how a login ended and given the maildrop, and keeps deletions until QUIT, which alone
enters UPDATE.

Invariants: message numbers never change within a session, also where another session expunges; a reply is one line, or
lines and a final "."; nothing is believed of what was said before STLS.
"""

import binascii
from array import array
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from typing import Final

import msgspec

from fastmta.auth.sasl import Challenge, Credentials, Failure, Sasl, Step
from fastmta.model.flags import SEEN
from fastmta.model.limits import (
    POP3_BAD_COMMANDS,
    POP3_LISTING_LINES,
    POP3_LOGIN_ATTEMPTS,
    POP3_UPDATED_MESSAGES,
)
from fastmta.model.uidl import own_uidl


class State(Enum):
    __hash__ = object.__hash__  # they are compared by identity, and Enum's own runs in Python

    AUTHORIZATION = auto()
    NAMED = auto()  # USER was accepted, PASS may follow
    SASL = auto()  # the next line is a response
    TRANSACTION = auto()
    UPDATE = auto()  # QUIT was said


class Verb(Enum):
    """The commands; APOP is not one, since it asks for passwords kept in clear."""

    __hash__ = object.__hash__

    AUTH = b"AUTH"
    CAPA = b"CAPA"
    DELE = b"DELE"
    LANG = b"LANG"
    LIST = b"LIST"
    NOOP = b"NOOP"
    PASS = b"PASS"
    QUIT = b"QUIT"
    RETR = b"RETR"
    RSET = b"RSET"
    STAT = b"STAT"
    STLS = b"STLS"
    TOP = b"TOP"
    UIDL = b"UIDL"
    USER = b"USER"
    UTF8 = b"UTF8"


# For the hot path: module constants are cheaper than attributes of an enum.
SASL: Final = State.SASL
TRANSACTION: Final = State.TRANSACTION
_PASS: Final = Verb.PASS

_ALWAYS: Final = frozenset({Verb.CAPA, Verb.LANG, Verb.QUIT})
_BEFORE_LOGIN: Final = _ALWAYS | {Verb.USER, Verb.AUTH, Verb.STLS, Verb.UTF8}
ALLOWED: Final[dict[State, frozenset[Verb]]] = {
    State.AUTHORIZATION: _BEFORE_LOGIN,
    State.NAMED: _BEFORE_LOGIN | {Verb.PASS},
    State.SASL: frozenset(),
    State.TRANSACTION: _ALWAYS
    | {Verb.STAT, Verb.LIST, Verb.RETR, Verb.DELE, Verb.NOOP, Verb.RSET, Verb.TOP, Verb.UIDL},
    State.UPDATE: frozenset(),
}
_VERBS: Final = {verb.value: verb for verb in Verb}
_FOREIGN: Final = frozenset((b"GET", b"POST", b"HEAD", b"PUT", b"CONNECT", b"OPTIONS", b"EHLO", b"HELO"))


class LogIn(msgspec.Struct, frozen=True, gc=False):
    """Check these credentials, lock the maildrop, then call `opened`, or `refused`."""

    credentials: Credentials


class StartTls(msgspec.Struct, frozen=True, gc=False):
    """Say `reply`, drop all other input, shake hands, then go on with a new session."""

    reply: bytes


class Retrieve(msgspec.Struct, frozen=True, gc=False):
    """Send message `index` (from 0) stuffed, +OK line in front and "." behind; `body_lines`: None, or TOP's count."""

    index: int
    body_lines: int | None


class Listing(msgspec.Struct, frozen=True, gc=False):
    """Send these blocks; they hold the status line and the final "."."""

    blocks: Iterator[bytes]


class Update(msgspec.Struct, frozen=True, gc=False):
    """QUIT after login: remove the maildrop's deleted_uids, mark its seen_uids, say how that went, and close."""


class Close(msgspec.Struct, frozen=True, gc=False):
    """Say `reply` and close; the maildrop stays as it is."""

    reply: bytes


Action = bytes | LogIn | StartTls | Retrieve | Listing | Update | Close


class Maildrop:
    """The messages of one session as they were at login, and what it wants deleted."""

    __slots__ = (
        "_deleted",
        "_flags",
        "_retrieved",
        "_total_bytes",
        "_uidl_of",
        "deleted_keyword",
        "live",
        "live_bytes",
        "mailbox_id",
        "sizes",
        "uid_validity",
        "uids",
    )

    def __init__(
        self,
        mailbox_id: int,
        uid_validity: int,
        uids: Sequence[int],
        sizes: Sequence[int],
        flags: Sequence[int],
        deleted_keyword: bytes = b"",
        uidl_of: Callable[[int], bytes | None] | None = None,
    ) -> None:
        """`deleted_keyword`: what DELE sets instead of removing the message, which the maildrop hides. `uidl_of`: what
        messages are called that came with a name, by uid; None where no message did.
        """
        self._uidl_of = uidl_of
        self._flags = flags
        self.mailbox_id = mailbox_id
        self.uid_validity = uid_validity
        self.uids = uids
        self.sizes = sizes
        self._deleted = bytearray(len(uids))
        self._retrieved = bytearray(len(uids))
        self._total_bytes = sum(sizes)
        self.deleted_keyword = deleted_keyword
        self.live = len(uids)
        self.live_bytes = self._total_bytes

    def index_of(self, raw_number: bytes) -> int | None:
        """The index of a message number as sent, or None where it is not one of a message that is not deleted."""
        if not raw_number.isdigit() or len(raw_number) > 10:
            return None
        index = int(raw_number) - 1
        if 0 <= index < len(self.uids) and not self._deleted[index]:
            return index
        return None

    def delete(self, index: int) -> None:
        self._deleted[index] = 1
        self.live -= 1
        self.live_bytes -= self.sizes[index]

    def reset(self) -> None:
        if not self.has_deletions:
            return
        self._deleted = bytearray(len(self.uids))
        self.live = len(self.uids)
        self.live_bytes = self._total_bytes

    def retrieved(self, index: int) -> None:
        self._retrieved[index] = 1

    @property
    def has_deletions(self) -> bool:
        return self.live < len(self.uids)

    def deleted_uids(self) -> "Iterator[array[int]]":
        """What DELE has marked, some hundreds at a time, so that a big update is done in turns."""
        return self._marked(self._deleted, lambda index: True)

    def seen_uids(self) -> "Iterator[array[int]]":
        """Those retrieved, not deleted, and not yet \\Seen at login: Dovecot marks them at QUIT as well."""
        return self._marked(self._retrieved, lambda index: not self._deleted[index] and not self._flags[index] & SEEN)

    def _marked(self, marks: bytearray, wanted: Callable[[int], bool]) -> "Iterator[array[int]]":
        out = array("I")
        index = marks.find(1)
        while index >= 0:
            if wanted(index):
                out.append(self.uids[index])
                if len(out) == POP3_UPDATED_MESSAGES:
                    yield out
                    out = array("I")
            index = marks.find(1, index + 1)
        if out:
            yield out

    def unique_id(self, index: int) -> bytes:
        """RFC 1939 §7: the same for ever, never used again."""
        uid = self.uids[index]
        return (self._uidl_of and self._uidl_of(uid)) or own_uidl(self.uid_validity, uid)

    def lines(self, status: bytes, line: Callable[[int], bytes]) -> Iterator[bytes]:
        """A listing of every message that is not deleted, in blocks."""
        out = [status]
        for start in range(0, len(self.uids), POP3_LISTING_LINES):
            for index in range(start, min(start + POP3_LISTING_LINES, len(self.uids))):
                if not self._deleted[index]:
                    out.append(b"%d %s\r\n" % (index + 1, line(index)))
            yield b"".join(out)
            out.clear()
        out.append(b".\r\n")
        yield b"".join(out)


class Session:
    """One connection's dialog. `stls`: STLS may be offered; `mechanisms`, `login_allowed`, `exchange`: the
    authenticator's, for this connection; `promises`: CAPA's lines that the settings make (keeping.py)."""

    __slots__ = (
        "_bad",
        "_exchange",
        "_failed",
        "_mechanisms",
        "_promises",
        "_sasl",
        "_stls",
        "_user",
        "_user_allowed",
        "maildrop",
        "state",
    )

    def __init__(
        self,
        *,
        stls: bool,
        mechanisms: tuple[str, ...],
        login_allowed: bool,
        exchange: Callable[[tuple[str, ...]], Sasl] = Sasl,
        promises: tuple[bytes, ...] = (),
    ) -> None:
        self.state = State.AUTHORIZATION
        self.maildrop: Maildrop | None = None
        self._stls = stls
        self._mechanisms = mechanisms
        self._exchange = exchange
        self._promises = promises
        self._user_allowed = login_allowed
        self._user = ""
        self._sasl: Sasl | None = None
        self._bad = 0
        self._failed = 0

    def command(self, raw_line: bytes) -> Action:
        """Takes a line without its line end."""
        if self.state is SASL and self._sasl is not None:
            return self._step(self._sasl.respond_line(raw_line))
        raw_verb, _, argument = raw_line.partition(b" ")
        verb = _VERBS.get(raw_verb.upper())
        if verb is None:
            if self.state is State.AUTHORIZATION and raw_verb.upper() in _FOREIGN:
                return Close(b"-ERR This is a POP3 server\r\n")
            return self._wrong(b"-ERR Unknown command\r\n")
        if verb not in ALLOWED[self.state]:
            return self._wrong(b"-ERR Command not valid in this state\r\n")
        if verb is not _PASS:  # a password may begin or end with a space (RFC 1939 §7)
            argument = argument.strip(b" ")
        action = _COMMANDS[verb](self, argument)
        if isinstance(action, bytes) and action.startswith(b"-ERR"):
            return self._wrong(action)
        self._bad = 0
        return action

    def too_long(self) -> Action:
        """A line that passed its bound was dropped; where it was a SASL response, the exchange is over."""
        if self.state is State.SASL:
            return self._step(Failure("too-long"))
        return self._wrong(b"-ERR Line too long\r\n")

    def opened(self, maildrop: Maildrop) -> bytes:
        """The login succeeded and the maildrop is locked."""
        self.state = State.TRANSACTION
        self.maildrop = maildrop
        return b"+OK Logged in, %d messages\r\n" % maildrop.live

    def refused(self, code: bytes, text: bytes) -> Action:
        """The login failed; `code` is a response code (RFC 2449 §8, RFC 3206). After a few of AUTH we close."""
        self.state = State.AUTHORIZATION
        sasl, self._sasl = self._sasl, None
        challenge = sasl.refusal() if sasl is not None and code == b"AUTH" else None
        if challenge is not None:  # what is wrong with a token is said before it is refused
            self._sasl, self.state = sasl, State.SASL
            return b"+ " + binascii.b2a_base64(challenge.raw, newline=False) + b"\r\n"
        reply = b"-ERR [%s] %s\r\n" % (code, text)
        if code == b"AUTH":
            self._failed += 1
            if self._failed >= POP3_LOGIN_ATTEMPTS:
                return Close(reply)
        return reply

    def _wrong(self, reply: bytes) -> Action:
        self._bad += 1
        return Close(reply) if self._bad >= POP3_BAD_COMMANDS else reply

    # --- AUTHORIZATION ---

    def _capa(self, argument: bytes) -> Action:
        out = [b"+OK", b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING", b"UTF8", b"LANG"]
        out += self._promises
        if self._stls and self.state is not State.TRANSACTION:
            out.append(b"STLS")
        if self._user_allowed:
            out.append(b"USER")
        if self._mechanisms:
            out.append(b"SASL " + " ".join(self._mechanisms).encode())
        out.append(b"IMPLEMENTATION FastMTA")
        out.append(b".\r\n")
        return b"\r\n".join(out)

    def _utf8(self, argument: bytes) -> Action:
        """RFC 6856 §2: messages go out as they are stored anyway, so there is nothing to switch; after STLS the client
        begins anew."""
        return b"-ERR UTF8 takes no argument\r\n" if argument else b"+OK UTF8 enabled\r\n"

    def _lang(self, argument: bytes) -> Action:
        """RFC 6856 §3: replies are in English; a range of it (RFC 4647 §3.4, en-GB) is served by it."""
        if not argument:
            return b"+OK Language listing follows:\r\nen English\r\n.\r\n"
        if argument == b"*" or argument.lower().partition(b"-")[0] == b"en":
            return b"+OK en Replies are in English\r\n"
        return b"-ERR Replies are in English only\r\n"

    def _user_command(self, argument: bytes) -> Action:
        self.state = State.AUTHORIZATION
        if not self._user_allowed:
            return b"-ERR [AUTH] Plaintext authentication is not allowed without TLS\r\n"
        try:
            self._user = argument.decode("utf-8")
        except UnicodeDecodeError:
            return b"-ERR Not UTF-8\r\n"
        if not self._user or "\0" in self._user:
            return b"-ERR A user name is missing\r\n"
        self.state = State.NAMED
        return b"+OK\r\n"

    def _pass(self, argument: bytes) -> Action:
        self.state = State.AUTHORIZATION
        self._sasl = None
        try:
            return LogIn(Credentials(self._user, argument.decode("utf-8"), "", "USER"))
        except UnicodeDecodeError:
            return b"-ERR Not UTF-8\r\n"

    def _auth(self, argument: bytes) -> Action:
        self.state = State.AUTHORIZATION
        if not argument:  # not in RFC 5034, but what clients of RFC 1734's time ask
            return b"+OK\r\n" + "".join(f"{name}\r\n" for name in self._mechanisms).encode() + b".\r\n"
        if not self._mechanisms:
            return b"-ERR [AUTH] Plaintext authentication is not allowed without TLS\r\n"
        mechanism, _, initial = argument.partition(b" ")
        self._sasl = self._exchange(self._mechanisms)
        return self._step(self._sasl.start_line(mechanism.decode("ascii", "replace"), initial.strip(b" ") or None))

    def _step(self, step: Step) -> Action:
        if isinstance(step, Challenge):
            self.state = State.SASL
            return b"+ " + binascii.b2a_base64(step.raw, newline=False) + b"\r\n"
        self.state = State.AUTHORIZATION
        if isinstance(step, Credentials):
            return LogIn(step)
        self._sasl = None
        if step.code == "refused":
            return self.refused(b"AUTH", AUTHENTICATION_FAILED)
        return self._wrong(_SASL_FAILURES[step.code])

    def _stls_command(self, argument: bytes) -> Action:
        if not self._stls:
            return b"-ERR STLS is not available\r\n"
        return StartTls(b"+OK Begin TLS negotiation now\r\n")

    def _quit(self, argument: bytes) -> Action:
        if self.maildrop is None:
            self.state = State.UPDATE
            return Close(b"+OK Bye\r\n")
        self.state = State.UPDATE
        return Update()

    # --- TRANSACTION ---

    def _drop(self) -> Maildrop:
        if self.maildrop is None:
            raise RuntimeError("TRANSACTION without a maildrop")
        return self.maildrop

    def _stat(self, argument: bytes) -> Action:
        drop = self._drop()
        return b"+OK %d %d\r\n" % (drop.live, drop.live_bytes)

    def _list(self, argument: bytes) -> Action:
        drop = self._drop()
        if not argument:
            status = b"+OK %d messages (%d octets)\r\n" % (drop.live, drop.live_bytes)
            return Listing(drop.lines(status, lambda index: b"%d" % drop.sizes[index]))
        index = drop.index_of(argument)
        return _no_message(argument) if index is None else b"+OK %d %d\r\n" % (index + 1, drop.sizes[index])

    def _uidl(self, argument: bytes) -> Action:
        drop = self._drop()
        if not argument:
            return Listing(drop.lines(b"+OK\r\n", drop.unique_id))
        index = drop.index_of(argument)
        return _no_message(argument) if index is None else b"+OK %d %s\r\n" % (index + 1, drop.unique_id(index))

    def _retr(self, argument: bytes) -> Action:
        index = self._drop().index_of(argument)
        return _no_message(argument) if index is None else Retrieve(index, None)

    def _top(self, argument: bytes) -> Action:
        number, _, count = argument.partition(b" ")
        count = count.strip(b" ")
        index = self._drop().index_of(number)
        if index is None:
            return _no_message(number)
        if not count.isdigit() or len(count) > 10:
            return b"-ERR Not a number of lines\r\n"
        return Retrieve(index, int(count))

    def _dele(self, argument: bytes) -> Action:
        drop = self._drop()
        index = drop.index_of(argument)
        if index is None:
            return _no_message(argument)
        drop.delete(index)
        return b"+OK Marked to be deleted\r\n"

    def _noop(self, argument: bytes) -> Action:
        return b"+OK\r\n"

    def _rset(self, argument: bytes) -> Action:
        self._drop().reset()
        return b"+OK\r\n"


def _no_message(raw_number: bytes) -> bytes:
    if raw_number.isdigit() and len(raw_number) <= 10:
        return b"-ERR There is no message %d\r\n" % int(raw_number)
    return b"-ERR Not a message number\r\n"


AUTHENTICATION_FAILED: Final = b"Authentication failed"
_SASL_FAILURES: Final = {
    "mechanism": b"-ERR Unsupported authentication mechanism\r\n",
    "syntax": b"-ERR Not a valid SASL response\r\n",
    "cancelled": b"-ERR Authentication cancelled\r\n",
    "too-long": b"-ERR SASL response too long\r\n",
}

_COMMANDS: Final[dict[Verb, Callable[[Session, bytes], Action]]] = {
    Verb.AUTH: Session._auth,
    Verb.CAPA: Session._capa,
    Verb.DELE: Session._dele,
    Verb.LANG: Session._lang,
    Verb.LIST: Session._list,
    Verb.NOOP: Session._noop,
    Verb.PASS: Session._pass,
    Verb.QUIT: Session._quit,
    Verb.RETR: Session._retr,
    Verb.RSET: Session._rset,
    Verb.STAT: Session._stat,
    Verb.STLS: Session._stls_command,
    Verb.TOP: Session._top,
    Verb.UIDL: Session._uidl,
    Verb.USER: Session._user_command,
    Verb.UTF8: Session._utf8,
}
