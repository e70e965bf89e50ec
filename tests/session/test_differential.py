"""The compiled path against the rules: the same dialog gives the same replies, state and stored result either way.

Once as it comes, so that `_session` answers what is plain by itself; once with a rate limit that nobody reaches, which
sends every MAIL and RCPT through smtp/session.Rules; once through a session that is Python from end to end.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings

from fastmta.config.schema import Config
from fastmta.smtp.settings import settings_of
from tests.session.dialogs import LOGIN, MAILBOXES, Dialog, Recorder, dialogs
from tests.session.plain_session import Message, PlainSession
from tests.support.smtp_rig import SmtpRig

CONFIG = msgspec.structs.replace(
    Config(smtpd_authentication=False, smtpd_peername_lookup=False),
    myhostname="mx.example.test",
    myorigin="example.test",
    smtpd_banner="mx ESMTP",
    message_size_limit=5000,
    smtpd_error_sleep_time=0,  # no pauses
    smtpd_hard_error_limit=6,
    smtpd_junk_command_limit=8,
    smtpd_recipient_limit=5,
    smtpd_recipient_overshoot_limit=2,
    hopcount_limit=3,
    mynetworks=["127.0.0.0/8"],
)
MANY = settings(
    max_examples=int(os.environ.get("FASTMTA_MODEL_EXAMPLES", "120")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
OVERSHOOT = [b"RCPT TO:<x%d@relay.test>\r\n" % n for n in range(14)]
CASES = (
    Dialog("smtp", "127.0.0.1", False, [b"EHLO c\r\n", b"MAIL FROM:<a@b>\r\n", *OVERSHOOT, b"DATA\r\nx\r\n.\r\n"], 0),
    Dialog(
        "smtp", "127.0.0.1", False, [b"EHLO c\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<x@far.test>\r\n", b"RSET\r\n"], 0
    ),
    Dialog(
        "smtp",
        "198.51.100.1",
        False,
        [b"EHLO c\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<x@far.test>\r\n", b"RSET\r\n"],
        0,
    ),
    Dialog(
        "smtp",
        "127.0.0.1",
        False,
        [
            b"EHLO c\r\n",
            b"MAIL FROM:<a@b>\r\n",
            b"RCPT TO:<bill@example.test>\r\n",
            b"DATA\r\nDelivered-To: bill@example.test\r\n\r\nx\r\n.\r\n",
        ],
        0,
    ),
    Dialog(
        "lmtp", "127.0.0.1", False, [b"LHLO c\r\n", b"MAIL FROM:<>\r\n", *OVERSHOOT[:3], b"DATA\r\na\nb\r\n.\r\n"], 0
    ),
    Dialog(
        "submission",
        "198.51.100.1",
        True,
        [
            b"EHLO c\r\n",
            LOGIN + b"\r\n",
            b"MAIL FROM:<bill@example.test>\r\n",
            OVERSHOOT[0],
            b"DATA\r\nBcc: x\r\n\r\n.\r\n",
        ],
        7,
    ),
)


class Sides:
    """The three ways, each with a world of its own that goes through the same dialogs."""

    def __init__(self, directory: Path) -> None:
        made = []
        for name, rate in (("plain", 0), ("ruled", 1_000_000)):
            (directory / name).mkdir()
            config = msgspec.structs.replace(CONFIG, smtpd_client_message_rate_limit=rate)
            made.append(Recorder(SmtpRig(directory / name, config)))
        self.plain, self.ruled = made
        assert not self.plain.rig.limits.counts_events and self.ruled.rig.limits.counts_events

    def python(self, dialog: Dialog) -> PlainSession:
        rig = self.plain.rig
        host = rig.server._hosts[dialog.service]
        return PlainSession(
            settings_of(CONFIG, dialog.service),
            host,
            dialog.ip,
            trusted=dialog.ip in rig.networks,
            tls=dialog.service == "submission",
        )


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    made = Sides(tmp_path)
    yield made
    for side in (made.plain, made.ruled):
        side.rig.close()


@MANY
@given(dialog=dialogs())
@example(dialog=CASES[0])
@example(dialog=CASES[1])
@example(dialog=CASES[2])
@example(dialog=CASES[3])
@example(dialog=CASES[4])
@example(dialog=CASES[5])
def test_the_fast_path_and_the_rules_answer_and_store_alike(sides: Sides, dialog: Dialog) -> None:
    assert sides.plain.hold(dialog) == sides.ruled.hold(dialog)


@MANY
@given(dialog=dialogs())
@example(dialog=CASES[0])
@example(dialog=CASES[1])
@example(dialog=CASES[2])
@example(dialog=CASES[3])
@example(dialog=CASES[4])
@example(dialog=CASES[5])
def test_a_session_of_plain_python_answers_and_accepts_alike(sides: Sides, dialog: Dialog) -> None:
    found = sides.plain.hold(dialog)
    session = sides.python(dialog)
    replies = []
    for segment in dialog.segments():
        if session.closing:
            break
        replies.append(session.feed(segment))
    assert replies == found.replies
    assert (session.closing, session.state) == (found.ended, found.state)
    assert len(session.accepted) == found.counted["messages_received_total"]
    assert sum(len(message.octets) for message in session.accepted) == found.counted["received_bytes_total"]
    wanted = [message for message in session.accepted if _is_queued(sides, message)]
    assert [message.reverse_path for message in wanted] == [envelope["reverse_path"] for envelope, _, _ in found.queued]
    if dialog.service != "submission" and not session.login:  # those add and take away fields
        for message, (_, _, blob) in zip(wanted, found.queued, strict=True):
            assert blob.startswith(b"Received: from ") and blob.endswith(b"\r\n" + message.octets)


def _is_queued(sides: Sides, message: Message) -> bool:
    """Whether any target is not a mailbox that gets the message in the accepting unit: one that it has been delivered
    to before bounces, by way of the queue.
    """
    header = message.octets.partition(b"\r\n\r\n")[0].lower()
    visited = {line[13:].strip() for line in header.split(b"\r\n") if line.startswith(b"delivered-to:")}
    for path, notify, _ in message.recipients:
        for target in sides.plain.rig.directory.resolve(path, may_relay=True).targets:
            address = getattr(target, "address", None)
            if address not in MAILBOXES or address in visited or notify & 2:
                return True
    return False
