"""Rights on a mailbox (RFC 4314 §2.1) as bits, with the letters that IMAP has for them and Dovecot's words."""

from typing import Final

from fastmta.model import flags

LOOKUP: Final = 1  # l: it is listed
READ: Final = 2  # r: SELECT, FETCH, SEARCH, COPY from it, STATUS
SEEN: Final = 4  # s: \Seen
WRITE: Final = 8  # w: all other flags and keywords
INSERT: Final = 16  # i: APPEND, COPY and MOVE into it
POST: Final = 32  # p: kept, and of no effect: mail is delivered by other rules
CREATE: Final = 64  # k: mailboxes below it
DELETE: Final = 128  # x: DELETE and RENAME
WRITE_DELETED: Final = 256  # t: \Deleted
EXPUNGE: Final = 512  # e
ADMIN: Final = 1024  # a: GETACL, SETACL, DELETEACL, LISTRIGHTS
ALL: Final = 2047
CHANGING: Final = SEEN | WRITE | INSERT | WRITE_DELETED | EXPUNGE  # with none of them a mailbox is read-only

_BITS: Final = {
    "l": LOOKUP,
    "r": READ,
    "s": SEEN,
    "w": WRITE,
    "i": INSERT,
    "p": POST,
    "k": CREATE,
    "x": DELETE,
    "t": WRITE_DELETED,
    "e": EXPUNGE,
    "a": ADMIN,
}
LETTERS: Final = "".join(_BITS)
_VIRTUAL: Final = {"c": CREATE | DELETE, "d": WRITE_DELETED | EXPUNGE}  # RFC 2086's, as Dovecot reads them
_WORDS: Final = {
    "lookup": LOOKUP,
    "read": READ,
    "write-seen": SEEN,
    "write": WRITE,
    "insert": INSERT,
    "post": POST,
    "create": CREATE,
    "delete": DELETE,
    "write-deleted": WRITE_DELETED,
    "expunge": EXPUNGE,
    "admin": ADMIN,
    "all": ALL,
}


def kept_flags(rights: int) -> int:
    """The flags of model/flags.py that somebody with these rights may not change."""
    kept = 0
    if not rights & SEEN:
        kept |= flags.SEEN
    if not rights & WRITE_DELETED:
        kept |= flags.DELETED
    if not rights & WRITE:
        kept |= flags.ANSWERED | flags.FLAGGED | flags.DRAFT | flags.ALL_KEYWORDS
    return kept


def parse(text: str) -> int | None:
    """Rights from letters; None where one is unknown."""
    rights = 0
    for letter in text:
        bits = _BITS.get(letter) or _VIRTUAL.get(letter)
        if bits is None:
            return None
        rights |= bits
    return rights


def parse_words(text: str) -> int | None:
    """Rights from Dovecot's words with commas or spaces between them, or from letters; None where one is unknown.

    "read" and "all" are words, although each of their letters is a right too.
    """
    words = text.lower().replace(",", " ").split()
    if not all(word in _WORDS for word in words):
        return parse(text)
    rights = 0
    for word in words:
        rights |= _WORDS[word]
    return rights


def letters(rights: int) -> str:
    """The letters of rights, in RFC 4314's order."""
    return "".join(letter for letter, bit in _BITS.items() if rights & bit)


def with_virtual(rights: int) -> str:
    """The same with RFC 2086's letters behind them, for clients that know no others (RFC 4314 §2.1.1)."""
    return letters(rights) + "".join(letter for letter, bits in _VIRTUAL.items() if rights & bits)
