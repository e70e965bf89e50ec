"""The families of failure. What may reach a peer carries a Reply; the private cause stays in its cause and the log."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the small commands raise these errors and never load a reply
    from fastmta.model.reply import Reply


class FastMTAError(Exception):
    """Base of every error of ours; its text is one plain line without a trailing full stop."""


class ConfigError(FastMTAError):
    """The administrator's configuration is wrong; the text names file, line, key and the remedy."""


class NotPermitted(FastMTAError):
    """This user of this machine may not do that."""


class ProtocolViolation(FastMTAError):
    """The peer broke the protocol in a way that ends the session."""


class Rejected(FastMTAError):
    """Policy refuses; `reply` is what the peer is told."""

    def __init__(self, reply: "Reply") -> None:
        super().__init__(reply.text)
        self.reply = reply


class TemporaryFailure(FastMTAError):
    """Worth another try later; `reply` is a 4yz."""

    def __init__(self, reply: "Reply") -> None:
        super().__init__(reply.text)
        self.reply = reply


class PermanentFailure(FastMTAError):
    """No later try can succeed; `reply` is a 5yz."""

    def __init__(self, reply: "Reply") -> None:
        super().__init__(reply.text)
        self.reply = reply


class StorageFailure(FastMTAError):
    """The store could not commit (disk full, I/O error); nothing of the unit was kept."""


class StoreDamaged(StorageFailure):
    """What the store holds cannot be read: never to be taken for "there is nothing". `table` is its name, `key` the
    place that was sought; both are for the log and the operator, never for a peer.
    """

    def __init__(self, table: str, key: bytes, reason: str) -> None:
        shown = key[:40].hex() + ("..." if len(key) > 40 else "")
        super().__init__(f"the store is damaged: table={table} key={shown}: {reason}")
        self.table = table
        self.key = key
        self.reason = reason


class StoreUnreadable(StorageFailure):
    """The store cannot be opened, and no other try will open it; the text names the file and the remedy."""


class Refused(FastMTAError):
    """A unit's check failed inside the transaction; nothing of it was kept. `code` is one of the words below.

    exists    PUT_NEW of an existing key, CREATE of an existing name
    missing   the record that the operation needs is not there
    changed   GUARD: the record is no longer what was read
    quota     the account or a counter would pass its ceiling
    state     the recipient is not in the state that the move begins with
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
