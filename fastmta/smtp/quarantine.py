"""The quarantine mailboxes of a message's recipients: made before the message that they are needed for is filed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from fastmta.model.envelope import LocalTarget
from fastmta.model.errors import Refused, StorageFailure

if TYPE_CHECKING:
    from fastmta._session import Connection


class Mailboxes(Protocol):
    def junk_of(self, account_id: int) -> int: ...
    def quarantine_of(self, account_id: int, name: str) -> int: ...
    async def create(self, account_id: int, name: str, special_use: str = "") -> object: ...


def suspects_mailbox(mailboxes: Mailboxes, account_id: int, name: str) -> int:
    """Where suspected mail of an account goes; 0: it has no such mailbox."""
    return mailboxes.quarantine_of(account_id, name) or mailboxes.junk_of(account_id)


def missing_quarantines(session: "Connection", mailboxes: Mailboxes, name: str) -> list[int]:
    """The accounts among a session's recipients without a mailbox of that name."""
    accounts = {
        target.account_id
        for recipient in session.recipients or ()
        for target in recipient.resolution.targets
        if isinstance(target, LocalTarget)
    }
    return [each for each in sorted(accounts) if not mailboxes.quarantine_of(each, name)]


async def make_quarantines(mailboxes: Mailboxes, accounts: list[int], name: str, then: Callable[[], None]) -> None:
    """Makes what is missing; where that fails the message goes into Junk."""
    for each in accounts:
        try:
            await mailboxes.create(each, name)
        except (Refused, StorageFailure):
            continue  # somebody else has made it, or Junk takes its place
    then()
