"""Programs that are shown a whole message and give one answer: one connection a message, closed by the program.

Who asks gives the octets to write and a bound for the answer. Both ends are bounded in time by the caller's deadline.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final

from fastmta.authentication.message import Field
from fastmta.config.values import parse_peer
from fastmta.model.limits import SCANNED_PIECE_BYTES, SCANNER_REPLY_BYTES
from fastmta.model.reply import Reply
from fastmta.model.verdict import Action, Verdict
from fastmta.policy.check import Context, Message

_UNSAFE: Final = re.compile(r"[^!-'*-\[\]-~]")  # no white space, parentheses, backslash
_DEFERRED: Final = Reply(451, "4.7.1", "Service unavailable - try again later")
_ACTIONS: Final = {
    "accept": Verdict(is_late=True),
    "tempfail": Verdict(Action.DEFER, _DEFERRED, is_late=True),
    "quarantine": Verdict(Action.HOLD, is_late=True),
}


class ScannerTrouble(Exception):
    """No answer, or none that can be understood; the text says which."""


async def ask(address: str, octets: AsyncIterator[bytes], timeout_s: float) -> bytes:
    """All that a program answers. Raises ScannerTrouble; the connection is gone then too."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            endpoint = parse_peer(address)
            if endpoint.path:
                reader, writer = await asyncio.open_unix_connection(endpoint.path)
            else:
                reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
            try:
                async for piece in octets:
                    writer.write(piece)
                    await writer.drain()
            except ConnectionError:
                pass  # it may have answered before it closed
            answer = b""
            while piece := await reader.read(SCANNED_PIECE_BYTES):
                answer += piece
                if len(answer) > SCANNER_REPLY_BYTES:
                    raise ScannerTrouble(f"an answer of more than {SCANNER_REPLY_BYTES} bytes")
            return answer
    except TimeoutError:
        raise ScannerTrouble(f"no answer in {timeout_s:g} s") from None
    except OSError as error:
        raise ScannerTrouble(error.strerror or type(error).__name__) from None
    finally:
        if writer is not None:
            writer.transport.abort()


async def pieces(message: Message) -> AsyncIterator[bytes]:
    """The message as it came."""
    at = 0
    while piece := await message.read(at, SCANNED_PIECE_BYTES):
        at += len(piece)
        yield piece


def by_default(action: str, reason: str) -> Verdict:
    """What becomes of a message whose scanner does not answer; the reason is for the log."""
    verdict = _ACTIONS[action]
    return Verdict(verdict.action, verdict.reply, reason=reason, is_late=True)


def safe(text: str) -> str:
    """A peer's word as a field or a header of HTTP may carry it."""
    return _UNSAFE.sub("?", text)[:255]


def cuts_of(fields: tuple[Field, ...], names: frozenset[bytes], prefix: bytes = b"\0") -> tuple[tuple[int, int], ...]:
    """Where fields lie that are named so or begin so, neighbours as one cut."""
    cuts: list[tuple[int, int]] = []
    at = 0
    for field in fields:
        if field.name in names or field.name.startswith(prefix):
            if cuts and sum(cuts[-1]) == at:
                cuts[-1] = (cuts[-1][0], cuts[-1][1] + len(field.raw))
            else:
                cuts.append((at, len(field.raw)))
        at += len(field.raw)
    return tuple(cuts)


def trace(context: Context, hostname: str, date: str) -> bytes:
    """The fields that our message would begin with, for a program that reads the client from them."""
    sender = safe((context.sender or b"").decode("utf-8", "replace"))
    helo, name = safe(context.helo) or "unknown", safe(context.client_name) or "unknown"
    return (
        f"Return-Path: <{sender}>\r\nReceived: from {helo} ({name} [{context.client_ip}])\r\n"
        f"\tby {hostname} with ESMTP;\r\n\t{date}\r\n"
    ).encode("utf-8", "replace")
