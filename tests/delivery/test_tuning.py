"""A destination that asks for less is sent less, says so to an administrator, and counts what its replies mean."""

from fastmta.runtime.metrics import METRICS
from tests.support.smtp_sink import SmtpSink

LESS = "451 4.7.650 temporarily rate limited due to IP reputation"


def hop(sink):
    return b"smtp:[127.0.0.1]:%d" % sink.port


async def asked_for_less(rig, sink):
    """Twenty messages go; the next is refused for the rate."""
    for n in range(20):
        await rig.gone(await rig.queue(hop(sink), b"u%d@b.test" % n))
    sink.replies["DOT"] = [LESS]
    queue_id = await rig.queue(hop(sink))
    await rig.until(lambda: rig.rows(queue_id)[0].last_reply)
    await rig.settled()


async def test_less_is_sent_after_a_refusal_for_the_rate(make_rig):
    async with SmtpSink() as sink:
        rig = make_rig()
        await asked_for_less(rig, sink)
        (line,) = [line for line in rig.log() if line["event"] == "destination.slowed"]
        assert "rate limited" in line["reply"] and line["per_minute"] > 0
        (state,) = rig.service.hops([hop(sink)])
        assert state["shaped"].startswith("what it said: ") and "rate limited" in state["shaped"]
        owner = rig.service._owners[hop(sink)]
        assert owner.window.size <= 3 and not owner.is_idle  # half of five or six
        assert rig.services.cells[METRICS.delivery_replies_total["rate-limited"]] == 1
        owner._pace.per_second, owner._next_at = 1 / 60.0, rig.clock.monotonic() + 60.0
        for n in range(3):
            await rig.queue(hop(sink), b"v%d@b.test" % n)
        for sent in (20, 21, 22, 23):
            await rig.until(lambda sent=sent: len(sink.messages) == sent)
            await rig.until(lambda sent=sent: rig.count("smtp", "delivered") == sent)
            rig.tick(1)
            assert len(sink.messages) == sent
            rig.tick(60)


async def test_it_can_be_switched_off(make_rig):
    async with SmtpSink() as sink:
        rig = make_rig(destination_rate_tuning=False)
        await asked_for_less(rig, sink)
        assert not rig.service._owners[hop(sink)]._pace.per_second


async def test_other_refusals_slow_nothing_and_are_counted(make_rig):
    async with SmtpSink() as sink:
        rig = make_rig()
        sink.replies["RCPT"] = ["550 5.1.1 no such user", "452 4.2.2 mailbox full", "550 5.7.1 blocked using x.test"]
        for n in range(3):
            await rig.queue(hop(sink), b"u%d@b.test" % n)
        await rig.settled()
        await rig.until(
            lambda: (
                sum(
                    rig.services.cells[METRICS.delivery_replies_total[each]]
                    for each in ("unknown-user", "mailbox-full", "blocked")
                )
                == 3
            )
        )
        assert not rig.service._owners[hop(sink)]._pace.per_second


async def test_a_file_of_ones_own_that_is_wrong_is_named_and_passed_over(make_rig, tmp_path):
    (tmp_path / "own").write_text("nonsense\n")
    rig = make_rig(reply_class_file=str(tmp_path / "own"))
    (line,) = [line for line in rig.log() if line["event"] == "delivery.configuration_problem"]
    assert "own:1" in line["cause"]
