import os
from typing import Any

import pytest

from fastmta.config.schema import Config
from fastmta.runtime.log import Log
from fastmta.supervisor.storage import StorageWatch


class Disk:
    """A disk whose free space a test sets; blocks of one byte."""

    def __init__(self, total: int, free: int) -> None:
        self.f_blocks = total
        self.f_bavail = free
        self.f_frsize = 1


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk(1_000_000, 500_000)
    monkeypatch.setattr(os, "statvfs", lambda path: made)
    return made


def watch(minfree: int, limit: int = 1000, **more: Any) -> StorageWatch:
    return StorageWatch(settings(minfree, limit), Log(fd=-1), **more)


def settings(minfree: int, limit: int = 1000) -> Config:
    return Config(data_directory="/", queue_minfree=minfree, message_size_limit=limit)


@pytest.mark.parametrize(("free", "ok"), [(99, False), (100, True), (101, True)])
def test_the_bound_itself_is_enough(disk: Disk, free: int, ok: bool) -> None:
    disk.f_bavail = free
    assert watch(100).ok() is ok


@pytest.mark.parametrize(("limit", "bound"), [(1000, 10_000), (100_000, 150_000), (1_000_000, 250_000)])
def test_zero_chooses_by_disk_and_message(disk: Disk, limit: int, bound: int) -> None:
    disk.f_bavail = bound
    chosen = watch(0, limit)
    assert chosen.ok()
    disk.f_bavail = bound - 1
    chosen.look()
    assert not chosen.ok()


def test_it_recovers_by_itself_a_little_above_the_bound(disk: Disk) -> None:
    disk.f_bavail = 99
    low = watch(100)
    disk.f_bavail = 101
    low.look()
    assert not low.ok()
    disk.f_bavail = 105
    low.look()
    assert low.ok()


def test_pages_freed_inside_the_store_count(disk: Disk) -> None:
    disk.f_bavail = 30
    assert watch(100, reusable_bytes=lambda: 70).ok()
    assert not watch(100, reusable_bytes=lambda: 69).ok()


@pytest.mark.parametrize(("on_disk", "ok"), [(24, False), (25, True)])
def test_a_quarter_of_the_reserve_is_on_the_disk_itself(disk: Disk, on_disk: int, ok: bool) -> None:
    disk.f_bavail = on_disk
    assert watch(100, reusable_bytes=lambda: 1000).ok() is ok


def test_while_it_is_low_the_trash_is_reaped_at_each_look(disk: Disk) -> None:
    asked: list[int] = []
    disk.f_bavail = 99
    low = watch(100, reap_soon=lambda: asked.append(1))
    low.look()
    assert len(asked) == 2
    disk.f_bavail = 200
    low.look()
    assert len(asked) == 2


def test_the_store_is_told_the_reserve(disk: Disk) -> None:
    told: list[int] = []
    watched = watch(100, set_reserve=told.append)
    watched.configure(settings(200, 1000))
    assert told == [100, 200]
