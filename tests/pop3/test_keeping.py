"""EXPIRE, LOGIN-DELAY and what DELE does, as the settings say."""

import asyncio
import poplib
from pathlib import Path

import pytest

from fastmta.config.schema import Config
from fastmta.pop3.keeping import deleted_keyword, promises
from tests.pop3.fakes import PREFIX, Running, on_both_loops

DAY_S = 86_400.0


@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        ({}, (b"EXPIRE NEVER",)),
        ({"inbox_autoexpunge": 30 * DAY_S}, (b"EXPIRE 30",)),
        ({"inbox_autoexpunge": 2 * DAY_S - 1}, (b"EXPIRE 1",)),
        ({"inbox_autoexpunge": 3600.0}, (b"EXPIRE 0",)),
        ({"pop3_login_delay": 900.0}, (b"EXPIRE NEVER", b"LOGIN-DELAY 900")),
        ({"pop3_login_delay": 0.5}, (b"EXPIRE NEVER", b"LOGIN-DELAY 1")),
    ],
)
def test_capabilities_tell_the_settings(keys: dict[str, float], lines: tuple[bytes, ...]) -> None:
    assert promises(Config(**keys)) == lines  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "flag", "keyword"),
    [
        ("default", "", b""),
        ("default", "$POP3Deleted", b"$POP3Deleted"),
        ("flag", "$POP3Deleted", b"$POP3Deleted"),
        ("expunge", "$POP3Deleted", b""),
    ],
)
def test_dele_obeys_the_type_and_the_flag_as_in_dovecot(kind: str, flag: str, keyword: bytes) -> None:
    assert deleted_keyword(Config(pop3_delete_type=kind, pop3_deleted_flag=flag)) == keyword


@on_both_loops
async def test_deleted_messages_are_hidden_from_pop3_and_kept_for_imap(tmp_path: Path) -> None:
    async with Running(tmp_path, pop3_deleted_flag="$POP3Deleted") as server:
        texts = [b"Subject: %d\r\n\r\nno end of line" % n for n in range(3)]
        await server.fill(*texts)
        size = len(PREFIX + texts[0]) + 2

        def use(deleted: int, left: int) -> None:
            client = poplib.POP3("127.0.0.1", server.port, timeout=60)
            client.user("bill")
            client.pass_("secret word")
            assert client.stat() == (left, left * size)
            client.dele(deleted)
            client.quit()

        await asyncio.to_thread(use, 1, 3)
        await asyncio.to_thread(use, 2, 2)
        assert list(server.flags()) == [1, 2, 3]
        rows = server.mailboxes.rows(server.account.inbox_id)
        assert [row.keywords for row in rows] == [b"$POP3Deleted", b"", b"$POP3Deleted"]
        await server.mailboxes.set_flags(server.account.inbox_id, server.mailboxes.uids(server.account.inbox_id), 0, 0)
        await asyncio.to_thread(use, 1, 3)


@on_both_loops
async def test_a_login_too_soon_after_another_is_refused_with_its_code(tmp_path: Path) -> None:
    async with Running(tmp_path, pop3_login_delay=900.0) as server:
        now = [1000.0]
        server.services.limits._monotonic = lambda: now[0]

        def use() -> bytes:
            client = poplib.POP3("127.0.0.1", server.port, timeout=60)
            try:
                assert client.capa()["LOGIN-DELAY"] == ["900"]
                client.user("bill")
                return client.pass_("secret word")[:3]
            except poplib.error_proto as error:
                return bytes(error.args[0])
            finally:
                client.quit()

        assert await asyncio.to_thread(use) == b"+OK"
        refused = b"-ERR [LOGIN-DELAY] Mail may be checked once in 900 seconds"
        assert await asyncio.to_thread(use) == refused
        now[0] += 899.0
        assert await asyncio.to_thread(use) == refused, "a refused login is none, and lengthens nothing"
        now[0] += 1.0
        assert await asyncio.to_thread(use) == b"+OK"
