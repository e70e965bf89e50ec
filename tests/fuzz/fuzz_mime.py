"""Throws damaged messages at _mime for a given time: `python tests/fuzz/fuzz_mime.py [--seconds N] [--seed N]`.

Every record must be valid, equal for two ways of cutting, and bounded; nothing may raise but what is documented. With
the asan flavour of the build it also looks for reads and writes out of bounds. A failure prints the message.
"""

import argparse
import contextlib
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fastmta import _mime
from tests.mime.messages import BROKEN, CASES, generated
from tests.mime.test_structure import check, record_of

TOKENS = (
    *(bytes((c,)) for c in b'\r\n\0"\\()<>@,;:= \t\xff'),
    *(b"\r\n", b"\r\n\r\n", b"\r\n ", b"--", b"--b", b"--b--", b"*0*=", b"To: ", b"=?utf-8?q?", b"?=", b"A" * 70_000),
    b"Content-Type: multipart/digest; boundary=b\r\n",
    b"Content-Type: message/rfc822\r\n\r\n",
)


def mutate(source: random.Random, message: bytes) -> bytes:
    data = bytearray(message)
    for _ in range(source.randrange(1, 8)):
        at = source.randrange(len(data) + 1)
        move = source.randrange(4)
        if move == 0:
            data[at : at + source.randrange(20)] = b""
        elif move == 1:
            data[at:at] = source.choice(TOKENS)
        elif move == 2:
            data[at : at + 1] = bytes((source.randrange(256),))
        else:
            start = source.randrange(len(data) + 1)
            data[at:at] = data[start : start + source.randrange(200)]
    return bytes(data)


def one(source: random.Random, message: bytes) -> None:
    whole = record_of([message])
    check(message, whole)
    size = source.randrange(1, 40) if len(message) < 20_000 else source.randrange(1000, 5000)
    if record_of([message[i : i + size] for i in range(0, len(message), size)]) != whole:
        raise AssertionError(f"the record depends on cuts of {size}")
    parts = _mime.parts_of(whole)
    for section in ("", "1", "1.1", "2.HEADER", "1.2.MIME", "TEXT", source.choice(parts).path):
        _mime.find_part(whole, section)
    header = message[: parts[0].header_length]
    for line in header.splitlines()[:20]:
        _mime.decode_header(line)
    _mime.header_fields(header, ["to", "subject"], bool(source.randrange(2)))
    leaf = parts[-1]
    _mime.decode_body(message[leaf.body_offset :], leaf.encoding, leaf.charset, 10_000)
    damaged = bytearray(whole)
    damaged[source.randrange(len(damaged))] = source.randrange(256)
    for look in (_mime.parts_of, _mime.bodystructure_of, lambda record: _mime.find_part(record, "1.2.3")):
        with contextlib.suppress(ValueError):
            look(bytes(damaged))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    seconds, seed = options.seconds, options.seed
    source = random.Random(seed)
    corpus = [*CASES.values(), *BROKEN.values(), *(generated(i) for i in range(100))]
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        message = mutate(source, source.choice(corpus))
        try:
            one(source, message)
        except Exception:
            print(f"seed {seed}, message {count}:\n{message!r}", file=sys.stderr)
            raise
        count += 1
        if len(message) < 5000 and source.randrange(10) == 0:
            corpus[source.randrange(len(corpus))] = message
    print(f"{count} messages, seed {seed}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
