"""Mail that no session brings passes the checks that apply to it: milters of its own, and signatures."""

import asyncio
import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fastmta.cli.init import initialise
from fastmta.config.load import load
from fastmta.pickup.service import Pickup
from fastmta.pickup.spool import Drop, Ticket, deposit, make_spool
from fastmta.store.dkim_keys import DkimKey
from tests.support.pickup import ListLog, Services, close_services, open_services, settled
from tests.support.scripted_milter import CONTINUE, Answers, ScriptedMilter, packet, scripted_milter

Scene = Callable[[Services], Awaitable[None]]


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = initialise(tmp_path, domain="example.test")
    os.close(make_spool(load(path).data_directory))
    return path


def hand_in(
    path: Path,
    tmp_path: Path,
    answers: Answers,
    *addresses: str,
    before: Scene | None = None,
    after: Scene | None = None,
) -> tuple[ListLog, ScriptedMilter]:
    """What the log and the milter have of one message to these addresses."""
    socket = tmp_path / "milter"
    if "non_smtpd_milters" not in path.read_text():
        path.write_text(f'non_smtpd_milters = "unix:{socket}"\n' + path.read_text())
    ticket = Ticket("ann@example.test", [Drop(each) for each in addresses or ("bill@example.test",)])
    deposit(load(path).data_directory, ticket, [b"Subject: x\nX-Bad: y\n\n", b"body\n"], 0)

    async def scene() -> tuple[ListLog, ScriptedMilter]:
        services = await open_services(load(path))
        try:
            for name in ("bill", "carl"):
                await services.store.accounts.add(f"{name}@example.test", "hash")
            if before is not None:
                await before(services)
            async with scripted_milter(socket, answers) as milter:
                pickup = Pickup(services)
                pickup.start()
                await settled(pickup)
                await pickup.stop()
            if after is not None:
                await after(services)
            return services.log, milter
        finally:
            await close_services(services)

    return asyncio.run(scene())


def message(services: Services, name: str = "bill") -> bytes:
    account = services.store.accounts.lookup(f"{name}@example.test")
    assert account is not None
    (uid,) = services.store.mailboxes.uids(account.inbox_id)
    return services.store.mailboxes.read(account.inbox_id, uid, 0, 100_000) or b""


def test_a_filter_sees_this_machine_the_envelope_and_the_completed_message(config_path: Path, tmp_path: Path) -> None:
    log, milter = hand_in(config_path, tmp_path, {})
    assert milter.data(b"C") == [b"localhost\x004" + struct.pack(">H", 0) + b"127.0.0.1\0"]
    assert milter.data(b"M") == [b"<ann@example.test>\0"] and milter.data(b"R") == [b"<bill@example.test>\0"]
    names = [each.partition(b"\0")[0] for each in milter.data(b"L")]
    assert {b"Subject", b"From", b"Date", b"Message-ID"} <= set(names) and b"Received" not in names
    assert len(log.named("delivery.delivered")) == 1


def test_what_it_adds_and_removes_is_done_and_structure_follows(config_path: Path, tmp_path: Path) -> None:
    changes = packet(b"h", b"X-Seen\0yes\0") + packet(b"m", struct.pack(">I", 1) + b"X-Bad\0\0") + CONTINUE

    async def after(services: Services) -> None:
        shown = message(services)
        assert b"X-Bad" not in shown and b"X-Seen:yes\r\n" in shown
        assert shown.endswith(b"\r\n\r\nbody\r\n")
        account = services.store.accounts.lookup("bill@example.test")
        assert account is not None
        (row,) = services.store.mailboxes.rows(account.inbox_id, services.store.mailboxes.uids(account.inbox_id))
        assert row.size == len(shown)

    hand_in(config_path, tmp_path, {b"E": changes}, after=after)


def test_a_recipient_that_it_refuses_bounces_and_the_others_get_the_message(config_path: Path, tmp_path: Path) -> None:
    answers = {b"R<carl@example.test>\0": packet(b"y", b"550 5.7.1 not carl\0")}
    log, _ = hand_in(config_path, tmp_path, answers, "bill@example.test", "carl@example.test")
    assert [each["recipient"] for each in log.named("delivery.delivered")] == ["bill@example.test"]


def test_a_message_that_it_refuses_bounces(config_path: Path, tmp_path: Path) -> None:
    async def after(services: Services) -> None:
        (row,) = services.store.queue.due(b"error:5.7.1 no spam", 1 << 60, 10)
        assert row is not None

    log, _ = hand_in(config_path, tmp_path, {b"E": packet(b"y", b"550 5.7.1 no spam\0")}, after=after)
    assert len(log.named("pickup.received")) == 1 and log.named("delivery.delivered") == []


def test_what_it_puts_off_waits_in_the_spool(config_path: Path, tmp_path: Path) -> None:
    log, _ = hand_in(config_path, tmp_path, {b"E": packet(b"t")})
    assert len(log.named("pickup.delayed")) == 1 and log.named("pickup.received") == []
    maildrop = Path(load(config_path).data_directory) / "public" / "maildrop"
    assert len(list(maildrop.iterdir())) == 1


def test_what_it_discards_is_gone_and_told(config_path: Path, tmp_path: Path) -> None:
    log, _ = hand_in(config_path, tmp_path, {b"E": packet(b"d")})
    assert log.named("pickup.received") == [] and log.named("policy.verdict")[-1]["verdict"] == "discard"
    maildrop = Path(load(config_path).data_directory) / "public" / "maildrop"
    assert list(maildrop.iterdir()) == []


def test_what_it_quarantines_is_held(config_path: Path, tmp_path: Path) -> None:
    log, _ = hand_in(config_path, tmp_path, {b"E": packet(b"q", b"look\0") + CONTINUE})
    assert [each["recipient"] for each in log.named("delivery.held")] == ["bill@example.test"]


def test_sendmails_mail_is_signed_where_its_domain_has_a_key(config_path: Path, tmp_path: Path) -> None:
    async def before(services: Services) -> None:
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        await services.store.dkim_keys.add(DkimKey("example.test", "s1", "ed25519", "active", pem, 1, 1))

    async def after(services: Services) -> None:
        assert b"DKIM-Signature:" in message(services)

    hand_in(config_path, tmp_path, {}, before=before, after=after)


def test_header_checks_are_asked_about_mail_of_sendmail_too(config_path: Path, tmp_path: Path) -> None:
    table = "pcre:" + str(tmp_path / "checks")
    (tmp_path / "checks").write_text("/^X-Bad: y/ REJECT not that field\n")
    config_path.write_text(f'header_checks = "{table}"\n' + config_path.read_text())
    log, _ = hand_in(config_path, tmp_path, {})
    told = " ".join(str(each) for each in log.events)
    assert "not that field" in told


def test_a_copy_that_header_checks_ask_for_is_delivered_too(config_path: Path, tmp_path: Path) -> None:
    (tmp_path / "checks").write_text("/^X-Bad: y/ BCC carl@example.test\n")
    config_path.write_text(f'header_checks = "pcre:{tmp_path}/checks"\n' + config_path.read_text())
    log, _ = hand_in(config_path, tmp_path, {})
    told = sorted(each["recipient"] for each in log.named("delivery.delivered"))
    assert told == ["bill@example.test", "carl@example.test"]
