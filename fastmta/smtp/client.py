"""The rules of an SMTP or LMTP client (RFC 5321, RFC 2033), apart from any socket: bytes in, bytes and events out.

A `Client` is one session with one server; it carries one `Transaction` after the other. Its owner writes `output`
after every call and acts on the event that the call gave. Where the server pipelines (RFC 2920), MAIL, every RCPT and
DATA leave together; else one at a time. Where it takes CHUNKING too (RFC 3030), BDAT takes the place of DATA: the owner
has each chunk announced by `chunk`, and may send a whole message behind the envelope without waiting for its answers
(§4.2). What a reply means for a recipient is decided here and nowhere else:

- each RCPT stands alone; 452 or 552 after one was accepted means "too many at once", so those are to be sent again;
- a 4yz or 5yz to MAIL, DATA or the end of data holds for all that remain; LMTP answers for each accepted recipient;
- a 4yz or 5yz to a chunk holds for all that remain too: no further chunk is sent, those on their way are answered for
  nobody, and RSET follows (RFC 3030 §2);
- 421, nonsense, or a lost connection end the session and decide nothing: the owner tries the next address;
- what was learnt before TLS is forgotten, and bytes that came behind the reply to STARTTLS are dropped (RFC 3207 §4.2).

What the server offers, and the lines that say an envelope to it, are smtp/offered.py; a login is smtp/client_login.py.
Left to the owner: time, the socket, the handshake, and the message's bytes between the events BODY and `body_sent`.
"""

from typing import Final

from fastmta._parser import ReplyParser
from fastmta.auth.sasl_client import Credentials, Login, LoginError
from fastmta.model.errors import ProtocolViolation
from fastmta.model.reply import Reply
from fastmta.smtp.client_login import LoginDialogue
from fastmta.smtp.client_states import STAGES, Event, State
from fastmta.smtp.offered import NOTHING_OFFERED, Offered
from fastmta.smtp.transaction import Transaction, softened

# For the hot path: module constants are cheaper than attributes of an enum.
_READY, _ENVELOPE, _BODY, _FINAL, _RESET = State.READY, State.ENVELOPE, State.BODY, State.FINAL, State.RESET
_BODY_NOW, _DISCARDED, _XFORWARD = Event.BODY, State.DISCARDED, State.XFORWARD
_NOTHING, _DONE, _HANDSHAKE, _CLOSED = Event.NOTHING, Event.DONE, Event.HANDSHAKE, State.CLOSED

_BEFORE: Final = frozenset({State.RESET, State.XFORWARD, State.READY})  # of a transaction's first command
_WANTS_LOGIN: Final = frozenset({530, 534, 535, 538})  # "authentication required", and its kin (RFC 4954 §6)


class Client:
    """One session. `helo_name` is ours; `lmtp` speaks LHLO; `tls_level` is Postfix's word for it.

    `credentials`: who logs in where the server offers AUTH. `own_relay`: the administrator named this server, so that
    mail which it does not take for want of a login waits until he has mended that. `ignores`: keywords in upper case
    that count as not offered. `wrapped`: TLS comes before the greeting. `forwards`: a server that wants to hear it is
    told who handed a message in (Postfix's XFORWARD). `chunked`: the message at hand goes by BDAT.
    """

    __slots__ = (
        "_ahead",
        "_answered",
        "_chunks",
        "_dialogue",
        "_forwards",
        "_helo_name",
        "_ignores",
        "_lmtp",
        "_needs_reset",
        "_order",
        "_own_relay",
        "_parser",
        "_sent",
        "_tls_level",
        "_unread",
        "_wrapped",
        "chunked",
        "credentials",
        "failure",
        "is_usable",
        "login_refused",
        "messages",
        "offered",
        "output",
        "peer",
        "proved",
        "replies",
        "state",
        "tls",
        "transaction",
        "unanswered",
        "was_used",
    )

    def __init__(
        self,
        helo_name: str,
        peer: str,
        *,
        lmtp: bool = False,
        tls_level: str = "may",
        credentials: Credentials | None = None,
        own_relay: bool = False,
        ignores: frozenset[str] = frozenset(),
        wrapped: bool = False,
        forwards: bool = False,
    ) -> None:
        self._forwards = forwards
        self.credentials = credentials
        self._own_relay = own_relay
        self._dialogue: LoginDialogue | None = None
        self._helo_name = helo_name
        self._ignores = ignores
        self._lmtp = lmtp
        self._tls_level = tls_level
        self._parser = ReplyParser()
        self._sent = self._answered = 0
        self._order: list[int] = []  # the recipients of the transaction that have an RCPT
        self._needs_reset = False
        self._unread = 0  # answers to a pipelined envelope that are only counted, if they are positive
        self._ahead = False  # the message has left with the envelope
        self._chunks = 0  # whose answers are to come, but for the last
        self.chunked = False
        self.offered = NOTHING_OFFERED
        self.failure: Reply | None = None
        self.is_usable = True
        self.login_refused = False  # by the server for good, or for want of a mechanism: asking again soon is no use
        self.messages = 0
        self.output = b""
        self.proved = False  # by the owner, once TLS has shown who the server is
        self.peer = peer  # "host[address]:port", for replies of our own making
        self.replies = 0  # that have come: whoever keeps time sees progress by it
        self._wrapped = wrapped
        self.state = State.HANDSHAKE if wrapped else State.GREETING
        self.tls = False
        self.transaction: Transaction | None = None
        self.unanswered = False  # the session failed before the server said anything to the transaction
        self.was_used = False  # a transaction has come to its end, whatever that was

    # --- what the owner calls ---

    def receive(self, data: bytes) -> Event:
        """Takes what the server sent. The last event of the read is the one that counts."""
        event = _NOTHING
        try:
            replies = self._parser.feed(data, self._unread)
        except ProtocolViolation as error:
            return self._fail(Reply(450, "4.5.0", f"{self.peer} broke the protocol: {error}"))
        if self._unread and (passed := self._parser.passed):
            event = self._consented(passed)
        self.replies += len(replies)
        for reply in replies:
            state = self.state
            code = reply.code
            if code == 421 and state is not State.AUTH:
                event = self._shutting_down(reply, event)
            elif state is _ENVELOPE:
                event = self._envelope_reply(reply, code)
            elif state is _FINAL:
                event = self._final_reply(reply, code)
            elif state is _READY:
                self.is_usable = False  # nobody asked: whatever it says, answers are out of step now
                if event is Event.READY:  # nor has the owner begun with it
                    event = self._unexpected(reply)
            elif state is _BODY or state is _DISCARDED:
                event = self._early_reply(reply, code)
            elif state is _RESET:
                event = self._reset_reply(reply, code)
            elif state is _XFORWARD:
                self._send_envelope()  # whatever it says: the message is no other by it
            else:
                event = self._handshake_reply(reply, code)
            if self.state is _CLOSED or event is _HANDSHAKE:
                break  # behind 220 to STARTTLS nothing in plain text counts
        return event

    def start(self, transaction: Transaction, *, probe: bool = False) -> Event:
        """Begins a transaction in state READY; `probe` asks with RSET first whether the server is still there."""
        self.transaction = transaction
        self.offered.refuse(transaction, self.peer)
        terms = transaction.envelope.terms
        if terms is not None and not self._lmtp:  # what takes mail by LMTP delivers it
            self.offered.refuse_terms(transaction, terms, self.peer, proved=self.proved)
        if None not in transaction.results:
            return _DONE  # the server has no part in it
        if probe or self._needs_reset:
            self._needs_reset = False
            self.state = State.RESET
            self.output = b"RSET\r\n"
            return _NOTHING
        self._begin()
        return _NOTHING

    def chunk(self, size_bytes: int, *, last: bool) -> bytes:
        """The line before a chunk, which the owner writes whole behind it. Before the answers to the envelope have
        come it may be called once, for the whole message.
        """
        if not last:
            self._chunks += 1
            return b"BDAT %d\r\n" % size_bytes
        if self.state is _ENVELOPE:
            self._ahead = True
        else:
            self.body_sent()
        return b"BDAT %d LAST\r\n" % size_bytes

    def body_sent(self) -> None:
        """The owner has written the whole message and its final dot."""
        self.state = _FINAL
        self._answered = 0

    def tls_started(self) -> None:
        """The handshake is over: everything begins anew (RFC 3207 §4.2), or at all."""
        self._parser = ReplyParser()
        self.tls = True
        if self._wrapped:
            self.state = State.GREETING
        else:
            self._hello()

    def tls_failed(self, reason: str) -> None:
        """The handshake came to nothing, and the connection with it."""
        if self.state is not State.CLOSED:
            self._fail(Reply(450, "4.7.5", f"Cannot start TLS with {self.peer}: {reason}"))

    @property
    def login(self) -> Login | None:
        """The login of this session, once it has begun."""
        return self._dialogue.login if self._dialogue is not None else None

    def respond(self) -> bytes:
        """The login's answer to the server's challenge, for `answer`; may be called on a thread. LoginError: none."""
        assert self._dialogue is not None
        return self._dialogue.login.respond(self._dialogue.challenge)

    def answer(self, response: bytes) -> None:
        """Sends what `respond` gave."""
        if self.state is State.AUTH:
            assert self._dialogue is not None
            self.output = self._dialogue.answer(response)

    def login_failed(self, reason: str) -> None:
        """The login cannot go on: the server asks for what it must not get, or does not prove who it is."""
        if self.state is State.AUTH:
            self.login_refused = True
            self._fail(Reply(450, "4.7.0", f"SASL authentication failed with server {self.peer}: {reason}"))

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
        return self.offered.needs_conversion(transaction)

    def lacks_smtputf8(self, transaction: Transaction) -> bool:
        """Whether the owner has to find out about `utf8_header` before `start`."""
        return transaction.envelope.smtputf8 and not self.offered.smtputf8

    # --- the handshake ---

    def _handshake_reply(self, reply: Reply, code: int) -> Event:
        state = self.state
        if state is State.GREETING:
            # A 5yz greeting is the host's, not the recipient's: the next one is tried, and the last one defers
            # (Postfix's smtp_skip_5xx_greeting).
            if code // 100 != 2:
                return self._fail(softened(reply))
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
                self.offered = NOTHING_OFFERED
                self.state = State.HANDSHAKE
                return Event.HANDSHAKE
            return self._without_tls(f"TLS is required, but {self.peer} refused it: {reply}")
        if state is State.AUTH:
            return self._auth_reply(reply, code)
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
        self.offered = Offered.by(reply, self._ignores)
        if self.tls or self._tls_level == "none":
            return self._greeted()
        if "STARTTLS" not in self.offered.words:
            return self._without_tls(f"TLS is required, but was not offered by {self.peer}")
        self.state = State.STARTTLS
        self.output = b"STARTTLS\r\n"
        return _NOTHING

    def _without_tls(self, text: str) -> Event:
        if self._tls_level in ("none", "may"):
            return self._greeted()
        return self._fail(Reply(450, "4.7.4", text))

    # --- the login (RFC 4954) ---

    def _greeted(self) -> Event:
        """The capabilities that count are known: logs in where that is wanted and offered."""
        mechanisms = self.offered.mechanisms
        if self.credentials is None or not mechanisms:
            return self._ready()
        self.state = State.AUTH
        try:
            self._dialogue = LoginDialogue(self.credentials, mechanisms, tls=self.tls)
        except LoginError as error:
            self.login_failed(str(error))
            return Event.CLOSED
        self.output = self._dialogue.begin()
        return _NOTHING

    def _auth_reply(self, reply: Reply, code: int) -> Event:
        dialogue = self._dialogue
        assert dialogue is not None
        if code not in (235, 334):
            self.login_refused = reply.is_permanent
            return self._fail(dialogue.refusal(reply, self.peer))
        try:
            dialogue.receive(reply)
        except LoginError as error:
            self.login_failed(str(error))
            return Event.CLOSED
        return self._ready() if dialogue.ended else Event.LOGIN

    def _ready(self) -> Event:
        self.state = State.READY
        return Event.READY

    # --- the transaction ---

    def _begin(self) -> None:
        transaction = self.transaction
        assert transaction is not None
        line = self.offered.xforward(transaction) if self._forwards and not transaction.only_asks else b""
        if line:
            self.state = _XFORWARD
            self.output = line
        else:
            self._send_envelope()

    def _send_envelope(self) -> None:
        transaction = self.transaction
        assert transaction is not None
        transaction.accepted = []
        transaction.again = []  # what a server said before that did not take the message
        transaction.dsn_passed_on = self.offered.dsn
        self._order = [n for n, result in enumerate(transaction.results) if result is None]
        self._answered = self._chunks = 0
        self._ahead = False
        self.state = _ENVELOPE
        offered = self.offered
        # What is made 7-bit on its way goes by DATA: the sizes of its pieces are of no use to anybody.
        self.chunked = chunked = offered.chunking and not (
            transaction.conversion is not None and offered.needs_conversion(transaction)
        )
        if offered.pipelining:
            commands = [offered.mail(transaction)]
            commands += [offered.rcpt(transaction, n) for n in self._order]
            self._unread = len(commands)
            if not (chunked or transaction.only_asks):
                commands.append(b"DATA\r\n")
            self._sent = len(commands)
            self.output = b"".join(commands)
        else:
            self._sent = 1
            self.output = offered.mail(transaction)

    def _consented(self, count: int) -> Event:
        """The next `count` commands of a pipelined envelope, of which none was refused, have a positive answer."""
        transaction = self.transaction
        assert transaction is not None
        first = self._answered
        self._answered = last = first + count
        self._unread -= count
        self.replies += count
        if last > 1:
            transaction.accepted += self._order[first - 1 if first else 0 : last - 1]
        return _NOTHING if last < self._sent else self._next_command(last)

    def _envelope_reply(self, reply: Reply, code: int) -> Event:
        transaction = self.transaction
        assert transaction is not None
        self._unread = 0
        kind = code // 100
        place = self._answered
        if kind == 5 and self._own_relay and code in _WANTS_LOGIN:
            reply, kind = softened(reply), 4
        if place > len(self._order):
            return self._data_reply(reply, code)
        if kind == 3:
            return self._unexpected(reply)
        if place == 0:
            if kind != 2:
                transaction.decide(reply)
                transaction.sender_refused = True
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
        """Without pipelining: the next RCPT, DATA, or nothing where nobody was accepted. With chunks: the message, or
        the wait for what is said of it.
        """
        transaction = self.transaction
        assert transaction is not None
        if place <= len(self._order):
            self.output = self.offered.rcpt(transaction, self._order[place - 1])
        elif self._ahead:
            if transaction.accepted:
                self.body_sent()
            else:  # the server throws the message away, and says so once
                self._needs_reset = True
                self.state = State.EMPTY_FINAL
            return _NOTHING
        elif transaction.accepted and not transaction.only_asks:
            if self.chunked:
                self.state = _BODY
                return _BODY_NOW
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
        """An answer before the message is whole: to a chunk; else it holds, and the connection cannot be used any
        further.
        """
        if self._chunks:
            return self._chunk_reply(reply, code)
        assert self.transaction is not None
        self.is_usable = False
        if code // 100 in (4, 5):
            self.transaction.decide(reply)
            return self._finished()
        return self._unexpected(reply)

    def _chunk_reply(self, reply: Reply, code: int) -> Event:
        """What is said of a chunk that is not the last, or that follows one which was refused."""
        transaction = self.transaction
        assert transaction is not None
        kind = code // 100
        self._chunks -= 1
        if self.state is not _DISCARDED:
            if kind == 2:
                return _NOTHING
            if kind == 3:
                return self._unexpected(reply)
            transaction.decide(reply)
            self._needs_reset = True
            if self.state is _FINAL:  # the last one is on its way
                self._chunks += 1
            if self._lmtp:  # nobody says how often that is answered
                self.is_usable = False
                self._chunks = 0
        if not self._chunks:
            return self._finished()
        self.state = _DISCARDED
        return _NOTHING

    def _final_reply(self, reply: Reply, code: int) -> Event:
        if self._chunks:
            return self._chunk_reply(reply, code)
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
        return self._finished()

    def _reset_reply(self, reply: Reply, code: int) -> Event:
        if code // 100 != 2:
            return self._fail(Reply(450, "4.5.0", f"{self.peer} refused RSET: {reply}"))
        self._begin()
        return _NOTHING

    def _finished(self) -> Event:
        self.was_used = True
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
        if reply.code < 400:  # no reply of a failure, whatever was asked
            return self._unexpected(reply)
        self.failure = reply
        state = self.state
        self.unanswered = state in _BEFORE or (state is _ENVELOPE and self._answered == 0)
        self.is_usable = False
        self.state = State.CLOSED
        return Event.CLOSED
