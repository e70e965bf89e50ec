"""header_checks at work in a session: what is stored is what the tables have left."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fastmta.config.load import parse
from fastmta.model.envelope import NOTIFY_NEVER
from fastmta.model.limits import CHECK_COPIES
from fastmta.policy.checks import contents
from fastmta.policy.plan import plan_for
from tests.smtp.stages import STRANGER, turn
from tests.support.smtp_rig import SmtpRig

LETTER = b"X-Internal: 10.0.0.1\r\nSubject: Money\r\nFrom: a@sender.test\r\n\r\nHello\r\n.\r\n"
Checked = Callable[[str], SmtpRig]


@pytest.fixture
def checked(rig: SmtpRig, tmp_path: Path) -> Checked:
    """The rig with a table of header_checks."""

    def put(table: str) -> SmtpRig:
        (tmp_path / "table").write_text(table)
        config = parse(
            'header_checks = "pcre:table"\nbody_checks = "inline:{ {hello = REJECT No greetings} }"', base=tmp_path
        )
        rig.add_mailbox(b"amy@example.test")
        rig.server.plan = lambda service: plan_for(service, config, rig, [contents.build])  # type: ignore
        rig.server.reload(rig)  # type: ignore[arg-type]
        return rig

    return put


async def deliver(rig: SmtpRig, letter: bytes = LETTER) -> bytes:
    client = rig.connect(ip=STRANGER).start()
    client.say(b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<amy@example.test>\r\nDATA\r\n")
    said = client.say(letter)
    for _ in range(20):
        await turn()
        rig.settle()
        said += client.take()
    return said


async def test_a_field_is_hidden_another_replaced_and_one_added(checked: Checked) -> None:
    rig = checked("/^X-Internal:/ IGNORE\n/^Subject: (.*)/ REPLACE Subject: [ad] $1\n/^From:/ PREPEND X-Seen: yes\n")
    assert (await deliver(rig, LETTER.replace(b"Hello", b"Text"))).startswith(b"250 ")
    (stored,) = rig.blobs()
    assert b"X-Internal" not in stored
    assert stored.count(b"Subject:") == 1
    assert b"Subject: [ad] Money\r\n" in stored
    assert b"X-Seen: yes\r\n" in stored
    assert stored.endswith(b"From: a@sender.test\r\n\r\nText\r\n")


async def test_a_refusal_is_said_after_the_dot_and_nothing_is_kept(checked: Checked) -> None:
    rig = checked("/^Subject: money/ REJECT No money\n")
    assert await deliver(rig) == b"550 5.7.1 No money\r\n"
    assert await deliver(rig, LETTER.replace(b"Money", b"None")) == b"550 5.7.1 No greetings\r\n"
    assert rig.blobs() == []


async def test_bcc_sends_a_copy_and_the_header_says_nothing(checked: Checked) -> None:
    rig = checked(
        "/^Subject:/ BCC boss@relay.test\n/^From: (\\S+)/ BCC boss@relay.test\n/^X-Int/ BCC nobody@example.test\n"
    )
    assert (await deliver(rig, LETTER.replace(b"Hello", b"Text"))).startswith(b"250 ")
    ((message, recipients),) = rig.queue()
    assert [(each.tail.forward_path, each.tail.notify) for each in recipients] == [(b"boss@relay.test", NOTIFY_NEVER)]
    (stored,) = {*rig.blobs()}
    assert b"boss" not in stored and b"Subject: Money" in stored
    assert len(rig.store.mailboxes.rows(rig.directory.accounts[b"amy@example.test"].mailbox_id)) == 1
    assert message.envelope.reverse_path == b"a@sender.test"


async def test_copies_are_bounded(checked: Checked) -> None:
    rig = checked("/^X-To: (\\S+)/ BCC $1\n")
    fields = b"".join(b"X-To: u%d@relay.test\r\n" % n for n in range(CHECK_COPIES + 1))
    assert (await deliver(rig, fields + LETTER.replace(b"Hello", b"Text"))).startswith(b"250 ")
    ((_, recipients),) = rig.queue()
    assert len(recipients) == CHECK_COPIES
