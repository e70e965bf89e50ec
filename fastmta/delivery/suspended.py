"""The hops that an administrator has suspended, as one worker knows them: nothing is begun for them."""

from typing import TYPE_CHECKING

from fastmta.model.errors import StorageFailure

if TYPE_CHECKING:
    from fastmta.delivery.seams import Suspensions


class SuspendedHops:
    """A set of hops; `refresh` once a second, and when somebody says that it has changed."""

    __slots__ = ("_every", "_hops", "_suspensions", "_version")

    def __init__(self, suspensions: "Suspensions") -> None:
        self._suspensions = suspensions
        self._version = -1
        self._every = False
        self._hops: frozenset[bytes] = frozenset()

    def refresh(self) -> bool:
        """Whether it may have changed. Where the store cannot be read, what was known stays."""
        try:
            version = self._suspensions.version
            if version == self._version:
                return False
            hops = frozenset(each.hop for each in self._suspensions.all())
        except StorageFailure:
            return False
        self._version = version
        self._hops = hops
        self._every = b"*" in hops
        return True

    def __contains__(self, hop: bytes) -> bool:
        return self._every or hop in self._hops

    def __len__(self) -> int:
        return len(self._hops)
