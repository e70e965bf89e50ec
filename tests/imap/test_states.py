"""Every command in every state: legal where RFC 3501 §6 has it, BAD by the table elsewhere."""

import pytest

from fastmta.imap.commands import COMMANDS
from fastmta.imap.session import State
from tests.imap.harness import Client, World

ANY = {"CAPABILITY", "NOOP", "LOGOUT", "ID", "LANGUAGE"}
NEW = {"STARTTLS", "AUTHENTICATE", "LOGIN"}
SELECTED = {"CHECK", "CLOSE", "UNSELECT", "EXPUNGE", "SEARCH", "FETCH", "STORE", "COPY", "MOVE"}
SELECTED |= {"CANCELUPDATE", "SORT", "THREAD", "UID SORT", "UID THREAD"}
SELECTED |= {"UID EXPUNGE", "UID SEARCH", "UID FETCH", "UID STORE", "UID COPY", "UID MOVE", "REPLACE", "UID REPLACE"}
REFUSALS = (b"BAD Log in first", b"BAD No mailbox selected", b"BAD Not valid in this state")


async def client_in(world: World, state: State) -> Client:
    if state == State.NOT_AUTHENTICATED:
        client = world.connect()
        await client.settle()
        client.take()
        return client
    return await world.login("INBOX" if state == State.SELECTED else "")


@pytest.mark.parametrize("store_kind", ["memory"])
@pytest.mark.parametrize("state", [State.NOT_AUTHENTICATED, State.AUTHENTICATED, State.SELECTED])
@pytest.mark.parametrize("name", sorted(name.decode() for name in COMMANDS))
async def test_each_command_in_each_state(world: World, state: State, name: str) -> None:
    client = await client_in(world, state)
    out = await client.send(f"x {name}\r\n".encode())
    refused = any(text in out for text in REFUSALS)
    legal = (
        name in ANY
        or (name in NEW and state == State.NOT_AUTHENTICATED)
        or (name in SELECTED and state == State.SELECTED)
        or (name not in ANY | NEW | SELECTED and state != State.NOT_AUTHENTICATED)
    )
    assert refused is not legal, out


@pytest.mark.parametrize("store_kind", ["memory"])
@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"a",
        b"a ",
        b"+ NOOP",
        b"a XYZZY",
        b"a UID",
        b"a UID NOOP",
        b"a NOOP x",
        b"\xff\x00 NOOP",
        b"a FETCH",
        b"a FETCH 1",
        b"a SELECT",
        b"a LOGIN x",
        b"GET / HTTP/1.1",
    ],
)
async def test_what_is_no_command_is_bad_and_the_session_goes_on(world: World, line: bytes) -> None:
    client = await world.login("INBOX")
    out = await client.send(line + b"\r\n")
    assert out.count(b"\r\n") == 1
    assert b" BAD " in out
    await client.ok("NOOP")


@pytest.mark.parametrize("store_kind", ["memory"])
async def test_twenty_bad_commands_in_a_row_end_the_session(world: World) -> None:
    client = await world.login()
    for _ in range(19):
        await client.send(b"x y\r\n")
    await client.ok("NOOP")
    for _ in range(19):
        assert b"BYE" not in await client.send(b"x y\r\n")
    assert b"* BYE" in await client.send(b"x y\r\nz NOOP\r\n")
    assert client.transport.closed


@pytest.mark.parametrize("store_kind", ["memory"])
async def test_a_peer_that_leaves_during_select_is_forgotten(world: World) -> None:
    writer = await world.login("Sent")
    await writer.append(b"Subject: new\r\n\r\n")
    client = await world.login()
    session = client.protocol.session
    watched: set[int] = set()
    notifier = world.services.notifier
    subscribe, unsubscribe = notifier.subscribe, notifier.unsubscribe
    notifier.subscribe = lambda number, watcher: (watched.add(number), subscribe(number, watcher))
    notifier.unsubscribe = lambda number, watcher: (watched.discard(number), unsubscribe(number, watcher))
    client.protocol.data_received(b"x SELECT INBOX\r\n")
    assert watched and client.protocol.waiting, "the claim of the recent messages is under way"
    client.transport.close()
    await client.settle()
    assert session.state == State.LOGOUT
    assert not watched
