"""What accounts and mailboxes may hold, as Dovecot's quota rules say it."""

from typing import Final, NamedTuple

NO_QUOTA: Final = 2**64 - 1  # an account's own quota where it has none, whatever the rules say; 0: as they say
NO_QUOTA_MESSAGES: Final = 2**32 - 1


class MailboxRule(NamedTuple):
    """Of mailboxes whose names are as `mask` (`*` and `?`) has it: how much more, or less, their account may hold while
    something comes into them; percentages are of the account's limit. `ignore`: they are not counted at all.
    """

    mask: str
    octets: int = 0
    messages: int = 0
    percent: bool = False
    percent_messages: bool = False
    ignore: bool = False


class QuotaRules(NamedTuple):
    """`octets`, `messages`: what accounts may hold that have no quota of their own, 0: no limit."""

    octets: int = 0
    messages: int = 0
    mailboxes: tuple[MailboxRule, ...] = ()
