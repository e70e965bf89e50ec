"""The resolver asks many questions over few sockets, and believes only what answers them."""

import asyncio
import os
import struct
import threading
import time
import tracemalloc
from typing import Any

import dns.flags
import dns.message
import dns.rrset
import pytest

from fastmta.dns.exchange import _read
from fastmta.dns.resolver import LookupTrouble, NotFound, Resolver
from fastmta.model.limits import DNS_ON_WIRE, DNS_RECORDS, DNS_SOCKETS
from tests.support.dns_stub import REFUSED, SERVFAIL, TIMEOUT, DnsStub


def resolver(*stubs: DnsStub, **settings: Any) -> Resolver:
    return Resolver([stub.address for stub in stubs], monotonic=time.monotonic, **settings)


async def test_answers_absences_and_trouble() -> None:
    zones = {
        "example.test": {"MX": [(10, "mx.example.test")], "TXT": ["v=spf1 -all"]},
        "mx.example.test": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]},
        "alias.test": {"CNAME": "mx.example.test"},
        "loop.test": {"CNAME": "loop.test"},
        "broken.test": SERVFAIL,
    }
    async with DnsStub(zones) as stub:
        asked = resolver(stub)
        assert await asked.mx("Example.TEST.") == ((10, "mx.example.test"),)
        assert await asked.txt("example.test") == (b"v=spf1 -all",)
        assert await asked.addresses("alias.test") == ("2001:db8::1", "192.0.2.1")
        for name, exists in (("none.test", False), ("example.test", True), ("loop.test", True)):
            with pytest.raises(NotFound) as absence:
                await asked.a(name)
            assert absence.value.name_exists is exists
        with pytest.raises(LookupTrouble):
            await asked.a("broken.test")
        await asked.close()


@pytest.mark.parametrize(
    "name",
    [
        ".".join(["x" * 60] * 5) + ".test",
        f"{'s' * 63}.{'s' * 63}.{'s' * 63}.{'s' * 40}._domainkey.example.test",
        "x" * 64 + ".test",
        "\u00e9" * 60 + ".test",
        "a..test",
        ".test",
        "a\\300.test",
        "\udc80.test",
    ],
)
async def test_a_name_that_the_dns_has_no_room_for_does_not_exist(name: str) -> None:
    async with DnsStub({}) as stub:
        asked = resolver(stub)
        for ask in (asked.txt, asked.a, asked.mx):
            with pytest.raises(NotFound) as absence:
                await ask(name)
            assert not absence.value.name_exists
        await asked.close()


async def test_an_absence_that_is_kept_holds_nothing_of_the_answer() -> None:
    async with DnsStub({"loop.test": {"CNAME": "loop.test"}}) as stub:
        asked = resolver(stub)
        for name in ("none.test", "loop.test"):
            with pytest.raises(NotFound):
                await asked.a(name)
            kept = asked._cache.get(name, "A")
            assert isinstance(kept, NotFound)
            assert kept.__traceback__ is kept.__context__ is kept.__cause__ is None
        await asked.close()


async def test_those_who_ask_the_same_share_one_question() -> None:
    async with DnsStub({"example.test": {"A": ["192.0.2.1"]}}) as stub:
        asked = resolver(stub)
        tasks = [asyncio.create_task(asked.a("example.test")) for _ in range(50)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError), "the others' answer is not his to cancel"
        assert answers[1:] == [("192.0.2.1",)] * 49
        assert stub.queries["example.test", "A"] == 1
        assert await asked.a("example.test") == ("192.0.2.1",)
        assert stub.queries["example.test", "A"] == 1
        await asked.close()


@pytest.mark.parametrize("count", [DNS_RECORDS - 1, DNS_RECORDS, DNS_RECORDS + 1, 4000])
async def test_a_long_answer_is_read_in_a_thread_and_to_a_bound(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    read: list[tuple[bool, int]] = []
    from_wire = dns.message.from_wire

    def noted(data: bytes, *arguments: Any, **options: Any) -> Any:
        if data[2] & 0x80:
            read.append((threading.current_thread() is threading.main_thread(), int.from_bytes(data[6:8], "big")))
        return from_wire(data, *arguments, **options)

    addresses = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(count)]
    async with DnsStub({"big.test": {"A": addresses}, "alias.test": {"CNAME": "big.test"}}) as stub:
        asked = resolver(stub)
        with monkeypatch.context() as patched:
            patched.setattr(dns.message, "from_wire", noted)
            found = await asked.a("alias.test")
        await asked.close()
    most = min(count, DNS_RECORDS - 1)  # with the alias
    assert set(found) <= set(addresses) and len(found) == most
    assert read == [(False, min(count + 1, DNS_RECORDS))]


@pytest.mark.parametrize("octets", range(20, 60))
def test_a_long_answer_that_ends_early_is_a_broken_one(octets: int) -> None:
    header = struct.pack(">HHHHHH", 1, 0x8180, 1, DNS_RECORDS + 1, 0, 0)
    records = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + b"\x7f\0\0\2"
    assert str(_read((header + b"\1a\4test\0\0\1\0\1" + records * 3)[:octets])).startswith("a broken answer")


async def test_a_truncated_answer_comes_over_tcp() -> None:
    texts = [f"{n:03}" + "x" * 200 for n in range(30)]
    async with DnsStub({"big.test": {"TXT": texts}}) as stub:
        asked = resolver(stub)
        assert len(await asked.txt("big.test")) == 30
        assert stub.tcp_queries == 1
        await asked.close()


@pytest.mark.parametrize("bad", [SERVFAIL, REFUSED, TIMEOUT])
async def test_the_next_server_is_asked_where_one_has_no_answer(bad: str) -> None:
    async with DnsStub({"example.test": bad}) as first, DnsStub({"example.test": {"A": ["192.0.2.1"]}}) as second:
        hasty = {"query_timeout_s": 0.5} if bad == TIMEOUT else {}
        asked = resolver(first, second, **hasty)
        assert await asked.a("example.test") == ("192.0.2.1",)
        await asked.close()


async def test_nobody_listening_is_trouble_and_not_a_long_wait() -> None:
    asked = Resolver(["127.0.0.1:1"], monotonic=time.monotonic)
    with pytest.raises(LookupTrouble):
        await asyncio.wait_for(asked.a("example.test"), 60)
    await asked.close()


async def test_a_server_that_never_answers_ends_in_trouble() -> None:
    async with DnsStub({"example.test": TIMEOUT}) as stub:
        asked = resolver(stub, query_timeout_s=0.02, lookup_timeout_s=0.04)
        with pytest.raises(LookupTrouble, match="no answer in time"):
            await asked.a("example.test")
        assert stub.queries["example.test", "A"] == 2
        await asked.close()


class Altering(DnsStub):
    """A server whose datagrams a test changes: `alter(query, response)` gives all that is sent."""

    def __init__(self, alter: Any, zones: Any) -> None:
        super().__init__(zones)
        self._alter = alter

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        response = self.answer(query)
        assert response is not None
        for wire in self._alter(data, response):
            self._sender.sendto(wire, addr)


ZONES = {"example.test": {"A": ["192.0.2.1"]}}


def forged(query: bytes, response: dns.message.Message) -> dns.message.Message:
    lie = dns.message.from_wire(response.to_wire())
    lie.answer = [dns.rrset.from_text(response.question[0].name, 300, "IN", "A", "203.0.113.66")]
    return lie


async def test_an_answer_with_another_number_is_not_believed() -> None:
    def alter(query: bytes, response: dns.message.Message) -> list[bytes]:
        lie = forged(query, response)
        lie.id ^= 1
        return [lie.to_wire(), response.to_wire()]

    async with Altering(alter, ZONES) as stub:
        asked = resolver(stub)
        assert await asked.a("example.test") == ("192.0.2.1",)
        await asked.close()


async def test_an_answer_to_another_name_is_not_believed() -> None:
    def alter(query: bytes, response: dns.message.Message) -> list[bytes]:
        other = dns.message.make_query("exbmple.test", "A")
        lie = dns.message.make_response(other)
        lie.id = response.id
        lie.answer = [dns.rrset.from_text("exbmple.test.", 300, "IN", "A", "203.0.113.66")]
        return [lie.to_wire(), b"", b"\0" * 5, response.to_wire()]

    async with Altering(alter, ZONES) as stub:
        asked = resolver(stub)
        assert await asked.a("example.test") == ("192.0.2.1",)
        await asked.close()


async def test_an_answer_that_loses_the_case_is_asked_for_over_tcp() -> None:
    def alter(query: bytes, response: dns.message.Message) -> list[bytes]:
        wire = forged(query, response).to_wire()
        length = query.index(0, 12) - 12
        return [wire[:12] + wire[12 : 12 + length].swapcase() + wire[12 + length :]]

    async with Altering(alter, ZONES) as stub:
        asked = resolver(stub)
        assert await asked.a("example.test") == ("192.0.2.1",)
        assert stub.tcp_queries == 1
        await asked.close()


async def test_a_server_without_edns_is_asked_without() -> None:
    def alter(query: bytes, response: dns.message.Message) -> list[bytes]:
        if dns.message.from_wire(query).edns < 0:
            return [response.to_wire()]
        return [query[:2] + b"\x81\x81" + query[4:6] + b"\0" * 6 + query[12 : query.index(0, 12) + 5]]

    async with Altering(alter, ZONES) as stub:
        asked = resolver(stub)
        assert await asked.a("example.test") == ("192.0.2.1",)
        await asked.close()


async def test_a_broken_answer_is_trouble() -> None:
    def alter(query: bytes, response: dns.message.Message) -> list[bytes]:
        wire = response.to_wire()
        return [wire[: len(wire) - 3]]

    async with Altering(alter, ZONES) as stub:
        asked = resolver(stub)
        with pytest.raises(LookupTrouble, match="broken"):
            await asked.a("example.test")
        await asked.close()


async def test_a_reload_asks_the_new_servers_what_was_being_asked() -> None:
    async with DnsStub({"example.test": TIMEOUT}) as old, DnsStub(ZONES) as new:
        asked = resolver(old)
        task = asyncio.create_task(asked.a("example.test"))
        for _ in range(10):
            await asyncio.sleep(0)
        asked.configure([new.address])
        assert await task == ("192.0.2.1",)
        await asked.close()


async def test_thousands_of_questions_cost_a_few_sockets_and_under_a_kilobyte_each() -> None:
    async with DnsStub({}) as stub:
        stub.answer = lambda query: None  # type: ignore[method-assign]
        count = 2 * DNS_ON_WIRE + 1000  # most of them wait for their turn
        asked = resolver(stub)
        warm = resolver(stub, query_timeout_s=0.01, lookup_timeout_s=0.01)
        with pytest.raises(LookupTrouble):  # what is loaded once
            await warm.a("x.test")
        await warm.close()
        before = len(os.listdir("/proc/self/fd"))
        tracemalloc.start()
        base, _ = tracemalloc.get_traced_memory()
        waits = [asked._asked(f"h{n}.example.test", "A") for n in range(count)]
        for _ in range(120):
            await asyncio.sleep(0)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(os.listdir("/proc/self/fd")) - before <= DNS_SOCKETS
        assert (used - base) / count < 1024
        for wait in waits:
            wait.cancel()
        await asked.close()


@pytest.mark.parametrize("answer", [b"\0\0", b"\0\5short", b"\xff\xffcut", b""], ids=["empty", "short", "cut", "none"])
async def test_a_name_server_that_says_nothing_over_tcp_is_followed_by_the_next(answer: bytes) -> None:
    class Mute(DnsStub):
        async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(2)
            writer.write(answer)
            writer.close()

    zones = {"big.test": {"TXT": [f"{n:03}" + "x" * 200 for n in range(10)]}}
    async with Mute(zones) as mute, DnsStub(zones) as good:
        asked = Resolver([mute.address], monotonic=time.monotonic)
        with pytest.raises(LookupTrouble):
            await asyncio.wait_for(asked.txt("big.test"), 60)
        await asked.close()
        asked = Resolver([mute.address, good.address], monotonic=time.monotonic)
        assert len(await asyncio.wait_for(asked.txt("big.test"), 60)) == 10
        assert good.tcp_queries == 1
        await asked.close()
