"""Authentication of mail from strangers: SPF, DKIM, ARC and DMARC, and the field that tells what they came to.

Clients in mynetworks and logins are not asked about. What DMARC asks for is done (a setting), trouble with the DNS or
with time lets the message pass and is logged, and Authentication-Results that claim to be ours are not shown, whatever
becomes of the rest. SPF's questions are asked at MAIL already, so that their answers are known when the message ends.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final

from fastmta._canonical import octets_of
from fastmta.authentication.arc_trust import vouching_sealer
from fastmta.authentication.asking import at_once
from fastmta.authentication.bodies import Bodies, forms_needed
from fastmta.authentication.message import Field, HeaderTooLong, named, parse_fields
from fastmta.authentication.results import NAME as RESULTS
from fastmta.authentication.results import is_forged
from fastmta.authentication.spf import SpfVerdict, check_spf, spf_at_once
from fastmta.authentication.verifying import Client, Verdicts, verify_message
from fastmta.config.schema import Config
from fastmta.model.limits import AUTHENTICATED_BODY_PIECE, AUTHENTICATED_HEADER_BYTES, MESSAGE_CUTS, SPF_AHEAD
from fastmta.model.reply import Reply
from fastmta.model.services import open_to_strangers
from fastmta.model.verdict import PASS, Action, Verdict
from fastmta.policy.check import Check, Context, Message, Parts
from fastmta.policy.reporting import count_for_report

_HEADER_PIECE: Final = 16_384
_HASHED_HERE: Final = 16_384  # a longer piece of a body is hashed in a thread
_UNKNOWN: Final = (Client("", "", ""), SpfVerdict("none", ""))
_ACTIONS: Final = {"reject": Action.REJECT, "quarantine": Action.QUARANTINE, "none": Action.NONE}
_TOO_LONG: Final = Verdict(Action.REJECT, Reply(552, "5.3.4", "The header is too long"), reason="header too long")
_TOO_MANY: Final = Verdict(
    Action.REJECT, Reply(554, "5.6.0", "Too many Authentication-Results fields"), reason="too many forged fields"
)


def build(config: Config, parts: Parts) -> Sequence[Check]:
    if not config.smtpd_authentication:
        return []
    return [Forged(config), Authentication(config, parts)]


async def read_header(message: Message) -> tuple[Field, ...]:
    """The fields of a message's header, which is read once. Raises HeaderTooLong."""
    if message.fields is None:
        message.fields = await _read_header(message)
    return message.fields


async def _read_header(message: Message) -> tuple[Field, ...]:
    raw = b""
    while True:
        piece = await message.read(len(raw), _HEADER_PIECE)
        end = (raw[-3:] + piece).find(b"\r\n\r\n")
        if raw == b"" and piece.startswith(b"\r\n"):
            return ()
        if end >= 0:
            return parse_fields((raw + piece)[: len(raw) - len(raw[-3:]) + end + 2])
        raw += piece
        if len(raw) > AUTHENTICATED_HEADER_BYTES:
            raise HeaderTooLong("the header does not end")
        if len(piece) < _HEADER_PIECE:
            return parse_fields(raw)


async def hash_body(parts: Parts, bodies: Bodies, message: Message, at: int) -> None:
    """Feeds `bodies` with the message from `at` on, long pieces in a thread."""
    while piece := await message.read(at, AUTHENTICATED_BODY_PIECE):
        at += len(piece)
        if len(piece) > _HASHED_HERE:
            await parts.offload(bodies.update, piece)
        else:
            bodies.update(piece)


class OfStrangers(Check):
    """What is asked about mail that comes from outside only."""

    known_too = False
    services = open_to_strangers()
    late = Verdict(is_late=True, reason="no verdict in time")


class Forged(OfStrangers):
    """Hides the Authentication-Results that only this server may write (RFC 8601 §5)."""

    name = "forged_results"

    def __init__(self, config: Config) -> None:
        self._authserv_id = config.authserv_id

    def check(self, context: Context) -> Verdict | Awaitable[Verdict]:
        assert context.message is not None
        found = at_once(self._find(context.message))
        return found if found is not None else self._find(context.message)

    async def _find(self, message: Message) -> Verdict:
        try:
            fields = await read_header(message)
        except HeaderTooLong:
            return _TOO_LONG
        if not named(fields, RESULTS):
            return PASS
        cuts: list[tuple[int, int]] = []
        at = 0
        for field in fields:
            if is_forged(field, self._authserv_id):
                if cuts and sum(cuts[-1]) == at:
                    cuts[-1] = (cuts[-1][0], cuts[-1][1] + len(field.raw))
                else:
                    cuts.append((at, len(field.raw)))
            at += len(field.raw)
        if len(cuts) > MESSAGE_CUTS:
            return _TOO_MANY
        return Verdict(cuts=tuple(cuts), reason="forged Authentication-Results" if cuts else "")


class Authentication(OfStrangers):
    """Verifies a message and does what its author's domain asks for."""

    name = "authentication"
    looks_ahead = True

    def __init__(self, config: Config, parts: Parts) -> None:
        self._parts = parts
        self._asking: set[asyncio.Task[object]] = set()
        self._found: dict[int, tuple[Client, SpfVerdict]] = {}  # what SPF came to at MAIL, by session
        self._receiver = config.myhostname
        self._trusted = frozenset(config.arc_trusted_sealers)
        self._counts = config.dmarc_reports
        self._actions = {
            "reject": _ACTIONS[config.dmarc_reject_action],
            "quarantine": _ACTIONS[config.dmarc_quarantine_action],
        }

    def ahead(self, session: int, client_ip: str, helo: str, sender: bytes) -> None:
        """Asks SPF's questions. What it has found at once holds; else the resolver gets the answers."""
        who = Client(client_ip, helo, sender.decode("utf-8", "replace"))
        found = spf_at_once(self._parts.resolver, who.ip, who.helo, who.sender)
        if found is not None:
            if len(self._found) >= SPF_AHEAD:
                del self._found[next(iter(self._found))]  # of a transaction that was given up
            self._found[session] = who, found
        elif len(self._asking) < SPF_AHEAD:
            work = check_spf(self._parts.resolver, who.ip, who.helo, who.sender, now=self._parts.clock.now)
            task = asyncio.get_running_loop().create_task(work, name=f"spf {who.ip}")
            self._asking.add(task)
            task.add_done_callback(self._asked)

    def _asked(self, task: "asyncio.Task[object]") -> None:
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()  # the end of the message meets it again, and answers for it

    def check(self, context: Context) -> Awaitable[Verdict]:
        assert context.message is not None
        return self._verify(context, context.message)

    async def _verify(self, context: Context, message: Message) -> Verdict:
        parts = self._parts
        try:
            fields = await read_header(message)
        except HeaderTooLong:
            return _TOO_LONG
        forms = forms_needed(fields)
        bodies = Bodies(forms)
        if forms:
            await hash_body(parts, bodies, message, octets_of(fields) + 2)
        who = Client(context.client_ip, context.helo, (context.sender or b"").decode("utf-8", "replace"))
        asked, found = self._found.pop(context.session, _UNKNOWN)
        verdicts = await verify_message(
            fields,
            bodies,
            who,
            parts.resolver,
            parts.offload,
            parts.clock.now(),
            spf=found if asked == who else None,
            receiver=self._receiver,
        )
        sealer = ""
        if verdicts.dmarc.disposition != "none":
            sealer = vouching_sealer(fields, verdicts.arc, self._trusted, verdicts.dmarc.author_domain)
        verdict = self._verdict(verdicts, who, sealer)
        if self._counts:
            count_for_report(parts, verdicts, who, verdict.action, sealer)
        return verdict

    def _verdict(self, verdicts: Verdicts, who: Client, sealer: str) -> Verdict:
        """`sealer`: the trusted one whose seal says that DMARC passed, so that its failure here is nobody's fault."""
        dmarc = verdicts.dmarc
        action = Action.NONE if sealer else self._actions.get(dmarc.disposition, Action.NONE)
        reply = None
        if action is Action.REJECT:
            text = f"Message rejected by the DMARC policy of {dmarc.author_domain}"
            reply = Reply(550, "5.7.1", "".join(c if 32 <= ord(c) < 127 else "?" for c in text[:400]))
        return Verdict(action, reply, results=tuple(verdicts.parts(who.sender)), reason=_told(verdicts, sealer))


def _told(verdicts: Verdicts, sealer: str) -> str:
    """All four in one line, for the log."""
    dkim = ",".join(f"{one.result}:{one.domain}" for one in verdicts.dkim[:5]) or "none"
    spf = verdicts.spf.result if verdicts.spf is not None else "none"
    dmarc = verdicts.dmarc
    trust = f" vouched={sealer}" if sealer else ""
    return f"spf={spf} dkim={dkim} arc={verdicts.arc.result} dmarc={dmarc.result}:{dmarc.author_domain}{trust}"[:300]
