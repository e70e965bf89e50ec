"""Picking up: what lies in the spool is taken once, whatever hostile users lay beside it."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fastmta.cli.init import initialise
from fastmta.config.load import load
from fastmta.model import limits
from fastmta.model.errors import StorageFailure
from fastmta.pickup.intake import post, resolve
from fastmta.pickup.service import Pickup
from fastmta.pickup.spool import Drop, NoSpool, Ticket, TooBig, deposit, is_spool_name, make_spool
from fastmta.runtime.metrics import METRICS
from tests.support.pickup import Services, close_services, open_services, pick_up, settled

REPOSITORY = Path(__file__).parents[2]
TO_BILL = Ticket("ann@example.test", [Drop("bill@example.test")])
CONTENT = [b"Subject: x\n\n", b"body\n"]


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = initialise(tmp_path, domain="example.test")
    os.close(make_spool(load(path).data_directory))
    run(path, _add_bill)
    return path


async def _add_bill(services: Services, pickup: Pickup) -> None:
    await services.store.accounts.add("bill@example.test", "hash")


def run(config_path: Path, scene: Callable[[Services, Pickup], Awaitable[None]]) -> Services:
    async def inner() -> Services:
        services = await open_services(load(config_path))
        pickup = Pickup(services)
        try:
            await scene(services, pickup)
            await settled(pickup)
            await pickup.stop()
        finally:
            await close_services(services)
        return services

    return asyncio.run(inner())


def data_of(config_path: Path) -> str:
    return load(config_path).data_directory


def maildrop(config_path: Path) -> Path:
    return Path(data_of(config_path)) / "public" / "maildrop"


def leave(config_path: Path, ticket: Ticket = TO_BILL, limit: int = 0) -> None:
    deposit(data_of(config_path), ticket, iter(CONTENT), limit)


def test_everybody_may_create_and_nobody_may_list(config_path: Path) -> None:
    assert maildrop(config_path).stat().st_mode & 0o7777 == 0o1733
    assert Path(data_of(config_path)).stat().st_mode & 0o011 == 0o011
    leave(config_path)
    (file,) = maildrop(config_path).iterdir()
    assert is_spool_name(file.name)


def test_a_message_is_taken_once_counted_and_removed(config_path: Path) -> None:
    leave(config_path)

    async def scene(services: Services, pickup: Pickup) -> None:
        pickup.start()

    services = run(config_path, scene)
    assert services.cells[METRICS.messages_received_total] == 1
    assert services.cells[METRICS.received_bytes_total] > 100
    assert services.cells[METRICS.deliveries_total["local", "delivered"]] == 1
    assert list(maildrop(config_path).iterdir()) == []
    assert pick_up(config_path).named("pickup.received") == []


def test_what_is_no_message_is_removed_and_never_followed(config_path: Path, tmp_path: Path) -> None:
    box, secret = maildrop(config_path), tmp_path / "secret"
    secret.write_bytes(TO_BILL.encode() + b"\nsecret\n")
    (box / ("a" * 32)).symlink_to(secret)
    os.link(secret, box / ("b" * 32))
    os.mkfifo(box / ("c" * 32))
    (box / ("d" * 32)).mkdir()
    (box / ("e" * 32)).write_text("garbage")
    (box / ("f" * 32)).write_bytes(TO_BILL.encode()[:-2])
    (box / ("0" * 32)).write_bytes(b"FastMTA spool 1\nSx\nRa\x00b\n\n\n")
    (box / ("1" * 32)).write_bytes(b"FastMTA spool 1\nR" + b"x" * 200_000)
    (box / "full").mkdir()
    (box / "full" / "x").touch()
    os.mknod(box / ("2" * 32), stat.S_IFSOCK | 0o600)
    leave(config_path)
    log = pick_up(config_path)
    assert len(log.named("pickup.received")) == 1
    assert len(log.named("pickup.dropped")) == 9
    assert [path.name for path in box.iterdir()] == ["full"]
    assert secret.exists()


def test_what_has_no_name_of_the_spool_is_removed_and_told(config_path: Path, tmp_path: Path) -> None:
    box = maildrop(config_path)
    (box / "other name").write_text("x")
    (box / ".hidden").symlink_to(tmp_path)
    (box / "folder").mkdir()
    (box / "full").mkdir()
    (box / "full" / "x").touch()
    dropped = pick_up(config_path).named("pickup.dropped")
    assert sorted(each["file"] for each in dropped) == [".hidden", "folder", "other name"]
    assert [path.name for path in box.iterdir()] == ["full"]


def test_of_messages_to_many_one_at_a_time_is_in_memory(config_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = Ticket("ann@example.test", [Drop(f"u{n}@hold.test") for n in range(6000)])
    for _ in range(6):
        leave(config_path, many)
    leave(config_path, TO_BILL)
    reading, most = 0, 0

    async def counted(services: Any, judge: Any, handed: Any, letter: Any, name: str) -> int:
        nonlocal reading, most
        reading += len(handed.recipients) > 1
        most = max(most, reading)
        done = await post(services, judge, handed, letter, name)
        reading -= len(handed.recipients) > 1
        return done

    monkeypatch.setattr("fastmta.pickup.service.post", counted)
    received = pick_up(config_path).named("pickup.received")
    assert (sorted(each["recipients"] for each in received), most) == ([1] + [6000] * 6, 1)


def test_a_dropped_file_is_told_up_to_a_bound(config_path: Path) -> None:
    for n in range(300):
        (maildrop(config_path) / f"{n:032x}").touch()
    dropped = pick_up(config_path).named("pickup.dropped")
    assert len(dropped) == 11
    assert dropped[-1] == {"more": 290}
    assert list(maildrop(config_path).iterdir()) == []


def test_an_unfinished_file_is_kept_for_its_writer_and_then_removed(
    config_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = maildrop(config_path) / ("." + "0" * 32)
    path.touch()
    pick_up(config_path)
    assert path.exists()
    monkeypatch.setattr("fastmta.pickup.service.SPOOL_ABANDONED_S", -1.0)
    pick_up(config_path)
    assert not path.exists()


def test_messages_beside_thousands_of_strange_names_are_all_taken(config_path: Path) -> None:
    box = maildrop(config_path)
    for n in range(3000):
        (box / f"x{n}").touch()
    for _ in range(100):
        leave(config_path)
    assert len(pick_up(config_path).named("pickup.received")) == 100
    assert list(box.iterdir()) == []


def test_others_get_their_turn_while_many_names_are_looked_at(
    config_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastmta.pickup.service.SPOOL_ENTRIES_A_TURN", 2)
    for n in range(200):
        (maildrop(config_path) / f"x{n}").mkdir()
        (maildrop(config_path) / f"x{n}" / "y").touch()
    turns = 0

    async def scene(services: Services, pickup: Pickup) -> None:
        nonlocal turns
        pickup.start()
        while pickup._running is not None:
            turns += 1
            await asyncio.sleep(0)

    run(config_path, scene)
    assert turns >= 100


def test_without_room_mail_stays_in_the_spool(config_path: Path) -> None:
    leave(config_path)

    async def scene(services: Services, pickup: Pickup) -> None:
        services.has_room = False
        pickup.start()

    run(config_path, scene)
    assert len(list(maildrop(config_path).iterdir())) == 1


def test_a_failed_commit_keeps_the_file(config_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(config_path)

    async def scene(services: Services, pickup: Pickup) -> None:
        async def refuse(unit: object) -> None:
            raise StorageFailure("the store is full")

        monkeypatch.setattr(services.store, "commit", refuse)
        pickup.start()

    services = run(config_path, scene)
    assert services.cells[METRICS.messages_received_total] == 0
    assert len(pick_up(config_path).named("pickup.received")) == 1


def test_an_unexpected_failure_is_logged_and_does_not_end_the_others(
    config_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(config_path)
    leave(config_path, Ticket("ann@example.test", [Drop("boom@example.test")]))

    async def scene(services: Services, pickup: Pickup) -> None:
        def fail(services: Services, drops: list[Drop], refusal: object = None) -> object:
            if drops[0].address.startswith("boom"):
                raise RuntimeError("a bug")
            return resolve(services, drops)

        monkeypatch.setattr("fastmta.pickup.intake.resolve", fail)
        pickup.start()

    services = run(config_path, scene)
    assert len(services.log.named("pickup.failed")) == 1
    assert services.cells[METRICS.messages_received_total] == 1
    assert len(list(maildrop(config_path).iterdir())) == 1


def test_one_worker_picks_up_and_the_next_takes_over(config_path: Path) -> None:
    async def scene(services: Services, first: Pickup) -> None:
        second = Pickup(services)
        first.start()
        second.start()
        assert (first._locked, second._locked) == (True, False)
        await first.stop()
        second.tick()
        assert second._locked
        await second.stop()

    run(config_path, scene)


def test_a_datagram_wakes_and_a_flood_of_them_is_heard_a_hundred_times_a_second(config_path: Path) -> None:
    async def scene(services: Services, pickup: Pickup) -> None:
        pickup.start()
        await settled(pickup)
        leave(config_path)
        async with asyncio.timeout(60):
            while not services.log.named("pickup.received"):  # noqa: ASYNC110 - the log only keeps
                await asyncio.sleep(0)
        looks = 0
        look = pickup._look

        def counted() -> None:
            nonlocal looks
            looks += 1
            look()

        pickup._look = counted  # type: ignore[method-assign]
        public = maildrop(config_path).parent
        start = services.loop.time()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            while services.loop.time() - start < 0.1:
                try:
                    sock.sendto(b"", str(public / "pickup"))
                except BlockingIOError:
                    pass
                await asyncio.sleep(0)
        assert 1 <= looks <= 12

    run(config_path, scene)


@pytest.mark.parametrize(("size", "fits"), [(16, True), (17, True), (18, False)])
def test_a_message_over_the_limit_leaves_nothing(config_path: Path, size: int, fits: bool) -> None:
    def write() -> None:
        deposit(data_of(config_path), TO_BILL, iter([b"x" * size]), 17)

    if fits:
        write()
    else:
        with pytest.raises(TooBig):
            write()
    assert len(list(maildrop(config_path).iterdir())) == fits


def test_a_limit_that_was_lowered_is_told_by_a_report(config_path: Path) -> None:
    deposit(data_of(config_path), TO_BILL, iter([b"\n", *([b"x" * 70 + b"\n"] * 10_000)]), 0)

    async def scene(services: Services, pickup: Pickup) -> None:
        import msgspec

        services.config = msgspec.structs.replace(services.config, message_size_limit=100_000)
        pickup.start()

    services = run(config_path, scene)
    assert services.cells[METRICS.messages_received_total] == 1
    assert services.cells[METRICS.deliveries_total["local", "delivered"]] == 0
    assert services.cells[METRICS.received_bytes_total] < 200_000


def test_the_bounds_of_a_ticket(config_path: Path) -> None:
    many = [Drop(f"u{n}@away.test") for n in range(limits.SENDMAIL_RECIPIENTS)]
    leave(config_path, Ticket("", many))
    assert pick_up(config_path).named("pickup.received")[0]["recipients"] == limits.SENDMAIL_RECIPIENTS
    leave(config_path, Ticket("", [*many, *many[:2]]))
    assert len(pick_up(config_path).named("pickup.dropped")) == 1


def test_a_swapped_spool_directory_is_not_followed(config_path: Path, tmp_path: Path) -> None:
    """The data directory's owner may lay a link there; nobody writes through it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    box = maildrop(config_path)
    box.rename(tmp_path / "gone")
    box.symlink_to(elsewhere)
    with pytest.raises(NoSpool):
        leave(config_path)
    assert list(elsewhere.iterdir()) == []


def test_killed_between_commit_and_removal_the_message_is_there_and_comes_again(config_path: Path) -> None:
    """At least once: nothing is lost, and what was committed is complete."""
    leave(config_path)
    program = f"from tests.support.pickup import pick_up; from pathlib import Path; pick_up(Path({str(config_path)!r}))"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "FASTMTA_CRASH_AT": "before_spool_unlink:1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, check=False)
    assert done.returncode == -9
    assert len(list(maildrop(config_path).iterdir())) == 1
    assert len(pick_up(config_path).named("pickup.received")) == 1
    assert list(maildrop(config_path).iterdir()) == []


@pytest.mark.parametrize("point", ["append:1", "commit:1"])
def test_killed_before_the_commit_it_is_taken_by_the_next(config_path: Path, point: str) -> None:
    leave(config_path)
    program = f"from tests.support.pickup import pick_up; from pathlib import Path; pick_up(Path({str(config_path)!r}))"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "FASTMTA_CRASH_AT": point}
    assert subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, check=False).returncode == -9
    assert len(pick_up(config_path).named("delivery.delivered")) == 1
