"""The client's name is looked up before the greeting."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fastmta.dns.resolver import NotFound
from fastmta.policy.networks import Networks
from tests.support.smtp_rig import Client, FakeTasks, SmtpRig

Make = Callable[..., SmtpRig]
IP = "203.0.113.9"


class SlowNames:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked = 0

    async def ptr(self, address: str) -> Any:
        self.asked += 1
        await self.gate.wait()
        if address != IP:
            raise NotFound(address, "PTR", name_exists=False)
        return ("mail.sender.test",)

    async def addresses(self, name: str) -> Any:
        return (IP,)


class LoopTasks(FakeTasks):
    def spawn(self, name: str, work: Any) -> Any:
        return asyncio.get_running_loop().create_task(work, name=name)


@pytest.fixture
async def rig(make_rig: Make) -> SmtpRig:
    rig = make_rig(smtpd_peername_lookup=True)
    rig.resolver = SlowNames()  # type: ignore[assignment]
    rig.server.names._resolver = rig.resolver
    rig.tasks = LoopTasks()  # type: ignore[assignment]
    rig.add_mailbox(b"bill@example.test")
    return rig


async def turn() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def named(rig: SmtpRig, ip: str = IP, service: str = "smtp") -> Client:
    client = rig.connect_silently(service, ip)
    rig.resolver.gate.set()  # type: ignore[attr-defined]
    await turn()
    return client


async def test_the_greeting_comes_once_the_name_is_known(rig: SmtpRig) -> None:
    client = rig.connect_silently(ip=IP)
    await turn()
    assert client.take() == b""
    rig.resolver.gate.set()  # type: ignore[attr-defined]
    await turn()
    assert client.take() == b"220 mx ESMTP\r\n"
    assert client.session.client == f"mail.sender.test[{IP}]"


async def test_received_and_the_envelope_have_the_name(rig: SmtpRig) -> None:
    client = await named(rig)
    client.take()
    client.say(b"EHLO client.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bill@example.test>\r\nDATA\r\n")
    client.feed(b"Subject: x\r\n\r\nx\r\n.\r\n")
    rig.settle()
    assert rig.blobs()[0].startswith(b"Received: from client.test (mail.sender.test [203.0.113.9])\r\n")


async def test_a_known_client_is_greeted_at_once(rig: SmtpRig) -> None:
    await named(rig)
    again = rig.connect_silently(ip=IP)
    assert again.take() == b"220 mx ESMTP\r\n" and again.session.client == f"mail.sender.test[{IP}]"
    assert rig.resolver.asked == 1  # type: ignore[attr-defined]


async def test_whoever_has_no_name_is_unknown(rig: SmtpRig) -> None:
    client = await named(rig, "203.0.113.10")
    assert client.take() == b"220 mx ESMTP\r\n" and client.session.client == "unknown[203.0.113.10]"


async def test_talking_meanwhile_is_talking_before_the_greeting(rig: SmtpRig) -> None:
    client = rig.connect_silently(ip=IP)
    client.feed(b"EHLO early.test\r\n")
    assert client.take().startswith(b"554 ")
    rig.resolver.gate.set()  # type: ignore[attr-defined]
    await turn()
    assert client.take() == b""


async def test_leaving_meanwhile_ends_the_search(rig: SmtpRig) -> None:
    client = rig.connect_silently(ip=IP)
    await turn()
    client.session.connection_lost(None)
    rig.resolver.gate.set()  # type: ignore[attr-defined]
    await turn()
    assert not rig.server.checks and client.take() == b""


async def test_drain_meanwhile_says_farewell_and_no_greeting(rig: SmtpRig) -> None:
    client = rig.connect_silently(ip=IP)
    await turn()
    rig.server.close_all()
    assert client.take().startswith(b"421 ")
    rig.resolver.gate.set()  # type: ignore[attr-defined]
    await turn()
    assert client.take() == b""


@pytest.mark.parametrize(("service", "keys"), [("lmtp", {}), ("smtp", {"smtpd_peername_lookup": False})])
async def test_nobody_is_asked_where_names_are_off(make_rig: Make, service: str, keys: dict[str, Any]) -> None:
    rig = make_rig(**{"smtpd_peername_lookup": True, **keys})
    rig.server.names._resolver = SlowNames()
    client = rig.connect_silently(service, IP)
    assert client.take().startswith(b"220 ") and client.session.client == f"unknown[{IP}]"


async def test_what_an_address_is_comes_anew_with_a_reload_and_beyond_the_bound(
    make_rig: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastmta.smtp.server.CLIENT_NAMES", 2)
    rig = make_rig()
    first, again = (rig.connect_silently(ip=IP) for _ in range(2))
    assert not first.session.trusted and not again.session.trusted
    host = first.session.service.host
    rig.networks = Networks([IP])
    assert not rig.connect_silently(ip=IP).session.trusted
    rig.server.reload(rig)  # type: ignore[arg-type]
    assert rig.connect_silently(ip=IP).session.trusted
    for last in range(1, 4):  # at the bound, and over it
        other = rig.connect_silently(ip=f"198.51.100.{last}")
        assert other.session.peer_ip == f"198.51.100.{last}" and len(host._clients) <= 2
    assert rig.connect_silently(ip=IP).session.trusted
