"""soft_bounce: what would bounce is deferred, also what has expired."""

import msgspec

from fastmta.model.envelope import RecipientState
from tests.support.smtp_sink import SmtpSink


def soft(rig, value=True):
    rig.services.config = msgspec.structs.replace(rig.config, soft_bounce=value)
    rig.service.reload()
    rig.service.recorder.configure()


async def test_a_permanent_refusal_defers_and_bounces_once_it_is_off(make_rig):
    rig = make_rig(maximal_queue_lifetime=3600.0)
    soft(rig)
    async with SmtpSink(reply_for=lambda _: "550 5.1.1 unknown") as sink:
        hops = (b"smtp:[127.0.0.1]:%d" % sink.port, b"error:5.2.1 closed")
        ids = [await rig.queue(hop) for hop in hops]
        await rig.until(lambda: all(rig.rows(n)[0].state == RecipientState.DEFERRED for n in ids))
        await rig.settled()
        assert b"450 4.1.1 unknown" in rig.rows(ids[0])[0].last_reply
        assert rig.rows(ids[1])[0].last_reply == b"450 4.2.1 closed"
        assert len(rig.everything()) == 2  # and no report
        rig.tick(7200.0)
        await rig.until(lambda: all(rig.rows(n)[0].attempts == 2 for n in ids))
        await rig.settled()
        soft(rig, False)
        rig.tick(7200.0)
        for queue_id in ids:
            await rig.gone(queue_id)
        assert len(rig.everything()) == 2  # the reports
