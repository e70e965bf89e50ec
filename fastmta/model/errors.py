"""The families of failure. What may reach a peer carries a Reply; the private cause stays in its cause and the log."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # the small commands raise these errors and never load a reply
    from fastmta.model.reply import Reply


class FastMTAError(Exception):
    """Base of every error of ours; its text is one plain line without a trailing full stop."""


class ConfigError(FastMTAError):
    """The administrator's configuration is wrong; the text names file, line, key and the remedy."""


class NotPermitted(FastMTAError):
    """This user of this machine may not do that."""


class NotRunning(FastMTAError):
    """No server answers for this data directory."""


FailureKind = Literal[
    "usage",  # what was asked for makes no sense
    "invalid",  # a value that may not be, or that collides with what is there
    "no_input",
    "no_user",
    "cannot_create",
    "busy",  # worth another try later
    "unavailable",
    "not_permitted",
    "config",
    "damaged",
    "storage",
    "bug",
]


class ActFailed(FastMTAError):
    """What an administrator asked for cannot be done; `kind` decides a command's exit code."""

    def __init__(self, message: str, kind: FailureKind) -> None:
        super().__init__(message)
        self.kind: FailureKind = kind


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


class Cold(Exception):
    """What was to be read without waiting for the disk is not in memory. `places` are (offset, length) in the store's
    file; a thread reads them, and the reader begins again. Only who asks for hot bytes alone meets it.
    """

    def __init__(self, places: list[tuple[int, int]]) -> None:
        super().__init__("not in memory")
        self.places = places


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


def classified(error: Exception) -> tuple[str, FailureKind]:
    """(a line for whoever asked, its kind): what of an act's failure goes over a socket or to a terminal."""
    match error:
        case ActFailed():
            return str(error), error.kind
        case ConfigError():
            return str(error), "config"
        case StoreDamaged() | StoreUnreadable():
            return str(error), "damaged"
        case StorageFailure():
            return f"the store could not keep it: {error}", "storage"
        case NotPermitted():
            return str(error), "not_permitted"
        case FastMTAError():
            return str(error), "unavailable"
        case UnicodeEncodeError() if error.reason == "surrogates not allowed":
            # Only the caller's octets become surrogates: an argument, or a name in a directory.
            return f"{error.object!a}: not UTF-8", "invalid"
        case PermissionError():
            return f"{error.filename or 'not permitted'}: {error.strerror}", "not_permitted"
        case OSError():
            return f"{error.filename or 'input or output'}: {error.strerror or error}", "damaged"
        case _:
            return f"internal error: {type(error).__name__}: {error}", "bug"
