"""Uploads that are under way: how many messages and octets an account has announced and not finished, and till when.

Invariants: what is announced counts at once, as if it had come; it is given back exactly once, when the message is
stored or its connection, time or command ends. Counts are of one worker.
"""

from __future__ import annotations

from fastmta.model.limits import IMAP_TRANSFER_TIMEOUT_S, IMAP_UPLOAD_BYTES, IMAP_UPLOAD_RATE, IMAP_UPLOADS


class Uploads:
    """All unfinished uploads of a worker."""

    def __init__(self) -> None:
        self._announced: dict[int, tuple[int, int]] = {}

    def announced(self, account_id: int) -> tuple[int, int]:
        """(messages, octets) that an account has not finished."""
        return self._announced.get(account_id, (0, 0))

    def has_room(self, account_id: int, size: int) -> bool:
        """Whether one more of this size may begin. A single one always may, whatever its size."""
        messages, octets = self.announced(account_id)
        return messages == 0 or (messages < IMAP_UPLOADS and octets + size <= IMAP_UPLOAD_BYTES)

    def begin(self, account_id: int, size: int) -> None:
        messages, octets = self.announced(account_id)
        self._announced[account_id] = (messages + 1, octets + size)

    def end(self, account_id: int, size: int) -> None:
        messages, octets = self.announced(account_id)
        if messages > 1:
            self._announced[account_id] = (messages - 1, octets - size)
        else:
            self._announced.pop(account_id, None)


def time_for(size: int) -> float:
    """Seconds within which an upload must have ended."""
    return IMAP_TRANSFER_TIMEOUT_S + size / IMAP_UPLOAD_RATE
