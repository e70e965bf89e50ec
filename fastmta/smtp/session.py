"""The rules of an SMTP, submission or LMTP session: a parsed command in, a reply out.

`Rules` holds what all sessions of one service share and no session's state; that lives in the session object which
each method is given (`_session.Connection` in the server, a plain object in tests). The order of commands is
smtp/transitions.py's, and a 2yz or 3yz reply moves the session by that table; only AUTH, whose exchange takes lines
instead of commands, moves it here. Bytes, sockets, time and the store are left to others.

A method that returns None has started something that ends later: the session is not given another command before the
verdict on a password or of a check, or the end of a TLS handshake, has come.
"""

from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from fastmta.auth.sasl import Challenge, Credentials, Failure, Sasl
from fastmta.model.certificate import PeerCertificate
from fastmta.model.envelope import Resolution
from fastmta.model.limited import What
from fastmta.model.reply import Reply
from fastmta.model.services import BY_NAME, Login
from fastmta.model.stages import BARE_RECIPIENT, BARE_SENDER, Stage, bit
from fastmta.smtp.extensions import Demands, ehlo_lines, parse_mail_parameters, parse_rcpt_parameters
from fastmta.smtp.paths import read_path, safe_name
from fastmta.smtp.transitions import State, Verb, expected_before
from fastmta.smtp.xclient import XCLIENT_NAMES, XFORWARD_NAMES, Attributes, parse_attributes


class Settings(msgspec.Struct, frozen=True):
    """What an administrator may choose for one service; Postfix's names and defaults."""

    service: str = "smtp"
    myhostname: str = "localhost"
    myorigin: str = "localhost"  # the domain of an address that came without one
    banner: str = "localhost ESMTP FastMTA"
    message_size_limit: int = 10_240_000  # bytes, 0: none
    forbid_bare_newline: str = "reject"
    recipient_limit: int = 1000
    recipient_overshoot_limit: int = 1000
    soft_error_limit: int = 10
    error_sleep_s: float = 1.0
    softens: bool = False  # each 5xx is said as a 4xx
    hard_error_limit: int = 20
    junk_command_limit: int = 100
    timeout_s: float = 300.0
    hopcount_limit: int = 50
    strict_envelopes: bool = False
    helo_required: bool = False
    takes_unlisted: bool = False  # recipients that nobody has are no refusal at RCPT
    offers: frozenset[str] = frozenset()  # of REQUIRETLS, DELIVERBY and FUTURERELEASE
    hold_s: int = 0  # how long FUTURERELEASE keeps a message
    discards: frozenset[str] = frozenset()  # keywords of EHLO, in upper case, that are not told
    through: str = ""  # whose mail goes there first; "": none

    @property
    def is_lmtp(self) -> bool:
        return BY_NAME[self.service].protocol == "lmtp"

    @property
    def is_submission(self) -> bool:
        return BY_NAME[self.service].login is Login.REQUIRED


class Session(Protocol):
    """The state of one session that rules read and change."""

    state: int
    helo: bytes
    esmtp: bool
    tls: bool
    bare: int  # BARE_SENDER, BARE_RECIPIENT
    denied: Reply | None  # the greeting was a refusal: what every command is told (RFC 5321 §3.1)
    trusted: bool  # the client is in mynetworks
    loopback: bool
    login: str  # canonical address of the account, "": not authenticated
    exchange: Sasl | None
    certificate: PeerCertificate | None
    speaks_for: bool  # XCLIENT: what the peer says is another one's, its certificate is not
    auth_failures: int
    smtputf8: bool
    stages: int  # where somebody is asked before the session goes on

    @property
    def peer_ip(self) -> str: ...

    def reset(self) -> None:
        """Forgets the transaction (RSET)."""
        ...

    def begin(self, reverse_path: bytes, size_bytes: int, smtputf8: bool, envid: bytes, ret: str) -> Reply | None:
        """Opens a transaction; a reply is its refusal for want of room."""
        ...

    def demand(self, demands: Demands) -> Reply | None:
        """Keeps for the transaction that has begun what its MAIL demands; a reply refuses it."""
        ...

    def add_recipient(self, forward_path: bytes, notify: int, orcpt: bytes) -> Reply:
        """Resolves and keeps one recipient; the reply accepts or refuses it."""
        ...

    def begin_data(self) -> Reply:
        """Begins to take the message: 354, or a refusal for want of room."""
        ...

    def close_after_reply(self) -> None:
        """The reply that is returned next is the last one."""
        ...

    def start_tls(self) -> None:
        """After the reply: drops what the client has pipelined and runs the handshake."""
        ...


S = TypeVar("S", bound=Session)
Asked = TypeVar("Asked", bound=Session, contravariant=True)


class Effects(Protocol[Asked]):
    """What the rules ask of the world; smtp/server.py provides it."""

    def now(self) -> float:
        """The wall clock, in seconds."""
        ...

    def tls_offered(self) -> bool: ...
    def mechanisms(self, tls: bool, loopback: bool, certified: str = "") -> tuple[str, ...]: ...
    def exchange(self, allowed: tuple[str, ...], certified: str = "") -> Sasl: ...
    def sender_allowed(self, login: str, reverse_path: bytes) -> bool: ...
    def resolve(self, forward_path: bytes, *, may_relay: bool) -> Resolution: ...
    def may(self, session: Asked, what: What) -> bool:
        """Whether the client's address may do this once more in the present time unit."""
        ...

    def examine(self, session: Asked, stage: Stage, subject: bytes, go_on: Callable[[], Reply]) -> Reply | None:
        """Asks the checks of a stage about what the client says, and then does it: `go_on()` and its reply, or the
        reply that refuses, or None where somebody has yet to answer.
        """
        ...

    def fetch(self, session: Asked, url: bytes, *, last: bool) -> Reply | None:
        """Takes what a URL names as a chunk of the message: None where that is under way, or the refusal."""
        ...

    def may_speak_for(self, session: Asked, verb: int) -> bool:
        """Whether the client may say who its own client is, by XCLIENT or XFORWARD."""
        ...

    def speak_for(self, session: Asked, attributes: Attributes) -> Reply | None:
        """The session becomes that of the client that is named; its greeting, or None where that takes time."""
        ...

    def forwarded(self, session: Asked, attributes: Attributes) -> None:
        """The log hears whose mail comes."""
        ...

    def authenticate(self, session: Asked, credentials: Credentials) -> str | None:
        """The account's address, "" for a refusal, or None: `Rules.authenticated` is called later."""
        ...


# For each connection: module constants are cheaper than attributes of an enum.
_BURL: Final = "BURL imap"
_XCLIENT, _XFORWARD, _HELO = Verb.XCLIENT, Verb.XFORWARD, Stage.HELO
_OK: Final = Reply(250, "2.0.0", "Ok")
_MAIL_OK: Final = Reply(250, "2.1.0", "Ok")
_STILL: Final = frozenset({Verb.QUIT, Verb.XCLIENT})  # what a client may still say whose greeting was a refusal
_NOBODY: Final = Reply(554, "5.5.1", "Error: no valid recipients")
_NO_ARGUMENTS: Final = Reply(501, "5.5.4", "No arguments are allowed here")


def _certified(session: Session) -> str:
    """The login name in the client's certificate, "" for none; who speaks for others (XCLIENT) lends them none."""
    if session.certificate is None or session.speaks_for:
        return ""
    return session.certificate.login


_NOT_FOR_OTHERS: Final = Reply(550, "5.7.0", "Error: insufficient authorization")
_AUTH_FIRST: Final = Reply(530, "5.7.0", "Authentication required")
_NO_ADDRESS: Final = {
    "syntax": {
        True: Reply(501, "5.1.3", "Bad recipient address syntax"),
        False: Reply(501, "5.1.7", "Bad sender address syntax"),
    },
    "length": {
        True: Reply(501, "5.1.3", "Recipient address is too long"),
        False: Reply(501, "5.1.7", "Sender address is too long"),
    },
}
_AUTH_FAILURES: Final = {
    "mechanism": Reply(504, "5.5.4", "Unrecognized authentication type"),
    "syntax": Reply(501, "5.5.2", "Invalid authentication data"),
    "cancelled": Reply(501, "5.7.0", "Authentication aborted"),
    "too-long": Reply(500, "5.5.6", "Authentication exchange line is too long"),
}
_WRONG_LOGIN: Final = Reply(535, "5.7.8", "Authentication credentials invalid")
AUTH_TEMPORARY: Final = Reply(454, "4.7.0", "Temporary authentication failure")
_AUTH_TRIES: Final = 3  # failed logins of a session, then 421


class Rules(Generic[S]):
    """One service's rules. `handle` takes every command that the fast path leaves to Python."""

    def __init__(self, settings: Settings, effects: Effects[S]) -> None:
        self.settings = settings
        self.effects = effects
        self._is_lmtp = settings.is_lmtp
        self._welcomes: dict[
            tuple[bool, bool, tuple[str, ...], bool, bool, str], Reply
        ] = {}  # a few: what is offered decides
        self._handlers: dict[int, Any] = {
            Verb.EHLO: self.ehlo,
            Verb.HELO: self.helo,
            Verb.LHLO: self.lhlo,
            Verb.MAIL: self.mail,
            Verb.RCPT: self.rcpt,
            Verb.RSET: self.rset,
            Verb.NOOP: self.noop,
            Verb.VRFY: self.vrfy,
            Verb.EXPN: self.expn,
            Verb.HELP: self.help,
            Verb.STARTTLS: self.starttls,
            Verb.AUTH: self.auth,
            Verb.XCLIENT: self.xclient,
            Verb.XFORWARD: self.xforward,
            Verb.DATA: self.data,
            Verb.BDAT: self.chunk,
            Verb.BURL: self.burl,
        }

    def handle(self, session: S, verb: int, raw_args: bytes) -> Reply | None:
        """The reply to a command that the table allows in the session's state. `raw_args` holds no control octets."""
        handler = self._handlers.get(verb)
        if session.denied is not None and verb not in _STILL:
            return session.denied
        if handler is None:
            return Reply(500, "5.5.2", "Command not recognized")
        reply: Reply | None = handler(session, raw_args.rstrip(b" "))
        return reply

    def out_of_sequence(self, session: S, verb: int) -> Reply:
        """The reply to a pair that the table does not list (RFC 5321 §4.1.4)."""
        if session.denied is not None:
            return session.denied
        if session.state == State.MAIL and verb in (Verb.DATA, Verb.BDAT) and not self._is_lmtp:
            return _NOBODY  # RFC 5321 §3.3; LMTP has to say 503 (RFC 2033 §4.2)
        return Reply(503, "5.5.1", f"Error: {expected_before(State(session.state), Verb(verb))}")

    # --- greeting ---

    def ehlo(self, session: S, raw: bytes) -> Reply | None:
        if self._is_lmtp:  # RFC 2033 §4.1
            return Reply(500, "5.5.1", "This is LMTP: send LHLO")
        return self._hello(session, raw, extended=True)

    def lhlo(self, session: S, raw: bytes) -> Reply | None:
        if not self._is_lmtp:
            return Reply(500, "5.5.1", "This is SMTP: send EHLO")
        return self._hello(session, raw, extended=True)

    def helo(self, session: S, raw: bytes) -> Reply | None:
        if self._is_lmtp:
            return Reply(500, "5.5.1", "This is LMTP: send LHLO")
        return self._hello(session, raw, extended=False)

    def _hello(self, session: S, raw: bytes, *, extended: bool) -> Reply | None:
        # RFC 5321 §4.1.4: a name that does not fit the client must not be refused, and as Postfix we let any word pass.
        if not raw:
            return Reply(501, "5.5.4", "Send your domain name or address literal")
        name = safe_name(raw)
        return self._examined(session, _HELO, name, lambda: self._welcome(session, name, extended))

    def _welcome(self, session: S, name: bytes, extended: bool) -> Reply:
        session.reset()
        session.helo = name
        session.esmtp = extended
        if not extended:
            return Reply(250, "", self.settings.myhostname)
        effects = self.effects
        offer = (
            session.tls,
            not session.tls and effects.tls_offered(),
            () if session.login else effects.mechanisms(session.tls, session.loopback, _certified(session)),
            effects.may_speak_for(session, _XCLIENT),
            effects.may_speak_for(session, _XFORWARD),
            self._burl(session),
        )
        welcome = self._welcomes.get(offer)
        if welcome is None:
            welcome = self._offering(*offer)
            if "FUTURERELEASE" not in self.settings.offers:  # else it names a moment
                self._welcomes[offer] = welcome
        return welcome

    def _demandable(self, tls: bool) -> frozenset[str]:
        """What a client may demand by MAIL now."""
        offers = self.settings.offers
        return offers if tls or not offers else offers - {"REQUIRETLS"}

    def _offering(
        self, tls: bool, starttls: bool, mechanisms: tuple[str, ...], xclient: bool, xforward: bool, burl: str
    ) -> Reply:
        settings = self.settings
        lines = ehlo_lines(
            size_limit_bytes=settings.message_size_limit,
            starttls=starttls,
            mechanisms=mechanisms,
            offers=self._demandable(tls),
            hold_s=settings.hold_s,
            now_s=self.effects.now() if settings.hold_s else 0.0,
        )
        if burl:
            lines.append(burl)
        if settings.discards:
            lines = [line for line in lines if line.partition(" ")[0] not in settings.discards]
        if xclient:
            lines.append("XCLIENT " + " ".join(XCLIENT_NAMES))
        if xforward:
            lines.append("XFORWARD " + " ".join(XFORWARD_NAMES))
        return Reply(250, "", "\n".join([self.settings.myhostname, *lines])).prepared()

    # --- the transaction ---

    def mail(self, session: S, raw: bytes) -> Reply | None:
        """RFC 5321 §4.1.1.2."""
        if self.settings.is_submission and not session.login:
            return _AUTH_FIRST
        if not session.helo and (self.settings.helo_required or self._is_lmtp):
            return Reply(503, "5.5.1", f"Error: send {'LHLO' if self._is_lmtp else 'HELO/EHLO'} first")
        if not self.effects.may(session, What.MESSAGE_RATE):
            return Reply(450, "4.7.1", f"Error: too much mail from {session.peer_ip}")
        if raw[:5].upper() != b"FROM:":
            return Reply(501, "5.5.4", "Syntax: MAIL FROM:<address>")
        try:
            reverse_path, rest, utf8 = self._path(raw[5:], forward=False)
        except ValueError as error:
            return _NO_ADDRESS[str(error)][False]
        is_bare = _is_bare(raw, reverse_path)
        parameters = parse_mail_parameters(rest, self._demandable(session.tls))
        if isinstance(parameters, Reply):
            return parameters
        if utf8 and not parameters.smtputf8:  # RFC 6531 §3.5
            return Reply(553, "5.6.7", "Internationalized address without SMTPUTF8")
        limit = self.settings.message_size_limit
        if limit and parameters.size_bytes > limit:  # RFC 1870 §6.1
            return Reply(552, "5.3.4", "Message size exceeds fixed limit")
        if session.login and not self.effects.sender_allowed(session.login, reverse_path):
            shown = reverse_path.decode("utf-8", "backslashreplace")
            return Reply(553, "5.7.1", f"<{shown}>: Sender address rejected: not owned by user {session.login}")

        def begin() -> Reply:
            size = max(0, parameters.size_bytes)
            refusal = session.begin(reverse_path, size, parameters.smtputf8, parameters.envid, parameters.ret)
            session.bare = BARE_SENDER if is_bare else 0
            if refusal is None and parameters.demands is not None:
                refusal = session.demand(parameters.demands)
            return refusal or _MAIL_OK

        session.bare = BARE_SENDER if is_bare else 0
        return self._examined(session, Stage.MAIL, reverse_path, begin)

    def rcpt(self, session: S, raw: bytes) -> Reply | None:
        """RFC 5321 §4.1.1.3."""
        if not self.effects.may(session, What.RECIPIENT_RATE):
            return Reply(450, "4.7.1", f"Error: too many recipients from {session.peer_ip}")
        if raw[:3].upper() != b"TO:":
            return Reply(501, "5.5.4", "Syntax: RCPT TO:<address>")
        try:
            forward_path, rest, utf8 = self._path(raw[3:], forward=True)
        except ValueError as error:
            return _NO_ADDRESS[str(error)][True]
        if utf8 and not session.smtputf8:
            return Reply(553, "5.6.7", "Internationalized address without SMTPUTF8")
        parameters = parse_rcpt_parameters(rest)
        if isinstance(parameters, Reply):
            return parameters

        def add() -> Reply:
            return session.add_recipient(forward_path, parameters.notify, parameters.orcpt)

        if forward_path.lower() == b"postmaster":
            return add()  # whoever asks for him may have him (RFC 5321 §4.5.1): Postfix asks nobody either
        session.bare = session.bare & BARE_SENDER | (BARE_RECIPIENT if _is_bare(raw, forward_path) else 0)
        return self._examined(session, Stage.RCPT, forward_path, add)

    def data(self, session: S, raw: bytes) -> Reply | None:
        """Where somebody is asked about DATA; else the fast path takes it."""
        return self._examined(session, Stage.DATA, b"", session.begin_data)

    def chunk(self, session: S, raw: bytes) -> Reply | None:
        """The same for BDAT, once its first chunk has been read."""
        return self._examined(session, Stage.DATA, b"", lambda: _OK)

    def burl(self, session: S, raw: bytes) -> Reply | None:
        """RFC 4468: a chunk of the message is what a URL names. A refusal ends the transaction."""
        if self._burl(session) != _BURL:
            return Reply(502, "5.5.1", "BURL is for who has logged in")
        url, _, last = raw.partition(b" ")
        if not url or last.upper() not in (b"", b"LAST"):
            return Reply(501, "5.5.4", "Syntax: BURL url [LAST]")
        return self.effects.fetch(session, url, last=bool(last))

    def _burl(self, session: S) -> str:
        """What EHLO says of it (RFC 4468 §3.2)."""
        if not self.settings.is_submission:
            return ""
        return _BURL if session.login else "BURL"

    def greet(self, session: S) -> Reply | None:
        """The greeting, where somebody is asked about the client."""
        return self._examined(session, Stage.CONNECT, b"", lambda: Reply(220, "", self.settings.banner))

    def _examined(self, session: S, stage: Stage, subject: bytes, go_on: Callable[[], Reply]) -> Reply | None:
        if not session.stages & bit(stage):
            return go_on()
        return self.effects.examine(session, stage, subject, go_on)

    def _path(self, raw: bytes, *, forward: bool) -> tuple[bytes, bytes, bool]:
        settings = self.settings
        return read_path(
            raw.lstrip(b" "),
            forward=forward,
            strict=settings.strict_envelopes,
            origin=settings.myorigin.encode(),
        )

    def rset(self, session: S, raw: bytes) -> Reply:
        if raw:
            return _NO_ARGUMENTS
        session.reset()
        return _OK

    # --- the rest ---

    def noop(self, session: S, raw: bytes) -> Reply:
        return _OK  # RFC 5321 §4.1.1.9: a parameter is ignored

    def vrfy(self, session: S, raw: bytes) -> Reply:
        """Never tells whether a mailbox exists (RFC 5321 §7.3)."""
        if not raw:
            return Reply(501, "5.5.4", "Syntax: VRFY address")
        return Reply(252, "2.0.0", "Cannot VRFY user, but will accept message and attempt delivery")

    def expn(self, session: S, raw: bytes) -> Reply:
        return Reply(502, "5.5.1", "EXPN is not supported")

    def help(self, session: S, raw: bytes) -> Reply:
        names = "LHLO" if self._is_lmtp else "EHLO HELO"
        return Reply(214, "2.0.0", f"{names} MAIL RCPT DATA BDAT RSET NOOP VRFY HELP STARTTLS AUTH QUIT")

    def starttls(self, session: S, raw: bytes) -> Reply:
        """RFC 3207 §4. What stands behind the command in plain text is dropped by `start_tls`."""
        if raw:
            return _NO_ARGUMENTS
        if session.tls:
            return Reply(503, "5.5.1", "TLS is active already")
        if not self.effects.tls_offered():
            return Reply(502, "5.5.1", "STARTTLS is not offered")
        if not self.effects.may(session, What.TLS_RATE):
            session.close_after_reply()
            return Reply(454, "4.7.0", f"Error: too many new TLS sessions from {session.peer_ip}")
        session.start_tls()
        return Reply(220, "2.0.0", "Ready to start TLS")

    # --- hosts that speak for a client ---

    def xclient(self, session: S, raw: bytes) -> Reply | None:
        """Postfix's XCLIENT: the session begins anew with the client that is named, up to its greeting."""
        if not self.effects.may_speak_for(session, Verb.XCLIENT):
            return _NOT_FOR_OTHERS
        attributes = parse_attributes(raw, XCLIENT_NAMES, "XCLIENT")
        return attributes if isinstance(attributes, Reply) else self.effects.speak_for(session, attributes)

    def xforward(self, session: S, raw: bytes) -> Reply:
        """Postfix's XFORWARD: who sent what a filter brings back, for the log."""
        if not self.effects.may_speak_for(session, Verb.XFORWARD):
            return _NOT_FOR_OTHERS
        attributes = parse_attributes(raw, XFORWARD_NAMES, "XFORWARD")
        if isinstance(attributes, Reply):
            return attributes
        self.effects.forwarded(session, attributes)
        return _OK

    # --- authentication (RFC 4954) ---

    def auth(self, session: S, raw: bytes) -> Reply | None:
        if not session.esmtp:
            return Reply(503, "5.5.1", "Send EHLO first")
        if session.login:  # RFC 4954 §4: once a session
            return Reply(503, "5.5.1", "Already authenticated")
        if not self.effects.may(session, What.AUTH_RATE):
            return Reply(450, "4.7.1", f"Error: too many AUTH commands from {session.peer_ip}")
        words = raw.split()
        if not 1 <= len(words) <= 2:
            return Reply(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]")
        allowed = self.effects.mechanisms(session.tls, session.loopback, _certified(session))
        mechanism = words[0].decode("ascii", "replace").upper()
        if mechanism not in allowed and mechanism in self.effects.mechanisms(True, session.loopback):
            return Reply(538, "5.7.11", "Encryption is required for this authentication mechanism")
        if not allowed:
            return Reply(503, "5.5.1", "Authentication is not enabled")
        session.exchange = self.effects.exchange(allowed, _certified(session))
        return self._step(session, session.exchange.start_line(mechanism, words[1] if len(words) == 2 else None))

    def auth_line(self, session: S, raw_line: bytes) -> Reply | None:
        """A line in State.AUTH."""
        session.state = State.GREETED
        exchange = session.exchange
        if exchange is None:
            return AUTH_TEMPORARY
        return self._step(session, exchange.respond_line(raw_line))

    def _step(self, session: S, step: Challenge | Credentials | Failure) -> Reply | None:
        if isinstance(step, Challenge):
            from_base64 = _b64(step.raw)
            session.state = State.AUTH
            return Reply(334, "", from_base64)
        if isinstance(step, Failure):
            session.exchange = None
            return self.authenticated(session, "") if step.code == "refused" else _AUTH_FAILURES[step.code]
        address = self.effects.authenticate(session, step)
        return None if address is None else self.authenticated(session, address)

    def authenticated(self, session: S, address: str) -> Reply | None:
        """How AUTH ends: `address` is the account's, "" where the credentials are wrong."""
        session.state = State.GREETED
        exchange, session.exchange = session.exchange, None
        if address:

            def log_in() -> Reply:
                session.login = address
                return Reply(235, "2.7.0", "Authentication successful")

            return self._examined(session, Stage.AUTH, address.encode(), log_in)
        challenge = exchange.refusal() if exchange is not None else None
        if challenge is not None:  # what is wrong with a token is said before it is refused
            session.exchange, session.state = exchange, State.AUTH
            return Reply(334, "", _b64(challenge.raw))
        session.auth_failures += 1
        if session.auth_failures >= _AUTH_TRIES:
            session.close_after_reply()
            return Reply(421, "4.7.0", f"{self.settings.myhostname} Error: too many failed logins")
        return _WRONG_LOGIN


def _b64(raw: bytes) -> str:
    import binascii

    return binascii.b2a_base64(raw, newline=False).decode("ascii")


__all__ = ["AUTH_TEMPORARY", "Effects", "Rules", "Session", "Settings"]


def _is_bare(raw: bytes, path: bytes) -> bool:
    """Whether an address was given without a domain."""
    return bool(path) and b"@" not in raw.partition(b">")[0]
