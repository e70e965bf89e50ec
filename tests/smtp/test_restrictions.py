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


CLIENTS_DEFER = 'smtpd_client_restrictions = "defer_if_permit"\n'
HELO_DEFERS = 'smtpd_helo_restrictions = "defer_if_reject, reject"\n'
SENDERS_DEFER = 'smtpd_sender_restrictions = "check_sender_access texthash:senders"\n'


@pytest.mark.parametrize(
    ("text", "here", "abroad"),
    [
        (HELO_DEFERS, b"450 4.7.0", b"450 4.7.0"),
        (CLIENTS_DEFER + HELO_DEFERS, b"450 4.7.0", b"554 5.7.1"),  # the HELO list ends, and the relay list is asked
        ('smtpd_helo_restrictions = "defer_if_permit, defer_if_reject, reject"\n', b"450 4.7.0", b"554 5.7.1"),
        (SENDERS_DEFER + HELO_DEFERS, b"450 4.7.0", b"450 4.7.0"),  # a list behind it does not count
    ],
)
async def test_a_list_ends_where_a_deferral_for_either_case_stands(
    listed: Listed, tmp_path: Path, text: str, here: bytes, abroad: bytes
) -> None:
    (tmp_path / "senders").write_text("elsewhere.test DEFER_IF_PERMIT 4.3.3 soon\n")
    rig = listed(text)
    for command, expected in ((HERE, here), (ABROAD, abroad)):
        client = rig.connect(ip=STRANGER).start()
        client.say(b"EHLO mail.elsewhere.test\r\n")
        client.say(MAIL)
        assert client.say(command)[:9] == expected


async def test_defer_if_reject_is_said_where_its_list_is(listed: Listed) -> None:
    client = listed(HELO_DEFERS + "smtpd_delay_reject = false\n").connect(ip=STRANGER).start()
    assert client.say(b"EHLO mail.elsewhere.test\r\n").startswith(b"450 4.7.0")


async def test_behind_both_deferrals_only_the_first_word_of_the_next_list_is_asked(listed: Listed) -> None:
    relay = 'smtpd_relay_restrictions = "defer_if_permit, defer_if_reject, reject_unauth_destination"\n'
    rig = listed(relay + 'smtpd_recipient_restrictions = "reject_non_fqdn_recipient, defer"\n')
    assert said(rig, HERE) == b"450 4.7.0"
    client = listed(relay + 'smtpd_recipient_restrictions = "defer"\ndefer_code = 421\n').connect(ip=STRANGER).start()
    client.say(MAIL)
    assert client.say(HERE).startswith(b"421 4.7.1")


@pytest.mark.parametrize(
    ("sent", "codes"),
    [
        ([b"EHLO a.test\r\n", MAIL + HERE], [250, 250, 250]),
        ([b"EHLO a.test\r\nNOOP\r\n", MAIL + HERE], [250, 250, 250, 503]),
        ([b"EHLO a.test\r\n", b"NOOP\r\n" + MAIL + HERE], [250, 250, 250, 503]),
        ([b"HELO a.test\r\n", MAIL, HERE], [250, 250, 250]),
        ([b"HELO a.test\r\n", MAIL + HERE], [250, 250, 503]),
        ([b"EHLO a.test\r\n", MAIL + HERE + b"DATA\r\n"], [250, 250, 250, 354]),
        ([b"EHLO a.test\r\n", MAIL + HERE + b"DATA\r\nSubject: x\r\n"], [250, 250, 250, 503]),
    ],
)
async def test_who_does_not_wait_where_he_must_is_refused_where_asked_for(
    listed: Listed, sent: list[bytes], codes: list[int]
) -> None:
    rig = listed("".join(f'smtpd_{each}_restrictions = "reject_unauth_pipelining"\n' for each in ("recipient", "data")))
    client = rig.connect(ip=STRANGER).start()
    assert [code for piece in sent for code in client.codes(piece)] == codes
