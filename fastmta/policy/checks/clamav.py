"""ClamAV's clamd (INSTREAM): a message with what a signature knows is refused, or kept for the administrator.

Everybody's mail is shown. Where clamd does not answer, or finds the message too large for it, a key says what is done.
"""

import re
import struct
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Final

from fastmta.config.schema import Config
from fastmta.model.reply import Reply
from fastmta.model.services import screened
from fastmta.model.verdict import PASS, Action, Verdict
from fastmta.policy.check import Check, Context, Message, Parts
from fastmta.policy.scanner import ScannerTrouble, ask, by_default, pieces, safe

_FOUND: Final = re.compile(rb"stream: ([^\0\r\n]{1,200}) FOUND[\0\n]?")


def build(config: Config, parts: Parts) -> Sequence[Check]:
    return [Clamd(config, parts)] if config.clamd else []


class Clamd(Check):
    """One daemon."""

    name = "clamd"
    services = (*screened("smtp", "lmtp"), "pickup")

    def __init__(self, config: Config, parts: Parts) -> None:
        self._config = config
        self._log = parts.log

    def check(self, context: Context) -> Verdict | Awaitable[Verdict]:
        return PASS if context.message is None else self._ask(context.message)

    async def _ask(self, message: Message) -> Verdict:
        config = self._config
        try:
            name = parse_answer(await ask(config.clamd, _request(message), config.clamd_timeout))
        except ScannerTrouble as trouble:
            self._log.warning("policy.scanner_failed", check=self.name, address=config.clamd, reason=str(trouble))
            return by_default(config.clamd_default_action, str(trouble))
        if not name:
            return PASS
        if config.clamd_infected_action == "quarantine":
            return Verdict(Action.HOLD, reason=f"found {name}")
        return Verdict(Action.REJECT, Reply(550, "5.7.1", f"Message rejected: {name} found"), reason=f"found {name}")


async def _request(message: Message) -> AsyncIterator[bytes]:
    yield b"zINSTREAM\0"
    async for piece in pieces(message):
        yield struct.pack(">I", len(piece)) + piece
    yield struct.pack(">I", 0)


def parse_answer(raw: bytes) -> str:
    """The name of what was found, "" for nothing. Raises ScannerTrouble."""
    if raw.rstrip(b"\0\n") == b"stream: OK":
        return ""
    found = _FOUND.fullmatch(raw)
    if found is None:
        raise ScannerTrouble(f"it answered {raw[:80]!r}")
    return safe(found[1].decode("utf-8", "replace"))
