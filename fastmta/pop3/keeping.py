"""How long mail is kept for POP3, and what CAPA tells of it: settings of the site, in the words of RFC 2449."""

from typing import Protocol

_DAY_S = 86_400


class Settings(Protocol):
    """What of the configuration is obeyed here."""

    @property
    def pop3_delete_type(self) -> str: ...
    @property
    def pop3_deleted_flag(self) -> str: ...
    @property
    def pop3_login_delay(self) -> float: ...
    @property
    def inbox_autoexpunge(self) -> float: ...


def promises(settings: Settings) -> tuple[bytes, ...]:
    """CAPA's lines EXPIRE (RFC 2449 §6.7, in whole days, rounded down) and LOGIN-DELAY (§6.5, in seconds)."""
    kept_s = settings.inbox_autoexpunge
    lines = [b"EXPIRE %d" % (kept_s // _DAY_S) if kept_s else b"EXPIRE NEVER"]
    if settings.pop3_login_delay:
        lines.append(b"LOGIN-DELAY %d" % login_delay_s(settings))
    return tuple(lines)


def login_delay_s(settings: Settings) -> int:
    """Seconds from one login of an account to its next; 0: none. A part of a second counts as a whole one."""
    return int(-(-settings.pop3_login_delay // 1))


def deleted_keyword(settings: Settings) -> bytes:
    """The keyword that DELE sets in place of removing the message, which POP3 then hides; empty: DELE removes."""
    return b"" if settings.pop3_delete_type == "expunge" else settings.pop3_deleted_flag.encode("ascii")
