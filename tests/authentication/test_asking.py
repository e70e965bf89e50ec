"""What need not wait is done at once, what must is done side by side."""

import asyncio
from functools import partial

from fastmta.authentication.asking import at_once, side_by_side
from fastmta.authentication.spf import SpfVerdict, check_spf, spf_at_once
from tests.authentication.zone import Zone


async def test_what_need_not_wait_gives_its_result() -> None:
    async def known() -> int:
        return 1

    async def asked() -> int:
        await asyncio.get_running_loop().create_future()
        return 2

    assert at_once(known()) == 1
    assert at_once(asked()) is None


async def test_what_waits_is_begun_anew_and_side_by_side() -> None:
    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    begun: list[str] = []

    async def waits(name: str, own: "asyncio.Future[str]", other: "asyncio.Future[str]") -> str:
        begun.append(name)
        if begun.count(name) > 1:
            other.set_result(name)  # so each ends only if both are under way
        else:
            await asyncio.sleep(3600)
        return await own

    async def known() -> str:
        return "known"

    found = await side_by_side(partial(waits, "a", first, second), known, partial(waits, "b", second, first))
    assert found == ["b", "known", "a"]


class Slow(Zone):
    """Its answers come in a later turn of the loop."""

    async def txt(self, name: str) -> tuple[bytes, ...]:
        await asyncio.sleep(0)
        return await super().txt(name)


async def test_spf_is_told_at_once_where_all_answers_are_known() -> None:
    records = {
        "example.org": {"TXT": ["v=spf1 ip4:192.0.2.0/24 -all"]},
        "why.example.org": {"TXT": ["v=spf1 -all exp=e.example.org"]},
        "e.example.org": {"TXT": ["because"]},
    }
    asked = ("192.0.2.1", "h.example.org", "a@example.org")
    assert spf_at_once(Zone(records), *asked) == await check_spf(Zone(records), *asked)
    assert spf_at_once(Slow(records), *asked) is None
    failing = ("192.0.2.1", "h.example.org", "a@why.example.org")
    assert spf_at_once(Zone(records), *failing) is None  # its owner explains
    assert (await check_spf(Zone(records), *failing)).explanation == "because"
    assert spf_at_once(Zone(), *asked) == SpfVerdict("none", "example.org")


async def test_a_look_up_that_was_given_up_leaves_no_failure_behind() -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    async def asks() -> None:
        await future

    assert at_once(asks()) is None
    assert future.cancelled()
