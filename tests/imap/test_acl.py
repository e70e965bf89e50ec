"""Shared mailboxes (RFC 4314): who may do what, by every command; names, flags, quota and events across accounts."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from fastmta.model import rights
from tests.imap.harness import Client, World, make_world

MESSAGE = b"Subject: x\r\n\r\ntext\r\n"
WORK = '"Other Users/user@example.test/Work"'


class Shared(World):
    """The world's user has the mailbox Work; ann is somebody else."""

    ann_id = 0

    async def ann(self, mailbox: str = "") -> Client:
        client = self.connect()
        await client.settle()
        client.take()
        await client.ok("LOGIN ann@example.test secret")
        if mailbox:
            await client.ok(f"SELECT {mailbox}")
        return client


@pytest_asyncio.fixture(params=["memory", "lmdb"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shared]:
    made = await make_world(tmp_path, engine=request.param)
    made.__class__ = Shared
    ann = await made.store.accounts.add("ann@example.test", "x")
    made.services.authenticator.accounts["ann@example.test"] = ("secret", ann)
    made.ann_id = ann.id  # type: ignore[attr-defined]
    yield made  # type: ignore[misc]
    await made.close()


async def owner_of_work(world: Shared, given: str, messages: int = 1) -> Client:
    """The owner, after he has given ann these rights on a fresh mailbox Work with its inferior Work/below."""
    client = await world.login()
    for name in ("Work/new", "Work/below", "Work", "Work2"):
        await client.do(f"DELETE {name}")
    await client.ok("CREATE Work")
    for _ in range(messages):
        await client.append(MESSAGE, "Work")
    await client.ok(f'SETACL Work ann@example.test "{given}"')
    return client


# --- the commands of RFC 4314 ---


async def test_rights_are_told_as_dovecot_tells_them(world: Shared) -> None:
    owner = await owner_of_work(world, "lrc")
    assert await owner.ok("GETACL Work") == [b"* ACL Work user@example.test lrswipkxteacd ann@example.test lrkxc"]
    await owner.ok("SETACL Work ann@example.test lrd")
    assert b"ann@example.test lrted" in (await owner.ok("GETACL Work"))[0]
    await owner.ok("SETACL Work ann@example.test +s")
    await owner.ok("SETACL Work ann@example.test -te")
    assert b"ann@example.test lrs" in (await owner.ok("GETACL Work"))[0]
    await owner.ok("SETACL Work -ann@example.test r")
    assert (await owner.ok("GETACL Work"))[0].endswith(b" ann@example.test lrs -ann@example.test r")
    assert await owner.ok("MYRIGHTS Work") == [b"* MYRIGHTS Work lrswipkxteacd"]
    ann = await world.ann()
    assert await ann.ok(f"MYRIGHTS {WORK}") == [b"* MYRIGHTS %b ls" % WORK.encode()]
    await owner.ok("DELETEACL Work -ann@example.test")
    assert await ann.ok(f"MYRIGHTS {WORK}") == [b"* MYRIGHTS %b lrs" % WORK.encode()]
    await owner.ok("DELETEACL Work ann@example.test")
    await owner.ok("DELETEACL Work ann@example.test")
    assert (await ann.do(f"MYRIGHTS {WORK}"))[-1].startswith(b"NO [NONEXISTENT]")
    assert await owner.ok("LISTRIGHTS Work ann@example.test") == [
        b'* LISTRIGHTS Work ann@example.test "" l r s w i p k x t e a c d'
    ]
    assert await owner.ok("LISTRIGHTS Work user@example.test") == [b"* LISTRIGHTS Work user@example.test lrswipkxtea"]


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("SETACL Work ann@example.test lrz", b"BAD"),
        ("SETACL Work $group lr", b"NO [CANNOT]"),
        ("SETACL Work user@example.test lr", b"NO [CANNOT]"),
        ("SETACL Work anyone lr", b"NO [NOPERM]"),
        ("SETACL Work -authenticated lr", b"NO [NOPERM]"),
        ("SETACL Nowhere ann@example.test lr", b"NO [NONEXISTENT]"),
        ("GETACL Nowhere", b"NO [NONEXISTENT]"),
        ("DELETEACL Work nobody@example.test", b"OK"),
    ],
)
async def test_what_setacl_refuses(world: Shared, command: str, answer: bytes) -> None:
    owner = await owner_of_work(world, "lr")
    assert (await owner.do(command))[-1].startswith(answer)


async def test_everybody_may_be_given_rights_where_the_administrator_allows_it(world: Shared) -> None:
    world.services.config.acl_anyone = "allow"
    owner = await owner_of_work(world, "")
    await owner.ok("DELETEACL Work ann@example.test")
    await owner.ok("SETACL Work anyone lrs")
    await owner.ok("SETACL Work authenticated +i")
    await owner.ok("SETACL Work -ann@example.test s")
    ann = await world.ann()
    assert await ann.ok(f"MYRIGHTS {WORK}") == [b"* MYRIGHTS %b lri" % WORK.encode()]
    assert any(WORK.encode() in line for line in await ann.ok('LIST "" *'))


# --- every command and every right ---

Does = Callable[[Client], Awaitable[bool]]


async def _says_ok(client: Client, command: str) -> bool:
    return (await client.do(command))[-1].startswith(b"OK")


def _command(text: str) -> Does:
    async def does(client: Client) -> bool:
        return await _says_ok(client, text)

    return does


def _selected(text: str, word: bytes) -> Does:
    """A command in the selected mailbox, and what shows there or in its answer that it has done something."""

    async def does(client: Client) -> bool:
        if not (await client.do(f"SELECT {WORK}"))[-1].startswith(b"OK"):
            return False
        said = b"\n".join(await client.do(text)) + b"\n".join(await client.do("UID FETCH 1:* FLAGS"))
        return word in said

    return does


async def _append(client: Client) -> bool:
    return (await client.append(MESSAGE, WORK)).startswith(b"OK")


async def _copy_in(client: Client) -> bool:
    await client.append(MESSAGE, "INBOX")
    await client.ok("SELECT INBOX")
    return await _says_ok(client, f"COPY 1 {WORK}")


async def _close(client: Client) -> bool:
    """CLOSE, which expunges what is \\Deleted; Work has such a message."""
    if not (await client.do(f"SELECT {WORK}"))[-1].startswith(b"OK"):
        return False
    await client.ok("CLOSE")
    return b"* 0 EXISTS" in await client.do(f"EXAMINE {WORK}")


async def _is_listed(client: Client) -> bool:
    return any(WORK.encode() in line for line in await client.ok('LIST "" "*"'))


ANY_OF = {
    "LIST": (_is_listed, "l"),
    "LIST-STATUS": (_selected('LIST "" "Other Users/*" RETURN (STATUS (MESSAGES))', b"* STATUS"), "lr"),
    "SUBSCRIBE": (_command(f"SUBSCRIBE {WORK}"), "l"),
    "STATUS": (_command(f"STATUS {WORK} (MESSAGES)"), "r"),
    "SELECT": (_command(f"SELECT {WORK}"), "r"),
    "EXAMINE": (_command(f"EXAMINE {WORK}"), "r"),
    "FETCH": (_selected("FETCH 1 BODY.PEEK[]", b"Subject: x"), "r"),
    "FETCH marks": (_selected("FETCH 1 BODY[]", b"\\Seen"), "rs"),
    "SEARCH": (_selected("SEARCH ALL", b"* SEARCH 1"), "r"),
    "COPY from": (_selected("COPY 1 INBOX", b"COPYUID"), "r"),
    "COPY to": (_copy_in, "i"),
    "APPEND": (_append, "i"),
    "STORE seen": (_selected("STORE 1 +FLAGS.SILENT (\\Seen)", b"\\Seen"), "rs"),
    "STORE flagged": (_selected("STORE 1 +FLAGS.SILENT (\\Flagged)", b"\\Flagged"), "rw"),
    "STORE keyword": (_selected("STORE 1 +FLAGS.SILENT (key)", b"key)"), "rw"),
    "STORE deleted": (_selected("STORE 1 -FLAGS.SILENT (\\Deleted)", b"FLAGS ()"), "rt"),
    "EXPUNGE": (_selected("EXPUNGE", b"* 1 EXPUNGE"), "re"),
    "UID EXPUNGE": (_selected("UID EXPUNGE 1:*", b"* 1 EXPUNGE"), "re"),
    "CLOSE": (_close, "re"),
    "MOVE": (_selected("MOVE 1 INBOX", b"COPYUID"), "re"),
    "CREATE": (_command(f'CREATE {WORK[:-1]}/new"'), "k"),
    "DELETE": (_command(f"DELETE {WORK}"), "x"),
    "RENAME": (_command(f'RENAME {WORK} {WORK[:-1]}2"'), ""),  # needs a right on what is above, which nobody has
    "GETACL": (_command(f"GETACL {WORK}"), "a"),
    "SETACL": (_command(f"SETACL {WORK} ann@example.test +lra"), "a"),
    "DELETEACL": (_command(f"DELETEACL {WORK} ann@example.test"), "a"),
    "LISTRIGHTS": (_command(f"LISTRIGHTS {WORK} ann@example.test"), "a"),
    "GETMETADATA": (_command(f"GETMETADATA {WORK} /shared/comment"), "r"),
    "SETMETADATA private": (_command(f'SETMETADATA {WORK} (/private/comment "x")'), "r"),
    "SETMETADATA shared": (_command(f'SETMETADATA {WORK} (/shared/comment "x")'), "w"),
    "GETQUOTAROOT": (_command(f"GETQUOTAROOT {WORK}"), "r"),
}


@pytest.mark.parametrize("name", ANY_OF)
async def test_each_command_needs_its_rights_and_no_other(world: Shared, name: str) -> None:
    """With all rights but one, and with those alone that it needs."""
    does, needed = ANY_OF[name]
    every = rights.LETTERS
    tried = [every.replace(letter, "") for letter in every]
    tried += [needed, needed + "p", every]
    for given in tried:
        owner = await owner_of_work(world, given)
        await owner.ok("SELECT Work")
        await owner.ok("STORE 1 +FLAGS (\\Deleted)")
        await owner.ok("UNSELECT")
        ann = await world.ann()
        expected = bool(needed) and set(needed) <= set(given)
        assert await does(ann) is expected, (name, given)
        for client in (owner, ann):
            await client.do("LOGOUT")
            client.transport.close()
            await client.settle()


async def test_without_any_right_a_mailbox_does_not_exist(world: Shared) -> None:
    await owner_of_work(world, "")
    ann = await world.ann()
    for name in (WORK, '"Other Users/user@example.test/Nowhere"', '"Other Users/no@example.test/INBOX"'):
        for command in (f"SELECT {name}", f"STATUS {name} (MESSAGES)", f"DELETE {name}", f"GETACL {name}"):
            assert (await ann.do(command))[-1].startswith(b"NO [NONEXISTENT]"), command
    assert (await ann.append(MESSAGE, WORK)).startswith(b"NO [TRYCREATE]")
    assert (await ann.do(f'CREATE {WORK[:-1]}/x"'))[-1].startswith(b"NO [NOPERM]")
    assert (await ann.do('CREATE "Other Users/x"'))[-1].startswith(b"NO [NOPERM]")


async def test_all_rights_that_are_told_come_to_every_letter() -> None:
    for count in range(3):
        for chosen in itertools.combinations(rights.LETTERS, count):
            held = rights.parse("".join(chosen))
            assert held is not None
            assert rights.letters(held) == "".join(chosen)
            assert rights.parse(rights.with_virtual(held)) is not None
    assert rights.parse_words("lookup, read write-seen") == rights.parse("lrs")
    assert rights.parse_words("lookup see") is None


# --- flags ---


async def test_store_that_replaces_keeps_what_may_not_be_changed(world: Shared) -> None:
    owner = await owner_of_work(world, "lrsw")
    await owner.ok("SELECT Work")
    await owner.ok("STORE 1 FLAGS (\\Deleted \\Flagged old)")
    ann = await world.ann(WORK)
    await ann.ok("STORE 1 FLAGS (\\Seen new)")
    assert b"FLAGS (\\Deleted \\Seen new)" in (await ann.ok("FETCH 1 FLAGS"))[-1].replace(
        b"\\Seen \\Deleted", b"\\Deleted \\Seen"
    )
    await owner.ok("SETACL Work ann@example.test lrt")
    await ann.ok("STORE 1 FLAGS ()")
    assert b"FLAGS (\\Seen new)" in (await ann.ok("FETCH 1 FLAGS"))[-1]


async def test_flags_that_may_not_be_set_are_left_out_of_what_comes_in(world: Shared) -> None:
    owner = await owner_of_work(world, "lrit", messages=0)
    ann = await world.ann("INBOX")
    assert (await ann.append(MESSAGE, WORK, "(\\Seen \\Deleted \\Flagged key)")).startswith(b"OK")
    await ann.append(MESSAGE, "INBOX", "(\\Seen \\Deleted \\Flagged key)")
    await ann.ok("NOOP")
    await ann.ok(f"COPY 1 {WORK}")
    await owner.ok("EXAMINE Work")
    assert await owner.ok("UID FETCH 1:* FLAGS") == [
        b"* 1 FETCH (UID 1 FLAGS (\\Deleted \\Recent))",
        b"* 2 FETCH (UID 2 FLAGS (\\Deleted \\Recent))",
    ]


async def test_permanent_flags_are_those_that_may_be_changed(world: Shared) -> None:
    owner = await owner_of_work(world, "lrs")
    ann = await world.ann()
    lines = await ann.do(f"SELECT {WORK}")
    assert b"* OK [PERMANENTFLAGS (\\Seen)] Flags permitted" in lines
    assert lines[-1].startswith(b"OK [READ-WRITE]")
    await owner.ok("SETACL Work ann@example.test lr")
    assert (await ann.do(f"SELECT {WORK}"))[-1].startswith(b"OK [READ-ONLY]")


# --- names ---


async def test_namespaces_and_lists(world: Shared) -> None:
    owner = await owner_of_work(world, "lr")
    await owner.ok("CREATE Work/below")
    await owner.ok("SETACL INBOX ann@example.test lr")
    ann = await world.ann()
    assert await ann.ok("NAMESPACE") == [b'* NAMESPACE (("" "/")) (("Other Users/" "/")) NIL']
    lines = await ann.ok('LIST "" "Other*"')
    assert lines == [
        b'* LIST (\\Noselect \\HasChildren) "/" "Other Users"',
        b'* LIST (\\Noselect \\HasChildren) "/" "Other Users/user@example.test"',
        b'* LIST (\\HasNoChildren) "/" "Other Users/user@example.test/INBOX"',
        b'* LIST (\\HasChildren) "/" "Other Users/user@example.test/Work"',
        b'* LIST (\\HasNoChildren) "/" "Other Users/user@example.test/Work/below"',
    ]
    assert (await ann.ok('LIST "" "%"'))[-1] != lines[0]
    assert lines[0] in await ann.ok('LIST "" "%"')
    assert (await ann.do('DELETE "Other Users/user@example.test/INBOX"'))[-1].startswith(b"NO")
    assert await ann.ok('STATUS "Other Users/USER@example.test/inbox" (MESSAGES)')
    told = await ann.ok(f'LIST "" {WORK} RETURN (MYRIGHTS STATUS (MESSAGES))')
    assert told[1:] == [b"* MYRIGHTS %b lr" % WORK.encode(), b"* STATUS %b (MESSAGES 1)" % WORK.encode()]
    await ann.ok(f"SUBSCRIBE {WORK}")
    assert b'* LSUB () "/" %b' % WORK.encode() in await ann.ok('LSUB "" "*"')
    assert not [line for line in await owner.ok('LIST "" "*"') if b"Other" in line]


async def test_new_mailboxes_begin_with_what_the_one_above_gives(world: Shared) -> None:
    owner = await owner_of_work(world, "lrk")
    ann = await world.ann()
    await ann.ok(f'CREATE {WORK[:-1]}/a/b"')
    assert b"ann@example.test lrk" in (await owner.ok("GETACL Work/a/b"))[0]
    assert b"ann@example.test lrk" in (await owner.ok("GETACL Work/a"))[0]
    await owner.ok("RENAME Work/a Elsewhere")
    assert b"ann@example.test lrk" in (await owner.ok("GETACL Elsewhere"))[0]
    assert any(b"Elsewhere/b" in line for line in await ann.ok('LIST "" *'))


async def test_rename_stays_in_an_account(world: Shared) -> None:
    owner = await owner_of_work(world, "lrkx")
    await owner.ok("CREATE Work/below")
    ann = await world.ann()
    assert (await ann.do(f'RENAME {WORK[:-1]}/below" Mine'))[-1].startswith(b"NO [CANNOT]")
    assert (await ann.do(f'RENAME Sent {WORK[:-1]}/sent"'))[-1].startswith(b"NO [CANNOT]")
    await ann.ok(f'RENAME {WORK[:-1]}/below" {WORK[:-1]}/renamed"')
    assert any(b"Work/renamed" in line for line in await owner.ok('LIST "" *'))


async def test_own_mailboxes_from_before_go_first(world: Shared) -> None:
    await owner_of_work(world, "lr")
    ann = await world.ann()
    name = "Other Users/user@example.test/Work"
    await world.store.mailboxes.create(world.ann_id, name)
    await ann.append(MESSAGE, WORK)
    await ann.append(MESSAGE, WORK)
    assert await ann.ok(f"STATUS {WORK} (MESSAGES)") == [b"* STATUS %b (MESSAGES 2)" % WORK.encode()]
    assert sum(WORK.encode() in line for line in await ann.ok('LIST "" *')) == 1


async def test_public_mailboxes(world: Shared) -> None:
    public = await world.store.accounts.add("public@example.test", "x")
    world.store.access.public_address = "public@example.test"
    box = await world.store.mailboxes.create(public.id, "News")
    await world.store.access_lists.change(public.id, box.id, "anyone", rights.parse("lri") or 0)
    ann = await world.ann()
    assert (await ann.ok("NAMESPACE"))[0].endswith(b'(("Other Users/" "/")) (("Shared/" "/"))')
    assert b'* LIST (\\HasNoChildren) "/" Shared/News' in await ann.ok('LIST "" "*"')
    assert (await ann.append(MESSAGE, "Shared/News")).startswith(b"OK")
    assert (await ann.do("CREATE Shared/Mine"))[-1].startswith(b"NO [NOPERM]")
    assert (await ann.do('SELECT "Other Users/public@example.test/News"'))[-1].startswith(b"NO [NONEXISTENT]")
    world.store.access.public_address = ""
    await ann.ok("CREATE Shared/Mine")  # without a public account it is a name like any other


async def test_an_address_with_a_separator(world: Shared) -> None:
    odd = await world.store.accounts.add("a/b@example.test", "x")
    box = await world.store.mailboxes.create(odd.id, "x@y/z")
    await world.store.access_lists.change(odd.id, box.id, "ann@example.test", rights.parse("lr") or 0)
    ann = await world.ann()
    name = '"Other Users/a/b@example.test/x@y/z"'
    assert any(name.encode() in line for line in await ann.ok('LIST "" *'))
    await ann.ok(f"SELECT {name}")


# --- what goes along ---


async def test_the_owner_pays(world: Shared) -> None:
    owner = await owner_of_work(world, "lri")
    used = world.store.mailboxes.usage(world.account_id)[0]
    await world.store.accounts.set_quota("user@example.test", used + 1)
    ann = await world.ann()
    assert (await ann.append(MESSAGE, WORK)).startswith(b"NO [OVERQUOTA]")
    assert (await ann.append(MESSAGE, "INBOX")).startswith(b"OK")
    assert await ann.ok(f"GETQUOTAROOT {WORK}") == [b"* QUOTAROOT %b" % WORK.encode()]
    assert len(await owner.ok("GETQUOTAROOT Work")) == 2


async def test_idle_hears_of_what_others_do(world: Shared) -> None:
    owner = await owner_of_work(world, "lrs")
    ann = await world.ann(WORK)
    await ann.send(b"i IDLE\r\n")
    await owner.append(MESSAGE, "Work")
    await ann.settle()
    assert b"* 2 EXISTS" in ann.take()
    await owner.ok("SETACL Work ann@example.test l")
    await owner.append(MESSAGE, "Work")
    await ann.settle()
    assert b"* BYE" in ann.take()


async def test_a_right_to_read_that_is_taken_away_ends_the_session(world: Shared) -> None:
    owner = await owner_of_work(world, "lr")
    ann = await world.ann(WORK)
    await owner.ok("DELETEACL Work ann@example.test")
    assert b"* BYE" in await ann.send(b"f FETCH 1 BODY.PEEK[]\r\n")


async def test_annotations_are_the_owners_where_they_are_shared(world: Shared) -> None:
    owner = await owner_of_work(world, "lrw")
    ann = await world.ann()
    await ann.ok(f'SETMETADATA {WORK} (/shared/comment "ours" /private/comment "mine")')
    assert await owner.ok("GETMETADATA Work (/shared/comment /private/comment)") == [
        b'* METADATA Work (/shared/comment "ours" /private/comment NIL)'
    ]
    assert b'/private/comment "mine"' in (await ann.ok(f"GETMETADATA (DEPTH infinity) {WORK} /private"))[0]


async def test_esearch_looks_into_what_may_be_read(world: Shared) -> None:
    owner = await owner_of_work(world, "lr")
    ann = await world.ann()
    found = await ann.ok('ESEARCH IN (SUBTREE "Other Users") ALL')
    assert [WORK.encode() in line for line in found] == [True]
    assert not await ann.ok("ESEARCH IN (PERSONAL) ALL")
    await owner.ok("SETACL Work ann@example.test l")
    assert not await ann.ok('ESEARCH IN (SUBTREE "Other Users") ALL')


async def test_esearch_of_the_selected_mailbox_names_it_as_the_session_does(world: Shared) -> None:
    owner = await owner_of_work(world, "lr")
    ann = await world.ann(WORK)
    assert WORK.encode() in (await ann.ok("ESEARCH IN (SELECTED) RETURN (ALL) ALL"))[0]
    await owner.ok("DELETEACL Work ann@example.test")
    said = await ann.send(b"e ESEARCH IN (SELECTED) RETURN (ALL) BODY text\r\n")
    assert b"* BYE" in said and b"ESEARCH" not in said


async def test_no_url_leads_into_a_mailbox_that_may_not_be_read_any_more(world: Shared) -> None:
    owner = await owner_of_work(world, "lr")
    ann = await world.ann(WORK)
    await ann.ok('APPEND INBOX CATENATE (URL "/;UID=1")')
    await owner.ok("DELETEACL Work ann@example.test")
    await ann.send(b'e APPEND INBOX CATENATE (URL "/;UID=1")\r\n')
    assert b"(MESSAGES 1)" in (await (await world.ann()).ok("STATUS INBOX (MESSAGES)"))[0]


@pytest.mark.parametrize("name", ["", "/", "/Other Users/x", "/Other Users/ann@example.test/x"])
async def test_what_is_ones_own_is_not_made_to_look_like_others(world: Shared, name: str) -> None:
    owner = await owner_of_work(world, "lr")
    for command in ("CREATE", "RENAME Work2", "RENAME Work"):
        answer = (await owner.do(f'{command} "Other Users/user@example.test{name}"'))[-1]
        assert answer.startswith((b"NO [NOPERM]", b"NO [NONEXISTENT]"))
    assert not [line for line in await owner.ok('LIST "" *') if b"Other" in line]
    await owner.ok('CREATE "Other Users/user@example.test/Work/mine"')
    await owner.ok("DELETE Work/mine")


@pytest.mark.parametrize("spelled", ["Other Users/USER@Example.Test/Work/below", "Other Users/user@example.test/inbox"])
async def test_a_subscription_is_of_the_name_that_list_has(world: Shared, spelled: str) -> None:
    owner = await owner_of_work(world, "lr")
    for name in ("Work/below", "INBOX"):
        await owner.do(f"CREATE {name}")
        await owner.ok(f"SETACL {name} ann@example.test lr")
    ann = await world.ann()
    await ann.ok(f'SUBSCRIBE "{spelled}"')
    (line,) = [line for line in await ann.ok('LIST (SUBSCRIBED) "" *') if b"Other" in line]
    assert b"NonExistent" not in line
    await ann.ok(f'UNSUBSCRIBE "{spelled}"')
    assert not [line for line in await ann.ok('LSUB "" *') if b"Other" in line]
    await owner.ok("DELETEACL INBOX ann@example.test")


async def test_a_right_that_is_taken_away_reaches_idle_at_once(world: Shared) -> None:
    owner = await owner_of_work(world, "lr")
    ann = await world.ann(WORK)
    await ann.send(b"i IDLE\r\n")
    await owner.ok("SUBSCRIBE Work")  # of no concern
    await ann.settle()
    assert ann.take() == b""
    await owner.ok("DELETEACL Work ann@example.test")
    await ann.settle()
    assert ann.take().startswith(b"* BYE ")
    assert ann.transport.closed


async def test_whether_a_name_is_an_accounts_is_not_told(world: Shared) -> None:
    owner = await owner_of_work(world, "lr")
    answers = [await owner.do(f"SETACL Work {name}@example.test lrs") for name in ("ann", "nobody")]
    assert answers[0] == answers[1]
    assert await owner.ok("GETACL Work") == [
        b"* ACL Work user@example.test lrswipkxteacd ann@example.test lrs nobody@example.test lrs"
    ]
    for name in ("ann", "nobody"):
        assert (await owner.do(f"SETACL Work {name}@example.test +t"))[-1] == b"OK SETACL completed"
    assert (await owner.ok("GETACL Work"))[0].endswith(b" ann@example.test lrstd nobody@example.test lrstd")
    # Who gets that name later has nothing of it, until he is named again; and then he stands there once.
    nobody = await world.store.accounts.add("nobody@example.test", "x")
    assert not world.store.access_lists.rights(nobody.id, world.account_id, 0)
    await owner.ok("SETACL Work nobody@example.test l")
    assert (await owner.ok("GETACL Work"))[0].endswith(b" ann@example.test lrstd nobody@example.test l")
    await owner.ok("DELETEACL Work nobody@example.test")
    assert (await owner.ok("GETACL Work"))[0].endswith(b" ann@example.test lrstd")
    assert (await owner.do(f"SETACL Work {'x' * 400} l"))[-1].startswith(b"NO ")


async def test_a_group_has_what_it_is_given_and_a_negative_entry_takes_it(world: Shared) -> None:
    owner = await owner_of_work(world, "")
    await owner.ok("DELETEACL Work ann@example.test")
    await world.store.groups.add("sales", world.ann_id)
    ann = await world.ann()
    assert await ann.ok('LIST "" "Other Users/%"') == []
    await owner.ok("SETACL Work $sales lrs")
    assert await owner.ok("GETACL Work") == [b"* ACL Work user@example.test lrswipkxteacd $sales lrs"]
    await ann.ok(f"SELECT {WORK}")
    assert await ann.ok(f"MYRIGHTS {WORK}") == [b'* MYRIGHTS "Other Users/user@example.test/Work" lrs']
    await owner.ok("SETACL Work -$sales s")
    assert await ann.ok(f"MYRIGHTS {WORK}") == [b'* MYRIGHTS "Other Users/user@example.test/Work" lr']
    await ann.ok("UNSELECT")
    await owner.ok("SETACL Work -ann@example.test lr")
    assert (await ann.do(f"STATUS {WORK} (MESSAGES)"))[-1].startswith(b"NO")
    await owner.ok("DELETEACL Work -ann@example.test")
    await world.store.groups.remove("sales", world.ann_id)
    assert (await ann.do(f"STATUS {WORK} (MESSAGES)"))[-1].startswith(b"NO")
    assert await ann.ok('LIST "" "Other Users/%"') == []
