"""Mail from strangers is verified when it has come, and what that came to stands on top."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fastmta.dns.resolver import LookupTrouble, NotFound
from tests.smtp.stages import STRANGER
from tests.support.smtp_rig import Client, SmtpRig

Make = Callable[..., SmtpRig]
LETTER = b"From: ann@sender.test\r\nSubject: x\r\n\r\nHello\r\n"
ZONE: dict[tuple[str, str], Any] = {
    ("sender.test", "TXT"): (b"v=spf1 ip4:198.51.100.9 -all",),
    ("_dmarc.sender.test", "TXT"): (b"v=DMARC1; p=reject",),
    ("_dmarc.junk.test", "TXT"): (b"v=DMARC1; p=quarantine",),
}


class FakeResolver:
    def __init__(self, zone: dict[tuple[str, str], Any]) -> None:
        self.zone = zone
        self.asked: list[str] = []

    async def _find(self, name: str, kind: str) -> Any:
        self.asked.append(name)
        await asyncio.sleep(0)
        found = self.zone.get((name, kind))
        if found == "?":
            raise LookupTrouble("no answer")
        if found is None:
            raise NotFound(name, kind, name_exists=True)
        return found

    async def txt(self, name: str) -> Any:
        return await self._find(name, "TXT")

    async def a(self, name: str) -> Any:
        return await self._find(name, "A")

    aaaa = mx = ptr = a


@pytest.fixture
def rig(make_rig: Make) -> SmtpRig:
    rig = make_rig(smtpd_authentication=True, authserv_id="mx.example.test")
    rig.resolver = FakeResolver(dict(ZONE))  # type: ignore[assignment]
    rig.add_mailbox(b"bill@example.test")
    return rig


async def deliver(
    rig: SmtpRig, letter: bytes = LETTER, *, sender: bytes = b"ann@sender.test", ip: str = STRANGER, **options: Any
) -> tuple[bytes, bytes]:
    """The reply to the dot, and the message as it is stored."""
    client: Client = rig.connect(options.get("service", "smtp"), ip=ip).start(
        options.get("hello", b"EHLO mx.sender.test")
    )
    client.say(b"MAIL FROM:<%b>\r\nRCPT TO:<bill@example.test>\r\nDATA\r\n" % sender)
    client.feed(letter + b".\r\n")
    for _ in range(60):
        await asyncio.sleep(0)
    rig.settle()
    stored = rig.blobs()
    return client.take(), stored[-1] if stored else b""


async def test_results_stand_on_top_of_the_message(rig: SmtpRig) -> None:
    reply, stored = await deliver(rig)
    assert reply.startswith(b"250 ")
    field, _, rest = stored.partition(b"Received: ")
    assert field.replace(b"\r\n", b"").replace(b"\t", b" ") == (
        b"Authentication-Results: mx.example.test; spf=pass smtp.mailfrom=ann@sender.test; dkim=none;"
        b" dmarc=pass (p=reject dis=none) header.from=sender.test"
    )
    assert rest.endswith(LETTER)


async def test_spf_is_asked_about_at_mail(rig: SmtpRig) -> None:
    client = rig.connect(ip=STRANGER).start()
    assert client.say(b"MAIL FROM:<ann@sender.test>\r\nRCPT TO:<bill@example.test>\r\n").count(b"250 ") == 2
    for _ in range(10):
        await asyncio.sleep(0)
    # Twice at most: a look-up that has to wait is begun anew in a task, and a real resolver makes one question of both.
    assert set(rig.resolver.asked) == {"sender.test"}  # type: ignore[attr-defined]


async def test_dmarc_reject_is_obeyed(rig: SmtpRig) -> None:
    reply, stored = await deliver(rig, sender=b"bad@elsewhere.test", ip="203.0.113.5")
    assert reply == b"550 5.7.1 Message rejected by the DMARC policy of sender.test\r\n"
    assert stored == b""


async def test_dmarc_reject_may_be_weakened(make_rig: Make) -> None:
    rig = make_rig(smtpd_authentication=True, dmarc_reject_action="none")
    rig.resolver = FakeResolver(dict(ZONE))  # type: ignore[assignment]
    rig.add_mailbox(b"bill@example.test")
    reply, stored = await deliver(rig, sender=b"bad@elsewhere.test", ip="203.0.113.5")
    assert reply.startswith(b"250 ")
    assert b"dmarc=fail" in stored


async def test_dmarc_quarantine_files_into_junk(rig: SmtpRig) -> None:
    account_id = rig.directory.accounts[b"bill@example.test"].account_id
    junk, unit = rig.raw.new_id(), rig.raw.new_unit()
    unit.mailbox_new(junk, account_id, b"Junk", b"\\Junk", 1)
    rig.raw.commit_sync(unit)
    reply, _ = await deliver(rig, LETTER.replace(b"sender.test", b"junk.test"))
    assert reply.startswith(b"250 ")
    assert len(list(rig.store.mailboxes.rows(junk))) == 1


async def test_a_report_of_success_does_not_bring_suspected_mail_into_the_inbox(rig: SmtpRig) -> None:
    target = rig.directory.accounts[b"bill@example.test"]
    junk, unit = rig.raw.new_id(), rig.raw.new_unit()
    unit.mailbox_new(junk, target.account_id, b"Junk", b"\\Junk", 1)
    rig.raw.commit_sync(unit)
    client = rig.connect(ip=STRANGER).start()
    client.say(b"MAIL FROM:<ann@sender.test>\r\nRCPT TO:<bill@example.test> NOTIFY=SUCCESS\r\nDATA\r\n")
    client.feed(LETTER.replace(b"sender.test", b"junk.test") + b".\r\n")
    for _ in range(60):
        await asyncio.sleep(0)
    rig.settle()
    assert client.take().startswith(b"250 ")
    assert [len(list(rig.store.mailboxes.rows(each))) for each in (junk, target.mailbox_id)] == [1, 0]
    assert rig.queue() == []


async def test_trouble_with_the_dns_lets_pass(rig: SmtpRig) -> None:
    rig.resolver.zone[("_dmarc.sender.test", "TXT")] = "?"  # type: ignore[attr-defined]
    reply, stored = await deliver(rig, sender=b"bad@elsewhere.test", ip="203.0.113.5")
    assert reply.startswith(b"250 ")
    assert b"dmarc=temperror" in stored
    told = [fields["reason"] for event, fields in rig.log.events if event == "policy.verdict"]
    assert any("dmarc=temperror" in reason for reason in told)


FORGED = b"Authentication-Results: mx.example.test; dmarc=pass\r\n\theader.from=sender.test\r\n"


@pytest.mark.parametrize("where", ["first", "last", "both", "folded"])
async def test_forged_results_of_ours_are_not_shown(rig: SmtpRig, where: str) -> None:
    others = b"Authentication-Results: other.test; spf=fail\r\n"
    letter = {
        "first": FORGED + others + LETTER,
        "last": LETTER.replace(b"\r\n\r\n", b"\r\n" + others + FORGED + b"\r\n"),
        "both": FORGED + FORGED + others + LETTER.replace(b"\r\n\r\n", b"\r\n" + FORGED + b"\r\n"),
        "folded": b"authentication-results :\r\n (x) MX.example.TEST 1; dmarc=pass\r\n" + others + LETTER,
    }[where]
    reply, stored = await deliver(rig, letter)
    assert reply.startswith(b"250 ")
    came = stored.partition(b"Received: ")[2]
    assert b"dmarc=pass" not in came
    assert others in came
    assert came.endswith(b"\r\n\r\nHello\r\n")
    assert stored.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize("value", [b"; dmarc=pass header.from=sender.test", b"(never closed; dmarc=pass", b""])
async def test_results_whose_server_cannot_be_told_are_not_shown(rig: SmtpRig, value: bytes) -> None:
    raw = b"Authentication-Results: " + value + b"\r\nFrom: ann@sender.test\r\n\r\nText\r\n"
    _, shown = await deliver(rig, raw)
    assert b"Authentication-Results: " + value + b"\r\n" not in shown
    assert shown.count(b"Authentication-Results:") == 1


async def test_offsets_of_parts_hold_where_a_field_is_not_shown(rig: SmtpRig) -> None:
    body = b"--b\r\n\r\none\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>two\r\n--b--\r\n"
    letter = FORGED + b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n" + LETTER[:-7] + body
    await deliver(rig, letter)
    mailbox_id = rig.directory.accounts[b"bill@example.test"].mailbox_id
    (row,) = rig.store.mailboxes.rows(mailbox_id)
    whole = rig.raw.message_read(mailbox_id, row.uid, 0, 100_000) if hasattr(rig.raw, "message_read") else None
    assert whole is None or b"<p>two" in whole
    assert row.size > 0


async def test_too_many_forged_fields_are_refused_for_good(rig: SmtpRig) -> None:
    letter = b"".join(FORGED + b"X: y\r\n" for _ in range(70)) + LETTER
    assert (await deliver(rig, letter))[0].startswith(b"554 5.6.0")


@pytest.mark.parametrize("service", ["lmtp", "submission"])
async def test_other_services_ask_nothing(rig: SmtpRig, service: str) -> None:
    assert rig.connect(service, ip=STRANGER).session.stages == 0


async def test_clients_of_ours_are_not_asked_about(rig: SmtpRig) -> None:
    assert rig.connect(ip="127.0.0.1").session.stages == 0
    reply, stored = await deliver(rig, sender=b"bad@elsewhere.test", ip="127.0.0.1")
    assert reply.startswith(b"250 ")
    assert b"Authentication-Results" not in stored


async def test_a_message_over_memory_is_verified_whole(rig: SmtpRig) -> None:
    signature = (
        b"DKIM-Signature: v=1; a=rsa-sha256; d=sender.test; s=k; h=from; c=relaxed/relaxed;\r\n bh=AAAA; b=AAAA\r\n"
    )
    letter = signature + LETTER + b"0123456789abcdef\r\n" * 40_000
    client = rig.connect(ip=STRANGER).start()
    client.say(b"MAIL FROM:<ann@sender.test>\r\nRCPT TO:<bill@example.test>\r\nDATA\r\n")
    for at in range(0, len(letter), 60_000):
        client.feed(letter[at : at + 60_000])
        rig.settle()
    client.feed(b".\r\n")
    for _ in range(100):
        await asyncio.sleep(0)
    rig.settle()
    assert client.take().startswith(b"250 ")
    (stored,) = rig.blobs()
    assert b"dkim=" in stored[:400]
    assert stored.endswith(letter)
