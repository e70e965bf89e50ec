"""Mailboxes by name: LIST with its options, special uses, superiors, subscriptions, names that are none."""

import pytest

from tests.imap.harness import Client, World


async def names(client: Client, command: str) -> list[bytes]:
    return [line.rpartition(b" ")[2] for line in await client.ok(command)]


async def test_list_takes_special_use_as_selection_and_as_return_option(world: World) -> None:
    client = await world.login()
    await client.ok("CREATE plain")
    sent = [b'* LIST (\\HasNoChildren \\Sent) "/" Sent']
    assert await client.ok('LIST (SPECIAL-USE) "" *') == sent
    assert await client.ok('LIST (SPECIAL-USE) "" (I* Se*) RETURN (SPECIAL-USE CHILDREN)') == sent
    assert sent[0] in await client.ok('LIST "" * RETURN (SPECIAL-USE)')
    assert len(await client.ok('LIST "" % RETURN (SPECIAL-USE)')) == 3
    assert sent[0] in await client.ok('LIST "" *')


async def test_list_selects_what_is_subscribed(world: World) -> None:
    client = await world.login()
    await client.ok("CREATE a/b")
    await client.ok("SUBSCRIBE a/b")
    await client.ok("DELETE a/b")
    assert await client.ok('LIST (SUBSCRIBED) "" a*') == [
        b'* LIST (\\NonExistent \\HasNoChildren \\Subscribed) "/" a/b'
    ]
    assert await client.ok('LIST (SUBSCRIBED SPECIAL-USE) "" *') == [
        b'* LIST (\\HasNoChildren \\Sent \\Subscribed) "/" Sent'
    ]
    assert await client.ok('LIST (SUBSCRIBED RECURSIVEMATCH) "" %') == [
        b'* LIST (\\HasNoChildren \\Subscribed) "/" INBOX',
        b'* LIST (\\HasNoChildren \\Sent \\Subscribed) "/" Sent',
        b'* LIST (\\HasNoChildren) "/" a ("CHILDINFO" ("SUBSCRIBED"))',
    ]
    assert b"\\Subscribed" in (await client.ok('LIST "" INBOX RETURN (SUBSCRIBED)'))[0]
    assert b"\\Subscribed" not in (await client.ok('LIST "" a RETURN (SUBSCRIBED)'))[0]
    assert await client.ok('LIST () "" INBOX') == [b'* LIST (\\HasNoChildren) "/" INBOX']
    assert await client.ok('LIST (REMOTE) "" INBOX') == [b'* LIST (\\HasNoChildren) "/" INBOX']


@pytest.mark.parametrize(
    "arguments",
    [
        '(FOO) "" *',
        '"" * RETURN (FOO)',
        '"" * RETURN',
        '"" * FOO (SPECIAL-USE)',
        '(RECURSIVEMATCH) "" *',
        '(SPECIAL-USE "" *',
        '"" (',
        '"" (a b',
        '"" (' + " ".join(["a"] * 65) + ")",
    ],
)
async def test_a_list_option_that_is_not_known_is_bad(world: World, arguments: str) -> None:
    client = await world.login()
    assert (await client.do(f"LIST {arguments}"))[-1].startswith(b"BAD")


async def test_xlist_names_special_uses_as_its_clients_know_them(world: World) -> None:
    client = await world.login()
    await client.ok("CREATE Junk")
    assert await client.ok('XLIST "" *') == [
        b'* XLIST (\\HasNoChildren \\Inbox) "/" INBOX',
        b'* XLIST (\\HasNoChildren \\Spam) "/" Junk',
        b'* XLIST (\\HasNoChildren \\Sent) "/" Sent',
    ]


async def test_what_the_capabilities_name_is_built(world: World) -> None:
    client = await world.login()
    words = (await client.ok("CAPABILITY"))[0].split()
    assert {b"SPECIAL-USE", b"CREATE-SPECIAL-USE", b"LIST-EXTENDED", b"XLIST"} <= set(words)


async def test_a_mailbox_is_made_for_a_special_use(world: World) -> None:
    client = await world.login()
    await client.ok("CREATE Old (USE (\\archive))")
    assert await client.ok('LIST (SPECIAL-USE) "" O*') == [b'* LIST (\\HasNoChildren \\Archive) "/" Old']
    await client.ok("CREATE Both (USE (\\Trash \\Junk))")
    assert await client.ok('LIST "" Both') == [b'* LIST (\\HasNoChildren \\Junk \\Trash) "/" Both']
    for uses in ("\\All", "\\Flagged", "\\NoSuch", "\\Archive \\All"):
        assert (await client.do(f"CREATE x (USE ({uses}))"))[-1].startswith(b"NO [USEATTR]")
    for parameters in ("(USE)", "(USE \\Archive)", "(FOO (a))", "USE (\\Archive)", "(USE (\\Archive)"):
        assert (await client.do(f"CREATE x {parameters}"))[-1].startswith(b"BAD")
    assert not await client.ok('LIST "" x')


async def test_a_special_mailbox_that_is_made_anew_keeps_its_use(world: World) -> None:
    client = await world.login()
    await client.ok("DELETE Sent")
    await client.ok("CREATE Sent")
    assert await client.ok('LIST (SPECIAL-USE) "" *') == [b'* LIST (\\HasNoChildren \\Sent) "/" Sent']
    await client.ok("RENAME Sent Gone")
    await client.ok("CREATE Sent")
    assert await names(client, 'LIST (SPECIAL-USE) "" *') == [b"Gone"]  # one serves already
    await client.ok("CREATE Trash/2024")
    assert await names(client, 'LIST (SPECIAL-USE) "" T*') == [b"Trash"]


async def test_create_and_rename_make_the_superiors_that_are_missing(world: World) -> None:
    client = await world.login()
    await client.ok("CREATE a/b/c")
    assert await names(client, 'LIST "" a*') == [b"a", b"a/b", b"a/b/c"]
    assert b"\\Noselect" not in b"".join(await client.ok('LIST "" *'))
    await client.ok("SELECT a")
    await client.ok("RENAME a/b/c x/y/c")
    assert await names(client, 'LIST "" x*') == [b"x", b"x/y", b"x/y/c"]
    await client.ok("RENAME INBOX q/old")
    assert await names(client, 'LIST "" q*') == [b"q", b"q/old"]
    await client.ok("CREATE d/e/")
    assert await names(client, 'LIST "" d*') == [b"d", b"d/e"]


async def test_unsubscribing_what_was_never_subscribed_is_ok(world: World) -> None:
    client = await world.login()
    before = await client.ok('LSUB "" *')
    await client.ok("UNSUBSCRIBE nosuch")
    await client.ok("UNSUBSCRIBE " + "x" * 900)
    assert await client.ok('LSUB "" *') == before
    assert (await client.do("UNSUBSCRIBE &foo"))[-1].startswith(b"NO")


@pytest.mark.parametrize("command", ["LIST", "LSUB", "XLIST"])
@pytest.mark.parametrize("arguments", ['"" &foo', '"" &-&', '"" &AGE-', '"" {2+}\r\n\xff*', "&foo *", '"" *&'])
async def test_a_pattern_that_is_no_modified_utf_7_matches_nothing(world: World, command: str, arguments: str) -> None:
    client = await world.login()
    assert await client.ok(f"{command} {arguments}".encode("latin-1")) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("1-Jan-2020 00:00:00 +0000", b" 1-Jan-2020 00:00:00 +0000"),
        (" 1-Jan-2020 00:00:00 +0000", b" 1-Jan-2020 00:00:00 +0000"),
        ("01-Jan-2020 00:00:00 +0000", b" 1-Jan-2020 00:00:00 +0000"),
        ("31-Dec-2020 23:59:59 -0130", b"31-Dec-2020 23:59:59 -0130"),
    ],
)
async def test_append_takes_a_day_of_one_digit(world: World, given: str, told: bytes) -> None:
    client = await world.login("INBOX")
    assert (await client.append(b"A: b\r\n\r\n", arguments=f'"{given}"')).startswith(b"OK")
    assert await client.ok("FETCH 1 INTERNALDATE") == [b'* 1 FETCH (INTERNALDATE "%b")' % told]


async def test_a_full_size_id_is_taken_before_login(world: World) -> None:
    client = world.connect()
    await client.settle()
    client.take()
    pairs = " ".join(f'"{n:030}" "{"x" * 1024}"' for n in range(30))
    assert (await client.ok(f"ID ({pairs})"))[0].startswith(b"* ID (")
    assert (await client.do(f'ID ({pairs} "k" "v")'))[-1].startswith(b"BAD")


@pytest.mark.parametrize("commands", [1, 2, 5, 50])
async def test_a_client_that_leaves_in_mid_pipeline_is_no_error(
    world: World, commands: int, capfd: pytest.CaptureFixture[str]
) -> None:
    client = await world.login("INBOX")
    for n in range(20):
        await client.append(b"A: %d\r\n\r\nx" % n)
    pieces = [
        b"STORE 1:* +FLAGS (\\Seen)", b"FETCH 1:* (FLAGS BODY[])", b"COPY 1:5 Sent", b"MOVE 1:2 Sent", b"EXPUNGE",
        b"SEARCH BODY x", b"APPEND INBOX {3+}\r\nabc", b"CLOSE", b"SELECT Sent", b"CREATE z", b"UID EXPUNGE 1:*",
    ]  # fmt: skip
    for first in range(len(pieces)):
        leaver = await world.login("INBOX")
        batch = (pieces[first:] + pieces * 5)[:commands]
        leaver.protocol.data_received(b"".join(b"t %b\r\n" % each for each in batch))
        leaver.protocol.connection_lost(ConnectionResetError())
        leaver.transport.closed = True
        await leaver.settle()
        await client.do("NOOP")
    assert "imap.failed" not in capfd.readouterr().err  # the log has the descriptor
    assert world.server.sessions == 1
