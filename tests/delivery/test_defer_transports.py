"""defer_transports: mail waits until somebody flushes it, as in Postfix."""

import msgspec

from fastmta.model.envelope import RecipientState
from tests.support.smtp_sink import SmtpSink


def hop(sink):
    return b"smtp:[127.0.0.1]:%d" % sink.port


async def test_mail_waits_with_the_reason_until_it_is_flushed(make_rig):
    rig = make_rig(defer_transports=("relay",))  # Postfix's name for smtp
    async with SmtpSink() as sink:
        ids = [await rig.queue(hop(sink)) for _ in range(150)]
        await rig.until(lambda: all(row.state == RecipientState.DEFERRED for n in ids for row in rig.rows(n)))
        await rig.settled()
        (row,) = rig.rows(ids[0])
        assert row.last_reply == b"450 4.3.2 deferred transport" and row.attempts == 0
        rig.tick(400.0)
        await rig.until(lambda: all(row.due_ms > rig.clock.now() * 1000 for n in ids for row in rig.rows(n)))
        assert not sink.connections
        assert await rig.store.queue.flush(ids[0]) == 1
        rig.tick()
        await rig.gone(ids[0])
        assert len(sink.messages) == 1
        assert [row.state for n in ids[1:] for row in rig.rows(n)] == [RecipientState.DEFERRED] * 149


async def test_other_transports_go_on_and_a_reload_ends_it(make_rig):
    rig = make_rig(defer_transports=("smtp",))
    async with SmtpSink() as sink:
        waiting = await rig.queue(hop(sink))
        await rig.gone(await rig.queue(b"discard:"))
        await rig.until(lambda: rig.rows(waiting)[0].state == RecipientState.DEFERRED)
        delivery = msgspec.structs.replace(rig.config.delivery, defer_transports=())
        rig.services.config = msgspec.structs.replace(rig.config, delivery=delivery)
        rig.service.reload()
        await rig.gone(await rig.queue(hop(sink)))
        assert rig.rows(waiting)
        rig.tick(400.0)
        await rig.gone(waiting)
