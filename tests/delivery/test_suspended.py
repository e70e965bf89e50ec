"""A hop suspended by command: nothing is begun for it, all else goes on, and resuming sends what waits."""

import asyncio

from fastmta.model.envelope import RecipientState
from tests.support.ports import free_port
from tests.support.smtp_sink import SmtpSink


def hop(sink):
    return b"smtp:[127.0.0.1]:%d" % sink.port


async def test_mail_of_a_suspended_hop_waits_and_goes_when_it_is_resumed(rig):
    async with SmtpSink() as stopped, SmtpSink() as other:
        await rig.store.suspensions.add([hop(stopped)], "b.test", "root")
        assert rig.service.hops([hop(stopped)]) == []
        waiting = [await rig.queue(hop(stopped)) for _ in range(3)]
        await rig.gone(await rig.queue(hop(other)))
        rig.tick(60.0)
        await rig.settled()
        assert not stopped.connections
        assert [row.state for queue_id in waiting for row in rig.rows(queue_id)] == [RecipientState.ACTIVE] * 3
        await rig.store.suspensions.remove([hop(stopped)])
        rig.tick()
        for queue_id in waiting:
            await rig.gone(queue_id)
        assert len(stopped.messages) == 3


async def test_flush_does_not_override_it_and_nothing_expires(make_rig):
    rig = make_rig(maximal_queue_lifetime=3600.0)
    async with SmtpSink(reply_for=lambda _: "451 4.3.0 later") as sink:
        queue_id = await rig.queue(hop(sink))
        await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
        await rig.settled()
        await rig.store.suspensions.add([b"*"], "*", "root")
        rig.tick(7200.0)
        seen = sink.connections
        assert await rig.store.queue.flush(queue_id) == 1
        rig.tick(1.0)
        await rig.settled()
        assert sink.connections == seen
        assert rig.rows(queue_id)[0].state == RecipientState.ACTIVE


async def test_what_is_ready_is_given_back_and_what_is_under_way_ends(make_rig):
    rig = make_rig(initial_destination_concurrency=1, default_destination_concurrency_limit=1)
    is_suspended = asyncio.Event()

    class Patient(SmtpSink):
        async def _say(self, writer, reply):
            await is_suspended.wait()
            await super()._say(writer, reply)

    async with Patient() as sink:
        ids = [await rig.queue(hop(sink)) for _ in range(5)]
        await rig.store.suspensions.add([hop(sink)], "b.test", "root")
        (state,) = rig.service.hops([hop(sink)])
        assert state["suspended"] and state["next_hop"] == hop(sink).decode()
        is_suspended.set()
        await rig.until(lambda: rig.service.hops([hop(sink)])[0]["in_flight"] == 0 and not rig.service.unrecorded)
        left = [queue_id for queue_id in ids if rig.store.queue.message(queue_id) is not None]
        assert len(left) + len(sink.messages) == 5 and left
        await rig.store.suspensions.remove([hop(sink)])
        rig.tick()
        for queue_id in ids:
            await rig.gone(queue_id)
        assert len(sink.messages) == 5


async def test_a_dead_hop_is_told_with_its_reason(rig):
    gone = b"smtp:[127.0.0.1]:%d" % free_port()
    for _ in range(5):  # a whole cohort
        await rig.queue(gone)
    await rig.until(lambda: rig.service.hops([gone])[0]["dead_seconds"] > 0)
    (state,) = rig.service.hops([gone])
    assert 0 < state["dead_seconds"] <= 300 and "refused" in state["reason"].lower()
    assert state in rig.service.hops([])
