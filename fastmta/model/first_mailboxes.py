"""The mailboxes that an account begins with: their usual names, and what they are for (RFC 6154)."""

from typing import Final

FIRST_MAILBOXES: Final = (
    ("INBOX", ""),
    ("Drafts", "\\Drafts"),
    ("Sent", "\\Sent"),
    ("Junk", "\\Junk"),
    ("Trash", "\\Trash"),
    ("Archive", "\\Archive"),
)
