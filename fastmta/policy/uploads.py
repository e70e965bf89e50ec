"""Messages that have begun to come and not ended: what they hold of the bounds of their address and their account.

IMAP counts a message with its announced size when its literal begins; SMTP counts octets while they come, beyond those
that a message has in memory. Both share one bound, exact over all workers (policy/limits.py). A single message of an
account or an address may be of any size: message_size_limit is its bound.

Invariants: what was counted is given back exactly once, when the message is stored or its connection, time or command
ends; what a dead worker's messages held, the supervisor gives back.
"""

from typing import Final, Protocol

from fastmta._limits import Holdings
from fastmta.model.limited import What
from fastmta.model.limits import IMAP_UPLOADS, UPLOAD_ACCOUNT_BYTES, UPLOAD_ADDRESS_BYTES

_UPLOADS: Final = What.UPLOADS  # here by plain names: to look into an Enum's class costs as much as what is asked
_UPLOAD_BYTES: Final = What.UPLOAD_BYTES
_APPEND_BYTES: Final = What.APPEND_BYTES


class Holder(Protocol):
    """What of policy.limits.Limits is used here."""

    def exempt(self, ip: str, /) -> bool: ...
    def holdings(self) -> Holdings: ...
    def bind(self, holdings: Holdings, what: What, ip: str, account_id: int, limit: int, /) -> None: ...
    def count(self, what: What, /) -> None: ...


class Upload:
    """An unfinished message of a session, or one after the other. `account_id` is 0 where nobody has logged in."""

    __slots__ = ("_bounds", "_held", "_holder", "account_id")

    def __init__(self, holder: Holder, ip: str, account_id: int) -> None:
        self._holder = holder
        self.account_id = account_id
        self._held = held = holder.holdings()
        self._bounds = 0  # keys of octets, the first ones
        if not holder.exempt(ip):
            holder.bind(held, _UPLOAD_BYTES, ip, 0, UPLOAD_ADDRESS_BYTES)
            self._bounds = 1
        if account_id:
            holder.bind(held, _UPLOAD_BYTES, "", account_id, UPLOAD_ACCOUNT_BYTES)
            self._bounds += 1
            holder.bind(held, _UPLOADS, "", account_id, IMAP_UPLOADS)
            holder.bind(held, _APPEND_BYTES, "", account_id, 0)

    def begin(self, size: int) -> bool:
        """Counts an APPEND of the account. False: too much is under way, and nothing is counted."""
        if self._held.hold(self._bounds, 1):
            return self.announce(size)
        self._holder.count(_UPLOADS)
        return False

    def announce(self, size: int) -> bool:
        """Counts one more message of such a command. False: too much is under way, and nothing is counted any more."""
        self._held.hold(self._bounds + 1, size)
        if self.grow(size):
            return True
        self.end()
        return False

    def grow(self, octets: int) -> bool:
        """Counts so much more of the message. False: too much is under way, and the message is to be given up."""
        for number in range(self._bounds):
            if not self._held.hold(number, octets):
                self._holder.count(_UPLOAD_BYTES)
                return False
        return True

    def end(self) -> None:
        """The message has come, or never will."""
        self._held.end()
