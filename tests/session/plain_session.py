"""A whole SMTP session as slowly and plainly as it can be said: Python, the rules, the table, and no fast path.

What `_session` decides by itself, without a word from smtp/session.Rules, stands here a second time and in docs/
architecture.md as a list. There is no pipelining, no memo, no store: a message is what it gives to `accept`.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from fastmta.model.limits import SMTP_COMMAND_LINE_BYTES
from fastmta.model.reply import Reply
from fastmta.smtp.session import Rules, Settings
from fastmta.smtp.transitions import TRANSITIONS, State, Verb
from tests.parser import data_oracle

FOREIGN = {b"GET", b"POST", b"CONNECT", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE"}
JUNK = {Verb.NOOP, Verb.RSET, Verb.VRFY, Verb.EXPN, Verb.HELP, Verb.EHLO, Verb.HELO, Verb.LHLO}
LOOP = Reply(554, "5.4.6", "Error: mail forwarding loop")


@dataclass
class Message:
    """What was accepted with 250."""

    reverse_path: bytes
    recipients: list[tuple[bytes, int, bytes]]
    octets: bytes
    bits: int


@dataclass
class PlainSession:
    """smtp/session.Session, and the loop that feeds it."""

    settings: Settings
    effects: Any
    peer_ip: str
    trusted: bool
    tls: bool
    state: int = State.CONNECTED
    helo: bytes = b""
    esmtp: bool = False
    loopback: bool = False
    speaks_for: bool = False
    certificate: Any = None
    login: str = ""
    exchange: Any = None
    auth_failures: int = 0
    smtputf8: bool = False
    stages: int = 0  # nobody is asked
    bare: int = 0
    denied: Reply | None = None
    closing: bool = False
    starting_tls: bool = False
    out: bytes = b""
    accepted: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loopback = self.peer_ip.startswith("127.")
        self.rules = Rules(self.settings, self.effects)
        self.buffer = b""
        self.errors = self.junk = 0
        self.chunks = b""
        self.discard = 0
        self.reverse_path: bytes | None = None
        self.recipients: list[tuple[bytes, int, bytes]] = []

    # --- what the rules ask ---

    def reset(self) -> None:
        self.reverse_path = None
        self.recipients = []
        self.smtputf8 = False
        self.chunks = b""
        if self.state >= State.MAIL:
            self.state = State.GREETED

    def begin(self, reverse_path: bytes, size_bytes: int, smtputf8: bool, envid: bytes, ret: str) -> Reply | None:
        self.reverse_path, self.smtputf8, self.recipients, self.overshoot = reverse_path, smtputf8, [], 0
        return None

    def add_recipient(self, forward_path: bytes, notify: int, orcpt: bytes) -> Reply:
        if len(self.recipients) >= self.settings.recipient_limit:
            self.overshoot += 1
            self.forgiven = self.overshoot <= self.settings.recipient_overshoot_limit
            return Reply(452, "4.5.3", "Error: too many recipients")
        found = self.effects.resolve(forward_path, may_relay=self.trusted or self.login != "")
        if found.refusal is not None:
            return found.refusal
        self.recipients.append((forward_path, notify, orcpt))
        return Reply(250, "2.1.5", "Ok")

    def begin_data(self) -> Reply:
        raise AssertionError("nobody is asked")

    def close_after_reply(self) -> None:
        self.closing = True

    def start_tls(self) -> None:
        self.starting_tls = True

    # --- the loop ---

    def feed(self, segment: bytes) -> bytes:
        """The replies to one read."""
        self.out = b""
        self.buffer += segment
        while self.buffer and not self.closing and not self.starting_tls and self._one():
            continue
        return self.out

    def _one(self) -> bool:
        if self.state == State.DATA:
            message, taken, done, bits = data_oracle.receive(self.buffer)
            if done:
                self.buffer = self.buffer[taken:]
                self._end_of_message(message, bits)
            return done
        if self.discard:
            taken = min(self.discard, len(self.buffer))
            self.buffer, self.discard = self.buffer[taken:], self.discard - taken
            return True
        if self.chunk_left:
            return self._chunk()
        line, newline, rest = self.buffer.partition(b"\n")
        if self.skipping or len(line + newline) > SMTP_COMMAND_LINE_BYTES:
            if not self.skipping:
                self._answer(Reply(500, "5.5.2", "Line too long"))
            self.skipping = not newline
            self.buffer = rest
            return True
        if not newline:
            return False
        self.buffer = rest
        self._line(line)
        return True

    skipping = False  # the rest of a line that is too long
    chunk_left = 0
    chunk_last = False
    forgiven = False

    def _line(self, line: bytes) -> None:
        if not line.endswith(b"\r") or b"\r" in line[:-1]:
            self.closing = True
            self._answer(Reply(550, "5.5.2", "Error: bare <CR> or <LF> received"))
            return
        line = line[:-1]
        word, _, arguments = line.partition(b" ")
        arguments = arguments.lstrip(b" ")
        verb = Verb.UNKNOWN
        if word.upper().decode("latin-1") in Verb.__members__:
            verb = Verb[word.upper().decode()]
        if word.upper() in FOREIGN or line.startswith(b"\x16\x03"):
            self.closing = True
            self._answer(Reply(554, "5.5.1", "Error: I speak SMTP, good bye"))
        elif re.search(rb"[\x00-\x1f\x7f]", line):
            self._answer(Reply(501, "5.5.2", "Control characters are not allowed"))
        elif not _is_utf8(line):
            self._answer(Reply(501, "5.5.2", "This is not valid UTF-8"))
        elif verb in (Verb.UNKNOWN, Verb.HTTP):
            self._answer(Reply(500, "5.5.2", "Error: command not recognized"))
        else:
            self._command(verb, arguments)

    def _command(self, verb: Verb, arguments: bytes) -> None:
        following = TRANSITIONS.get((State(self.state), verb))
        if verb == Verb.BDAT:
            self._bdat(arguments, following)
        elif following is None:
            if verb == Verb.DATA and self.buffer:
                self.closing = True
            self._answer(self.rules.out_of_sequence(self, verb))
        elif verb == Verb.DATA:
            if arguments:
                self._answer(Reply(501, "5.5.4", "Syntax: DATA"))
                return
            self.state = following
            self.out += b"354 End data with <CR><LF>.<CR><LF>\r\n"
        elif verb == Verb.QUIT:
            self.closing = True
            self.out += b"221 2.0.0 Bye\r\n"
        else:
            if verb in JUNK:
                self.junk += 1
                if self.junk > self.settings.junk_command_limit:
                    self._error()
                    if self.closing:
                        return
            reply = self.rules.handle(self, verb, arguments)
            assert reply is not None
            if 200 <= reply.code < 300 and not self.starting_tls:
                self.state = following
            self._answer(reply)

    def _bdat(self, arguments: bytes, following: State | None) -> None:
        words = arguments.rstrip(b" ").split(b" ", 1)
        if not words[0].isdigit() or len(words[0]) > 18 or (len(words) == 2 and words[1].upper() != b"LAST"):
            self._answer(Reply(501, "5.5.4", "Syntax: BDAT octets [LAST]"))
            return
        size, last = int(words[0]), len(words) == 2
        refusal = None
        if following is None:
            refusal = self.rules.out_of_sequence(self, Verb.BDAT)
        elif self.settings.message_size_limit and len(self.chunks) + size > self.settings.message_size_limit:
            refusal = Reply(552, "5.3.4", "Message size exceeds fixed limit")
        if refusal is not None:
            if following is not None and last:
                self._conclude(refusal)
            else:
                self.reset()
                self._answer(refusal)
            self.discard = size
            return
        assert following is not None
        self.state = following
        self.chunk_left, self.chunk_last = size, last
        if not size:
            self._chunk_done()

    def _chunk(self) -> bool:
        taken = min(self.chunk_left, len(self.buffer))
        self.chunks += self.buffer[:taken]
        self.buffer = self.buffer[taken:]
        self.chunk_left -= taken
        if not self.chunk_left:
            self._chunk_done()
        return True

    def _chunk_done(self) -> None:
        bare = self.chunks.replace(b"\r\n", b"")
        if not self.chunk_last:  # a CR at its end may have its LF in the next
            bare = bare[:-1] if self.chunks.endswith(b"\r") else bare
        is_bare = b"\r" in bare or b"\n" in bare
        if self.chunk_last or is_bare:
            self._end_of_message(self.chunks, data_oracle.BARE if is_bare else 0)
        else:
            self.out += b"250 2.0.0 %d octets received\r\n" % len(self.chunks)

    def _end_of_message(self, octets: bytes, bits: int) -> None:
        limit = self.settings.message_size_limit
        header = octets.partition(b"\r\n\r\n")[0]
        fields = [line.partition(b":")[0].lower() for line in header.split(b"\r\n")]
        if bits & data_oracle.BARE:
            self.closing = True
            self._conclude(Reply(550, "5.6.11", "Error: bare <CR> or <LF> received"))
        elif limit and len(octets) > limit:
            self._conclude(Reply(552, "5.3.4", "Error: message file too big"))
        elif fields.count(b"received") > self.settings.hopcount_limit:
            self._conclude(Reply(554, "5.4.6", "Error: too many hops"))
        elif self._loops(octets):
            self._conclude(LOOP)
        else:
            assert self.reverse_path is not None
            self.accepted.append(Message(self.reverse_path, self.recipients, octets, bits))
            self._conclude(None)

    def _loops(self, octets: bytes) -> bool:
        """Whether every target is a mailbox that the message names as one it has been in."""
        header = octets.partition(b"\r\n\r\n")[0]
        been = {match.strip().lower() for match in re.findall(rb"(?mi)^Delivered-To:(.*?)\r?$", header)}
        targets = [
            getattr(target, "address", b"") and target.address.lower()
            for path, _, _ in self.recipients
            for target in self.effects.resolve(path, may_relay=True).targets
        ]
        return bool(been) and all(target in been for target in targets)

    def _conclude(self, refusal: Reply | None) -> None:
        answers = len(self.recipients) if self.settings.is_lmtp else 1
        if refusal is None:
            self.errors = self.junk = 0
            self.out += b"250 2.0.0 Ok: queued as ID\r\n" * answers
        else:
            self.out += refusal.encode() * (answers - 1)
            self._answer(refusal)
        self.reset()

    def _answer(self, reply: Reply) -> None:
        self.out += reply.encode()
        if reply.code >= 400:
            if self.forgiven:
                self.forgiven = False
            elif not self.closing:
                self._error()

    def _error(self) -> None:
        self.errors += 1
        if self.errors >= self.settings.hard_error_limit:
            self.reset()
            self.closing = True
            self.out += f"421 4.7.0 {self.settings.myhostname} Error: too many errors\r\n".encode()


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
