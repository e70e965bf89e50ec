"""Keys of records that several modules name."""

from typing import Final

DIRECTORY_COUNTER: Final = b"directory"  # its version: it grows with each change of a record


def id_key(number: int) -> bytes:
    """An identifier as a key."""
    return number.to_bytes(8, "big")
