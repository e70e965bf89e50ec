"""Messages that have begun to come and not ended: what they hold of the bounds of their address and their account.

IMAP counts a message with its announced size when its literal begins; SMTP counts octets while they come, beyond those
that a message has in memory. Both share one bound, exact over all workers (policy/limits.py). A single message of an
account or an address may be of any size: message_size_limit is its bound.

Invariants: what was counted is given back exactly once, when the message is stored or its connection, time or command
ends; what a dead worker's messages held, the supervisor gives back.
"""

from typing import Final, Protocol

from fastmta.model.limited import What
from fastmta.model.limits import IMAP_UPLOADS, UPLOAD_ACCOUNT_BYTES, UPLOAD_ADDRESS_BYTES

_COUNTABLE: Final = 2**31 - 1  # octets of a step; more counts as so much


class Holder(Protocol):
    """What of policy.limits.Limits is used here."""

    def exempt(self, ip: str, /) -> bool: ...
    def hold_upload(self, what: What, ip: str, account_id: int, limit: int, n: int, mine: int, /) -> int: ...
    def release(self, place: int, n: int = 1, /) -> None: ...
    def count(self, what: What, /) -> None: ...


class Upload:
    """One unfinished message. `account_id` is 0 where nobody has logged in."""

    __slots__ = ("_account_id", "_bounds", "_held", "_holder", "_mine")

    def __init__(self, holder: Holder, ip: str, account_id: int) -> None:
        self._holder = holder
        self._account_id = account_id
        self._held: dict[int, int] = {}  # place -> how much of it
        self._bounds = [(ip, 0, UPLOAD_ADDRESS_BYTES)] if not holder.exempt(ip) else []
        if account_id:
            self._bounds.append(("", account_id, UPLOAD_ACCOUNT_BYTES))
        self._mine = [0] * len(self._bounds)  # octets held of each

    def begin(self, size: int) -> bool:
        """Counts an APPEND of the account. False: too much is under way, and nothing is counted."""
        if not self._hold(What.UPLOADS, "", self._account_id, IMAP_UPLOADS, 1, 0):
            return False
        return self.announce(size)

    def announce(self, size: int) -> bool:
        """Counts one more message of such a command. False: too much is under way, and nothing is counted any more."""
        self._hold(What.APPEND_BYTES, "", self._account_id, 0, min(size, _COUNTABLE), 0)
        if self.grow(size):
            return True
        self.end()
        return False

    def grow(self, octets: int) -> bool:
        """Counts so much more of the message. False: too much is under way, and the message is to be given up."""
        n = min(octets, _COUNTABLE)
        for i, (ip, account_id, limit) in enumerate(self._bounds):
            place = self._hold(What.UPLOAD_BYTES, ip, account_id, limit, n, self._mine[i])
            if not place:
                return False
            if place > 0:
                self._mine[i] += n
        return True

    def end(self) -> None:
        """The message has come, or never will."""
        held, self._held = self._held, {}
        self._mine = [0] * len(self._bounds)
        for place, n in held.items():
            self._holder.release(place, n)

    def _hold(self, what: What, ip: str, account_id: int, limit: int, n: int, mine: int) -> int:
        place = self._holder.hold_upload(what, ip, account_id, limit, n, mine)
        if place > 0:
            self._held[place] = self._held.get(place, 0) + n
        elif not place:
            self._holder.count(what)
        return place
