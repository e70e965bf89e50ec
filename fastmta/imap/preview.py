"""PREVIEW (RFC 8970): the first 200 characters of a message's text, as a person would read them."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Final

from fastmta import _mime

if TYPE_CHECKING:
    from fastmta.imap.seams import Mailboxes
    from fastmta.store.mailboxes import MessageRow

CHARACTERS: Final = 200  # RFC 8970 §3.1: at most 256
READ_BYTES: Final = 16_384  # of the text's part, encoded
_SPACES: Final = re.compile(r"[\s\x00-\x1f\x7f]+")
_HIDDEN: Final = re.compile(r"<(head|style|script|title)\b")


async def preview_of(mailboxes: Mailboxes, mailbox_id: int, uid: int, row: MessageRow) -> bytes:
    """In UTF-8; b"" for a message without text."""
    record = mailboxes.structure(mailbox_id, uid)
    parts = [part for part in _mime.parts_of(record) if part.kind == "text"] if record is not None else []
    if not parts:
        return b""
    # The first text there is; of alternatives the plain one stands first (RFC 2046 §5.1.4).
    part = parts[0]
    offset, length = len(row.prefix) + part.body_offset, min(part.body_length, READ_BYTES)
    waiting = mailboxes.need_on(row, offset, length)
    if waiting is not None:
        await waiting
    raw = mailboxes.read(mailbox_id, uid, offset, length) or b""
    text = _mime.decode_body(raw, part.encoding, part.charset, READ_BYTES)
    if part.content_type.endswith("/html"):
        text = without_markup(text)
    return shortened(text).encode("utf-8", "replace")


def shortened(text: str) -> str:
    """White space is one space; nothing is cut in the middle of a character."""
    return _SPACES.sub(" ", text).strip()[:CHARACTERS]


def without_markup(text: str) -> str:
    """What is left of HTML as text. Linear: each hidden element is looked for from where the last one ended."""
    folded = text.lower() if len(text.lower()) == len(text) else text
    kept: list[str] = []
    at = 0
    while True:
        begin = folded.find("<", at)
        if begin < 0:
            kept.append(text[at:])
            break
        kept.append(text[at:begin])
        hidden = _HIDDEN.match(folded, begin)
        if folded.startswith("<!--", begin):
            end = folded.find("-->", begin)
            at = len(text) if end < 0 else end + 3
        elif hidden is not None:
            end = folded.find(f"</{hidden[1]}", begin)
            end = -1 if end < 0 else folded.find(">", end)
            at = len(text) if end < 0 else end + 1
        else:
            end = folded.find(">", begin)
            at = len(text) if end < 0 else end + 1
        kept.append(" ")
    return html.unescape("".join(kept))
