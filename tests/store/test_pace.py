"""Work on the whole store rests while others commit, and does not where nobody does."""

import os
from pathlib import Path

import pytest

from fastmta.runtime.clock import ManualClock
from fastmta.store import MailStore
from fastmta.store.check import check
from fastmta.store.pace import BUSY_S, REST_S, RESTS, WORK_S, Pace
from tests.store.composing import file, new_mailbox


class World:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "data.mdb"
        self.file.write_bytes(b"")
        self.clock = ManualClock()
        self.slept: list[float] = []
        self.pace = Pace(folder, self.clock.monotonic, self.slept.append)
        self.commits = 0

    def commit(self) -> None:
        self.commits += 1
        os.utime(self.file, ns=(self.commits, self.commits))

    def work(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.pace.rest()


def test_nobody_is_waited_for_where_nobody_writes(tmp_path: Path) -> None:
    world = World(tmp_path)
    for _ in range(10):
        world.work(1.0)
    assert world.slept == []


def test_rests_are_longer_than_the_work_while_others_commit(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.commit()
    world.work(WORK_S / 2)
    assert world.slept == []  # not enough was done
    world.work(WORK_S / 2)
    assert world.slept == [pytest.approx(WORK_S * RESTS)]
    world.work(10.0)
    assert len(world.slept) == 1  # whoever committed has stopped
    world.commit()
    world.work(10.0)
    assert world.slept[1:] == [REST_S]
    world.work(BUSY_S - WORK_S)
    assert len(world.slept) == 3


def test_a_check_rests_between_its_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mail = MailStore.open(tmp_path, sync=False)
    box = new_mailbox(mail.raw)
    for _ in range(1500):
        file(mail.raw, box)
    rests: list[int] = []
    monkeypatch.setattr(Pace, "rest", lambda pace: rests.append(1))
    assert check(mail, print) == 0
    mail.close()
    assert len(rests) > 10
