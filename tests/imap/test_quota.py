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
