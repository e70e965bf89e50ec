"""A client has a name where the DNS says so both ways."""

import asyncio
from typing import Any

import pytest

from fastmta.dns.resolver import LookupTrouble, NotFound
from fastmta.model.limits import CLIENT_PTR_NAMES
from fastmta.policy.client_names import ClientName, ClientNames

IP = "192.0.2.7"


class FakeDns:
    """PTR and address records; "?" has no answer, "..." never comes."""

    def __init__(self, pointers: Any, addresses: dict[str, Any] | None = None) -> None:
        self.pointers = pointers
        self.by_name = addresses or {}
        self.asked: list[str] = []

    async def _say(self, what: str, found: Any) -> Any:
        self.asked.append(what)
        await asyncio.sleep(0)
        if found == "...":
            await asyncio.get_running_loop().create_future()
        if found == "?":
            raise LookupTrouble("no answer")
        if not found:
            raise NotFound(what, "PTR", name_exists=True)
        return found

    async def ptr(self, address: str) -> Any:
        return await self._say(address, self.pointers)

    async def addresses(self, name: str) -> Any:
        return await self._say(name, self.by_name.get(name))


class FakeClock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def names(dns: FakeDns, deadline_s: float = 30.0) -> ClientNames:
    return ClientNames(dns, FakeClock(), deadline_s)


@pytest.mark.parametrize(
    ("pointers", "addresses", "expected"),
    [
        (
            ("mail.example.org",),
            {"mail.example.org": ("192.0.2.7",)},
            ClientName("mail.example.org", "mail.example.org"),
        ),
        (("mail.example.org",), {"mail.example.org": ("192.0.2.8",)}, ClientName("unknown", "mail.example.org")),
        (("mail.example.org",), {}, ClientName("unknown", "mail.example.org")),
        ((), {}, ClientName()),
        ("?", {}, ClientName(is_certain=False)),
        (("a.test", "b.test"), {"b.test": ("192.0.2.7",)}, ClientName("b.test", "a.test")),
        (("a.test", "b.test"), {"a.test": "?", "b.test": ("192.0.2.7",)}, ClientName("b.test", "a.test")),
        (("a.test",), {"a.test": "?"}, ClientName("unknown", "a.test", is_certain=False)),
    ],
)
async def test_a_name_is_confirmed_by_its_addresses(pointers: Any, addresses: Any, expected: ClientName) -> None:
    assert await names(FakeDns(pointers, addresses)).find(IP) == expected


@pytest.mark.parametrize(
    "name", ["192.0.2.7", "a b.test", "a\\010b.test", "-a.test", "a..test", "x" * 64 + ".test", "é.test", ""]
)
async def test_what_is_no_host_name_is_not_taken(name: str) -> None:
    assert await names(FakeDns((name,), {name: (IP,)})).find(IP) == ClientName()


async def test_ipv6_is_compared_as_an_address() -> None:
    dns = FakeDns(("six.test",), {"six.test": ("2001:db8:0:0::1",)})
    assert (await names(dns).find("2001:db8::1%eth0")).name == "six.test"


async def test_a_crowd_of_names_is_not_asked_about() -> None:
    crowd = tuple(f"n{n}.test" for n in range(CLIENT_PTR_NAMES + 1))
    last = {crowd[CLIENT_PTR_NAMES - 1]: (IP,)}
    assert (await names(FakeDns(crowd, last)).find(IP)).name == crowd[CLIENT_PTR_NAMES - 1]
    assert (await names(FakeDns(crowd, {crowd[CLIENT_PTR_NAMES]: (IP,)})).find(IP)).name == "unknown"


async def test_a_silent_dns_ends_at_the_deadline() -> None:
    assert await names(FakeDns("..."), deadline_s=0.01).find(IP) == ClientName(is_certain=False)


async def test_what_was_found_is_kept_for_a_while() -> None:
    clock = FakeClock()
    known = ClientNames(FakeDns(("a.test",), {"a.test": (IP,)}), clock)
    assert known.known(IP) is None
    await known.find(IP)
    assert known.known(IP) == ClientName("a.test", "a.test")
    clock.now += 301
    assert known.known(IP) is None


async def test_trouble_is_kept_for_a_shorter_while() -> None:
    clock = FakeClock()
    known = ClientNames(FakeDns("?"), clock)
    await known.find(IP)
    assert known.known(IP) == ClientName(is_certain=False)
    clock.now += 31
    assert known.known(IP) is None


@pytest.mark.parametrize(("ip", "name"), [("127.0.0.1", "localhost"), ("::1", "localhost"), ("127.8.9.1", "unknown")])
def test_loopback_is_not_asked_for(ip: str, name: str) -> None:
    found = names(FakeDns("?")).known(ip)
    assert found is not None and found.name == name
