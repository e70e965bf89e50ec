"""NOTIFY (RFC 5465): what is told of which mailboxes, when, and to whom not."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fastmta.imap.commands import notify
from fastmta.model import limits
from tests.imap.harness import Client, World, make_world, split_responses

MESSAGE = b"Subject: x\r\n\r\ntext\r\n"
BOTH = "(MessageNew MessageExpunge)"
ALL = "(MessageNew MessageExpunge FlagChange)"
NAMES = "(MailboxName)"


@pytest_asyncio.fixture
async def two(world: World) -> AsyncIterator[tuple[Client, Client]]:
    """A client that watches, and another of the same user."""
    yield await world.login(), await world.login()


async def told(client: Client) -> list[bytes]:
    """What came to a client that has asked for nothing."""
    await client.settle()
    return split_responses(client.take())


# --- the selected mailbox ---


async def test_new_messages_and_expunges_are_told_between_commands(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    await client.ok("SELECT INBOX")
    assert await client.ok(f"NOTIFY SET (selected {BOTH})") == []
    await other.append(MESSAGE)
    assert await told(client) == [b"* 1 EXISTS", b"* 1 RECENT"]
    await other.ok("SELECT INBOX")
    await other.ok("STORE 1 +FLAGS (\\Deleted \\Flagged)")
    assert await told(client) == []  # FlagChange is not wanted
    await other.ok("EXPUNGE")
    assert await told(client) == [b"* 1 EXPUNGE"]


async def test_flags_are_told_where_they_are_wanted(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    await client.append(MESSAGE)
    await client.ok("SELECT INBOX")
    await client.ok(f"NOTIFY SET (selected {ALL})")
    await other.ok("SELECT INBOX")
    await other.ok("STORE 1 +FLAGS (\\Flagged)")
    (line,) = await told(client)
    assert line.startswith(b"* 1 FETCH (")
    assert b"\\Flagged" in line
    await client.ok("STORE 1 -FLAGS.SILENT (\\Flagged)")
    assert await told(client) == []  # its own


async def test_new_messages_are_told_with_what_is_asked_for(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    await client.ok("SELECT INBOX")
    await client.ok("NOTIFY SET (selected (MessageNew (UID FLAGS BODY[HEADER.FIELDS (Subject)]) MessageExpunge))")
    await other.append(MESSAGE)
    assert await told(client) == [
        b"* 1 EXISTS",
        b"* 1 RECENT",
        b"* 1 FETCH (UID 1 FLAGS (\\Recent) BODY[HEADER.FIELDS (Subject)] {14}\r\nSubject: x\r\n\r\n)",
    ]
    assert await client.ok("UID SEARCH UNSEEN") == [b"* SEARCH 1"]  # it was not marked as seen


async def test_what_the_session_files_itself_is_not_fetched(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    await client.ok("SELECT INBOX")
    await client.ok("NOTIFY SET (selected (MessageNew (UID) MessageExpunge))")
    lines = await client.do(b"APPEND INBOX {%d+}\r\n%b" % (len(MESSAGE), MESSAGE))
    assert lines[:-1] == [b"* 1 EXISTS", b"* 1 RECENT"]
    await other.append(MESSAGE)
    assert (await told(client))[-1] == b"* 2 FETCH (UID 2)"
    assert (await client.ok("COPY 1 INBOX")) == [b"* 3 EXISTS", b"* 3 RECENT"]


async def test_a_fetch_for_new_messages_comes_at_a_commands_end_too(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    await client.ok("SELECT INBOX")
    await client.ok("NOTIFY SET (selected (MessageNew (UID) MessageExpunge))")
    other.protocol.data_received(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(MESSAGE), MESSAGE))
    await other.settle()
    lines = await client.ok("NOOP")
    assert lines == [b"* 1 EXISTS", b"* 1 RECENT", b"* 1 FETCH (UID 1)"] or await told(client) == []


async def test_delayed_expunges_wait_for_a_command(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    for _ in range(2):
        await client.append(MESSAGE)
    await client.ok("SELECT INBOX")
    await client.ok(f"NOTIFY SET (selected-delayed {ALL})")
    await other.ok("SELECT INBOX")
    await other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    assert b"\\Deleted" in (await told(client))[0]
    await other.ok("EXPUNGE")
    assert await told(client) == []
    assert (await client.ok("FETCH 2 UID")) == [b"* 2 FETCH (UID 2)"]
    assert await client.ok("NOOP") == [b"* 1 EXPUNGE"]
    await other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    await told(client)
    assert await client.send(b"i IDLE\r\n") == b"+ idling\r\n"
    await other.ok("EXPUNGE")
    assert await told(client) == [b"* 1 EXPUNGE"]  # IDLE allows it


@pytest.mark.parametrize("command", ["NONE", "SET (selected NONE)", f"SET (mailboxes Sent {BOTH})"])
async def test_without_wishes_the_selected_mailbox_stays_as_it_was_told(
    world: World, two: tuple[Client, Client], command: str
) -> None:
    client, other = two
    for _ in range(3):
        await client.append(MESSAGE)
    await client.ok("SELECT INBOX")
    await client.ok(f"NOTIFY {command}")
    await other.ok("SELECT INBOX")
    await other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    await other.ok("EXPUNGE")
    await other.append(MESSAGE)
    assert await told(client) == []
    assert await client.ok("NOOP") == []
    assert await client.ok("FETCH 1:* UID") == [b"* 2 FETCH (UID 2)", b"* 3 FETCH (UID 3)"]
    for number in range(40):
        await client.ok(f"STORE 2 {'+-'[number % 2]}FLAGS.SILENT (x)")
    assert client.protocol.session.view.own == ()  # nothing is gathered meanwhile
    # What has come and gone is told by the next SET, which is a NOOP too.
    lines = await client.ok(f"NOTIFY SET (selected {BOTH})")
    assert [line for line in lines if b"EX" in line] == [b"* 1 EXPUNGE", b"* 3 EXISTS"]


async def test_own_expunges_are_told_in_any_case(world: World, two: tuple[Client, Client]) -> None:
    client, _ = two
    await client.append(MESSAGE)
    await client.ok("SELECT INBOX")
    await client.ok("NOTIFY NONE")
    await client.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    assert await client.ok("EXPUNGE") == [b"* 1 EXPUNGE"]


async def test_nothing_is_told_within_an_upload(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    await client.ok("SELECT INBOX")
    await client.ok(f"NOTIFY SET (selected {BOTH})")
    assert await client.send(b"u APPEND INBOX {%d+}\r\nSub" % len(MESSAGE)) == b""
    await other.append(MESSAGE)
    assert await told(client) == []
    out = await client.send(MESSAGE[3:] + b"\r\n")
    assert out.startswith(b"* 2 EXISTS\r\n")
    assert out.rstrip().split(b"\r\n")[-1].startswith(b"u OK ")


async def test_idle_tells_the_same(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    await client.ok(f"NOTIFY SET (mailboxes Sent {BOTH})")
    assert await client.send(b"i IDLE\r\n") == b"+ idling\r\n"
    await other.append(MESSAGE, "Sent")
    assert await told(client) == [b"* STATUS Sent (UIDNEXT 2 MESSAGES 1)"]
    assert await client.send(b"DONE\r\n") == b"i OK IDLE completed\r\n"


# --- other mailboxes ---


async def test_messages_of_other_mailboxes_are_told_by_status(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    await client.ok(f"NOTIFY SET (personal {ALL})")
    await other.append(MESSAGE, "Sent")
    assert await told(client) == [b"* STATUS Sent (UIDNEXT 2 MESSAGES 1 UNSEEN 1 UIDVALIDITY 1800000002)"]
    await other.ok("SELECT Sent")
    await other.ok("STORE 1 +FLAGS (\\Flagged)")
    assert await told(client) == []  # no item of STATUS tells it
    await other.ok("STORE 1 +FLAGS (\\Seen)")
    assert await told(client) == [b"* STATUS Sent (UNSEEN 0 UIDVALIDITY 1800000002)"]
    await client.ok("ENABLE CONDSTORE")
    await other.ok("STORE 1 +FLAGS (\\Deleted)")
    (line,) = await told(client)
    assert line.startswith(b"* STATUS Sent (HIGHESTMODSEQ ")
    await other.ok("EXPUNGE")
    (line,) = await told(client)
    assert line.startswith(b"* STATUS Sent (UIDNEXT 2 MESSAGES 0 HIGHESTMODSEQ ")


async def test_the_selected_mailbox_is_not_told_by_status(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    await client.ok("SELECT Sent")
    await client.ok(f"NOTIFY SET (selected {BOTH}) (personal {BOTH})")
    await other.append(MESSAGE, "Sent")
    assert await told(client) == [b"* 1 EXISTS", b"* 1 RECENT"]
    await client.ok("UNSELECT")
    await other.append(MESSAGE, "Sent")
    assert await told(client) == [b"* STATUS Sent (UIDNEXT 3 MESSAGES 2)"]


async def test_own_messages_elsewhere_are_not_told(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    await client.ok(f"NOTIFY SET (personal {BOTH})")
    await client.append(MESSAGE, "Sent")
    assert await told(client) == []
    await other.append(MESSAGE, "Sent")
    assert await told(client) == [b"* STATUS Sent (UIDNEXT 3 MESSAGES 2)"]


async def test_status_tells_where_all_stand_first(world: World, two: tuple[Client, Client]) -> None:
    client, _ = two
    await client.append(MESSAGE, "Sent")
    assert await client.ok(f"NOTIFY SET STATUS (personal {BOTH})") == [
        b"* STATUS INBOX (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 1800000000)",
        b"* STATUS Sent (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 1800000002)",
    ]
    await client.ok("SELECT Sent")
    (line,) = await client.ok(f"NOTIFY SET STATUS (personal {ALL})")
    assert line.startswith(b"* STATUS INBOX (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 1800000000 UNSEEN 0 HIGHESTMODSEQ ")


@pytest.mark.parametrize(
    ("which", "names"),
    [
        ("mailboxes (a/b nowhere)", ["a/b"]),
        ("subtree a", ["a", "a/b"]),
        ("subtree (a INBOX)", ["INBOX", "a", "a/b"]),
        ("subscribed", ["a/b"]),
        ("inboxes", ["INBOX", "Sent", "a", "a/b", "ab"]),
    ],
)
async def test_which_mailboxes_are_meant(
    world: World, two: tuple[Client, Client], which: str, names: list[str]
) -> None:
    client, other = two
    for name in ("INBOX", "Sent"):
        await other.ok(f"UNSUBSCRIBE {name}")
    for name in ("a/b", "ab"):
        await other.ok(f"CREATE {name}")
    await other.ok("SUBSCRIBE a/b")
    lines = await client.ok(f"NOTIFY SET STATUS ({which} {BOTH})")
    assert [line.split()[2].decode() for line in lines] == names
    for name in ("INBOX", "Sent", "a", "a/b", "ab"):
        await other.append(MESSAGE, name)
    assert sorted(line.split()[2].decode() for line in await told(client)) == sorted(names)


# --- the list ---


async def test_the_lists_changes_are_told(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    await client.ok(f"NOTIFY SET (personal {NAMES})")
    await other.ok("CREATE a/b")
    assert set(await told(client)) == {b'* LIST (\\HasChildren) "/" a', b'* LIST (\\HasNoChildren) "/" a/b'}
    await other.ok("RENAME a z")
    assert await told(client) == [b'* LIST (\\HasChildren) "/" z ("OLDNAME" (a))']  # and nothing of what is below
    await other.ok("DELETE z/b")
    assert await told(client) == [b'* LIST (\\NonExistent \\HasNoChildren) "/" z/b', b'* LIST (\\HasNoChildren) "/" z']
    await client.ok("CREATE mine")
    await client.ok("SUBSCRIBE mine")
    await client.ok("RENAME mine yours")
    await client.ok("DELETE yours")
    assert await told(client) == []  # its own


async def test_subscriptions_are_told(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    await other.ok("UNSUBSCRIBE Sent")
    await client.ok("NOTIFY SET (personal (SubscriptionChange))")
    await other.ok("SUBSCRIBE Sent")
    assert await told(client) == [b'* LIST (\\Subscribed \\HasNoChildren \\Sent) "/" Sent']
    await other.ok("UNSUBSCRIBE Sent")
    assert await told(client) == [b'* LIST (\\HasNoChildren \\Sent) "/" Sent']


async def test_a_mailbox_that_is_subscribed_to_later_is_watched(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    await client.ok(f"NOTIFY SET (subscribed {BOTH})")
    await other.ok("CREATE new")
    await other.ok("SUBSCRIBE new")
    await told(client)
    await other.append(MESSAGE, "new")
    (line,) = await told(client)
    assert line.startswith(b"* STATUS new (UIDNEXT 2 MESSAGES 1")
    await other.ok("UNSUBSCRIBE new")
    await other.append(MESSAGE, "new")
    assert await told(client) == []


async def test_a_mailbox_made_anew_tells_its_uidvalidity(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    await other.ok("CREATE a")
    await client.ok(f"NOTIFY SET (mailboxes a {ALL})")
    await other.ok("DELETE a")
    await other.ok("CREATE a")
    lines = await told(client)
    assert any(line.startswith(b"* STATUS a (") and b"UIDVALIDITY" in line for line in lines)


# --- others' mailboxes ---


@pytest_asyncio.fixture
async def shared(tmp_path: Path) -> AsyncIterator[tuple[Client, Client]]:
    """ann, and the user whose mailbox Work she may know of."""
    world = await make_world(tmp_path, engine="memory")
    world.services.authenticator.accounts["ann@example.test"] = (
        "secret",
        await world.store.accounts.add("ann@example.test", "x"),
    )
    owner, ann = await world.login(), world.connect()
    await ann.settle()
    ann.take()
    await ann.ok("LOGIN ann@example.test secret")
    await owner.ok("CREATE Work")
    yield ann, owner
    await world.close()


WORK = '"Other Users/user@example.test/Work"'


async def test_rights_are_obeyed_as_they_come_and_go(shared: tuple[Client, Client]) -> None:
    ann, owner = shared
    assert await ann.ok(f"NOTIFY SET (mailboxes {WORK} {BOTH}) (mailboxes {WORK} {NAMES})") == []
    await owner.append(MESSAGE, "Work")
    assert await told(ann) == []
    await owner.ok("SETACL Work ann@example.test l")
    assert await told(ann) == [b'* LIST (\\NoAccess \\HasNoChildren) "/" %b' % WORK.encode()]
    await owner.append(MESSAGE, "Work")
    assert await told(ann) == []
    await owner.ok("SETACL Work ann@example.test lr")
    assert await told(ann) == [b'* LIST (\\HasNoChildren) "/" %b' % WORK.encode()]
    await owner.append(MESSAGE, "Work")
    (line,) = await told(ann)
    assert line.startswith(b"* STATUS %b (UIDNEXT 4 MESSAGES 3" % WORK.encode())
    await owner.ok("DELETEACL Work ann@example.test")
    assert await told(ann) == [b'* LIST (\\NonExistent \\HasNoChildren) "/" %b' % WORK.encode()]
    await owner.append(MESSAGE, "Work")
    assert await told(ann) == []


async def test_what_may_be_looked_up_and_not_read_is_said(shared: tuple[Client, Client]) -> None:
    ann, owner = shared
    await owner.ok("SETACL Work ann@example.test l")
    lines = await ann.ok(f"NOTIFY SET STATUS (mailboxes {WORK} {BOTH})")
    assert lines == [b'* LIST (\\NoAccess \\HasNoChildren) "/" %b' % WORK.encode()]


async def test_an_event_alone_is_enough_for_other_mailboxes(two: tuple[Client, Client]) -> None:
    watching, other = two
    for event, told_of in (("MessageNew", b"UIDNEXT 1"), ("MessageExpunge", b"MESSAGES 0"), ("FlagChange", b"HIGHEST")):
        (line,) = await watching.ok(f"NOTIFY SET STATUS (mailboxes Sent ({event}))")
        assert line.startswith(b"* STATUS Sent (") and told_of in line
    await watching.ok("NOTIFY SET (mailboxes Sent (MessageNew))")
    await other.append(MESSAGE, "Sent")
    assert any(b"* STATUS Sent" in line for line in await told(watching))


# --- what is refused ---


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "SET",
        "SET (selected)",
        "SET (selected (MessageNew))",
        "SET (selected (FlagChange))",
        "SET (selected (MailboxName))",
        f"SET (selected {BOTH}) (selected-delayed {BOTH})",
        f"SET (personal {BOTH}) x",
        "SET (personal (MessageNew (UID) MessageExpunge))",
        "SET (personal (Nothing))",
        "SET (nowhere NONE)",
        "NONE x",
        "STATUS (personal NONE)",
        "SET (selected (MessageNew () MessageExpunge))",
    ],
)
async def test_what_the_grammar_does_not_have_is_bad(world: World, two: tuple[Client, Client], arguments: str) -> None:
    assert (await two[0].do(f"NOTIFY {arguments}"))[-1].startswith(b"BAD ")


async def test_events_that_are_not_told_are_named(world: World, two: tuple[Client, Client]) -> None:
    answer = (await two[0].do("NOTIFY SET (personal (MailboxMetadataChange))"))[-1]
    assert answer.startswith(b"NO [BADEVENT (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange)]")


async def test_too_many_mailboxes_overflow(
    world: World, two: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, other = two
    monkeypatch.setattr(notify, "IMAP_NOTIFY_MAILBOXES", 2)
    await client.ok(f"NOTIFY SET (personal {BOTH})")  # INBOX and Sent
    await other.ok("CREATE third")
    assert (await told(client))[0].startswith(b"* OK [NOTIFICATIONOVERFLOW] ")
    await other.append(MESSAGE)
    assert await told(client) == []  # as after NOTIFY NONE
    assert (await client.do(f"NOTIFY SET (personal {BOTH})"))[-1].startswith(b"NO [NOTIFICATIONOVERFLOW] ")
    assert world.services.notifier.watches == 0
    assert limits.IMAP_NOTIFY_MAILBOXES >= 100


async def test_a_worker_watches_so_many(
    world: World, two: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, other = two
    monkeypatch.setattr(notify, "IMAP_NOTIFY_WATCHES", 3)
    await client.ok(f"NOTIFY SET (personal {BOTH})")
    assert (await other.do(f"NOTIFY SET (personal {BOTH})"))[-1].startswith(b"NO [NOTIFICATIONOVERFLOW] ")
    assert world.services.notifier.watches == 3
    await client.send(b"x LOGOUT\r\n")
    assert world.services.notifier.watches == 0


async def test_a_refused_set_leaves_the_one_before(
    world: World, two: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, other = two
    await client.ok(f"NOTIFY SET (mailboxes Sent {BOTH})")
    monkeypatch.setattr(notify, "IMAP_NOTIFY_MAILBOXES", 1)
    assert (await client.do(f"NOTIFY SET (personal {BOTH})"))[-1].startswith(b"NO ")
    await other.append(MESSAGE, "Sent")
    assert await told(client) == [b"* STATUS Sent (UIDNEXT 2 MESSAGES 1)"]


async def test_unauthenticate_ends_it(world: World, two: tuple[Client, Client]) -> None:
    client, _ = two
    await client.ok(f"NOTIFY SET (personal {BOTH})")
    await client.ok("UNAUTHENTICATE")
    assert world.services.notifier.watches == 0


async def test_a_client_that_never_reads_gathers_no_more_than_a_chunk(world: World, two: tuple[Client, Client]) -> None:
    client, other = two
    await client.ok("SELECT INBOX")
    await client.ok("NOTIFY SET (selected (MessageNew (BODY.PEEK[]) MessageExpunge))")
    client.transport.full = True
    big = b"Subject: big\r\n\r\n" + b"x" * 200_000
    for _ in range(8):
        await other.append(big)
    await client.settle()
    assert len(client.transport.out) + client.protocol.written() < 2 * limits.IMAP_CHUNK_BYTES
