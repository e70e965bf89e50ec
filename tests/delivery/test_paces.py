"""What a destination has asked for outlives a restart, whoever owns its hop then, and is forgotten when it is old."""

from fastmta.delivery.paces import Paces
from fastmta.model.limits import PACES_KEPT, PACES_WRITTEN_S
from fastmta.queue.tuning import Pace
from fastmta.runtime.clock import ManualClock
from tests.delivery.test_tuning import asked_for_less, hop
from tests.support.smtp_sink import SmtpSink


def paces(directory, clock, slot=0):
    told = []
    made = Paces(directory, slot, clock, 3600.0, told.append)
    made.told = told
    return made


def slowed(clock, why="less"):
    pace = Pace()
    for _ in range(100):
        pace.begun(clock.monotonic())
    assert pace.slowed(clock.monotonic(), why)
    return pace


def test_a_pace_is_there_again_for_another_worker(tmp_path):
    clock = ManualClock()
    first, pace = paces(tmp_path, clock), slowed(clock)
    first.note("smtp:b.test", pace)
    first.close()
    clock.advance(600)
    again = paces(tmp_path, clock, slot=3).pace_of("smtp:b.test")
    assert (again.per_second, again.too_much, again.why) == (pace.per_second, pace.too_much, "less")
    assert again.eased(clock.monotonic()) is False and again.per_second > pace.per_second
    assert not paces(tmp_path, clock).pace_of("smtp:c.test").per_second
    clock.advance(3001)
    assert not paces(tmp_path, clock).pace_of("smtp:b.test").per_second


def test_the_newest_word_of_two_workers_counts(tmp_path):
    clock = ManualClock()
    for slot, why in ((1, "old"), (0, "new")):
        each = paces(tmp_path, clock, slot)
        each.note("smtp:b.test", slowed(clock, why))
        each.close()
        clock.advance(1)
    assert paces(tmp_path, clock).pace_of("smtp:b.test").why == "new"


def test_what_cannot_be_read_or_written_is_forgotten(tmp_path):
    clock = ManualClock()
    (tmp_path / "tuning").mkdir()
    for n, data in enumerate((b"", b"{", b"[1]", b'{"smtp:b.test": [1, 2]}', b"\xff" * 100)):
        (tmp_path / "tuning" / f"{n}.json").write_bytes(data)
    assert not paces(tmp_path, clock).pace_of("smtp:b.test").per_second
    (tmp_path / "file").write_bytes(b"")
    unlucky = paces(tmp_path / "file", clock)
    unlucky.note("smtp:b.test", slowed(clock))
    unlucky.close()
    assert unlucky.told


def test_there_are_not_more_than_so_many(tmp_path):
    clock = ManualClock()
    made, pace = paces(tmp_path, clock), slowed(clock)
    for n in range(PACES_KEPT + 1):
        made.note(f"smtp:d{n}.test", pace)
    assert made.pace_of(f"smtp:d{PACES_KEPT - 1}.test").per_second
    assert not made.pace_of(f"smtp:d{PACES_KEPT}.test").per_second


async def test_a_service_that_starts_anew_sends_as_slowly(make_rig, tmp_path):
    async with SmtpSink() as sink:
        rig = make_rig()
        await asked_for_less(rig, sink)
        before = rig.service._owners[hop(sink)]._pace.per_second
        rig.tick(PACES_WRITTEN_S + 1)
        await rig.until(lambda: list((tmp_path / "tuning").glob("*.json")))
        assert paces(tmp_path, rig.clock).pace_of(hop(sink).decode()).per_second == before > 0
