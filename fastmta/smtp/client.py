"""The rules of an SMTP or LMTP client (RFC 5321, RFC 2033), apart from any socket: bytes in, bytes and events out.

A `Client` is one session with one server; it carries one `Transaction` after the other. Its owner writes `output`
after every call and acts on the event that the call gave. Where the server pipelines (RFC 2920), MAIL, every RCPT and
DATA leave together; else one at a time. What a reply means for a recipient is decided here and nowhere else:

- each RCPT stands alone; 452 or 552 after one was accepted means "too many at once", so those are to be sent again;
- a 4yz or 5yz to MAIL, DATA or the end of data holds for all that remain; LMTP answers for each accepted recipient;
- 421, nonsense, or a lost connection end the session and decide nothing: the owner tries the next address;
- what was learnt before TLS is forgotten, and bytes that came behind the reply to STARTTLS are dropped (RFC 3207 §4.2).

Left to the owner: time, the socket, the handshake, and the message's bytes between the events BODY and `body_sent`.
"""

from enum import IntEnum
from typing import Final

import idna

from fastmta._parser import ReplyParser
from fastmta.model.envelope import (
    HAS_8BIT,
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    Envelope,
    RecipientTail,
)
from fastmta.model.errors import ProtocolViolation
from fastmta.model.reply import Reply
from fastmta.smtp.conversion import Conversion


class State(IntEnum):
    """Where the session stands; the texts of STAGES complete "while ...", as Postfix words it."""

    GREETING = 0
    EHLO = 1
    HELO = 2
    STARTTLS = 3
    HANDSHAKE = 4
    READY = 5
    RESET = 6
    ENVELOPE = 7
    BODY = 8
    FINAL = 9
    EMPTY_FINAL = 10
    QUIT = 11
    CLOSED = 12


class Event(IntEnum):
    """What the owner has to do after a call."""

    NOTHING = 0
    READY = 1  # the handshake is over: `start` may be called
    BODY = 2  # send the message, stuffed, and the final dot, then call body_sent
    DONE = 3  # the transaction is over: every result is set, but those of `again`; `is_usable` says whether to go on
    HANDSHAKE = 4  # start TLS, then call tls_started
    CLOSED = 5  # the session is of no use: `failure` says why; recipients without a result are undecided


# For the hot path: module constants are cheaper than attributes of an enum.
_READY, _ENVELOPE, _BODY, _FINAL, _RESET = State.READY, State.ENVELOPE, State.BODY, State.FINAL, State.RESET
_NOTHING, _DONE = Event.NOTHING, Event.DONE

STAGES: Final = {
    State.GREETING: "receiving the initial server greeting",
    State.EHLO: "performing the EHLO handshake",
    State.HELO: "performing the HELO handshake",
    State.STARTTLS: "sending STARTTLS",
    State.HANDSHAKE: "performing the TLS handshake",
    State.RESET: "sending RSET",
    State.BODY: "sending message body",
    State.FINAL: "sending end of data -- message may be sent more than once",
    State.EMPTY_FINAL: "sending end of data",
    State.QUIT: "sending QUIT",
}
TLS_LEVELS: Final = ("none", "may", "encrypt", "verify", "secure")
_NOTIFY: Final = ((NOTIFY_SUCCESS, b"SUCCESS"), (NOTIFY_FAILURE, b"FAILURE"), (NOTIFY_DELAY, b"DELAY"))
_CONTROL: Final = frozenset(range(32)) | {127}


class Transaction:
    """One message for some recipients on one connection, and what became of each.

    `results` has a reply for each recipient that is decided, else None; recipients in `again` have none, since the
    server took only a part of them. `utf8_header`: the header itself has 8-bit bytes, so that a server without SMTPUTF8
    must not get it. `conversion`: how the message is made 7-bit for a server that takes no more. `unconverted`: such a
    server gets it as it is (disable_mime_output_conversion).
    """

    __slots__ = (
        "accepted",
        "again",
        "conversion",
        "dsn_passed_on",
        "envelope",
        "recipients",
        "results",
        "unconverted",
        "utf8_header",
    )

    def __init__(self, envelope: Envelope, recipients: list[RecipientTail]) -> None:
        self.envelope = envelope
        self.recipients = recipients
        self.results: list[Reply | None] = [None] * len(recipients)
        self.accepted: list[int] = []
        self.again: list[int] = []
        self.utf8_header = False
        self.conversion: Conversion | None = None
        self.unconverted = False
        self.dsn_passed_on = False  # the server knows DSN (RFC 3461), so it reports success itself

    def undecided(self) -> list[int]:
        """The recipients that have neither a result nor are to be sent again."""
        again = self.again
        return [n for n, result in enumerate(self.results) if result is None and n not in again]

    def decide(self, reply: Reply) -> None:
        """One reply for all that are undecided."""
        for n in self.undecided():
            self.results[n] = reply


class Client:
    """One session. `helo_name` is ours; `lmtp` speaks LHLO; `tls_level` is Postfix's smtp_tls_security_level."""

    __slots__ = (
        "_answered",
        "_dsn",
        "_eight_bit",
        "_helo_name",
        "_lmtp",
        "_needs_reset",
        "_order",
        "_parser",
        "_pipelining",
        "_sent",
        "_size",
        "_size_limit",
        "_smtputf8",
        "_tls_level",
        "capabilities",
        "failure",
        "is_usable",
        "messages",
        "output",
        "peer",
        "replies",
        "state",
        "tls",
        "transaction",
        "unanswered",
    )

    def __init__(self, helo_name: str, peer: str, *, lmtp: bool = False, tls_level: str = "may") -> None:
        self._helo_name = helo_name
        self._lmtp = lmtp
        self._tls_level = tls_level
        self._parser = ReplyParser()
        self._sent = self._answered = 0
        self._order: list[int] = []  # the recipients of the transaction that have an RCPT
        self._needs_reset = False
        self._learn({})
        self.failure: Reply | None = None
        self.is_usable = True
        self.messages = 0
        self.output = b""
        self.peer = peer  # "host[address]:port", for replies of our own making
        self.replies = 0  # that have come: whoever keeps time sees progress by it
        self.state = State.GREETING
        self.tls = False
        self.transaction: Transaction | None = None
        self.unanswered = False  # the session failed before the server said anything to the transaction

    # --- what the owner calls ---

    def receive(self, data: bytes) -> Event:
        """Takes what the server sent. The last event of the read is the one that counts."""
        event = _NOTHING
        try:
            replies = self._parser.feed(data)
        except ProtocolViolation as error:
            return self._fail(Reply(450, "4.5.0", f"{self.peer} broke the protocol: {error}"))
        self.replies += len(replies)
        for reply in replies:
            state = self.state
            code = reply.code
            if code == 421:
                event = self._shutting_down(reply, event)
            elif state is _ENVELOPE:
                event = self._envelope_reply(reply, code)
            elif state is _FINAL:
                event = self._final_reply(reply, code)
            elif state is _READY:
                self.is_usable = False  # nobody asked: whatever it says, answers are out of step now
            elif state is _BODY:
                event = self._early_reply(reply, code)
            elif state is _RESET:
                event = self._reset_reply(reply, code)
            else:
                event = self._handshake_reply(reply, code)
            if self.state is State.CLOSED or event is Event.HANDSHAKE:
                break  # behind 220 to STARTTLS nothing in plain text counts
        return event

    def start(self, transaction: Transaction, *, probe: bool = False) -> Event:
        """Begins a transaction in state READY; `probe` asks with RSET first whether the server is still there."""
        self.transaction = transaction
        self._check(transaction)
        if None not in transaction.results:
            return self._finished()
        if probe or self._needs_reset:
            self._needs_reset = False
            self.state = State.RESET
            self.output = b"RSET\r\n"
            return _NOTHING
        self._send_envelope()
        return _NOTHING

    def body_sent(self) -> None:
        """The owner has written the whole message and its final dot."""
        self.state = State.FINAL
        self._answered = 0

    def tls_started(self) -> None:
        """The handshake is over: everything begins anew (RFC 3207 §4.2)."""
        self._parser = ReplyParser()
        self.tls = True
        self._hello()

    def tls_failed(self, reason: str) -> None:
        """The handshake came to nothing, and the connection with it."""
        if self.state is not State.CLOSED:
            self._fail(Reply(450, "4.7.5", f"Cannot start TLS with {self.peer}: {reason}"))

    def lost(self, reason: str = "lost connection") -> None:
        """The connection is gone, or too slow: the session's failure says during what, unless it is known already."""
        if self.state is not State.CLOSED:
            self._fail(Reply(450, "4.4.2", f"{reason} with {self.peer} while {self.stage}"))

    def quit(self) -> None:
        """Says goodbye; the owner closes after writing it."""
        self.state = State.QUIT
        self.is_usable = False
        self.output = b"QUIT\r\n"

    @property
    def stage(self) -> str:
        """What is under way, in the words of Postfix's log."""
        if self.state is _ENVELOPE:
            if self._answered == 0:
                return "sending MAIL FROM"
            return "sending RCPT TO" if self._answered <= len(self._order) else "sending DATA command"
        return STAGES.get(self.state, "idle")

    def needs_conversion(self, transaction: Transaction) -> bool:
        """Whether the server must not get this message as it is, since it does not take 8-bit bytes (RFC 6152)."""
        return bool(transaction.envelope.bits & HAS_8BIT) and not self._eight_bit and not transaction.unconverted

    def lacks_smtputf8(self, transaction: Transaction) -> bool:
        """Whether the owner has to find out about `utf8_header` before `start`."""
        return transaction.envelope.smtputf8 and not self._smtputf8

    # --- the handshake ---

    def _handshake_reply(self, reply: Reply, code: int) -> Event:
        state = self.state
        if state is State.GREETING:
            # A 5yz greeting is the host's, not the recipient's: the next one is tried, and the last one defers
            # (Postfix's smtp_skip_5xx_greeting).
            if code // 100 != 2:
                return self._fail(_softened(reply))
            self._hello()
            return _NOTHING
        if state is State.EHLO:
            return self._ehlo_reply(reply, code)
        if state is State.HELO:
            if code // 100 != 2:
                return self._fail(reply)
            return self._ready()
        if state is State.STARTTLS:
            if code == 220:
                self._learn({})
                self.state = State.HANDSHAKE
                return Event.HANDSHAKE
            return self._without_tls(f"TLS is required, but {self.peer} refused it: {reply}")
        if state is State.EMPTY_FINAL:
            return self._finished()
        return self._fail(Reply(450, "4.5.0", f"{self.peer} sent an unexpected reply while {self.stage}: {reply}"))

    def _hello(self) -> None:
        self.state = State.EHLO
        self.output = b"%b %b\r\n" % (b"LHLO" if self._lmtp else b"EHLO", self._helo_name.encode())

    def _ehlo_reply(self, reply: Reply, code: int) -> Event:
        if code // 100 == 5 and not self._lmtp and not self.tls:
            if self._tls_level not in ("none", "may"):
                return self._without_tls(f"TLS is required, but {self.peer} does not know EHLO")
            self.state = State.HELO
            self.output = b"HELO %b\r\n" % self._helo_name.encode()
            return _NOTHING
        if code // 100 != 2:
            return self._fail(reply)
        capabilities = {}
        for line in reply.text.split("\n")[1:]:
            word, _, rest = line.strip().partition(" ")
            capabilities[word.upper()] = rest
        self._learn(capabilities)
        if self.tls or self._tls_level == "none":
            return self._ready()
        if "STARTTLS" not in capabilities:
            return self._without_tls(f"TLS is required, but was not offered by {self.peer}")
        self.state = State.STARTTLS
        self.output = b"STARTTLS\r\n"
        return _NOTHING

    def _learn(self, capabilities: dict[str, str]) -> None:
        self.capabilities = capabilities
        self._pipelining = "PIPELINING" in capabilities
        self._eight_bit = "8BITMIME" in capabilities
        self._smtputf8 = "SMTPUTF8" in capabilities
        self._dsn = "DSN" in capabilities
        self._size = "SIZE" in capabilities
        limit = capabilities.get("SIZE", "")[:20]
        self._size_limit = int(limit) if limit.isdecimal() else 0  # 0: none (RFC 1870 §4)

    def _without_tls(self, text: str) -> Event:
        if self._tls_level in ("none", "may"):
            return self._ready()
        return self._fail(Reply(450, "4.7.4", text))

    def _ready(self) -> Event:
        self.state = State.READY
        return Event.READY

    # --- the transaction ---

    def _check(self, transaction: Transaction) -> None:
        """Decides what needs no server: sizes, and addresses that this server cannot be told (RFC 1870, RFC 6531)."""
        envelope = transaction.envelope
        if 0 < self._size_limit < envelope.size_bytes:
            text = f"message size {envelope.size_bytes} exceeds size limit {self._size_limit} of server {self.peer}"
            transaction.decide(Reply(552, "5.3.4", text))
        if not self._smtputf8:
            if transaction.utf8_header or ascii_path(envelope.reverse_path) is None:
                text = f"SMTPUTF8 is required, but was not offered by server {self.peer}"
                transaction.decide(Reply(550, "5.6.7", text))
            for n, recipient in enumerate(transaction.recipients):
                if ascii_path(recipient.forward_path) is None:
                    text = f"SMTPUTF8 is required for this address, but was not offered by server {self.peer}"
                    transaction.results[n] = Reply(553, "5.6.7", text)
        if self.needs_conversion(transaction) and transaction.conversion is None:
            transaction.decide(Reply(554, "5.6.3", f"8BITMIME is required, but was not offered by server {self.peer}"))
        for n, recipient in enumerate(transaction.recipients):
            # Never true for what came through our parsers; a bare CR here would be a command injection.
            if not _CONTROL.isdisjoint(recipient.forward_path):
                transaction.results[n] = Reply(553, "5.1.3", "The address has control characters")

    def _send_envelope(self) -> None:
        transaction = self.transaction
        assert transaction is not None
        transaction.accepted = []
        transaction.dsn_passed_on = self._dsn
        self._order = [n for n, result in enumerate(transaction.results) if result is None]
        self._answered = 0
        self.state = _ENVELOPE
        if self._pipelining:
            commands = [self._mail()]
            commands += [self._rcpt(n) for n in self._order]
            commands.append(b"DATA\r\n")
            self._sent = len(commands)
            self.output = b"".join(commands)
        else:
            self._sent = 1
            self.output = self._mail()

    def _mail(self) -> bytes:
        transaction = self.transaction
        assert transaction is not None
        envelope = transaction.envelope
        path = envelope.reverse_path
        parameters = b""
        if self._size:
            parameters = b" SIZE=%d" % envelope.size_bytes
        if envelope.bits & HAS_8BIT and self._eight_bit:
            parameters += b" BODY=8BITMIME"
        if self._smtputf8:
            if envelope.smtputf8:
                parameters += b" SMTPUTF8"
        elif not path.isascii():
            path = ascii_path(path) or path
        if transaction.dsn_passed_on and (envelope.ret or envelope.envid):
            if envelope.ret:
                parameters += b" RET=" + envelope.ret.encode()
            if envelope.envid:
                parameters += b" ENVID=" + xtext(envelope.envid)
        return b"MAIL FROM:<%b>%b\r\n" % (path, parameters)

    def _rcpt(self, n: int) -> bytes:
        transaction = self.transaction
        assert transaction is not None
        recipient = transaction.recipients[n]
        path = recipient.forward_path
        if not self._smtputf8 and not path.isascii():
            path = ascii_path(path) or path
        if not transaction.dsn_passed_on or not (recipient.notify or recipient.orcpt):
            return b"RCPT TO:<%b>\r\n" % path
        parameters = b""
        if recipient.notify & NOTIFY_NEVER:
            parameters = b" NOTIFY=NEVER"
        elif recipient.notify:
            parameters = b" NOTIFY=" + b",".join(word for bit, word in _NOTIFY if recipient.notify & bit)
        if recipient.orcpt:
            kind, _, address = recipient.orcpt.partition(b";")
            parameters += b" ORCPT=%b;%b" % (kind, xtext(address))
        return b"RCPT TO:<%b>%b\r\n" % (path, parameters)

    def _envelope_reply(self, reply: Reply, code: int) -> Event:
        transaction = self.transaction
        assert transaction is not None
        kind = code // 100
        place = self._answered
        if place > len(self._order):
            return self._data_reply(reply, code)
        if kind == 3:
            return self._unexpected(reply)
        if place == 0:
            if kind != 2:
                transaction.decide(reply)
                if self._sent == 1:
                    return self._finished()
        else:
            n = self._order[place - 1]
            if transaction.results[n] is None:
                if kind == 2:
                    transaction.accepted.append(n)
                elif code in (452, 552) and transaction.accepted:
                    transaction.again.append(n)
                else:
                    transaction.results[n] = reply
        self._answered = place = place + 1
        return _NOTHING if place < self._sent else self._next_command(place)

    def _next_command(self, place: int) -> Event:
        """Without pipelining: the next RCPT, DATA, or nothing where nobody was accepted."""
        transaction = self.transaction
        assert transaction is not None
        if place <= len(self._order):
            self.output = self._rcpt(self._order[place - 1])
        elif transaction.accepted:
            self.output = b"DATA\r\n"
        else:
            self._needs_reset = True
            return self._finished()
        self._sent = place + 1
        return _NOTHING

    def _data_reply(self, reply: Reply, code: int) -> Event:
        transaction = self.transaction
        assert transaction is not None
        if code == 354:
            accepted = transaction.accepted
            if accepted and transaction.results[accepted[0]] is None:
                self.state = _BODY
                return Event.BODY
            # Nobody was accepted, yet the server waits for a message (RFC 2920 §3.1): it gets an empty one, and
            # whatever it answers counts for nobody.
            self.state = State.EMPTY_FINAL
            self.output = b".\r\n"
            return _NOTHING
        if code // 100 in (2, 3):
            return self._unexpected(reply)
        self._needs_reset = True
        transaction.decide(reply)
        return self._finished()

    def _early_reply(self, reply: Reply, code: int) -> Event:
        """An answer before the message is whole: it holds, and the connection cannot be used any further."""
        assert self.transaction is not None
        self.is_usable = False
        if code // 100 in (4, 5):
            self.transaction.decide(reply)
            return self._finished()
        return self._unexpected(reply)

    def _final_reply(self, reply: Reply, code: int) -> Event:
        transaction = self.transaction
        assert transaction is not None
        if code // 100 == 3:
            return self._unexpected(reply)
        accepted = transaction.accepted
        if self._lmtp:
            transaction.results[accepted[self._answered]] = reply
            self._answered += 1
            if self._answered < len(accepted):
                return _NOTHING
        else:
            for n in accepted:
                transaction.results[n] = reply
        self.messages += 1
        self.state = _READY
        return _DONE

    def _reset_reply(self, reply: Reply, code: int) -> Event:
        if code // 100 != 2:
            return self._fail(Reply(450, "4.5.0", f"{self.peer} refused RSET: {reply}"))
        self._send_envelope()
        return _NOTHING

    def _finished(self) -> Event:
        self.state = _READY
        return _DONE

    # --- ends ---

    def _shutting_down(self, reply: Reply, event: Event) -> Event:
        if self.state is _READY:
            self.is_usable = False
            return event
        return self._fail(reply)

    def _unexpected(self, reply: Reply) -> Event:
        return self._fail(Reply(450, "4.5.0", f"{self.peer} sent an unexpected reply while {self.stage}: {reply}"))

    def _fail(self, reply: Reply) -> Event:
        self.failure = reply
        state = self.state
        self.unanswered = state is State.RESET or state is _READY or (state is _ENVELOPE and self._answered == 0)
        self.is_usable = False
        self.state = State.CLOSED
        return Event.CLOSED


def _softened(reply: Reply) -> Reply:
    if not reply.is_permanent:
        return reply
    return Reply(450, f"4{reply.enhanced[1:]}" if reply.enhanced else "4.0.0", f"{reply.code} {reply.text}")


def ascii_path(path: bytes) -> bytes | None:
    """The path with its domain as A-labels; None where the local part itself needs SMTPUTF8."""
    if path.isascii():
        return path
    local_part, _, domain = path.rpartition(b"@")
    if not local_part.isascii():
        return None
    try:
        return local_part + b"@" + idna.encode(domain.decode("utf-8"), uts46=True)
    except (UnicodeError, idna.IDNAError):
        return None


def xtext(raw: bytes) -> bytes:
    """RFC 3461 §4: everything but printable ASCII, and "+" and "=" themselves, as +XX."""
    return b"".join(bytes((octet,)) if 33 <= octet <= 126 and octet not in b"+=" else b"+%02X" % octet for octet in raw)
