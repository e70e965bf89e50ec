"""Lines over the limit: Postfix's rule, wherever the message is cut into pieces."""

import itertools
import random

import pytest

from fastmta.smtp.folding import Folder, signatures


def folded(message: bytes, limit: int) -> bytes:
    """The rule, slowly: a line goes on in a new one that begins with a space."""
    out = []
    for line in message.split(b"\r\n"):
        while len(line) > limit:
            out.append(line[:limit])
            line = b" " + line[limit:]
        out.append(line)
    return b"\r\n".join(out)


def fold(message: bytes, limit: int, *cuts: int) -> tuple[bytes, int]:
    folder = Folder(limit)
    places = [0, *cuts, len(message)]
    return b"".join(folder.fold(message[a:b]) for a, b in itertools.pairwise(places)), folder.folded


@pytest.mark.parametrize("length", [0, 1, 997, 998, 999, 1000, 1995, 1996, 1997, 5000])
@pytest.mark.parametrize("end", [b"\r\n", b"", b"\r\nx\r\n"])
def test_a_line_at_under_and_over_the_limit(length: int, end: bytes) -> None:
    message = b"A: b\r\n" + b"y" * length + end
    out, lines = fold(message, 998)
    assert out == folded(message, 998)
    assert max(map(len, out.split(b"\r\n"))) <= 998
    assert lines == (length > 998)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\r\n",
        b"1234\r\n12345\r\n123456\r\n.\r\n",
        b"." * 12 + b"\r\n.x\r\n",
        b"no end of it",
        b"1234\r\n\r\n12345678\r\n",
    ],
)
def test_every_cut_gives_the_same(message: bytes) -> None:
    for limit in (2, 3, 4, 5, 100):
        whole = fold(message, limit)
        assert whole[0] == folded(message, limit)
        for cut in range(len(message)):
            assert fold(message, limit, cut) == whole
        assert fold(message, limit, *range(len(message))) == whole


def test_any_message_in_any_pieces() -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    for _ in range(500):
        lines = [b"x" * rng.choice((0, 1, 6, 7, 8, 15, 40)) for _ in range(rng.randrange(8))]
        message = b"\r\n".join(lines)
        cuts = sorted(rng.randrange(len(message) + 1) for _ in range(rng.randrange(5)))
        out, count = fold(message, 7, *cuts)
        assert (out, count) == (folded(message, 7), sum(len(line) > 7 for line in lines)), f"seed {seed}"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"Subject: x\r\nX-DKIM-Signature: y\r\n", ()),
        (b"DKIM-Signature: v=1;\r\n\tb=x\r\n", ("DKIM",)),
        (b"arc-message-signature: i=1\r\ndkim-signature: v=1\r\n", ("DKIM", "ARC")),
        (b"Content-Type:\r\n Multipart/Signed; boundary=x\r\n", ("multipart/signed",)),
        (b"", ()),
    ],
)
def test_the_signatures_that_break_are_named(header: bytes, found: tuple[str, ...]) -> None:
    assert signatures(header) == found
