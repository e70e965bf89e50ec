"""What must not end a worker, cost memory, or touch another session."""

import pytest

from fastmta.model.limits import IMAP_IDLE_TIMEOUT_S, IMAP_LOGIN_TIMEOUT_S
from tests.imap.harness import World

MEMORY = pytest.mark.parametrize("store_kind", ["memory"])


@MEMORY
@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"a LOGIN {4294967295}\r\n", b"a BAD [TOOBIG]"),
        (b"a LOGIN {1025}\r\n", b"a BAD [TOOBIG]"),
        (b"a LOGIN {2000+}\r\n" + b"x" * 2000 + b" y\r\n", b"a BAD [TOOBIG]"),
        (b"a LOGIN {9999999999+}\r\n", b"* BYE [TOOBIG]"),
        (b"a LOGIN {5000+}\r\n", b"* BYE [TOOBIG]"),
        (b"a LOGIN " + b"x" * 9000 + b"\r\n", b"a BAD [TOOBIG]"),
        (b"a " + b"(" * 1_000_000 + b"\r\n", b"a BAD [TOOBIG]"),
    ],
)
async def test_before_login_every_size_has_a_small_bound(world: World, data: bytes, answer: bytes) -> None:
    client = world.connect()
    await client.settle()
    client.take()
    out = await client.send(data)
    assert out.startswith(answer), out
    if not answer.startswith(b"* BYE"):
        assert (await client.send(b"b NOOP\r\n")).startswith(b"b OK")


@MEMORY
async def test_parentheses_and_keys_nested_deep_are_bad(world: World) -> None:
    client = await world.login("INBOX")
    for command in (b"SEARCH " + b"(" * 50_000, b"SEARCH " + b"NOT " * 20_000 + b"ALL", b"FETCH 1 " + b"(" * 50_000):
        assert (await client.do(command))[-1].startswith(b"BAD")
    assert (await client.do(b"SEARCH " + b"OR ALL " * 25 + b"ALL"))[-1].startswith(b"OK")
    assert (await client.do(b"SEARCH " + b"1 " * 2000 + b"ALL"))[-1].startswith(b"BAD")


@MEMORY
async def test_a_literal_over_the_bound_after_login_is_refused_and_skipped(world: World) -> None:
    client = await world.login("INBOX")
    lines = await client.do(b"SELECT {70000+}\r\n" + b"x" * 70_000)
    assert lines[-1].startswith(b"BAD [TOOBIG]")
    await client.ok("NOOP")
    assert b"BYE" in await client.send(b"z SELECT {4294967295+}\r\n")


@MEMORY
async def test_login_needs_tls_but_from_loopback(world: World) -> None:
    client = world.connect(peer="192.0.2.1")
    await client.settle()
    assert b"LOGINDISABLED" in client.take()
    for command in ("LOGIN user@example.test secret", "AUTHENTICATE PLAIN AHVzZXJAZXhhbXBsZS50ZXN0AHNlY3JldA=="):
        assert (await client.do(command))[-1].startswith(b"NO [PRIVACYREQUIRED]")
    assert world.services.authenticator.tries == 0


@MEMORY
@pytest.mark.parametrize("peer", ["127.9.0.1", "::1", "::ffff:127.0.0.1"])
async def test_every_form_of_a_loopback_address_may_log_in(world: World, peer: str) -> None:
    client = world.connect(peer=peer)
    await client.settle()
    assert b"LOGINDISABLED" not in client.take()
    await client.ok("LOGIN user@example.test secret")


async def test_commands_in_one_segment_are_run_in_order(world: World) -> None:
    client = await world.login("INBOX")
    for n in range(3):
        await client.append(b"Subject: %d\r\n\r\n" % n)
    await client.ok("NOOP")
    out = await client.send(
        b"a STORE 1:2 +FLAGS.SILENT (\\Deleted)\r\nb EXPUNGE\r\nc FETCH 1:* UID\r\n"
        b"d STORE 1 FLAGS (\\Seen)\r\ne NOOP\r\n"
    )
    assert out == (
        b"a OK STORE completed\r\n* 2 EXPUNGE\r\n* 1 EXPUNGE\r\nb OK EXPUNGE completed\r\n"
        b"* 1 FETCH (UID 3)\r\nc OK FETCH completed\r\n* 1 FETCH (FLAGS (\\Seen \\Recent))\r\nd OK STORE completed\r\n"
        b"e OK NOOP completed\r\n"
    )


async def test_copy_and_move_to_itself(world: World) -> None:
    client = await world.login("INBOX")
    await client.append(b"Subject: 1\r\n\r\n")
    lines = await client.do("COPY 1 INBOX")
    assert b"[COPYUID " in lines[-1]
    assert b"* 2 EXISTS" in lines
    await client.do("MOVE 1 INBOX")
    assert [line async for line in _uids(client)] == [2, 3]


async def _uids(client):
    for line in await client.ok("UID SEARCH ALL"):
        for word in line.split()[2:]:
            yield int(word)


async def test_a_peer_that_does_not_read_costs_a_bounded_buffer(world: World) -> None:
    client = await world.login("INBOX")
    message = b"Subject: big\r\n\r\n" + b"x" * 1_000_000
    world.services.config.message_size_limit = 2_000_000
    assert (await client.append(message)).startswith(b"OK")
    client.transport.full = True
    client.protocol.data_received(b"a FETCH 1 BODY.PEEK[]\r\nb NOOP\r\n")
    await client.settle()
    first = len(client.transport.out)
    assert first <= 2 * 262_144
    assert not client.transport.reading or first > 0
    for _ in range(10):
        client.protocol.resume_writing()
        await client.settle()
    client.transport.full = False
    client.protocol.resume_writing()
    await client.settle()
    out = client.take()
    assert out == b"* 1 FETCH (BODY[] {%d}\r\n%b)\r\na OK FETCH completed\r\nb OK NOOP completed\r\n" % (
        len(message),
        message,
    )


@MEMORY
@pytest.mark.parametrize("command", [b"IDLE", b"AUTHENTICATE PLAIN"])
async def test_an_endless_line_ends_the_command_that_awaits_one_by_its_tag(world: World, command: bytes) -> None:
    client = await world.login() if command == b"IDLE" else world.connect()
    await client.settle()
    client.take()
    await client.send(b"x " + command + b"\r\n")
    out = await client.send(b"A" * 300_000 + b"\r\ny NOOP\r\n")
    assert out.startswith(b"x BAD ")
    assert out.endswith(b"\r\ny OK NOOP completed\r\n")
    assert out.count(b"\r\n") == 2


@MEMORY
async def test_a_message_expunged_inside_its_literal_is_sent_to_its_end(world: World) -> None:
    client = await world.login("INBOX")
    message = b"Subject: big\r\n\r\n" + b"x" * 900_000
    await client.append(message)
    client.transport.full = True
    client.protocol.data_received(b"a FETCH 1 BODY.PEEK[]\r\nb NOOP\r\n")
    await client.settle()
    await world.store.mailboxes.expunge(world.inbox, None, False)
    client.transport.full = False
    client.protocol.resume_writing()
    await client.settle()
    whole = b"* 1 FETCH (BODY[] {%d}\r\n%b)\r\na " % (len(message), message)
    out = client.take()
    assert out.startswith(whole)
    assert out[len(whole) :].endswith(b"* 1 EXPUNGE\r\nb OK NOOP completed\r\n"), "told when it may be, not before"
    assert not client.transport.closed


@MEMORY
async def test_a_message_that_vanishes_inside_its_literal_ends_the_connection(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await world.login("INBOX")
    message = b"Subject: big\r\n\r\n" + b"x" * 900_000
    await client.append(message)
    client.transport.full = True
    client.protocol.data_received(b"a FETCH 1 BODY.PEEK[]\r\n")
    await client.settle()
    await world.store.mailboxes.expunge(world.inbox, None, False)
    monkeypatch.setattr(world.store.mailboxes, "read_on", lambda row, offset, length: None)  # as on a full disk
    client.transport.full = False
    client.protocol.resume_writing()
    await client.settle()
    out = client.take()
    assert client.transport.closed
    assert (b"* 1 FETCH (BODY[] {%d}\r\n" % len(message) + message).startswith(out)
    assert world.server.sessions == 0


async def test_a_message_expunged_by_another_gives_no_other_bytes(world: World) -> None:
    one, two = await world.login("INBOX"), await world.login("INBOX")
    await one.append(b"Subject: 1\r\n\r\none")
    await one.append(b"Subject: 2\r\n\r\ntwo")
    await two.ok("NOOP")
    await one.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    await one.ok("EXPUNGE")
    lines = await two.do("FETCH 1 BODY[]")
    assert lines == [b"NO [EXPUNGEISSUED] Some of the messages no longer exist"]
    assert (await two.do("STORE 1 +FLAGS (\\Seen)"))[-1].startswith(b"NO [EXPUNGEISSUED]")
    assert (await two.do("UID FETCH 1 BODY[]"))[-1].startswith(b"OK")
    lines = await two.do("FETCH 1 BODY.PEEK[TEXT]")
    assert lines == [b"* 1 FETCH (BODY[TEXT] {3}\r\ntwo)", b"OK FETCH completed"]


async def test_a_selected_mailbox_that_is_deleted_ends_the_session(world: World) -> None:
    one, two = await world.login(), await world.login("Sent")
    await one.ok("DELETE Sent")
    assert b"* BYE" in await two.send(b"a NOOP\r\n")
    assert two.transport.closed
    own = await world.login()
    await own.ok("CREATE x")
    await own.ok("SELECT x")
    await own.ok("DELETE x")
    assert (await own.do("FETCH 1 FLAGS"))[-1] == b"BAD No mailbox selected"


@MEMORY
async def test_deadlines_come_from_the_sweep(world: World) -> None:
    now = world.services.loop.time()
    new = world.connect()
    await new.settle()
    assert new.protocol.deadline <= now + IMAP_LOGIN_TIMEOUT_S + 1
    await new.send(b"a NOOP\r\n")
    assert new.protocol.deadline <= now + IMAP_LOGIN_TIMEOUT_S + 1  # one for all of it, whatever is sent
    new.take()
    new.protocol.deadline_passed(now + 100)
    assert new.take().startswith(b"* BYE")
    idle = await world.login("INBOX")
    await idle.send(b"a IDLE\r\n")
    assert now + 120 <= idle.protocol.deadline < now + IMAP_IDLE_TIMEOUT_S  # imap_idle_notify_interval
    idle.protocol.deadline_passed(now + 4000)
    assert idle.take() == b"* BYE Autologout; idle for too long\r\n"
    await idle.settle()
    await new.settle()
    assert world.server.sessions == 0
    assert len(world.services.tasks) == 0
    assert len(world.services.notifier) == 0


@MEMORY
async def test_an_idle_session_owns_no_task_and_no_buffer(world: World) -> None:
    client = await world.login("INBOX")
    await client.send(b"a IDLE\r\n")
    assert len(world.services.tasks) == 0
    assert client.protocol._out is None
    assert client.protocol._parser.idle()
    assert client.protocol._parser.command is None


@MEMORY
async def test_close_all_says_bye_and_drain_turns_away(world: World) -> None:
    client = await world.login("INBOX")
    world.server.drain()
    assert client.take() == b"* BYE Shutting down\r\n"
    late = world.connect()
    await late.settle()
    assert late.take().startswith(b"* BYE")
    assert late.transport.closed
    await client.settle()
    assert world.server.sessions == 0


@MEMORY
async def test_the_connection_may_end_anywhere(world: World) -> None:
    for data in (
        b"a APPEND INBOX {10}\r\n",
        b"a APPEND INBOX {10+}\r\nabc",
        b"a IDLE\r\n",
        b"a LOGIN {3}\r\n",
        b"a SELECT",
    ):
        client = await world.login("INBOX")
        await client.send(data)
        client.transport.close()
        await client.settle()
    assert world.server.sessions == 0
    assert len(world.services.notifier) == 0


async def test_append_larger_than_a_chunk_arrives_whole(world: World) -> None:
    client = await world.login("INBOX")
    world.services.config.message_size_limit = 3_000_000
    message = b"Subject: big\r\n\r\n" + bytes(range(1, 256)) * 8000
    client.protocol.data_received(b"a APPEND INBOX {%d}\r\n" % len(message))
    await client.settle()
    assert client.take() == b"+ OK\r\n"
    for start in range(0, len(message), 60_000):
        client.protocol.data_received(message[start : start + 60_000])
        await client.settle(1)
    out = await client.send(b"\r\n")
    assert b"a OK [APPENDUID" in out
    lines = await client.do("FETCH 1 BODY.PEEK[]")
    assert lines[0] == b"* 1 FETCH (BODY[] {%d}\r\n%b)" % (len(message), message)


@MEMORY
async def test_a_congested_store_stops_the_reading(world: World) -> None:
    client = await world.login("INBOX")
    client.protocol.data_received(b"a APPEND INBOX {10}\r\n")
    await client.settle()
    blob = client.protocol.session.upload.blob
    client.protocol.data_received(b"1")
    while not blob.congested:  # without a turn of the loop, so nothing of it is known to be written
        blob.feed(b"x" * 300_000)
    client.protocol.data_received(b"2345")
    client.protocol.data_received(b"67890\r\n")
    assert not client.transport.reading
    assert b"a OK" not in client.take()
    await client.settle()
    await client.settle()  # between the store's word and the next command it waits for nothing, and does not read yet
    assert client.transport.reading
    assert b"a OK [APPENDUID" in client.take()
