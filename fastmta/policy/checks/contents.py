"""header_checks, mime_header_checks, nested_header_checks and body_checks: Postfix's tables that look into a message.

All fields and lines are shown to the tables of their kind, and the first result of each counts. What changes a field
is a cut and a field of the head (docs/adr/0086), so it can be done in the message's own header only; elsewhere it is
logged, and the message stays as it came. Asked about all mail that comes by SMTP, before anybody else looks into it.
"""

from collections.abc import Awaitable, Sequence
from typing import Final

from fastmta.config.schema import Config
from fastmta.directory.maps import TableSet
from fastmta.model.errors import TemporaryFailure
from fastmta.model.limits import CHECK_COPIES, CONTENT_PIECE_BYTES, MESSAGE_CUTS
from fastmta.model.reply import Reply
from fastmta.model.services import screened
from fastmta.model.verdict import PASS, Action, Verdict
from fastmta.policy.check import Check, Context, Message, Parts
from fastmta.policy.contents import CHANGES, Kind, Piece, Walk, field_of, parse_action, rejection

_REFRESH_S: Final = 1.0
_UNREADABLE: Final = Reply(451, "4.3.0", "Temporary lookup failure")
_MISTAKEN: Final = Reply(451, "4.3.5", "Server configuration error")
_TOO_MANY: Final = Reply(451, "4.3.0", "The message cannot be taken now")
_SHOWN: Final = 200  # octets of a field or line in the log


def build(config: Config, parts: Parts) -> Sequence[Check]:
    tables = {kind: TableSet(getattr(config, kind)) for kind in Kind if getattr(config, kind)}
    return [ContentChecks(tables, config.body_checks_size_limit, parts)] if tables else []


class ContentChecks(Check):
    """All four keys of one configuration."""

    name = "header_checks"
    services = (*screened("smtp", "lmtp"), "pickup")

    def __init__(self, tables: dict[Kind, TableSet], body_bytes: int, parts: Parts) -> None:
        self._tables = tables
        self._kinds = frozenset(tables)
        self._body_bytes = body_bytes
        self._parts = parts
        self._looked_at = parts.clock.monotonic()

    def check(self, context: Context) -> Verdict | Awaitable[Verdict]:
        return PASS if context.message is None else self._look(context, context.message)

    async def _look(self, context: Context, message: Message) -> Verdict:
        self._refresh()
        walk = Walk(self._kinds, self._body_bytes)
        sought = _Findings(self._parts, context)
        share = self._parts.turns.share()
        share.begin()
        try:
            at = 0
            while not walk.is_over and (octets := await message.read(at, CONTENT_PIECE_BYTES)):
                at += len(octets)
                for piece in walk.feed(octets):
                    if await self._ends(sought, piece):
                        return sought.verdict()
                    await share.pause()
                await share.pause()
            for piece in walk.end():
                if await self._ends(sought, piece):
                    break
        finally:
            share.leave()
        return sought.verdict()

    async def _ends(self, sought: "_Findings", piece: Piece) -> bool:
        """Asks the tables about a piece and does what they say; whether that was the last word."""
        if not piece.text:
            return False  # empty lines never match, as in Postfix
        text = piece.text.decode("utf-8", "surrogateescape")
        try:
            value = await self._tables[piece.kind].find(text, self._parts.offload)
        except TemporaryFailure:
            return sought.is_unreadable(piece.kind)
        return value is not None and sought.take(piece, value)

    def _refresh(self) -> None:
        now = self._parts.clock.monotonic()
        if now - self._looked_at >= _REFRESH_S:
            self._looked_at = now
            for tables in self._tables.values():
                tables.refresh()


class _Findings:
    """What the tables have said of one message so far."""

    def __init__(self, parts: Parts, context: Context) -> None:
        self._log = parts.log
        self._context = context
        self._end: Verdict | None = None
        self._hold = False
        self._target = b""
        self._filter = ""
        self._copies: dict[bytes, None] = {}
        self._fields: list[bytes] = []
        self._cuts: list[tuple[int, int]] = []
        self._reason = ""

    def verdict(self) -> Verdict:
        if self._end is not None:
            return self._end
        if len(self._cuts) > MESSAGE_CUTS:
            return Verdict(Action.DEFER, _TOO_MANY, reason=f"{len(self._cuts)} fields to change", is_late=True)
        action = Action.HOLD if self._hold else Action.REDIRECT if self._target else Action.NONE
        return Verdict(
            action,
            fields=tuple(self._fields),
            cuts=tuple(self._cuts),
            copies=tuple(self._copies),
            target=self._target,
            through=self._filter,
            reason=self._reason,
        )

    def is_unreadable(self, kind: Kind) -> bool:
        return self._ends(Action.DEFER, _UNREADABLE, f"{kind}: a table cannot be read")

    def take(self, piece: Piece, value: str) -> bool:
        """Does what a table says of a piece; whether that was the last word."""
        shown = piece.text[:_SHOWN].decode("utf-8", "replace")
        try:
            word, text = parse_action(value)
        except ValueError as error:
            return self._ends(Action.DEFER, _MISTAKEN, f"{piece.kind}: {error}")
        match word:
            case "DUNNO" | "OK":
                return False
            case "REJECT":
                return self._ends(Action.REJECT, rejection(text), f"{piece.kind}: {shown}")
            case "DISCARD":
                return self._ends(Action.DISCARD, None, f"{piece.kind}: {text or shown}")
        self._tell(word, text, piece.kind, shown)
        match word:
            case "PASS":
                return True
            case "HOLD":
                self._hold = True
                self._reason = self._reason or f"{piece.kind}: {text or shown}"
            case "BCC":
                if len(self._copies) < CHECK_COPIES:
                    self._copies[text.encode("utf-8", "surrogateescape")] = None
            case "FILTER":
                self._filter = text
                self._reason = self._reason or f"{piece.kind}: {shown}"
            case "REDIRECT":
                self._target = text.encode("utf-8", "surrogateescape")
                self._reason = self._reason or f"{piece.kind}: {shown}"
            case _ if word in CHANGES:
                self._change(word, text, piece)
        return False

    def _change(self, word: str, text: str, piece: Piece) -> None:
        if not piece.can_change:
            self._log.warning(
                "policy.not_changed", session=self._context.session, key=str(piece.kind), action=word.lower()
            )
            return
        if word != "PREPEND":
            if self._cuts and sum(self._cuts[-1]) == piece.at:
                self._cuts[-1] = (self._cuts[-1][0], self._cuts[-1][1] + piece.size)
            else:
                self._cuts.append((piece.at, piece.size))
        if word in ("PREPEND", "REPLACE"):
            self._fields.append(field_of(text))

    def _ends(self, action: Action, reply: Reply | None, reason: str) -> bool:
        self._end = Verdict(action, reply, reason=reason)
        return True

    def _tell(self, word: str, text: str, kind: Kind, shown: str) -> None:
        context = self._context
        self._log.info(
            "policy.content",
            session=context.session,
            client=f"{context.client_name}[{context.client_ip}]",
            action=word.lower(),
            key=str(kind),
            what=shown,
            text=text or None,
        )
