"""Aliases as login names (`auth.alias_logins`): a name that is no account's may be an alias of exactly one.

Only the store's aliases count, each as it stands: a catch-all or an extension of a name opens nothing, and an alias of
several targets, or one that leads out, is nobody's login. What is found is the account, whose password, state and
limits hold; a name that leads nowhere is an unknown user's, with the same hash and the same delay.
"""

from typing import Final, Generic, Protocol, TypeVar

STEPS: Final = 10  # from alias to alias

A_co = TypeVar("A_co", covariant=True)
A = TypeVar("A")


class Accounts(Protocol[A_co]):
    def lookup(self, address: str) -> A_co | None: ...


class Aliases(Protocol):
    def lookup(self, address: str) -> tuple[str, ...] | None: ...


class AliasLogins(Generic[A]):
    """The accounts, by their addresses and by their aliases. `origin`: the domain of targets without one."""

    __slots__ = ("_accounts", "_aliases", "_origin")

    def __init__(self, accounts: Accounts[A], aliases: Aliases, origin: str) -> None:
        self._accounts = accounts
        self._aliases = aliases
        self._origin = origin

    def lookup(self, address: str) -> A | None:
        """The account of an address, or of an alias that leads to it alone. StorageFailure as the store's."""
        for _ in range(STEPS + 1):
            account = self._accounts.lookup(address)
            if account is not None or address.startswith("@"):
                return account
            targets = self._aliases.lookup(address)
            if targets is None or len(targets) != 1:
                return None
            address = targets[0].lower() if "@" in targets[0] else f"{targets[0].lower()}@{self._origin}"
        return None
