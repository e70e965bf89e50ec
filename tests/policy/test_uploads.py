"""Unfinished messages: bounds of an address and of an account that hold over workers, and what comes back."""

import pytest

from fastmta.config.schema import Config
from fastmta.model.limited import What
from fastmta.model.limits import IMAP_UPLOADS, UPLOAD_ACCOUNT_BYTES, UPLOAD_ADDRESS_BYTES
from fastmta.policy.limits import LimitMemory, Limits
from fastmta.runtime.metrics import METRICS, local_cells

STRANGER = "198.51.100.7"
OURS = "127.0.0.1"


@pytest.fixture
def memory() -> LimitMemory:
    return LimitMemory(4)


def worker(memory: LimitMemory, number: int) -> Limits:
    return Limits(memory.table(number), Config(), local_cells())


def test_appends_of_an_account_are_counted_over_two_workers(memory: LimitMemory) -> None:
    one, two = worker(memory, 1), worker(memory, 2)
    begun = [(one, two)[n % 2].upload(OURS, 5) for n in range(IMAP_UPLOADS)]
    assert all(upload.begin(10) for upload in begun)
    assert one.appending(5) == two.appending(5) == 10 * IMAP_UPLOADS
    assert not two.upload(OURS, 5).begin(10)
    assert two._cells[METRICS.limited_total["uploads"]] == 1
    assert two.upload(OURS, 6).begin(10), "another account"
    begun[0].end()
    begun[0].end()
    assert two.appending(5) == 10 * (IMAP_UPLOADS - 1)
    assert two.upload(OURS, 5).begin(10)
    assert not two.upload(OURS, 5).begin(10)


@pytest.mark.parametrize(
    ("ip", "account_id", "bound"), [(STRANGER, 0, UPLOAD_ADDRESS_BYTES), (OURS, 5, UPLOAD_ACCOUNT_BYTES)]
)
def test_octets_at_under_and_over_their_bound_in_two_workers(
    memory: LimitMemory, ip: str, account_id: int, bound: int
) -> None:
    one, two = worker(memory, 1).upload(ip, account_id), worker(memory, 2)
    assert one.grow(bound - 100)
    under, at, over = (two.upload(ip, account_id) for _ in range(3))
    assert under.grow(99)
    assert at.grow(1)
    assert not over.grow(1)
    assert two._cells[METRICS.limited_total["upload_bytes"]] == 1
    under.end()
    assert over.grow(99)
    assert not over.grow(1)


def test_a_single_message_may_be_larger_than_the_bound(memory: LimitMemory) -> None:
    one, two = worker(memory, 1).upload(STRANGER, 0), worker(memory, 2).upload(STRANGER, 0)
    for _ in range(20):
        assert one.grow(UPLOAD_ADDRESS_BYTES)
    assert not two.grow(1)
    one.end()
    assert two.grow(UPLOAD_ADDRESS_BYTES + 1)


def test_more_octets_than_can_be_counted_are_taken_and_given_back(memory: LimitMemory) -> None:
    one = worker(memory, 1)
    upload = one.upload(STRANGER, 5)
    assert upload.begin(2**40)
    assert upload.grow(2**40)
    assert upload.grow(2**40)
    upload.end()
    assert one.appending(5) == 0
    assert one.upload(STRANGER, 5).begin(100)


def test_octets_of_smtp_and_imap_share_the_account_but_only_appends_await_its_quota(memory: LimitMemory) -> None:
    smtp, imap = worker(memory, 1), worker(memory, 2)
    assert smtp.upload(OURS, 5).grow(UPLOAD_ACCOUNT_BYTES - 10)
    assert imap.appending(5) == 0
    assert not imap.upload(OURS, 5).begin(11)
    assert imap.appending(5) == 0
    assert imap.upload(OURS, 5).begin(10)


def test_what_a_dead_worker_held_comes_back(memory: LimitMemory) -> None:
    dead, alive = worker(memory, 1), worker(memory, 2)
    uploads = [dead.upload(STRANGER, 5) for _ in range(IMAP_UPLOADS)]
    assert all(upload.begin(10_000_000) for upload in uploads)
    assert not alive.upload(STRANGER, 5).begin(1)
    memory.bury(1)
    assert alive.appending(5) == 0
    assert alive.upload(STRANGER, 5).begin(1)


def test_addresses_that_are_exempt_have_no_bound_of_their_own(memory: LimitMemory) -> None:
    one = worker(memory, 1)
    for _ in range(3):
        assert one.upload(OURS, 0).grow(UPLOAD_ADDRESS_BYTES)
        assert one.upload("", 0).grow(UPLOAD_ADDRESS_BYTES)
    assert {what.name for what in What} >= {"UPLOADS", "UPLOAD_BYTES"}
