"""QUOTA (RFC 9208)."""

from fastmta.config.values import parse_quota_rules
from tests.imap.harness import World


async def test_the_quota_is_told_in_units_of_1024(world: World) -> None:
    client = await world.login("INBOX")
    await world.store.accounts.set_quota("user@example.test", 10_240)
    await client.append(b"x" * 1025)
    assert await client.ok("GETQUOTAROOT INBOX") == [
        b'* QUOTAROOT INBOX "User quota"',
        b'* QUOTA "User quota" (STORAGE 2 10)',
    ]
    assert await client.ok('GETQUOTA "User quota"') == [b'* QUOTA "User quota" (STORAGE 2 10)']
    assert (await client.do("GETQUOTA other"))[-1].startswith(b"NO [NONEXISTENT]")
    await client.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    await client.append(b"y")
    assert (await client.ok("STATUS INBOX (DELETED-STORAGE)"))[0] == b"* STATUS INBOX (DELETED-STORAGE 1025)"
    assert (await client.append(b"x" * 10_000)).startswith(b"NO [OVERQUOTA]")


async def test_the_quota_of_messages_is_told_and_kept(world: World) -> None:
    client = await world.login("INBOX")
    assert b" QUOTA=RES-MESSAGE" in (await client.ok("CAPABILITY"))[0]
    await world.store.accounts.set_quota("user@example.test", quota_messages=2)
    await client.append(b"x")
    assert await client.ok("GETQUOTAROOT INBOX") == [
        b'* QUOTAROOT INBOX "User quota"',
        b'* QUOTA "User quota" (MESSAGE 1 2)',
    ]
    await client.append(b"x")
    assert (await client.append(b"x")).startswith(b"NO [OVERQUOTA]")
    assert (await client.do("COPY 1 Sent"))[-1].startswith(b"NO [OVERQUOTA]")
    await world.store.accounts.set_quota("user@example.test", 10_240)
    assert await client.ok('GETQUOTA "User quota"') == [b'* QUOTA "User quota" (STORAGE 1 10 MESSAGE 2 2)']


async def test_a_mailboxs_rule_lets_in_what_its_account_has_no_room_for(world: World) -> None:
    client = await world.login("INBOX")
    rules = world.store.quota_rules.change(parse_quota_rules(["*:storage=10K", "Trash:storage=+5K", "Junk:ignore"]))
    assert rules is not None
    await world.store.commit(rules)
    for name in ("Trash", "Junk"):
        await client.ok(f"CREATE {name}")
    await client.append(b"x" * 10_000)
    assert (await client.append(b"x" * 4000)).startswith(b"NO [OVERQUOTA]")
    assert (await client.append(b"x" * 4000, "Trash")).startswith(b"OK")
    assert (await client.do("COPY 1 Trash"))[-1].startswith(b"NO [OVERQUOTA]")
    assert (await client.append(b"x" * 40_000, "Junk")).startswith(b"OK")
    whole = b'* QUOTA "User quota" (STORAGE 14 10)'
    assert await client.ok("GETQUOTAROOT Trash") == [b'* QUOTAROOT Trash "User quota"', whole]
    assert await client.ok("GETQUOTAROOT Junk") == [b"* QUOTAROOT Junk"]
    await client.ok("MOVE 1 Trash")
