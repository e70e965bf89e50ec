"""smtpd_milters and non_smtpd_milters: filters that speak the milter protocol, one after the other, each shown what
those before it made.

All is told when the message has come: connect, HELO, MAIL, the recipients, DATA, header and body. So what a filter says
of the client or of MAIL refuses the message, and what it says of one recipient refuses that one. A recipient that it
adds gets a blind copy, without reports; one that it removes gets nothing, which is in the log.
"""

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from msgspec.structs import replace

from fastmta.authentication.message import HeaderTooLong, parse_fields
from fastmta.config.milters import Milter, milters
from fastmta.config.schema import Config
from fastmta.model.ids import queue_id_text
from fastmta.model.limits import AUTHENTICATED_BODY_PIECE, CHECK_COPIES
from fastmta.model.reply import Reply
from fastmta.model.services import screened
from fastmta.model.verdict import PASS, Action, Verdict
from fastmta.policy.check import Check, Context, Message, Parts
from fastmta.policy.checks.authentication import read_header
from fastmta.policy.checks.milter_headers import MilterHeaders
from fastmta.policy.milter import Header, Steps, strings
from fastmta.policy.milter_client import Decided, MilterConnection, MilterTrouble, Pause
from fastmta.policy.new_body import NewBody

_UNAVAILABLE: Final = Reply(451, "4.7.1", "Service unavailable - try again later")
_REFUSED: Final = Reply(550, "5.5.0", "Service unavailable")
_TOO_LONG: Final = Verdict(Action.REJECT, Reply(552, "5.3.4", "The header is too long"), reason="header too long")


def build(config: Config, parts: Parts) -> Sequence[Check]:
    names = {"smtpd_milters": screened("smtp"), "non_smtpd_milters": ("pickup",)}
    found = {name: milters(config, name) for name in names}
    return [Milters(name, names[name], listed, config, parts) for name, listed in found.items() if listed]


class Milters(Check):
    """All filters, since each sees the header as those before it have left it."""

    has_effects = True

    def __init__(
        self, name: str, services: tuple[str, ...], found: Sequence[Milter], config: Config, parts: Parts
    ) -> None:
        self.name = name
        self.services = services
        self._milters = tuple(found)
        self._limit = config.message_size_limit
        self._store = parts.store
        self._hostname = config.myhostname
        self._log = parts.log
        self._turns = parts.turns
        tables = config.milter_header_checks
        self._sieve = MilterHeaders(tables, parts.clock) if tables else None

    def check(self, context: Context) -> Verdict | Awaitable[Verdict]:
        return PASS if context.message is None else self._ask(context, context.message)

    async def _ask(self, context: Context, message: Message) -> Verdict:
        share = self._turns.share()
        share.begin()
        try:
            return await self._asked(context, message, share.pause)
        finally:
            share.leave()

    async def _asked(self, context: Context, message: Message, pause: Pause) -> Verdict:
        try:
            came = await read_header(message)
            header = Header(came, parse_fields(context.added))
        except HeaderTooLong:
            return _TOO_LONG
        body_at = sum(len(field.raw) for field in came) + 2
        state = _State(context, message)
        for milter in self._milters:
            showing = _Showing(milter, context, self._hostname, pause)
            body = _Replacing(self._new_body, message, body_at)
            try:
                await showing.run(header, _body(state.message, body_at), state, body)
                await self._taken(state, showing, body)
            except Decided as decided:
                body.give_up()
                if decided.word == "accept":
                    continue
                if decided.word == "discard":
                    return Verdict(Action.DISCARD, reason=milter.address)
                return _refusal(decided.reply or _UNAVAILABLE, milter.address)
            except MilterTrouble as trouble:
                body.give_up()
                reason = f"{milter.address}: {trouble}"
                self._log.warning(
                    "policy.milter_failed", session=context.session, milter=milter.address, reason=str(trouble)
                )
                match milter.default_action:
                    case "accept":
                        pass
                    case "reject":
                        return Verdict(Action.REJECT, _REFUSED, reason=reason, is_late=True)
                    case "quarantine":
                        state.held = reason
                    case _:
                        return Verdict(Action.DEFER, _UNAVAILABLE, reason=reason, is_late=True)
        verdict = _verdict(header, state)
        if self._sieve is None or not verdict.fields:
            return verdict
        sifted = self._sieve.sift(verdict.fields)
        if sifted.action in (Action.REJECT, Action.DEFER, Action.DISCARD):
            return sifted
        return replace(
            verdict,
            action=verdict.action or sifted.action,
            fields=sifted.fields,
            copies=verdict.copies + sifted.copies,
            target=sifted.target,
            reason=verdict.reason or sifted.reason,
        )

    def _new_body(self) -> NewBody:
        return NewBody(self._store.new_blob(), self._limit)

    async def _taken(self, state: "_State", showing: "_Showing", body: "_Replacing") -> None:
        """Notes what a filter has asked for, which has said its last word."""
        changes, context = showing.changes, state.context
        numbers: dict[bytes, int] = {}
        for number, each in enumerate(context.recipients if changes.recipients else ()):
            numbers.setdefault(_key(each), number)
        for sign, address in changes.recipients:
            key = _key(address)
            found = numbers.get(key)
            if sign == b"-":
                state.copies = [each for each in state.copies if _key(each) != key]
                if found is not None:
                    state.removed[found] = None
                    self._tell("policy.recipient_removed", context, showing, address)
            elif found is not None:
                state.removed.pop(found, None)
            elif address not in state.copies:
                if len(state.copies) < CHECK_COPIES:
                    state.copies.append(address)
                else:
                    self._tell("policy.recipient_not_added", context, showing, address)
        if changes.sender is not None:
            state.sender = changes.sender
        made = await body.end()
        if made is not None:
            state.replace(made)

    def _tell(self, event: str, context: Context, showing: "_Showing", address: bytes) -> None:
        self._log.warning(
            event,
            session=context.session,
            queue_id=queue_id_text(context.queue_id),
            milter=showing.address,
            recipient=address.decode("utf-8", "backslashreplace"),
        )


class _State:
    """What the filters so far have made of one message."""

    __slots__ = ("body", "context", "copies", "held", "message", "refused", "removed", "sender")

    def __init__(self, context: Context, message: Message) -> None:
        self.context = context
        self.message = message  # as the next filter sees it
        self.refused: dict[int, Reply] = {}
        self.removed: dict[int, None] = {}
        self.copies: list[bytes] = []
        self.sender: bytes | None = None
        self.body: NewBody | None = None
        self.held = ""

    def replace(self, body: NewBody) -> None:
        if self.body is not None:
            self.body.give_up()
        self.body = self.message = body


class _Replacing:
    """Another body, of which the first octets begin the message that has it."""

    def __init__(self, make: Callable[[], NewBody], came: Message, header_octets: int) -> None:
        self._make = make
        self._came = came
        self._header_octets = header_octets
        self._made: NewBody | None = None

    async def add(self, octets: bytes) -> None:
        """Raises TooLong."""
        if self._made is None:
            self._made = self._make()
            header = await self._came.read(0, self._header_octets)
            await self._made.add(header)
            if header != b"\r\n" and not header.endswith(b"\r\n\r\n"):  # what came ends with its header
                await self._made.add(b"\r\n")
        await self._made.add(octets)

    async def end(self) -> NewBody | None:
        if self._made is not None:
            await self._made.end()
        return self._made

    def give_up(self) -> None:
        if self._made is not None:
            self._made.give_up()
            self._made = None


def _key(address: bytes) -> bytes:
    """The same for addresses that are one; case matters before the @ alone."""
    user, at, domain = address.rpartition(b"@")
    return user + at + domain.lower()


def _verdict(header: Header, state: _State) -> Verdict:
    """What all filters together come to. A message that is held is held for all its recipients."""
    refused, held = state.refused, state.held
    action, reply = Action.HOLD if held else Action.NONE, None
    if len(state.removed) == len(state.context.recipients) and not state.copies and not held and not refused:
        return Verdict(Action.DISCARD, reason="filters have removed all recipients")
    if refused and not held:
        reply = next((each for each in refused.values() if each.is_temporary), next(iter(refused.values())))
        action = Action.DEFER if reply.is_temporary else Action.REJECT
    numbers = tuple(refused) if reply is not None else ()
    return Verdict(
        action,
        reply,
        recipients=numbers,
        fields=header.new,
        cuts=tuple(header.cuts),
        copies=tuple(state.copies),
        removed=tuple(state.removed),
        sender=state.sender,
        body=state.body,
        reason=held,
    )


def _refusal(reply: Reply, reason: str) -> Verdict:
    return Verdict(Action.DEFER if reply.is_temporary else Action.REJECT, reply, reason=reason)


async def _body(message: Message, at: int) -> AsyncIterator[bytes]:
    while piece := await message.read(at, AUTHENTICATED_BODY_PIECE):
        at += len(piece)
        yield piece


class _Showing:
    """One message on its way through one filter."""

    def __init__(self, milter: Milter, context: Context, hostname: str, pause: Pause) -> None:
        self._milter = milter
        self._pause = pause
        self._context = context
        sender = (context.sender or b"").decode("utf-8", "replace")
        cipher, tls_version, bits = context.cipher
        self._macros = {
            "j": hostname,
            "{daemon_name}": hostname,
            "v": "FastMTA",
            "_": f"{context.client_name} [{context.client_ip}]",
            "{client_name}": context.client_name,
            "{client_addr}": context.client_ip,
            "{client_port}": str(context.client_port or ""),
            "{client_ptr}": context.reverse_name,
            "{tls_version}": tls_version,
            "{cipher}": cipher,
            "{cipher_bits}": str(bits or ""),
            "{cert_subject}": context.certificate.subject if context.certificate else "",
            "{cert_issuer}": context.certificate.issuer if context.certificate else "",
            "i": queue_id_text(context.queue_id),
            # A login is known, not how it was proved; filters look whether there is a type at all.
            "{auth_type}": "PLAIN" if context.login else "",
            "{auth_authen}": context.login,
            "{mail_addr}": sender,
            "{mail_host}": sender.rpartition("@")[2],
            "{mail_mailer}": "smtp",
        }

    @property
    def address(self) -> str:
        return self._milter.address

    async def run(self, header: Header, body: AsyncIterator[bytes], state: _State, replaced: _Replacing) -> None:
        """Shows the message, notes the recipients that are refused, changes the header; `changes` has the rest."""
        connection = await MilterConnection.open(self._milter, self._macros, self._pause)
        try:
            mine = await self._envelope(connection, state)
            self.changes = changes = await connection.tell_message(header.fields, body, replaced.add)
        finally:
            connection.close()
        state.refused.update(mine)
        header.apply(changes.header, leading_space=bool(connection.terms.steps & Steps.LEADING_SPACE))
        if changes.quarantine:
            state.held = f"{self._milter.address}: {changes.quarantine}"

    async def _envelope(self, connection: MilterConnection, state: _State) -> dict[int, Reply]:
        context, refused = self._context, state.refused
        sender = context.sender or b"" if state.sender is None else state.sender
        await connection.tell(b"C", _connect(context))
        if context.helo:
            await connection.tell(b"H", strings(context.helo.encode("utf-8", "replace")))
        await connection.tell(b"M", strings(b"<" + sender + b">"))
        mine: dict[int, Reply] = {}
        for number, recipient in enumerate(context.recipients):
            if number in refused or number in state.removed:
                continue
            address = recipient.decode("utf-8", "replace")
            connection.macros.update(
                {"{rcpt_addr}": address, "{rcpt_host}": address.rpartition("@")[2], "{rcpt_mailer}": "smtp"}
            )
            reply = await connection.tell(b"R", strings(b"<" + recipient + b">"))
            if reply is not None:
                mine[number] = reply
        if mine and len(mine) + len(refused) + len(state.removed.keys() - mine.keys()) == len(context.recipients):
            replies = [*refused.values(), *mine.values()]
            raise Decided("refuse", next((each for each in replies if each.is_temporary), replies[0]))
        await connection.tell(b"T", b"")
        return mine


def _connect(context: Context) -> bytes:
    name = context.client_name.encode("utf-8", "replace")
    if not context.client_ip:
        return strings(name) + b"U"
    family = b"6" if ":" in context.client_ip else b"4"
    return strings(name) + family + struct.pack(">H", context.client_port) + strings(context.client_ip.encode())
