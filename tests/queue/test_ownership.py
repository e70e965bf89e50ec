"""Every partition has one owner, and a further slot takes only what becomes its own."""

import pytest

from fastmta.queue.ownership import PARTITIONS, partition_of, partitions_of, slot_of


@pytest.mark.parametrize("slots", [1, 2, 3, 8, 64])
def test_every_partition_has_exactly_one_owner(slots):
    owned = [partition for slot in range(slots) for partition in partitions_of(slot, slots)]
    assert sorted(owned) == list(range(PARTITIONS))


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
def test_a_further_slot_moves_partitions_only_to_itself(slots):
    for slot in range(slots):
        assert partitions_of(slot, slots + 1) <= partitions_of(slot, slots)


def test_shares_are_fair():
    assert all(PARTITIONS / 4 * 0.6 < len(partitions_of(slot, 4)) < PARTITIONS / 4 * 1.4 for slot in range(4))


def test_the_slot_of_a_hop_owns_its_partition():
    for number in range(200):
        hop = b"smtp:%d.example" % number
        assert partition_of(hop) in partitions_of(slot_of(hop, 5), 5)


def test_a_slot_outside_is_refused():
    with pytest.raises(ValueError, match="outside"):
        partitions_of(2, 2)
