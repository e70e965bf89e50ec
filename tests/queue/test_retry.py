"""Postfix's retry times: the age, clamped, with jitter; lifetimes; one delay warning."""

import pytest

from fastmta.model.reply import Reply
from fastmta.queue.retry import DELAY_NOTED, RetryPolicy, asked_delay_s

DAY = 86400.0


@pytest.mark.parametrize(
    ("age", "delay"), [(0, 300), (299, 300), (301, 301), (1000, 1000), (4000, 4000), (90000, 4000)]
)
def test_the_delay_is_the_age_between_the_two_backoff_times(age, delay):
    assert RetryPolicy().delay_s(age, 1, 0.0) == delay


def test_jitter_adds_at_most_a_tenth():
    assert RetryPolicy().delay_s(1000, 1, 1.0) == pytest.approx(1100)


def test_a_servers_own_delay_counts_up_to_the_maximum():
    assert RetryPolicy().delay_s(1000, 1, 0.0, asked_s=60) == 60
    assert RetryPolicy().delay_s(1000, 1, 0.0, asked_s=4000) == 4000
    assert RetryPolicy().delay_s(1000, 1, 0.0, asked_s=4001) == 1000


def test_a_list_of_delays_ends_in_its_last():
    policy = RetryPolicy(delays=(10.0, 20.0))
    assert [policy.delay_s(5, n, 0.0) for n in (1, 2, 3)] == [10, 20, 20]


def test_bounces_have_their_own_lifetime():
    policy = RetryPolicy(maximal_queue_lifetime_s=5 * DAY, bounce_queue_lifetime_s=DAY)
    assert not policy.is_expired(2 * DAY, b"a@b.test")
    assert policy.is_expired(2 * DAY, b"")
    assert policy.is_expired(5 * DAY, b"a@b.test")


def test_the_delay_warning_goes_once_and_never_to_the_null_sender():
    policy = RetryPolicy(delay_warning_s=3600.0)
    assert not policy.owes_delay_warning(3599, b"a@b.test", b"")
    assert policy.owes_delay_warning(3600, b"a@b.test", b"451 later")
    assert not policy.owes_delay_warning(7200, b"a@b.test", b"451 later" + DELAY_NOTED)
    assert not policy.owes_delay_warning(7200, b"", b"")
    assert not RetryPolicy().owes_delay_warning(7200, b"a@b.test", b"")


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        (Reply(450, "4.7.1", "Greylisted, try again in 300 seconds"), 300),
        (Reply(451, "4.7.1", "greylisting in action, please come back later"), 0),
        (Reply(451, "4.7.1", "Try again in 5 minutes"), 300),
        (Reply(450, "", "Please retry in 00:01 or 60s"), 0),
        (Reply(451, "4.7.1", "try again in 90"), 90),
        (Reply(550, "5.7.1", "try again in 90"), 0),
        (Reply(450, "4.2.2", "mailbox full, try again in 9 hours"), 0),
    ],
)
def test_a_greylisting_server_may_ask_for_a_delay(reply, seconds):
    assert asked_delay_s(reply) == seconds
