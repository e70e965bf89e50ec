"""An unprivileged user with a full spool, and with very many messages: the same outcome as for root, and bounded."""

import asyncio
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastmta.cli.failures import EX_TEMPFAIL
from fastmta.cli.init import initialise
from fastmta.config.load import load
from fastmta.model.limits import SPOOL_AT_ONCE
from fastmta.pickup.intake import post
from fastmta.pickup.spool import Drop, Ticket, deposit, make_spool
from tests.support.local_user import run_as
from tests.support.pickup import Services, close_services, open_services, pick_up

CONTENT = [b"Subject: x\n\n", b"body\n" * 20_000]
USERS = ("", "nobody") if os.geteuid() == 0 else ("",)
MESSAGES = 500


@pytest.fixture
def config_path() -> Iterator[Path]:
    """Its files lie where every user may pass."""
    directory = Path(tempfile.mkdtemp(prefix="fastmta-flood-"))
    directory.chmod(0o755)
    path = initialise(directory, domain="example.test")
    os.close(make_spool(load(path).data_directory))

    async def add() -> None:
        services: Services = await open_services(load(path))
        await services.store.accounts.add("bill@example.test", "hash")
        await close_services(services)

    asyncio.run(add())
    yield path
    shutil.rmtree(directory, ignore_errors=True)


def maildrop(config_path: Path) -> Path:
    return Path(load(config_path).data_directory) / "public" / "maildrop"


def leave(config_path: Path) -> None:
    ticket = Ticket("ann@example.test", [Drop("bill@example.test")])
    deposit(load(config_path).data_directory, ticket, iter(CONTENT), 0)


@pytest.mark.parametrize("call", ["fchmod", "fsync", "rename", "flush"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_spool_that_takes_no_more_keeps_nothing_of_a_message(
    config_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*_arguments: Any, **_names: Any) -> None:
        raise OSError(number, os.strerror(number))

    target = "fastmta.pickup.spool._flush_name" if call == "flush" else f"fastmta.pickup.spool.os.{call}"
    with monkeypatch.context() as patch:
        patch.setattr(target, fail)
        with pytest.raises(OSError, match=os.strerror(number)):
            leave(config_path)
    assert list(maildrop(config_path).iterdir()) == []
    leave(config_path)
    assert len(pick_up(config_path).named("pickup.received")) == 1


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "says"),
    [
        (("-f", "ann@example.test", "bill@example.test"), "Subject: x\n\n{}", EX_TEMPFAIL, "queue file write error"),
        (
            ("-bs",),
            "EHLO me\nMAIL FROM:<ann@example.test>\nRCPT TO:<bill@example.test>\nDATA\nSubject: x\n\n{}.\nNOOP\nQUIT\n",
            0,
            "451 4.3.0",
        ),
    ],
)
def test_sendmail_says_that_the_spool_is_full_and_leaves_nothing(
    config_path: Path,
    user: str,
    arguments: tuple[str, ...],
    stdin: str,
    code: int,
    says: str,
) -> None:
    """A limit of the file size stands for the full disk: the kernel refuses in the middle of the message."""
    text = stdin.format("line\n" * 100_000)
    done = run_as(user, config_path, "sendmail", *arguments, stdin=text, file_size=65_536)
    assert done.returncode == code, done.stderr
    assert says in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert list(maildrop(config_path).iterdir()) == []


def test_very_many_messages_are_each_taken_once_and_few_at_a_time(
    config_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastmta.pickup.spool.os.fsync", lambda _fd: None)  # it is not about the disk's speed
    directory = load(config_path).data_directory
    for n in range(MESSAGES):
        ticket = Ticket("ann@example.test", [Drop("bill@example.test" if n % 2 else f"u{n}@hold.test")])
        deposit(directory, ticket, iter([b"Subject: x\n\nbody\n"]), 0)
    at_once, most = 0, 0

    async def counted(*handed: Any) -> int:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        done = await post(*handed)
        at_once -= 1
        return done

    monkeypatch.setattr("fastmta.pickup.service.post", counted)
    received = pick_up(config_path).named("pickup.received")
    assert len({each["queue_id"] for each in received}) == len(received) == MESSAGES
    assert 1 < most <= SPOOL_AT_ONCE
    assert list(maildrop(config_path).iterdir()) == []
