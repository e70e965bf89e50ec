"""Throws texts at what makes the text index: what is in a message is found by it, whatever it is; see harness.py for
options.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fastmta import _grams
from tests.fuzz.fuzz_grams import made
from tests.fuzz.harness import Target, main


class Texts(Target):
    corpus = (
        b"the invoice\nof the \xc3\xbc\xc3\xbc\xc3\xbc",
        b"\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80\nx",
        b"a\0b\0c",
        b"aaaaaaaa\nab\n\nabc abd",
    )
    tokens = (b"\n", b"\xed\xa0\x80", b"\xf4\x8f\xbf\xbf", b"\xff", b"\0", b"   ")

    def __init__(self) -> None:
        self._fd = os.memfd_create("segment")

    def one(self, data: bytes) -> None:
        texts = [text.casefold() for text in data.decode("utf-8", "replace").split("\n")]
        docs = {uid: ([text], []) if uid % 2 else ([], [text]) for uid, text in enumerate(texts[:200], 1)}
        record = made(docs)
        segment = _grams.segment_of(record[: _grams.HEAD_BYTES])
        assert segment is not None
        assert segment.length == len(record)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, record, 0)
        for uid, text in list(enumerate(texts[:200], 1))[:20]:
            needle = text[len(text) // 3 :][:12]
            if len(needle) >= 3:
                assert uid in _grams.find(self._fd, [segment], needle, True)[0]
        assert _grams.merge([record], [set(docs)]) == record

    def close(self) -> None:
        os.close(self._fd)


if __name__ == "__main__":
    sys.exit(main(Texts, __doc__ or ""))
