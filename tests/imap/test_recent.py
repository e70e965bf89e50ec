"""\\Recent (RFC 3501 §2.3.2): each message is it in one session."""

from typing import Any

import pytest

from fastmta.store.mailboxes import Mailboxes
from tests.imap.harness import World


@pytest.mark.parametrize("command", ["SELECT INBOX", "NOOP"])
async def test_what_another_takes_meanwhile_is_not_recent_here(
    world: World, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the claim and the look at the mailbox a message comes, and another session claims it."""
    one = await world.login("INBOX" if command == "NOOP" else "")
    other = await world.login()
    await other.append(b"Subject: 1\r\n\r\n")
    take_recent = Mailboxes.take_recent

    async def delayed(mailboxes: Any, mailbox_id: int) -> tuple[int, int]:
        taken = await take_recent(mailboxes, mailbox_id)
        monkeypatch.setattr(Mailboxes, "take_recent", take_recent)
        await other.append(b"Subject: 2\r\n\r\n")
        assert await take_recent(mailboxes, mailbox_id) == (2, 3)
        return taken

    monkeypatch.setattr(Mailboxes, "take_recent", delayed)
    assert b"* 1 RECENT" in await one.ok(command)
    flags = [b"\\Recent" in line for line in await one.ok("FETCH 1:2 FLAGS") if b"FETCH (" in line]
    assert flags == [True, False]
