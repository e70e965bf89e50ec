"""A 250 that was noted and not committed: recorded by whoever starts next, and never sent again."""

import asyncio
import fcntl
import os

import pytest

from fastmta.delivery import answers as answers_module
from fastmta.delivery.answers import FOLDER, Answers, decoded, encoded
from fastmta.delivery.service import DeliveryService
from fastmta.model.envelope import NOTIFY_SUCCESS, RecipientState, RecipientTail
from fastmta.model.limits import ANSWERS_KEPT
from tests.support.smtp_sink import HANG, SmtpSink


def taken(folder):
    found = []

    async def record(notes):
        found.extend(notes)

    asyncio.run(Answers(folder).take_left(record))
    return found


def die(answers):
    """What the kernel does with a killed process: the lock goes, the file stays."""
    os.close(answers._fd)
    answers._fd = -1


def test_notes_outlive_their_writer_and_are_taken_once(tmp_path):
    answers = Answers(tmp_path)
    answers.begin("0-1")
    answers.note(1, 2, [3])
    answers.note(2**64 - 1, 5, [2**32 - 1])
    assert taken(tmp_path) == []  # it lives
    die(answers)
    assert taken(tmp_path) == [(1, 2, 3), (2**64 - 1, 5, 2**32 - 1)]
    assert taken(tmp_path) == [] and not list((tmp_path / FOLDER).glob("[!.]*"))


def test_who_ends_well_leaves_nothing(tmp_path):
    answers = Answers(tmp_path)
    answers.begin("0-1")
    answers.note(1, 2, [3])
    answers.close()
    assert taken(tmp_path) == []
    answers.note(4, 5, [6])  # nobody minds


@pytest.mark.parametrize("count", [ANSWERS_KEPT - 1, ANSWERS_KEPT, ANSWERS_KEPT + 1])
def test_the_ring_keeps_the_last_ones(tmp_path, count):
    answers = Answers(tmp_path)
    answers.begin("0-1")
    for n in range(count):
        answers.note(n + 1, 0, [0])
    assert (answers._path.stat().st_size) == ANSWERS_KEPT * len(encoded((0, 0, 0)))
    die(answers)
    assert {note[0] for note in taken(tmp_path)} >= set(range(count, max(0, count - ANSWERS_KEPT), -1))


def test_half_a_note_says_nothing():
    raw = encoded((7, 8, 9)) + encoded((1, 2, 3))
    assert list(decoded(raw)) == [(7, 8, 9), (1, 2, 3)]
    for at in range(24):
        torn = raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :]
        assert list(decoded(torn)) == [(1, 2, 3)]
    assert list(decoded(bytes(240))) == [] and list(decoded(raw[:47])) == [(7, 8, 9)]


async def test_a_disk_that_takes_no_note_does_not_stop_deliveries(tmp_path, rig):
    (tmp_path / FOLDER).write_text("in the way")
    rig.service.answers = Answers(tmp_path)
    await rig.service._take_answers(rig.service.answers)
    assert "delivery.answers_not_kept" in [line["event"] for line in rig.log()]
    async with SmtpSink() as sink:
        queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % sink.port)
        await rig.gone(queue_id)


async def test_what_was_delivered_before_a_kill_is_recorded_and_not_sent_again(tmp_path, rig):
    """The first service reaches the note and is killed before its unit; the second one finds the recipient due."""
    rig.service.answers = Answers(tmp_path)
    await rig.service._take_answers(rig.service.answers)
    submitted = []
    rig.service.recorder.submit = submitted.append
    async with SmtpSink(capabilities=("SIZE",)) as sink:  # without DSN, so that success is ours to report
        hop = b"smtp:[127.0.0.1]:%d" % sink.port
        queue_id = await rig.queue(hop, b"r@b.test", b"s@b.test")
        wanted = await rig.queue(hop, RecipientTail(b"t@b.test", notify=NOTIFY_SUCCESS))
        await rig.until(lambda: len(submitted) == 2)
        die(rig.service.answers)
        await rig.service.stop(1.0)
        rig.service.answers._fd = -1
        assert len(sink.messages) == 2
        second = DeliveryService(rig.services, Answers(tmp_path))
        second.start()
        rig.service = second
        await second._starting
        assert rig.store.queue.message(queue_id) is None
        recovered = [line for line in rig.log() if line["event"] == "delivery.recovered"]
        assert [line["recipient"] for line in recovered] == ["r@b.test", "s@b.test"]
        await rig.gone(wanted)
        assert [taken.recipients for taken in sink.messages[2:]] == [[b"t@b.test"]]


async def test_whom_an_lmtp_server_has_taken_is_noted_while_it_owes_an_answer_for_another(tmp_path, rig):
    rig.service.answers = Answers(tmp_path)
    await rig.service._take_answers(rig.service.answers)
    async with SmtpSink(lmtp=True, capabilities=("SIZE",), replies={"DOT": [None, "550 5.7.1 no", None, HANG]}) as sink:
        hop = b"lmtp:[127.0.0.1]:%d" % sink.port
        names = [RecipientTail(b"%d@b.test" % n) for n in range(5)]
        names[2] = RecipientTail(b"2@b.test", notify=NOTIFY_SUCCESS)
        queue_id = await rig.queue(hop, *names)
        (owner,) = rig.service._owners.values()
        await rig.until(
            lambda: any(job and job.results.count(None) == 2 for job in (each.transaction for each in owner._open))
        )
        die(rig.service.answers)
        notes = []

        async def record(found):
            notes.extend(found)

        await Answers(tmp_path).take_left(record)
        assert [(note[0], note[2]) for note in notes if note[0] == queue_id] == [(queue_id, 0)]


async def test_a_note_moves_nothing_that_is_held_or_another_message(tmp_path, rig):
    held = await rig.queue(b"smtp:[127.0.0.1]:1")
    await rig.until(lambda: rig.rows(held)[0].state == RecipientState.DEFERRED)
    await rig.store.queue.hold(held)
    at_ms = rig.store.queue.message(held).envelope.received_at_ms
    await rig.service.recorder.recover([(held, at_ms, 0), (held, at_ms, 7), (held + 10**6, at_ms, 0)])
    assert rig.rows(held)[0].state == RecipientState.HELD
    await rig.store.queue.release(held)
    await rig.service.recorder.recover([(held, at_ms + 1, 0)])
    assert rig.store.queue.message(held) is not None
    await rig.service.recorder.recover([(held, at_ms, 0)])
    assert rig.store.queue.message(held) is None


@pytest.mark.parametrize("lets_go", [True, False])
async def test_the_loop_goes_on_while_another_process_reads_what_the_dead_left(tmp_path, rig, monkeypatch, lets_go):
    monkeypatch.setattr(answers_module, "ANSWERS_LOCK_S", 30.0 if lets_go else 0.2)
    dead = Answers(tmp_path)
    dead.begin("0-1")
    queue_id = await rig.queue(b"hold.test")
    await rig.service.stop(0)
    message = rig.store.queue.message(queue_id)
    dead.note(queue_id, message.envelope.received_at_ms, [0])
    die(dead)
    lock = os.open(tmp_path / FOLDER / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    service = rig.service = DeliveryService(rig.services, Answers(tmp_path))
    service.start()
    for _ in range(20):
        await asyncio.sleep(0)  # the loop turns
    assert not service._starting.done() and rig.store.queue.message(queue_id) is not None
    if lets_go:
        os.close(lock)
    await service._starting
    assert rig.store.queue.message(queue_id) is None
    if not lets_go:
        os.close(lock)


async def test_who_stops_before_it_began_never_begins(tmp_path, rig):
    await rig.service.stop(0)
    (tmp_path / FOLDER).mkdir()
    lock = os.open(tmp_path / FOLDER / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    service = rig.service = DeliveryService(rig.services, Answers(tmp_path))
    service.start()
    await asyncio.sleep(0)
    await service.stop(0)
    os.close(lock)
    assert service._starting.cancelled() and not service._running
