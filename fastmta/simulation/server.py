"""An SMTP server of a simulation: reads commands, also pipelined ones, and answers as its site decides.

The session knows the protocol and what has been said in it; whatever could be otherwise is asked of the site. A site
that only wants to be an ordinary server overrides nothing.
"""

from typing import TYPE_CHECKING, Final, NamedTuple

from fastmta.simulation.network import DEFAULT_LATENCY_S

if TYPE_CHECKING:
    from fastmta.simulation.handshake import Ticket
    from fastmta.simulation.network import Link


class Answer(NamedTuple):
    """What a server says, how long it thinks before, and what it does behind it: "close" or "reset".

    An empty text is silence.
    """

    text: bytes
    after_s: float = 0.0
    then: str = ""


class Session:
    """One connection, as the server has it. `messages` were taken in it; `recipients` are those taken by RCPT."""

    def __init__(self, site: "Site") -> None:
        self.site = site
        self.link: Link | None = None
        self.sender = b""
        self.recipients: list[bytes] = []
        self.body = bytearray()
        self.messages = 0
        self.in_data = False
        self.is_over = False
        self._buffer = bytearray()
        self._has_sender = False
        self.is_secure = False  # TLS has begun
        self._chunk = b""  # the BDAT command whose octets are read, while they are (RFC 3030)
        self._thought_s = 0.0  # how long the answers that were decided at this instant take

    def connected(self, link: "Link") -> None:
        self.link = link
        self.site.opened(self)
        self._say(self.site.greeting(self))

    def received(self, data: bytes) -> None:
        self._buffer += data
        self._thought_s = 0.0
        while not self.is_over:
            if self._chunk:
                if not self._read_chunk():
                    return
                continue
            if self.in_data:
                if not self._message():
                    return
                continue
            end = self._buffer.find(b"\r\n")
            if end < 0:
                return
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 2]
            self._command(line)

    def shakes(self, session: "Ticket | None") -> tuple[str, bool]:
        ended, knows = self.site.shakes(self, session)
        if ended != "stalls":
            self.is_secure = not ended
        if ended in ("fails", "drops"):
            self.lost()
        return ended, knows

    def lost(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.site.closed(self)

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        site = self.site
        if verb in (b"EHLO", b"LHLO"):
            self._say(site.hello(self))
        elif verb == b"MAIL":
            self.recipients = []
            self.sender = line[line.find(b"<") + 1 : line.find(b">")]
            answer = site.mail(self)
            self._has_sender = answer.text.startswith(b"2")
            self._say(answer)
        elif verb == b"RCPT":
            path = line[line.find(b"<") + 1 : line.find(b">")]
            answer = site.rcpt(self, path) if self._has_sender else Answer(b"503 5.5.1 Need MAIL command\r\n")
            if answer.text.startswith(b"2"):
                self.recipients.append(path)
            self._say(answer)
        elif verb == b"DATA":
            answer = site.data(self) if self.recipients else Answer(b"554 5.5.1 No valid recipients\r\n")
            self.in_data = answer.text.startswith(b"3")
            self._say(answer)
        elif verb == b"BDAT":
            self._chunk = line
        elif verb == b"RSET":
            self.recipients = []
            self._say(Answer(b"250 2.0.0 Ok\r\n"))
        elif verb == b"STAR":
            self._say(site.starttls(self))
        elif verb == b"QUIT":
            self._say(Answer(b"221 2.0.0 Bye\r\n", then="close"))
        elif verb == b"HELO":
            self._say(Answer(b"250 %b\r\n" % site.name.encode()))
        else:
            self._say(Answer(b"502 5.5.2 Command not recognized\r\n"))

    def _read_chunk(self) -> bool:
        """Reads on in a chunk; whether it is whole."""
        cut = self.site.cuts_data(self)
        if cut is not None:
            self._say(cut)
            return False
        words = self._chunk.split()
        octets = int(words[1])
        if len(self._buffer) < octets:
            return False
        self.body += self._buffer[:octets]
        del self._buffer[:octets]
        self._chunk = b""
        is_last = words[-1].upper() == b"LAST"
        if not self.recipients:
            self._say(Answer(b"554 5.5.1 No valid recipients\r\n"))
            self.body = bytearray()
        elif is_last:
            self._decide()
        else:
            self._say(Answer(b"250 2.0.0 Ok\r\n"))
        return True

    def _message(self) -> bool:
        """Reads on in a message; whether it is whole."""
        buffer = self._buffer
        cut = self.site.cuts_data(self)
        if cut is not None:
            self._say(cut)
            return False
        if buffer.startswith(b".\r\n") and not self.body:
            end, behind = 0, 3
        else:
            end = buffer.find(b"\r\n.\r\n")
            if end < 0:
                return False
            end, behind = end + 2, end + 5
        self.body = buffer[:end]
        del buffer[:behind]
        self.in_data = False
        self._decide()
        return True

    def _decide(self) -> None:
        """The message is whole: one answer for all, or by LMTP one for each recipient."""
        for path in list(self.recipients) if self.site.speaks_lmtp else ():
            self.recipients = [path]
            answer = self.site.message(self)
            self._say(answer, is_end=answer.text.startswith(b"2"))
            if self.is_over:
                return
        if self.site.speaks_lmtp:
            self.messages += 1
            self.body = bytearray()
            self.recipients = []
            return
        answer = self.site.message(self)
        taken = answer.text.startswith(b"2")
        if taken:
            self.messages += 1
        self._say(answer, is_end=taken)
        self.body = bytearray()
        self.recipients = []

    def _say(self, answer: Answer, *, is_end: bool = False) -> None:
        """`is_end`: the message is taken by this answer, whether it arrives or not."""
        assert self.link is not None
        self._thought_s += answer.after_s
        if is_end:
            heard = self.site.took(self)
            if answer.then == "reset":
                heard(False)
            else:
                self.link.say(answer.text, self._thought_s, heard)
        elif answer.text and answer.then != "reset":
            self.link.say(answer.text, self._thought_s)
        if answer.then == "close":
            self.link.hang_up(self._thought_s)
            self.lost()
        elif answer.then == "reset":
            self.link.reset(self._thought_s)
            self.lost()


class Site:
    """A server machine that takes everything at once. `open` are the sessions that stand."""

    speaks_lmtp = False

    def __init__(self, name: str, latency_s: float = DEFAULT_LATENCY_S, speed: float = 0.0) -> None:
        self.name = name
        self.latency_s = latency_s
        self.speed = speed
        self.open: dict[Session, None] = {}
        self.most_open = 0

    # --- the network's ---

    def admit(self, now: float) -> float:
        return self.latency_s

    def accept(self) -> tuple[Session, float, float]:
        return Session(self), self.latency_s, self.speed

    def opened(self, session: Session) -> None:
        self.open[session] = None
        self.most_open = max(self.most_open, len(self.open))

    def closed(self, session: Session) -> None:
        self.open.pop(session, None)

    # --- what it says ---

    def greeting(self, session: Session) -> Answer:
        return Answer(b"220 %b ESMTP\r\n" % self.name.encode())

    def hello(self, session: Session) -> Answer:
        return Answer(b"250-%b\r\n250-PIPELINING\r\n250 8BITMIME\r\n" % self.name.encode())

    def starttls(self, session: Session) -> Answer:
        return Answer(b"502 5.5.1 Not here\r\n")

    def shakes(self, session: Session, ticket: "Ticket | None") -> tuple[str, bool]:
        """As Peer.shakes: whoever was told to start TLS may."""
        return "", False

    def mail(self, session: Session) -> Answer:
        return Answer(b"250 2.1.0 Ok\r\n")

    def rcpt(self, session: Session, path: bytes) -> Answer:
        return Answer(b"250 2.1.5 Ok\r\n")

    def data(self, session: Session) -> Answer:
        return Answer(b"354 End data with <CR><LF>.<CR><LF>\r\n")

    def cuts_data(self, session: Session) -> Answer | None:
        """What it does instead of reading on in a message; None: it reads on."""
        return None

    def message(self, session: Session) -> Answer:
        """At the final dot, with `session.body` whole."""
        return Answer(b"250 2.0.0 Ok: queued\r\n")

    def took(self, session: Session) -> "Heard":
        """It has taken a message; gives whom to tell whether the client has heard of it."""
        return _nobody


class Heard:
    """Called with whether an answer has come to the client."""

    def __call__(self, heard: bool) -> None: ...


_nobody: Final = Heard()
