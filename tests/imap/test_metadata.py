"""METADATA's bounds, at, under and over."""

import pytest

from fastmta.model.limits import (
    IMAP_METADATA_BYTES,
    IMAP_METADATA_ENTRIES,
    IMAP_METADATA_ENTRY_BYTES,
    IMAP_METADATA_NAMED,
)
from tests.imap.harness import World


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_a_value_is_bounded(world: World, over: int) -> None:
    client = await world.login()
    value = b"x" * (IMAP_METADATA_BYTES + over)
    lines = await client.do(b"SETMETADATA INBOX (/private/a {%d+}\r\n%b)" % (len(value), value))
    assert lines[-1].startswith(b"NO [METADATA MAXSIZE %d]" % IMAP_METADATA_BYTES if over > 0 else b"OK")
    if over <= 0:
        out = await client.send(b"a GETMETADATA INBOX /private/a\r\n")
        assert b" {%d}\r\n%b)" % (len(value), value) in out


async def test_entries_of_a_mailbox_are_bounded(world: World) -> None:
    client = await world.login()
    for number in range(IMAP_METADATA_ENTRIES):
        await client.ok(b'SETMETADATA INBOX (/private/n%d "x")' % number)
    assert (await client.do(b'SETMETADATA INBOX (/private/more "x")'))[-1].startswith(b"NO [METADATA TOOMANY]")
    await client.ok(b'SETMETADATA INBOX (/private/n0 NIL /private/more "x")')
    await client.ok(b'SETMETADATA Sent (/private/more "x")')


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_the_name_of_an_entry_is_bounded(world: World, over: int) -> None:
    client = await world.login()
    name = b"/private/" + b"x" * (IMAP_METADATA_ENTRY_BYTES + over - 9)
    lines = await client.do(b'SETMETADATA INBOX (%b "x")' % name)
    assert lines[-1].startswith(b"BAD" if over > 0 else b"OK")


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_entries_named_in_a_command_are_bounded(world: World, over: int) -> None:
    client = await world.login()
    names = b" ".join(b"/private/n%d" % number for number in range(IMAP_METADATA_NAMED + over))
    lines = await client.do(b"GETMETADATA INBOX (%b)" % names)
    assert lines[-1].startswith(b"BAD" if over > 0 else b"OK")
