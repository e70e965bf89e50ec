"""IMAP system flags as bits of a message record (RFC 9051 §2.3.2); keywords are kept apart, as names."""

from typing import Final

SEEN: Final = 1
ANSWERED: Final = 2
FLAGGED: Final = 4
DELETED: Final = 8
DRAFT: Final = 16
ALL_KEYWORDS: Final = 0x8000_0000  # where flags are named that stay or are lost: every keyword

NAMES: Final = {SEEN: "\\Seen", ANSWERED: "\\Answered", FLAGGED: "\\Flagged", DELETED: "\\Deleted", DRAFT: "\\Draft"}
BITS: Final = {name.lower(): bit for bit, name in NAMES.items()}
