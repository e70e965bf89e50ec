"""The base subject (RFC 5256 §2.1): a subject without what replies and forwards put around it."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from fastmta import _mime
from fastmta.model.limits import IMAP_SORT_TEXT

_SPACES: Final = re.compile(r"[ \t\r\n]+")
_BLOB: Final = re.compile(r"\[[^\[\]]*\]\s*")
_REFWD: Final = re.compile(r"(?:RE|FWD?)\s*(?:\[[^\[\]]*\]\s*)?:")
_LONGEST: Final = 1000  # octets of a subject: a header line's


def base_subject(raw: bytes | None) -> tuple[str, bool]:
    """(the base subject, in title case; whether the subject is that of a reply or a forward)."""
    if not raw:
        return "", False
    text = _mime.decode_header(raw[:_LONGEST]) if b"=?" in raw or not raw.isascii() else raw[:_LONGEST].decode("ascii")
    subject = collated(_SPACES.sub(" ", text))
    answers = False
    while True:
        subject = subject.rstrip()
        while subject.endswith("(FWD)"):
            subject, answers = subject[:-5].rstrip(), True
        subject, answered = _without_leaders(subject)
        answers |= answered
        if not (subject.startswith("[FWD:") and subject.endswith("]")):
            return subject[:IMAP_SORT_TEXT], answers
        subject, answers = subject[5:-1], True


def collated(text: str) -> str:
    """Text as i;unicode-casemap compares it (RFC 5051 §2): each character in title case, then decomposed. So "É" stands
    by "e", and "[" and "_" behind the letters."""
    if text.isascii():
        return text.upper()
    titled = [title if len(title := character.title()) == 1 else character for character in text]
    return unicodedata.normalize("NFKD", "".join(titled))


def _without_leaders(subject: str) -> tuple[str, bool]:
    """Without "Re:", "Fwd:" and what stands in brackets before them, and without blobs that something follows."""
    answers = False
    while True:
        before = subject
        subject = subject.lstrip()
        at = 0
        while blob := _BLOB.match(subject, at):
            at = blob.end()
        if leader := _REFWD.match(subject, at):
            subject, answers = subject[leader.end() :], True
            continue
        blob = _BLOB.match(subject)
        if blob and blob.end() < len(subject):
            subject = subject[blob.end() :]
        if subject == before:
            return subject, answers
