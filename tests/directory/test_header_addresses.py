"""Where the addresses of a header field lie, whatever stands around them; and what a hostile one costs."""

import time

import pytest

from fastmta.directory.header_addresses import rewritten, spans


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a@b.c", ["a@b.c"]),
        (" Ann <a@b.c> , b@c.d (Bob)", ["a@b.c", "b@c.d"]),
        ('"Smith, J. <x@y.z>" <a@b.c>', ["a@b.c"]),
        ('"a b"@c.d, <"x y"@z.w>', ['"a b"@c.d', '"x y"@z.w']),
        ("(one (two, x@y.z) \\) three) a@b.c", ["a@b.c"]),
        ("Group: a@b.c, Dd <d@e.f>;, g@h.i", ["a@b.c", "d@e.f", "g@h.i"]),
        ("undisclosed-recipients:;", []),
        ("<@r.x,@s.y:a@b.c>", ["a@b.c"]),
        ("a @ b . c", ["a@b.c"]),
        ("user@[192.0.2.1]", ["user@[192.0.2.1]"]),
        ("user@[IPv6:2001:db8::1], b", ["user@[IPv6:2001:db8::1]", "b"]),
        ("<>", []),
        ("", []),
        (",,;", []),
        ("a@b.c\r\n\t(x),\r\n d", ["a@b.c", "d"]),
        ("a (in the middle) @b.c", []),
        ('"endless <a@b.c>', ['"endless', "a@b.c"][1:]),
        ("<a@b.c", []),
    ],
)
def test_addresses_are_found(text: str, found: list[str]) -> None:
    assert [each.text for each in spans(text)] == found


async def nothing() -> None:
    pass


async def test_what_is_not_an_address_stays_octet_for_octet() -> None:
    text = ' "A, b" (c <x>)\r\n\t< old@x.y > (d), Group : other@x.y ,old@x.y;'
    new = await rewritten(text, lambda each: "new@z.w" if each == "old@x.y" else None, nothing)
    assert new == ' "A, b" (c <x>)\r\n\t< new@z.w > (d), Group : other@x.y ,new@z.w;'
    assert await rewritten(text, lambda each: each, nothing) is None


@pytest.mark.parametrize(("text", "least"), [("a," * 1000, 1000), ("<a@b.c>" * 1000, 1000), ("[" * 16_000, 60)])
async def test_others_get_their_turn_within_a_field(text: str, least: int) -> None:
    pauses = 0

    async def pause() -> None:
        nonlocal pauses
        pauses += 1

    await rewritten(text, lambda each: None, pause)
    assert pauses >= least


@pytest.mark.parametrize(
    "piece", ['"', "[", "(", "<", '\\"', "\\[", ")", ":", "a,", "<a", "((", '"a', "a ", '\\"[', "<@a:", ">", "a@b.c,"]
)
def test_a_hostile_field_costs_time_that_grows_with_its_length_alone(piece: str) -> None:
    def took(size: int) -> float:
        text = piece * (size // len(piece))
        best = 1e9
        for _ in range(3):
            began = time.process_time()
            for _ in spans(text):
                pass
            best = min(best, time.process_time() - began)
        return best

    small, large = took(4_000), took(64_000)
    assert large < 80 * max(small, 1e-4), (small, large)
