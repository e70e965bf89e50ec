"""What POP3 calls a message (RFC 1939 §7): what came with it when it was imported, else this server's own form."""

import re
from typing import Final

FILE: Final = "dovecot-uidlist"  # in a Maildir
_TEXT: Final = re.compile(rb"[!-~]{1,70}")
_OWN: Final = re.compile(rb"([1-9]\d{0,9})\.([1-9]\d{0,9})")


def own_uidl(uid_validity: int, uid: int) -> bytes:
    """Of a message that came without one: the same for ever, never used again."""
    return b"%d.%d" % (uid_validity, uid)


def dovecot_uidl(uid_validity: int, uid: int) -> bytes:
    """What Dovecot calls a message by default, `pop3_uidl_format = %08Xu%08Xv`."""
    return b"%08x%08x" % (uid, uid_validity)


def is_uidl(text: bytes) -> bool:
    return _TEXT.fullmatch(text) is not None


def parse_own(text: bytes) -> tuple[int, int] | None:
    """(UIDVALIDITY, uid) of what may be our own form."""
    match = _OWN.fullmatch(text)
    return (int(match[1]), int(match[2])) if match is not None else None
