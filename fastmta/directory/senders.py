"""Who may send as which address: an account's own address, its extensions and aliases, and the table of logins."""

from contextlib import suppress
from typing import TYPE_CHECKING

from fastmta.directory.aliases import split_targets
from fastmta.directory.maps import TableSet
from fastmta.model.envelope import LocalTarget
from fastmta.model.errors import PermanentFailure, TemporaryFailure

if TYPE_CHECKING:
    from fastmta.directory.recipients import Directory


class Senders:
    """The senders of one directory, which reads `logins` again with its own tables."""

    __slots__ = ("_directory", "logins")

    def __init__(self, directory: "Directory", logins: TableSet) -> None:
        self._directory = directory
        self.logins = logins

    def allowed(self, login: str, account_id: int, reverse_path: bytes) -> bool:
        """Whether the account of a login may send as an address. What cannot be looked up now is not allowed."""
        try:
            owners = self.listed(reverse_path)
            if owners is not None and login.lower() in owners:
                return True
            return any(each.account_id == account_id for each in self._homes(reverse_path))
        except TemporaryFailure:
            return False

    def owned(self, reverse_path: bytes) -> bool:
        """Whether an address belongs to anybody who can log in here. Raises TemporaryFailure."""
        return self.listed(reverse_path) is not None or bool(self._homes(reverse_path))

    def listed(self, reverse_path: bytes) -> frozenset[str] | None:
        """The logins that the table has for an address, or for its domain; None: it has neither. Raises
        TemporaryFailure.
        """
        if not self.logins:
            return None
        qualify = self._directory.qualify
        try:
            sender = qualify(reverse_path.decode("utf-8", "surrogateescape"))
        except ValueError:
            return None
        owners = self.logins.get(sender.key)
        if owners is None:
            owners = self.logins.get(f"@{sender.domain}", whole=False)
        if owners is None:
            return None
        found = set()
        for item in split_targets(owners):
            with suppress(ValueError):
                found.add(qualify(item).key)
        return frozenset(found)

    def _homes(self, reverse_path: bytes) -> list[LocalTarget]:
        """The mailboxes here that mail to an address would reach."""
        try:
            targets = self._directory.at_home(reverse_path)
        except (ValueError, PermanentFailure):
            return []
        return [target for target in targets if isinstance(target, LocalTarget)]
