"""The uid map against a plain list."""

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from fastmta import _imap
from fastmta._imap import UidMap

uid = st.integers(1, 60)


def model_set(numbers: list[int], pairs: list[tuple[int, int]], last: int) -> set[int]:
    out: set[int] = set()
    for low, high in pairs:
        low, high = low or last, high or last
        out.update(range(min(low, high), max(low, high) + 1))
    return out & set(numbers)


@settings(max_examples=200, deadline=None)
@given(
    st.sets(uid),
    st.sets(uid),
    st.sets(st.integers(61, 90)),
    st.lists(st.tuples(st.integers(0, 95), st.integers(0, 95)), min_size=1, max_size=4),
)
def test_against_a_list(first: set[int], gone: set[int], later: set[int], pairs: list[tuple[int, int]]) -> None:
    uids = UidMap()
    assert uids.extend(array("I", sorted(first))) == len(first)
    model = sorted(first)
    responses = uids.expunge(array("I", gone))
    expected = b""
    for seq in range(len(model), 0, -1):
        if model[seq - 1] in gone:
            expected += b"* %d EXPUNGE\r\n" % seq
            del model[seq - 1]
    assert responses == expected
    uids.extend(array("I", sorted(later)))
    model += sorted(later)
    assert uids.count == len(uids) == len(model)
    assert uids.last == (model[-1] if model else 0)
    assert list(uids.all()[1]) == model
    assert list(uids.all()[0]) == list(range(1, len(model) + 1))
    for number in range(100):
        assert uids.seq_of(number) == (model.index(number) + 1 if number in model else 0)
        assert uids.uid_of(number) == (model[number - 1] if 1 <= number <= len(model) else 0)
        assert uids.count_from(number) == sum(1 for one in model if one >= number)
    some = [95, *model, 1]
    there = [number for number in some if number in model]
    assert uids.seqs_of(array("I", some)) == (array("I", [model.index(n) + 1 for n in there]), array("I", there))
    flat = array("I", [number for pair in pairs for number in pair])
    found = uids.by_uids(flat)
    wanted = model_set(model, pairs, model[-1] if model else 0) if model else set()
    assert list(found[1]) == sorted(wanted)
    assert [model[seq - 1] for seq in found[0]] == sorted(wanted)
    ranges = uids.ranges_of_seqs(flat)
    if not model or max(flat) > len(model):
        assert ranges is None
    else:
        seqs = sorted(model_set(list(range(1, len(model) + 1)), pairs, len(model)))
        assert ranges is not None
        assert _imap.range_length(ranges) == len(seqs)
        for start, most in ((0, 100), (1, 3), (len(seqs) - 1, 2), (len(seqs), 1), (0, 0)):
            some = uids.numbers(ranges, start, most)
            assert list(some[0]) == seqs[start : start + most]
            assert list(some[1]) == [model[seq - 1] for seq in some[0]]
    assert list(uids.missing(array("I", sorted(later)))) == [one for one in model if one not in later]


def test_a_large_mailbox_without_gaps_is_one_run() -> None:
    uids = UidMap()
    uids.extend(array("I", range(1, 1_000_001)))
    assert uids.memory_bytes() == 8
    assert uids.seq_of(999_999) == 999_999


def test_uid_sets_are_compressed_in_order() -> None:
    assert _imap.uid_set(array("I", [3, 4, 5, 9, 2, 3])) == b"3:5,9,2:3"
    assert _imap.uid_set(array("I")) == b""
