"""Throws damaged segments, whose sums are right, at what reads the text index; see harness.py for options."""

import itertools
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fastmta import _grams
from tests.fuzz.harness import Target, main

NEEDLES = ("abc", "the invoice", "\u00fc\u00fc\u00fc", "aaaa", "x\0y", "zzzzzzzzzzzz")
_BLOCKS_AT, _TABLE_SUM_AT = (
    32,
    44,
)  # of a head (segment.pxi)


def made(docs: dict[int, tuple[list[str], list[str]]], skipped: tuple[int, ...] = ()) -> bytes:
    builder = _grams.Builder()
    for uid in sorted((*docs, *skipped)):
        if uid in docs:
            builder.add(uid, *docs[uid])
        else:
            builder.skip(uid)
    return builder.finish(7, 1, max((*docs, *skipped), default=1))


def repaired(data: bytes) -> bytes:
    """With sums that fit, as far as the head says where they are."""
    out = bytearray(data)
    if len(out) < _grams.HEAD_BYTES:
        return data
    out[4:8] = _grams.checksum(bytes(out[8 : _grams.HEAD_BYTES])).to_bytes(4, "little")
    segment = _grams.segment_of(bytes(out[: _grams.HEAD_BYTES]))
    if segment is None or segment.table_bytes > len(out):
        return bytes(out)
    begin = _grams.HEAD_BYTES + segment.table_bytes
    table = bytes(out[_grams.HEAD_BYTES : begin])
    blocks = int.from_bytes(out[_BLOCKS_AT : _BLOCKS_AT + 4], "little")
    places = table[len(table) - 8 * min(blocks, len(table) // 8) :]
    ends = [int.from_bytes(places[at + 4 : at + 8], "little") for at in range(0, len(places), 8)]
    for low, high in itertools.pairwise([*ends, len(out) - begin]):
        if low >= 0 and low + 4 <= high <= len(out) - begin:
            block = bytes(out[begin + low : begin + high - 4])
            out[begin + high - 4 : begin + high] = _grams.checksum(block).to_bytes(4, "little")
    out[_TABLE_SUM_AT : _TABLE_SUM_AT + 4] = _grams.checksum(table).to_bytes(4, "little")
    out[4:8] = _grams.checksum(bytes(out[8 : _grams.HEAD_BYTES])).to_bytes(4, "little")
    return bytes(out)


_GOOD = made({1: (["abc"], [])})
_WITH_VERY_MANY_BLOCKS = _GOOD[:_BLOCKS_AT] + b"\xff\xff\xff\xff" + _GOOD[_BLOCKS_AT + 4 :]


class Segments(Target):
    corpus = (
        made({1: (["abc"], [])}),
        made({1: (["the invoice"], ["of the \u00fc\u00fc\u00fc"]), 9: ([], ["aaaa abc"])}, (3, 5)),
        made({uid: ([f"subject {uid * 7919}"], [f"text {uid * 104729} of it {uid}"]) for uid in range(1, 200)}),
        made({}, (1, 2)),
        _WITH_VERY_MANY_BLOCKS,
    )
    tokens = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\0\0\0", b"\x80\x80\x80\x80\x01")

    def __init__(self) -> None:
        self._fd = os.memfd_create("segment")

    def one(self, data: bytes) -> None:
        for record in (data, repaired(data)):
            segment = _grams.segment_of(record[: _grams.HEAD_BYTES])
            if segment is None:
                continue
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, record, 0)
            for needle in NEEDLES:
                for with_header in (False, True):
                    _grams.find(self._fd, [segment], needle, with_header)
            _grams.left_out(segment, record[_grams.HEAD_BYTES :][: segment.table_bytes])
            kept = set(range(1, 300))
            _grams.merge([record], [kept])
            _grams.merge([record, self.corpus[0]], [kept, kept])

    def close(self) -> None:
        os.close(self._fd)


if __name__ == "__main__":
    sys.exit(main(Segments, __doc__ or ""))
