"""Restriction lists at work in a session: who may relay is what smtpd_relay_restrictions say."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fastmta.config.load import parse
from fastmta.policy.checks import restrictions
from fastmta.policy.plan import plan_for
from tests.smtp.stages import STRANGER
from tests.support.smtp_rig import SmtpRig

MAIL = b"MAIL FROM:<a@elsewhere.test>\r\n"
ABROAD = b"RCPT TO:<x@abroad.test>\r\n"
HERE = b"RCPT TO:<amy@example.test>\r\n"
Listed = Callable[[str], SmtpRig]


@pytest.fixture
def listed(rig: SmtpRig, tmp_path: Path) -> Listed:
    """The rig with restriction lists."""
    rig.add_mailbox(b"amy@example.test")

    def put(text: str) -> SmtpRig:
        config = parse(text, base=tmp_path)
        rig.server.plan = lambda service: plan_for(service, config, rig, [restrictions.build])  # type: ignore
        rig.server.reload(rig)  # type: ignore[arg-type]
        return rig

    return put


def said(rig: SmtpRig, command: bytes, ip: str = STRANGER) -> bytes:
    client = rig.connect(ip=ip).start()
    client.say(MAIL)
    return client.say(command)[:9]


@pytest.mark.parametrize("text", ["", 'smtpd_recipient_restrictions = "permit"'])
async def test_whoever_the_lists_do_not_name_relays_only_as_one_of_ours(listed: Listed, text: str) -> None:
    rig = listed(text)
    assert said(rig, ABROAD) == b"554 5.7.1"
    assert said(rig, ABROAD, "127.0.0.1") == b"250 2.1.5"
    assert said(rig, HERE) == b"250 2.1.5"


async def test_postfix_default_defers_where_ours_rejects(listed: Listed) -> None:
    rig = listed('smtpd_relay_restrictions = "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination"')
    assert said(rig, ABROAD) == b"454 4.7.1"
    assert said(rig, ABROAD, "127.0.0.1") == b"250 2.1.5"


async def test_a_list_may_let_a_stranger_relay_and_keep_one_of_ours_from_it(listed: Listed, tmp_path: Path) -> None:
    (tmp_path / "clients").write_text(f"{STRANGER} OK\n")
    rig = listed('smtpd_relay_restrictions = "check_client_access texthash:clients, reject_unauth_destination"')
    assert said(rig, ABROAD) == b"250 2.1.5"
    assert said(rig, ABROAD, "127.0.0.1") == b"554 5.7.1"
    assert said(rig, HERE, "127.0.0.1") == b"250 2.1.5"


async def test_a_permit_beside_another_action_lets_relay_too(listed: Listed, tmp_path: Path) -> None:
    (tmp_path / "clients").write_text(f"{STRANGER} PREPEND X-Seen: yes\n")
    rig = listed('smtpd_relay_restrictions = "check_client_access texthash:clients, permit, reject"')
    assert said(rig, ABROAD) == b"250 2.1.5"


async def test_with_an_empty_relay_list_the_recipient_list_decides(listed: Listed) -> None:
    rig = listed(
        'smtpd_relay_restrictions = ""\nsmtpd_recipient_restrictions = "permit_mynetworks, reject_unauth_destination"'
    )
    assert said(rig, ABROAD) == b"554 5.7.1"
    assert said(rig, ABROAD, "127.0.0.1") == b"250 2.1.5"
    assert said(rig, HERE) == b"250 2.1.5"


async def test_who_may_relay_is_still_asked_the_recipient_list(listed: Listed) -> None:
    rig = listed('smtpd_recipient_restrictions = "reject_non_fqdn_recipient, reject"')
    assert said(rig, ABROAD, "127.0.0.1") == b"554 5.7.1"


async def test_what_a_list_said_of_one_recipient_is_not_kept_for_the_next(listed: Listed, tmp_path: Path) -> None:
    (tmp_path / "recipients").write_text("x@abroad.test OK\n")
    rig = listed('smtpd_relay_restrictions = "check_recipient_access texthash:recipients, reject_unauth_destination"')
    client = rig.connect(ip=STRANGER).start()
    assert client.codes(MAIL + ABROAD + b"RCPT TO:<y@abroad.test>\r\n" + HERE) == [250, 250, 554, 250]
    listed("")
    assert client.codes(b"RSET\r\n" + MAIL + ABROAD) == [250, 250, 554]


async def test_senders_of_ours_that_do_not_exist_are_refused_where_asked_for(listed: Listed) -> None:
    rig = listed("smtpd_reject_unlisted_sender = true")
    client = rig.connect(ip=STRANGER).start()
    assert client.codes(b"MAIL FROM:<nobody@example.test>\r\n" + HERE) == [250, 550]
    assert client.codes(b"RSET\r\nMAIL FROM:<amy@example.test>\r\n" + HERE) == [250, 250, 250]
    assert client.codes(b"RSET\r\nMAIL FROM:<>\r\n" + HERE) == [250, 250, 250]
