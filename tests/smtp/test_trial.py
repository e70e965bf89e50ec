"""A trial of the seams (adr/0063): a check at the end that waits, changes fields, and refuses one recipient."""

import asyncio

from fastmta.model.reply import Reply
from fastmta.model.stages import Stage
from fastmta.model.verdict import Action, Verdict
from fastmta.policy.check import Check, Context
from fastmta.policy.checks.authentication import read_header
from tests.smtp.stages import STRANGER, ask
from tests.support.smtp_rig import SmtpRig


class Trial(Check):
    name = "trial"
    stage = Stage.END
    services = ("lmtp",)

    async def check(self, context: Context) -> Verdict:  # type: ignore[override]
        await asyncio.sleep(0.2)
        assert context.message is not None
        at, cuts = 0, []
        for field in await read_header(context.message):
            if field.name == b"x-bad":
                cuts.append((at, len(field.raw)))
            at += len(field.raw)
        refusal = Reply(550, "5.7.1", "Not you")
        return Verdict(Action.REJECT, refusal, recipients=(1,), fields=(b"X-Good: yes\r\n",), cuts=tuple(cuts))


async def test_a_check_that_waits_changes_fields_and_refuses_one_of_two_lmtp_recipients(rig: SmtpRig) -> None:
    rig.add_mailbox(b"bill@example.test")
    rig.add_mailbox(b"carl@example.test")
    ask(rig, Trial())
    client = rig.connect(service="lmtp", ip=STRANGER)
    client.say(
        b"LHLO me.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bill@example.test>\r\nRCPT TO:<carl@example.test>\r\n"
    )
    client.say(b"DATA\r\n")
    assert client.say(b"Subject: x\r\nX-Bad: y\r\n\r\nbody\r\n.\r\n") == b"", "it waits"
    replies = b""
    async with asyncio.timeout(60):
        while replies.count(b"\r\n") < 2:
            await asyncio.sleep(0.01)  # the check's own delay is what is tried
            rig.settle()
            replies += client.take()
    first, second = replies.splitlines()
    assert first.startswith(b"250 2.0.0 ") and second == b"550 5.7.1 Not you"
    mailboxes = rig.store.mailboxes
    shown = {}
    for name in (b"bill@example.test", b"carl@example.test"):
        box = rig.directory.accounts[name].mailbox_id
        shown[name] = [mailboxes.read(box, uid, 0, 10_000) for uid in mailboxes.uids(box)]
    (message,) = shown[b"bill@example.test"]
    assert b"X-Good: yes\r\n" in message and b"X-Bad" not in message and shown[b"carl@example.test"] == []
    assert rig.queue() == []
