"""`sendmail -bs`: an SMTP session on standard input and output, whose messages go to the spool.

The rules are the server's own; lines may end in a bare LF, as programs on this machine write them. As with Postfix,
every recipient whose syntax is right is taken, and one that nobody has is reported by mail.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

import msgspec

from fastmta._parser import split_command
from fastmta.auth.sasl import Sasl
from fastmta.cli.failures import EX_CONFIG, CommandFailed
from fastmta.config.schema import Config
from fastmta.model.envelope import Resolution
from fastmta.model.limited import What
from fastmta.model.limits import SMTP_COMMAND_LINE_BYTES
from fastmta.model.reply import Reply
from fastmta.model.stages import Stage
from fastmta.pickup.spool import Drop, NoSpool, Ticket, TooBig
from fastmta.smtp.extensions import Demands
from fastmta.smtp.session import Rules
from fastmta.smtp.settings import settings_of
from fastmta.smtp.transitions import TRANSITIONS, State, Verb
from fastmta.smtp.xclient import Attributes

READ_BYTES: Final = 65_536
Deposit = Callable[[Ticket, Iterator[bytes]], None]


class _Effects:
    """A session on this machine has no TLS, no login, and may send as anybody."""

    def now(self) -> float:
        return time.time()

    def tls_offered(self) -> bool:
        return False

    def mechanisms(self, tls: bool, loopback: bool, certified: str = "") -> tuple[str, ...]:
        return ()

    def exchange(self, allowed: tuple[str, ...], certified: str = "") -> Sasl:
        return Sasl(allowed)

    def sender_allowed(self, login: str, reverse_path: bytes) -> bool:
        return True

    def resolve(self, forward_path: bytes, *, may_relay: bool) -> Resolution:
        return Resolution()

    def may(self, session: Any, what: What) -> bool:
        return True

    def examine(self, session: Any, stage: Stage, subject: bytes, go_on: Callable[[], Reply]) -> Reply | None:
        return go_on()

    def fetch(self, session: Any, url: bytes, *, last: bool) -> Reply | None:
        raise AssertionError("nobody logs in here")

    def may_speak_for(self, session: Any, verb: int) -> bool:
        return False

    def speak_for(self, session: Any, attributes: Attributes) -> Reply | None:
        raise AssertionError("nobody may speak for others here")

    def forwarded(self, session: Any, attributes: Attributes) -> None:
        raise AssertionError("nobody may speak for others here")

    def authenticate(self, session: Any, credentials: Any) -> str | None:
        return ""


class LocalSession:
    """One session; `run` serves it to its end."""

    def __init__(self, config: Config, full_name: str, deposit: Deposit) -> None:
        settings = settings_of(config, "smtp")
        self._settings = msgspec.structs.replace(settings, offers=frozenset())  # the spool keeps no demands
        self._rules = Rules(self._settings, _Effects())
        self._full_name = full_name
        self._deposit = deposit
        self.state: int = State.CONNECTED
        self.helo = b""
        self.esmtp = False
        self.tls = False
        self.trusted = True
        self.loopback = True
        self.peer_ip = ""
        self.login = ""
        self.exchange: Sasl | None = None
        self.auth_failures = 0
        self.certificate = None
        self.speaks_for = False
        self.smtputf8 = False
        self.stages = 0
        self.bare = 0
        self.denied: Reply | None = None
        self._closing = False
        self.reset()

    # --- what the rules change ---

    def reset(self) -> None:
        self._reverse_path = b""
        self._envid = b""
        self._ret = ""
        self.smtputf8 = False
        self._drops: list[Drop] = []

    def begin(self, reverse_path: bytes, size_bytes: int, smtputf8: bool, envid: bytes, ret: str) -> Reply | None:
        self.reset()
        self._reverse_path, self._envid, self._ret, self.smtputf8 = reverse_path, envid, ret, smtputf8
        return None

    def demand(self, demands: Demands) -> Reply | None:
        raise AssertionError("nothing can be demanded")

    def add_recipient(self, forward_path: bytes, notify: int, orcpt: bytes) -> Reply:
        if len(self._drops) >= self._settings.recipient_limit:
            return Reply(452, "4.5.3", "Error: too many recipients")
        self._drops.append(Drop(_text(forward_path), notify, _text(orcpt)))
        return Reply(250, "2.1.5", "Ok")

    def begin_data(self) -> Reply:
        return Reply(354, "", "End data with <CR><LF>.<CR><LF>")

    def close_after_reply(self) -> None:
        self._closing = True

    def start_tls(self) -> None:
        raise AssertionError("TLS is not offered")

    # --- the session ---

    def run(self, source: BinaryIO, sink: BinaryIO) -> None:
        """Serves until QUIT or the end of the input."""
        self._say(sink, Reply(220, "", self._settings.banner))
        while not self._closing:
            line = source.readline(SMTP_COMMAND_LINE_BYTES + 1)
            if not line:
                return
            if len(line) > SMTP_COMMAND_LINE_BYTES and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = source.readline(READ_BYTES)
                self._say(sink, Reply(500, "5.5.2", "Line too long"))
                continue
            self._command(line.rstrip(b"\r\n"), source, sink)

    def _command(self, line: bytes, source: BinaryIO, sink: BinaryIO) -> None:
        if any(octet < 32 or octet == 127 for octet in line):
            self._say(sink, Reply(501, "5.5.2", "Control characters are not allowed"))
            return
        verb, arguments = split_command(line)
        following = TRANSITIONS.get((State(self.state), Verb(verb)))
        reply: Reply | None
        if verb in (Verb.UNKNOWN, Verb.HTTP):
            reply = Reply(500, "5.5.2", "Error: command not recognized")
        elif verb in (Verb.STARTTLS, Verb.AUTH, Verb.BDAT):
            reply = Reply(502, "5.5.1", "Error: command not implemented")
        elif following is None:
            reply = self._rules.out_of_sequence(self, verb)
        elif verb == Verb.QUIT:
            self._closing = True
            reply = Reply(221, "2.0.0", "Bye")
        elif verb == Verb.DATA:
            self._say(sink, self.begin_data())
            reply = self._data(source)
            self.state = State.GREETED
            self.reset()
        else:
            reply = self._rules.handle(self, verb, arguments)
            assert reply is not None
            if reply.code < 400:
                self.state = following
            if verb == Verb.EHLO:
                lines = [text for text in reply.text.split("\n") if text != "CHUNKING"]
                reply = Reply(reply.code, reply.enhanced, "\n".join(lines))
        self._say(sink, reply)

    def _data(self, source: BinaryIO) -> Reply:
        lines = _unstuffed(source)
        ticket = Ticket(_text(self._reverse_path), self._drops, self._full_name, _text(self._envid), self._ret)
        try:
            self._deposit(ticket, lines)
            return Reply(250, "2.0.0", "Ok: queued")
        except TooBig:
            return Reply(552, "5.3.4", "Error: message file too big")
        except (OSError, NoSpool) as error:
            return Reply(451, "4.3.0", f"Error: queue file write error: {error}")
        except EOFError:
            self._closing = True
            return Reply(421, "4.4.2", "Error: the input ended inside the message")
        finally:
            if not self._closing:
                for _ in lines:  # the rest of a message that was not taken is no command
                    pass

    def _say(self, sink: BinaryIO, reply: Reply) -> None:
        sink.write(reply.encode())
        sink.flush()


def serve(config: Config, full_name: str, deposit: Deposit, source: BinaryIO, sink: BinaryIO) -> int:
    """Serves one session; the exit code."""
    if not config.myhostname:
        raise CommandFailed("myhostname is empty", EX_CONFIG)
    LocalSession(config, full_name, deposit).run(source, sink)
    return 0


def _unstuffed(source: BinaryIO) -> Iterator[bytes]:
    """The lines up to the lone dot, their stuffing removed (RFC 5321 §4.5.2); EOFError where there is no such end."""
    at_start = True
    while line := source.readline(READ_BYTES):
        if at_start and line.startswith(b"."):
            if line in (b".\n", b".\r\n"):
                return
            line = line[1:]
        at_start = line.endswith(b"\n")
        yield line
    raise EOFError


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
