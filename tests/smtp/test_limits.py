"""What a client is told at a limit of its address: Postfix's replies."""

import asyncio
from typing import Any

import pytest

from fastmta.model.limits import LOGIN_GRACE_S, SMTP_UPLOAD_STEP_BYTES
from fastmta.model.reply import Reply
from fastmta.policy import uploads
from fastmta.runtime.metrics import METRICS
from tests.support.smtp_rig import SmtpRig

STRANGER = "198.51.100.9"
MAIL = b"MAIL FROM:<a@b>\r\n"
RCPT = b"RCPT TO:<x@relay.test>\r\n"


def test_connections_of_an_address_beyond_the_limit_are_421_and_come_back(make_rig: object) -> None:
    rig: SmtpRig = make_rig(smtpd_client_connection_count_limit=2)  # type: ignore[operator]
    clients = [rig.connect(ip=STRANGER) for _ in range(3)]
    assert [client.ended for client in clients] == [False, False, True]
    assert clients[2].greeting == (  # type: ignore[attr-defined]
        b"421 4.7.0 mx.example.test Error: too many connections from 198.51.100.9\r\n"
    )
    clients[2].lose()
    assert rig.connect(ip=STRANGER).ended
    clients[0].lose()
    assert not rig.connect(ip=STRANGER).ended
    assert not any(rig.connect(ip="127.0.0.1").ended for _ in range(5)), "mynetworks are excepted"


def test_new_connections_in_a_time_unit_are_limited(make_rig: object) -> None:
    rig: SmtpRig = make_rig(smtpd_client_connection_rate_limit=2)  # type: ignore[operator]
    for _ in range(2):
        rig.connect(ip=STRANGER).lose()
    assert rig.connect(ip=STRANGER).ended


def test_messages_and_recipients_in_a_time_unit_are_limited(make_rig: object) -> None:
    rig: SmtpRig = make_rig(smtpd_client_message_rate_limit=2, smtpd_client_recipient_rate_limit=3)  # type: ignore[operator]
    client = rig.connect(ip=STRANGER).start()
    assert client.codes(MAIL + RCPT * 2 + b"RSET\r\n" + MAIL) == [250, 250, 250, 250, 250]
    assert client.codes(RCPT) == [250]
    assert client.say(RCPT) == b"450 4.7.1 Error: too many recipients from 198.51.100.9\r\n"
    other = rig.connect(ip=STRANGER).start()
    assert other.say(MAIL) == b"450 4.7.1 Error: too much mail from 198.51.100.9\r\n"
    assert rig.connect(ip="127.0.0.1").start().codes((MAIL + b"RSET\r\n") * 5) == [250] * 10


def test_auth_commands_and_tls_sessions_in_a_time_unit_are_limited(make_rig: object) -> None:
    rig: SmtpRig = make_rig(smtpd_client_auth_rate_limit=1, smtpd_client_new_tls_session_rate_limit=2)  # type: ignore[operator]
    client = rig.connect(ip=STRANGER, tls=True).start()
    assert client.codes(b"AUTH PLAIN\r\n*\r\n") == [334, 501]
    assert client.say(b"AUTH PLAIN\r\n") == b"450 4.7.1 Error: too many AUTH commands from 198.51.100.9\r\n"
    assert rig.connect(ip=STRANGER).start().codes(b"STARTTLS\r\n") == [220]
    plain = rig.connect(ip=STRANGER).start()
    assert plain.say(b"STARTTLS\r\n") == b"454 4.7.0 Error: too many new TLS sessions from 198.51.100.9\r\n"
    assert plain.ended
    assert rig.connect(ip=STRANGER, tls=True).ended


# --- messages that have begun to come and not ended ---

LINES = (b"x" * 62 + b"\r\n") * 1024


def begun(rig: SmtpRig, kibibytes: int, *, bdat: bool = False, ip: str = STRANGER, login: bool = False) -> Any:
    """A message of which so much has come; `said` is what was answered to its octets."""
    client = rig.connect("submission" if login else "smtp", ip, tls=login).start()
    if login:
        assert client.codes(b"AUTH PLAIN AGJpbGxAZXhhbXBsZS50ZXN0AHNlY3JldA==\r\n") == [235]
    octets = kibibytes * 1024
    mail = b"MAIL FROM:<bill@example.test>\r\n" if login else MAIL
    assert client.codes(mail + RCPT) == [250, 250]
    if bdat:
        client.feed(b"BDAT %d\r\n" % octets)
    else:
        assert client.codes(b"DATA\r\n") == [354]
    while octets:
        n = min(octets, len(LINES))
        client.said = client.say(LINES[:n])
        octets -= n
    return client


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "UPLOAD_ADDRESS_BYTES", 3 * SMTP_UPLOAD_STEP_BYTES)
    monkeypatch.setattr(uploads, "UPLOAD_ACCOUNT_BYTES", 2 * SMTP_UPLOAD_STEP_BYTES)


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize("bdat", [False, True])
@pytest.mark.parametrize("end", ["dot", "lost", "reset", "refused"])
def test_messages_under_way_from_an_address_are_bounded_and_come_back(make_rig: Any, bdat: bool, end: str) -> None:
    rig: SmtpRig = make_rig(smtpd_forbid_bare_newline="reject")
    last = b"BDAT 0 LAST\r\n" if bdat else b".\r\n"
    clients = [begun(rig, 320, bdat=bdat) for _ in range(3)]
    small = begun(rig, 256, bdat=bdat)
    over = begun(rig, 320, bdat=bdat)
    refusal = b"452 4.7.0 Error: too many unfinished messages from 198.51.100.9\r\n"
    assert (over.said if bdat else over.say(last)) == refusal
    assert over.codes(MAIL) == [250], "its session goes on"
    assert small.codes(last) in ([250], [250, 250]), "what is in memory is not counted"
    assert rig.cells[METRICS.limited_total["upload_bytes"]] == 1
    first = clients[0]
    if end == "dot":
        assert first.codes(last)[-1] == 250
    elif end == "lost":
        first.lose()
    elif end == "reset":
        first.session.shut_down(Reply(421, "4.3.2", "bye"))
    else:
        first.say(b"a bare \n" if not bdat else b"BDAT 7 LAST\r\na bare \n")
    another = begun(rig, 320, bdat=bdat)
    assert another.codes(last)[-1] == 250


@pytest.mark.usefixtures("small_bounds")
def test_messages_under_way_of_an_account_are_bounded_wherever_it_connects_from(make_rig: Any) -> None:
    rig: SmtpRig = make_rig()
    first, second = begun(rig, 320, login=True, ip="127.0.0.1"), begun(rig, 320, login=True, ip="198.51.100.10")
    third = begun(rig, 320, login=True, ip="198.51.100.11")
    assert third.say(b".\r\n").startswith(b"452 4.7.0 ")
    assert first.codes(b".\r\n") == second.codes(b".\r\n") == [250]
    assert begun(rig, 320, login=True, ip="198.51.100.11").codes(b".\r\n") == [250]
    strangers = [begun(rig, 320, ip="127.0.0.1") for _ in range(5)]
    assert all(client.codes(b".\r\n") == [250] for client in strangers), "mynetworks are excepted"


@pytest.mark.usefixtures("small_bounds")
def test_a_single_message_may_be_larger_than_the_bound(make_rig: Any) -> None:
    rig: SmtpRig = make_rig()
    assert begun(rig, 5 * 1024).codes(b".\r\n") == [250]


# --- connections that have not logged in ---

AUTH = b"AUTH PLAIN AGJpbGxAZXhhbXBsZS50ZXN0AHNlY3JldA==\r\n"


@pytest.mark.parametrize("slow", [False, True])
def test_submission_counts_among_what_has_not_logged_in(make_rig: Any, slow: bool) -> None:
    rig: SmtpRig = make_rig(login_max_ip_connections=2)
    rig.authenticator.slow = slow
    first, second, third = (rig.connect("submissions", STRANGER, tls=True) for _ in range(3))
    assert (first.ended, second.ended, third.ended) == (False, False, True)
    assert third.greeting == b"421 4.7.0 mx.example.test Error: too many connections that have not logged in\r\n"
    first.start().feed(AUTH)
    if slow:
        asyncio.run(rig.tasks.spawned.pop())
    assert first.take().startswith(b"235 ")
    assert not rig.connect("submissions", STRANGER, tls=True).ended, "who has logged in counts no more"
    assert rig.connect("submissions", STRANGER, tls=True).ended
    second.lose()
    assert not rig.connect("submissions", STRANGER, tls=True).ended
    assert not any(rig.connect("smtp", STRANGER).ended for _ in range(5)), "port 25 has no logins to wait for"
    assert not any(rig.connect("submissions", "127.0.0.1", tls=True).ended for _ in range(5))


def test_the_oldest_that_has_not_logged_in_makes_way_whatever_it_speaks(make_rig: Any) -> None:
    rig: SmtpRig = make_rig(login_max_connections=2)
    now = 1000.0
    rig.limits._monotonic = lambda: now
    first, second = (rig.connect("submissions", f"198.51.100.{n}", tls=True) for n in (1, 2))
    assert rig.connect("submissions", "198.51.100.3", tls=True).ended, "both came a moment ago"
    now += LOGIN_GRACE_S
    assert not rig.connect("submissions", "198.51.100.4", tls=True).ended
    assert first.take().startswith(b"421 4.7.0 ") and first.ended
    assert not second.ended
