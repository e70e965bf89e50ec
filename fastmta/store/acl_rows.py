"""The rows of access lists (RFC 4314), unread by the store: a mailbox's list, and an index of who has been given what.

`acl`: owner's account id, mailbox id -> entries. `acl_index`: who, owner's account id, mailbox id -> nothing. An index
row may outlive its list, and then means nothing: ids are not given again.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from fastmta._store import TABLE_ACL, TABLE_ACL_INDEX, Store
from fastmta._unit import Unit

ANYONE: Final = -1  # who, beside the ids of accounts
AUTHENTICATED: Final = -2
NOBODY: Final = -3  # a name that no account has: it holds nothing, and says so to no one
FORGOTTEN: Final = 1000  # rows read in one piece


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an identifier has been given; or a `negative` one: what is taken from it, whoever gave it (RFC 4314 §2)."""

    who: int
    rights: int
    negative: bool = False
    name: str = ""  # of NOBODY, and "$" with the name of a group, whose number `who` is


Entries = tuple[Entry, ...]
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Entries)


def _number(value: int) -> bytes:
    return (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "big")


def acl_key(owner_id: int, mailbox_id: int) -> bytes:
    return _number(owner_id) + _number(mailbox_id)


def read_list(raw: Store, owner_id: int, mailbox_id: int) -> Entries:
    """The entries of a mailbox; () where nobody has been given anything."""
    key = acl_key(owner_id, mailbox_id)
    return decoded_list(raw, key, raw.get(TABLE_ACL, key))


def decoded_list(raw: Store, key: bytes, value: bytes | None) -> Entries:
    if value is None:
        return ()
    try:
        return _decoder.decode(value)
    except ValueError as error:
        raise raw.damaged("acl", key, "the record cannot be decoded") from error


def write_list(unit: Unit, key: bytes, old: Entries, new: Entries) -> None:
    """Adds to a unit what makes a list of another, with its index rows."""
    gone = {entry.who for entry in old} - {entry.who for entry in new}
    for who in gone - {NOBODY}:
        unit.delete(TABLE_ACL_INDEX, _number(who) + key)
    for entry in new:
        if entry.who == NOBODY:
            continue
        unit.put(TABLE_ACL_INDEX, _number(entry.who) + key, b"")
    if new:
        unit.put(TABLE_ACL, key, _encoder.encode(new))
    elif old:
        unit.delete(TABLE_ACL, key)


def forget_list(raw: Store, unit: Unit, key: bytes) -> None:
    """Adds to a unit what takes the list of a mailbox away."""
    write_list(unit, key, decoded_list(raw, key, raw.get(TABLE_ACL, key)), ())


def given_to(raw: Store, who: int) -> Iterator[list[tuple[int, int]]]:
    """(owner's account id, mailbox id) of what may have been given, some at a time."""
    lead, start = _number(who), b""
    while rows := raw.scan(TABLE_ACL_INDEX, lead, start, FORGOTTEN):
        yield [(int.from_bytes(key[8:16], "big"), int.from_bytes(key[16:24], "big")) for key, _ in rows]
        start = rows[-1][0] + b"\0"
