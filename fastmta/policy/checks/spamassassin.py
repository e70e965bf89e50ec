"""SpamAssassin's spamd (SPAMC protocol, SYMBOLS): what it takes for spam goes into Junk, with X-Spam fields.

Mail of clients in mynetworks, of logins and of local programs is shown only where spamd_clients says so. X-Spam fields
that came are not shown to anybody: whoever reads them takes them for ours.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Sequence
from email.utils import formatdate
from typing import Final

from fastmta.authentication.message import HeaderTooLong
from fastmta.config.schema import Config
from fastmta.model.limits import MESSAGE_CUTS
from fastmta.model.reply import Reply
from fastmta.model.services import screened
from fastmta.model.verdict import PASS, Action, Verdict
from fastmta.policy.check import Check, Context, Message, Parts
from fastmta.policy.checks.authentication import OfStrangers, read_header
from fastmta.policy.scanner import ScannerTrouble, ask, by_default, cuts_of, pieces, trace

_ANSWER: Final = re.compile(
    rb"SPAMD/[0-9.]+ 0 [^\r\n]*\r\n(?:[^\r\n]+\r\n)*?Spam: (True|False) ; (-?[0-9.]{1,12}) / (-?[0-9.]{1,12})[ \t]*\r\n"
    rb"(?:[^\r\n]+\r\n)*\r\n([^\r\n]*)"
)
_SYMBOLS: Final = re.compile(r"[A-Z0-9_,]*")
_LEVEL_MOST: Final = 50  # stars


def build(config: Config, parts: Parts) -> Sequence[Check]:
    return [Spamd(config, parts)] if config.spamd else []


class Spamd(OfStrangers):
    """One daemon."""

    name = "spamd"
    has_effects = True

    def __init__(self, config: Config, parts: Parts) -> None:
        self._config = config
        self._log = parts.log
        self._clock = parts.clock
        if config.spamd_clients == "all":
            self.known_too = True
            self.services = (*screened("smtp", "lmtp"), "pickup")

    def check(self, context: Context) -> Verdict | Awaitable[Verdict]:
        return PASS if context.message is None else self._ask(context, context.message)

    async def _ask(self, context: Context, message: Message) -> Verdict:
        config = self._config
        try:
            cuts = cuts_of(await read_header(message), frozenset(), b"x-spam")
            raw = await ask(config.spamd, self._request(context, message), config.spamd_timeout)
            is_spam, score, required, symbols = parse_answer(raw)
        except HeaderTooLong:
            return Verdict(Action.REJECT, Reply(552, "5.3.4", "The header is too long"), reason="header too long")
        except ScannerTrouble as trouble:
            self._log.warning("policy.scanner_failed", check=self.name, address=config.spamd, reason=str(trouble))
            return by_default(config.spamd_default_action, str(trouble))
        reason = f"{score} of {required}: {symbols}"[:300]
        if config.spamd_reject_score and score >= config.spamd_reject_score:
            return Verdict(Action.REJECT, Reply(550, "5.7.1", "Spam message rejected"), reason=reason)
        if len(cuts) > MESSAGE_CUTS:
            return Verdict(Action.DEFER, Reply(451, "4.3.0", "The message cannot be taken now"), reason="too many cuts")
        word = "Yes" if is_spam else "No"
        lines = [f"X-Spam-Status: {word}, score={score} required={required}\r\n\ttests={symbols[:800] or 'none'}\r\n"]
        if score >= 1:
            lines.append(f"X-Spam-Level: {'*' * min(int(score), _LEVEL_MOST)}\r\n")
        if is_spam:
            lines.append("X-Spam-Flag: YES\r\n")
        action = Action.QUARANTINE if is_spam else Action.NONE
        return Verdict(action, fields=tuple(line.encode() for line in lines), cuts=cuts, reason=reason)

    async def _request(self, context: Context, message: Message) -> AsyncIterator[bytes]:
        first = trace(context, self._config.myhostname, formatdate(self._clock.now()))
        yield f"SYMBOLS SPAMC/1.5\r\nContent-length: {len(first) + message.size}\r\n\r\n".encode() + first
        async for piece in pieces(message):
            yield piece


def parse_answer(raw: bytes) -> tuple[bool, float, float, str]:
    """(whether it is spam, score, threshold, names of the tests). Raises ScannerTrouble."""
    found = _ANSWER.match(raw)
    if found is None:
        raise ScannerTrouble(f"it answered {raw[:60].splitlines()[0] if raw else b''!r}")
    try:
        score, required = float(found[2]), float(found[3])
    except ValueError:
        raise ScannerTrouble("a score that is no number") from None
    symbols = found[4].decode("ascii", "replace").strip()
    return found[1] == b"True", score, required, symbols if _SYMBOLS.fullmatch(symbols) else ""
