"""QUOTA (RFC 9208)."""

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
