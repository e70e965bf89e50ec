"""Limits by address and account: exact over processes, windows as anvil's, penalties as Dovecot's, a bounded table."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fastmta._limits import HOLDINGS_BYTES, REFUSED, TABLE_BYTES, UNCOUNTED, Table
from fastmta.config.schema import Config
from fastmta.model.limited import What
from fastmta.policy.limits import PENALTY_DECAY_S, LimitMemory, Limits, local_table
from fastmta.runtime.metrics import METRICS, local_cells

STRANGER = "198.51.100.7"
RANGES = 16


class Now:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def stays() -> None:
    raise AssertionError("nobody has to make way")


def limits(now: Callable[[], float] | None = None, **keys: object) -> Limits:
    config = msgspec.structs.replace(Config(), **keys)
    return Limits(local_table(), config, local_cells(), monotonic=now or Now())


# --- places ---


def test_a_place_is_refused_beyond_the_limit_and_granted_again_when_one_is_given_back() -> None:
    table = limits(smtpd_client_connection_count_limit=3)
    places = [table.connect("smtp", STRANGER) for _ in range(4)]
    assert [place > 0 for place in places] == [True, True, True, False]
    assert table.connect("submission", STRANGER) > 0, "each service counts its own, as in Postfix"
    assert table.connect("smtp", "198.51.100.8") > 0
    table.release(places[0])
    assert table.connect("smtp", STRANGER) > 0
    assert table.connect("smtp", STRANGER) == REFUSED


def test_exempt_clients_and_unix_sockets_are_not_counted() -> None:
    table = limits(smtpd_client_connection_count_limit=1, smtpd_client_event_limit_exceptions=("198.51.100.0/24",))
    assert {table.connect("smtp", ip) for ip in (STRANGER, STRANGER, "", "")} == {UNCOUNTED}
    assert table.connect("smtp", "127.0.0.1") > 0
    assert table.connect("smtp", "127.0.0.1") == REFUSED


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::", "0.0.0.0", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_a_client_is_an_ipv4_address_or_a_64_of_ipv6(first: str, second: str, same: bool) -> None:
    table = limits(smtpd_client_connection_count_limit=1)
    assert table.connect("smtp", first) > 0
    assert (table.connect("smtp", second) == REFUSED) is same


def test_no_limit_is_no_limit() -> None:
    table = limits(smtpd_client_connection_count_limit=0, mail_max_userip_connections=0, login_max_connections=0)
    assert all(table.connect("smtp", STRANGER) > 0 for _ in range(500))
    assert all(table.log_in("imap", STRANGER, 1) > 0 for _ in range(500))


def test_a_seat_counts_before_login_by_address_and_after_it_by_account_and_address() -> None:
    table = limits(mail_max_userip_connections=2, login_max_ip_connections=3)
    seats = [table.seat("imap", STRANGER) for _ in range(4)]
    assert [seat.enter(stays) for seat in seats] == [True, True, True, False]
    assert [seat.log_in(7) for seat in seats[:3]] == [True, True, False]
    assert "mail_max_userip_connections=2" in seats[2].refusal
    secure = table.seat("imaps", STRANGER)
    assert secure.enter(stays)
    assert not secure.log_in(7), "the two ports of a protocol are one service"
    assert table.seat("pop3", STRANGER).log_in(7)
    assert table.seat("imap", "198.51.100.8").log_in(7)
    assert table.seat("imap", STRANGER).log_in(8)
    seats[0].leave()
    seats[0].leave()
    assert secure.log_in(7)


def test_what_has_not_logged_in_is_bounded_in_all_and_leaves_no_trace_when_refused() -> None:
    table = limits(login_max_connections=3, login_max_ip_connections=2)
    seats = [table.seat("imap", f"198.51.100.{n}") for n in range(5)]
    assert [seat.enter(stays) for seat in seats] == [True, True, True, False, False]
    for seat in seats:
        seat.leave()
    assert [seat.enter(stays) for seat in seats] == [True, True, True, False, False]
    own = table.seat("imap", "127.0.0.1")
    assert own.enter(stays), "mynetworks are exempt: a webmail on this machine is not locked out"


def test_whoever_stands_without_a_login_for_longest_makes_way_for_a_newcomer() -> None:
    now, gone = Now(), []
    table = limits(now, login_max_connections=3)
    seats = [table.seat(service, f"198.51.100.{n}") for n, service in enumerate(("imap", "pop3", "imaps", "imap"))]
    for n, seat in enumerate(seats[:3]):
        assert seat.enter(lambda n=n: gone.append(n))
        now.at += 1
    newcomer = table.seat("imap", STRANGER)
    assert not newcomer.enter(stays), "who came a moment ago may be about to log in"
    now.at += 3
    assert seats[0].log_in(7)
    assert seats[3].enter(lambda: gone.append(3)) and gone == []
    assert newcomer.enter(stays) and gone == [1], "who has logged in stays"
    seats[1].leave()
    now.at += 10
    assert table.seat("pop3", "203.0.113.1").enter(stays) and gone == [1, 2]


def test_an_address_with_too_many_without_a_login_pushes_nobody_out() -> None:
    now = Now()
    table = limits(now, login_max_connections=3, login_max_ip_connections=2)
    others = table.seat("imap", "203.0.113.1")
    assert others.enter(stays)
    mine = [table.seat("imap", STRANGER) for _ in range(3)]
    assert [seat.enter(stays) for seat in mine[:2]] == [True, True]
    now.at += 60
    assert not mine[2].enter(stays)


def test_a_second_login_of_a_connection_gives_the_first_place_back() -> None:
    table = limits(mail_max_userip_connections=1)
    seat = table.seat("pop3", STRANGER)
    assert seat.log_in(7) and seat.log_in(7)
    seat.leave()
    assert table.seat("pop3", STRANGER).log_in(7)


def test_refusals_are_counted() -> None:
    table = limits(smtpd_client_connection_count_limit=1)
    for _ in range(3):
        table.connect("smtp", STRANGER)
    assert table._cells[METRICS.limited_total["connections"]] == 2


# --- events ---


def test_events_are_counted_in_a_window_that_begins_with_the_first() -> None:
    now = Now()
    table = limits(now, smtpd_client_message_rate_limit=2)
    assert [table.take(What.MESSAGE_RATE, "smtp", STRANGER) for _ in range(3)] == [True, True, False]
    now.at += 59
    assert not table.take(What.MESSAGE_RATE, "smtp", STRANGER)
    now.at += 1
    assert table.take(What.MESSAGE_RATE, "smtp", STRANGER)
    assert table.take(What.RECIPIENT_RATE, "smtp", STRANGER, 1000), "no limit is set"
    assert all(table.take(What.MESSAGE_RATE, "smtp", "127.0.0.1") for _ in range(9))


def test_the_window_is_anvil_rate_time_unit() -> None:
    now = Now()
    table = limits(now, smtpd_client_connection_rate_limit=1, anvil_rate_time_unit=10.0)
    assert table.connect("smtp", STRANGER) > 0
    assert table.connect("smtp", STRANGER) == REFUSED
    now.at += 10
    assert table.connect("smtp", STRANGER) > 0


# --- penalties ---


def test_a_penalty_grows_with_failures_decays_with_time_and_ends_with_a_success() -> None:
    now = Now()
    table = limits(now)
    assert [2 * table.failed(STRANGER) for _ in range(6)] == [2, 4, 8, 15, 15, 15]
    assert table.failed("198.51.100.8") == 1
    now.at += 2 * PENALTY_DECAY_S
    assert table.penalty(STRANGER) == 2
    assert table.failed(STRANGER) == 4
    table.forgive(STRANGER)
    assert table.failed(STRANGER) == 1
    now.at += 10 * PENALTY_DECAY_S
    assert table.failed(STRANGER) == 1


# --- the table ---


def test_a_full_set_evicts_the_oldest_that_nobody_holds_and_never_grows() -> None:
    table = Table(bytearray(TABLE_BYTES), bytearray(HOLDINGS_BYTES), 1, 12345)
    held = [table.hold(1, n, 0, 1, 0) for n in range(70_000)]
    assert all(place == UNCOUNTED or place > 0 for place in held)
    full = held.count(UNCOUNTED)
    assert 70_000 - 65_536 <= full < 12_000
    assert all(table.hold(1, n, 0, 1, 1) == REFUSED for n, place in enumerate(held) if place > 0)
    for place in held:
        table.release(place, 2)
    for n in range(200_000, 400_000):
        assert table.take(2, n, 0, 1, 5, 60, 3 + n) == 0
    assert table.hold(1, 1, 0, 1, 4) > 0


def test_a_place_is_released_once() -> None:
    table = Table(bytearray(TABLE_BYTES), bytearray(HOLDINGS_BYTES), 1, 1)
    place = table.hold(1, 1, 1, 0, 0)
    table.hold(1, 1, 1, 0, 0)
    for _ in range(5):
        table.release(place, 0)
    assert table.held(1, 1, 1) == 0
    table.release(REFUSED, 0)
    table.release(UNCOUNTED, 0)
    with pytest.raises(IndexError):
        table.release(65_537, 0)


def test_what_a_dead_worker_held_is_given_back_and_what_others_hold_stays() -> None:
    memory = LimitMemory(RANGES)
    first, second = memory.table(1), memory.table(2)
    for _ in range(3):
        first.hold(1, 9, 0, 0, 0)
    second.hold(1, 9, 0, 0, 0)
    assert first.held(1, 9, 0) == second.held(1, 9, 0) == 4
    memory.bury(1)
    assert second.held(1, 9, 0) == 1
    memory.bury(1)
    assert second.held(1, 9, 0) == 1


def _crowd(memory: LimitMemory, number: int, go: Any, out: Any) -> None:
    table = memory.table(number)
    go.wait(30)
    granted = sum(table.hold(1, 9, 0, 1000, 0) > 0 for _ in range(700))
    churned = 0
    for _ in range(20_000):
        place = table.hold(1, 10, 0, 2, 0)
        churned += place > 0
        table.release(place, 0)
    out.put(granted)


def test_a_limit_is_exact_over_processes() -> None:
    memory = LimitMemory(RANGES)
    context = multiprocessing.get_context("fork")
    go, out = context.Event(), context.Queue()
    workers = [context.Process(target=_crowd, args=(memory, number, go, out)) for number in range(1, 5)]
    for worker in workers:
        worker.start()
    go.set()
    granted = [out.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(30)
    table = memory.table(5)
    assert sum(granted) == table.held(1, 9, 0) == 1000
    assert table.held(1, 10, 0) == 0
    for number in range(1, 5):
        memory.bury(number)
    assert table.held(1, 9, 0) == 0
