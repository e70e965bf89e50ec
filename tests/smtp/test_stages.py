"""A check may wait at every stage: replies stay in order, the state is right, and nothing is left behind."""

import pytest

from fastmta.model.reply import Reply
from fastmta.model.stages import Stage
from fastmta.model.verdict import Action, Verdict
from fastmta.runtime.metrics import METRICS
from fastmta.smtp.transitions import State
from tests.smtp.stages import REFUSED, STRANGER, Fixed, Waiting, ask, turn
from tests.support.smtp_rig import Client, SmtpRig

MAIL = b"MAIL FROM:<a@elsewhere.test>\r\n"
RCPT = b"RCPT TO:<x@relay.test>\r\n"
LETTER = b"Subject: x\r\n\r\nHello\r\n"
STAGES = [Stage.HELO, Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.END]
WHOLE = b"EHLO me.test\r\n" + MAIL + RCPT + b"DATA\r\n"


def codes(text: bytes) -> list[int]:
    return [int(line[:3]) for line in text.split(b"\r\n") if line and line[3:4] != b"-"]


def advance_to(client: Client, stage: Stage) -> None:
    """Says all commands before the one of a stage."""
    if stage > Stage.HELO:
        client.say(b"EHLO me.test\r\n")
    if stage > Stage.MAIL:
        client.say(MAIL)
    if stage > Stage.RCPT:
        client.say(RCPT)
    if stage > Stage.DATA:
        client.say(b"DATA\r\n")


COMMANDS = {
    Stage.HELO: b"EHLO me.test\r\n",
    Stage.MAIL: MAIL,
    Stage.RCPT: RCPT,
    Stage.DATA: b"DATA\r\n",
    Stage.END: LETTER + b".\r\n",
}
POSITIVE = {Stage.HELO: 250, Stage.MAIL: 250, Stage.RCPT: 250, Stage.DATA: 354, Stage.END: 250}


@pytest.mark.parametrize("stage", STAGES)
async def test_a_command_is_answered_when_its_check_has_let_pass(rig: SmtpRig, stage: Stage) -> None:
    check = Waiting(stage)
    ask(rig, check, delay_reject=False)
    client = rig.connect(ip=STRANGER)
    advance_to(client, stage)
    assert client.say(COMMANDS[stage] + b"NOOP\r\n" if stage is not Stage.DATA else COMMANDS[stage]) == b""
    await check.say()
    rig.settle()
    answered = codes(client.take())
    assert answered == ([POSITIVE[stage], 250] if stage is not Stage.DATA else [354])
    assert len(check.asked) == 1


@pytest.mark.parametrize("stage", STAGES)
async def test_a_refusal_leaves_the_state_as_it_was(rig: SmtpRig, stage: Stage) -> None:
    check = Waiting(stage)
    ask(rig, check, delay_reject=False)
    client = rig.connect(ip=STRANGER)
    advance_to(client, stage)
    before = client.session.state
    assert client.say(COMMANDS[stage]) == b""
    await check.say(REFUSED)
    assert client.take() == b"554 5.7.1 No\r\n"
    assert client.session.state == (State.GREETED if stage is Stage.END else before)
    if stage is Stage.MAIL:
        assert client.codes(RCPT) == [503], "no transaction was begun"
    if stage is Stage.RCPT:
        assert client.codes(b"DATA\r\n") == [554], "no recipient was taken"
    assert rig.queue() == []


async def test_pipelined_commands_stay_in_order_behind_each_wait(rig: SmtpRig) -> None:
    checks = [Waiting(stage) for stage in STAGES]
    ask(rig, *checks, delay_reject=False)
    client = rig.connect(ip=STRANGER)
    assert (
        client.say(b"EHLO me.test\r\n" + MAIL + RCPT + RCPT.replace(b"x@", b"y@") + b"BDAT 4 LAST\r\nab\r\n" + MAIL)
        == b""
    )
    seen = []
    for check in [*checks[:3], checks[2], *checks[3:]]:
        await check.say()
        rig.settle()
        seen.append(codes(client.take()))
    assert seen == [[250], [250], [250], [250], [], [250]]
    await checks[1].say(REFUSED)
    assert client.take() == b"554 5.7.1 No\r\n"
    assert len(rig.queue()[0][1]) == 2


async def test_bdat_waits_for_data_when_its_first_chunk_has_been_read(rig: SmtpRig) -> None:
    check = Waiting(Stage.DATA)
    ask(rig, check)
    client = rig.connect(ip=STRANGER)
    advance_to(client, Stage.DATA)
    assert client.say(b"BDAT 10\r\nabcd") == b""
    assert check.asked == []
    assert client.say(b"efghijBDAT 2 LAST\r\nkl") == b""
    assert len(check.asked) == 1
    await check.say()
    rig.settle()
    assert codes(client.take()) == [250, 250]
    assert len(check.asked) == 1


async def test_a_refused_chunk_ends_the_message_and_later_chunks_are_no_commands(rig: SmtpRig) -> None:
    check = Waiting(Stage.DATA)
    ask(rig, check)
    client = rig.connect(ip=STRANGER)
    advance_to(client, Stage.DATA)
    assert client.say(b"BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n") == b""
    await check.say(REFUSED)
    assert codes(client.take()) == [554, 503, 250]
    assert rig.queue() == []


async def test_a_message_behind_a_refused_data_is_never_read_as_commands(rig: SmtpRig) -> None:
    check = Waiting(Stage.DATA)
    ask(rig, check)
    client = rig.connect(ip=STRANGER)
    advance_to(client, Stage.DATA)
    assert client.say(b"DATA\r\nMAIL FROM:<evil@x.test>\r\n") == b""
    await check.say(REFUSED)
    assert client.take() == b"554 5.7.1 No\r\n"
    assert client.ended


# --- the greeting ---


async def test_the_greeting_is_withheld_where_refusals_are_not_delayed(rig: SmtpRig) -> None:
    check = Waiting(Stage.CONNECT)
    ask(rig, check, delay_reject=False)
    client = rig.connect_silently(ip=STRANGER)
    assert client.take() == b""
    await check.say()
    assert client.take() == b"220 mx ESMTP\r\n"
    assert client.codes(b"NOOP\r\n") == [250]


async def test_octets_before_a_withheld_greeting_are_early_talk(rig: SmtpRig) -> None:
    check = Waiting(Stage.CONNECT)
    ask(rig, check, delay_reject=False)
    client = rig.connect_silently(ip=STRANGER)
    assert client.say(b"EHLO me\r\n") == b"554 5.5.1 Error: you spoke before the greeting\r\n"
    assert client.ended
    client.lose()
    await turn()
    assert check.cancelled == 1


async def test_a_refused_client_gets_no_greeting(rig: SmtpRig) -> None:
    check = Waiting(Stage.CONNECT)
    ask(rig, check, delay_reject=False)
    client = rig.connect_silently(ip=STRANGER)
    await check.say(REFUSED)
    assert client.take() == b"554 5.7.1 No\r\n"
    assert client.ended


# --- smtpd_delay_reject ---


async def test_connect_helo_and_mail_run_beside_the_dialogue_and_refuse_at_rcpt(rig: SmtpRig) -> None:
    checks = [Waiting(stage) for stage in (Stage.CONNECT, Stage.HELO, Stage.MAIL)]
    ask(rig, *checks)
    client = rig.connect(ip=STRANGER)
    assert client.codes(b"EHLO me.test\r\n" + MAIL) == [250, 250]
    assert [len(check.asked) for check in checks] == [1, 1, 1]
    assert client.say(RCPT) == b""
    await checks[2].say(REFUSED)
    assert client.take() == b"", "the list's order counts, not who is first"
    await checks[0].say()
    await checks[1].say()
    assert client.take() == b"554 5.7.1 No\r\n"
    assert client.say(RCPT) == b"554 5.7.1 No\r\n"
    assert [len(check.asked) for check in checks] == [1, 1, 1]
    assert client.codes(b"RSET\r\n" + MAIL) == [250, 250]
    assert [len(check.asked) for check in checks] == [1, 1, 2], "the sender is asked about in each transaction"


async def test_a_verdict_is_told_and_counted_once(rig: SmtpRig) -> None:
    ask(rig, Fixed(Stage.CONNECT, REFUSED))
    client = rig.connect(ip=STRANGER).start()
    assert client.codes(MAIL + RCPT + RCPT) == [250, 554, 554]
    told = [fields for event, fields in rig.log.events if event == "policy.verdict"]
    assert [(each["stage"], each["verdict"], each["reason"]) for each in told] == [("connect", "reject", "because")]
    assert rig.counter(METRICS.check_verdicts_total["connect", "reject"]) == 1
    assert rig.rejected("policy") == 2


# --- ends in between ---


@pytest.mark.parametrize("stage", STAGES)
async def test_a_disconnect_cancels_and_a_late_answer_does_nothing(rig: SmtpRig, stage: Stage) -> None:
    check = Waiting(stage)
    ask(rig, check, delay_reject=False)
    client = rig.connect(ip=STRANGER)
    advance_to(client, stage)
    client.say(COMMANDS[stage])
    client.lose()
    await turn()
    assert check.cancelled == 1
    assert rig.server.sessions == 0
    assert rig.queue() == []


@pytest.mark.parametrize("stage", STAGES)
async def test_a_421_in_between_is_the_last_reply(rig: SmtpRig, stage: Stage) -> None:
    check = Waiting(stage)
    ask(rig, check, delay_reject=False)
    client = rig.connect(ip=STRANGER)
    advance_to(client, stage)
    client.say(COMMANDS[stage])
    rig.server.close_all()
    assert codes(client.take()) == [421]
    for wait in check.waits:
        if not wait.done():
            wait.set_result(Verdict())
    await turn()
    assert client.take() == b""
    assert client.ended
    assert rig.queue() == []


async def test_a_drain_ends_a_session_that_waits_outside_of_a_transaction(rig: SmtpRig) -> None:
    mail, rcpt = Waiting(Stage.MAIL), Waiting(Stage.RCPT)
    ask(rig, mail, rcpt, delay_reject=False)
    outside, inside = rig.connect(ip=STRANGER).start(), rig.connect(ip=STRANGER).start()
    outside.say(MAIL)
    inside.say(MAIL)
    mail.waits[1].set_result(Verdict())
    await turn()
    inside.say(RCPT)
    inside.take()
    rig.server.drain()
    assert codes(outside.take()) == [421]
    assert outside.ended
    assert not inside.ended
    await rcpt.say()
    assert codes(inside.take()) == [250]


@pytest.mark.parametrize("stage", STAGES)
async def test_a_wait_of_ours_is_no_silence_of_the_clients(rig: SmtpRig, stage: Stage) -> None:
    """smtpd_timeout counts from the reply, however long a check has taken."""
    check = Waiting(stage)
    ask(rig, check, delay_reject=False)
    client = rig.connect(ip=STRANGER)
    advance_to(client, stage)
    client.say(COMMANDS[stage])
    rig.pass_seconds(900)
    assert client.take() == b"" and not client.ended
    await check.say()
    rig.settle()
    assert codes(client.take()) == [POSITIVE[stage]]
    rig.pass_seconds(290)
    assert not client.ended
    rig.pass_seconds(15)
    assert codes(client.take()) == [421] and client.ended


@pytest.mark.parametrize("stage", STAGES)
async def test_time_outs_of_ours_are_no_errors_of_the_client(
    rig: SmtpRig, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastmta.smtp.screening.deadline_s", lambda stage: 0.0)
    check = Waiting(stage)
    ask(rig, check, delay_reject=False)
    client = rig.connect(ip=STRANGER)
    for _ in range(25):
        advance_to(client, stage)
        client.say(COMMANDS[stage])
        await turn()
        assert client.take() == b"451 4.7.1 Service unavailable - try again later\r\n"
        client.say(b"RSET\r\n")
    assert not client.ended
    assert rig.counter(METRICS.check_verdicts_total[stage.name.lower(), "late"]) == 25


async def test_a_check_answers_for_itself_when_its_time_is_over(rig: SmtpRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastmta.smtp.screening.deadline_s", lambda stage: 0.0)
    ask(rig, Waiting(Stage.MAIL, late=Verdict(is_late=True)), delay_reject=False)
    client = rig.connect(ip=STRANGER).start()
    client.say(MAIL)
    await turn()
    assert client.take() == b"250 2.1.0 Ok\r\n"


async def test_starttls_forgets_what_was_asked_about_helo(rig: SmtpRig) -> None:
    connect, helo = Waiting(Stage.CONNECT), Waiting(Stage.HELO)
    ask(rig, connect, helo)
    client = rig.connect(ip=STRANGER)
    client.say(b"EHLO me.test\r\nSTARTTLS\r\n")
    client = rig.secure(client)
    await turn()
    assert (helo.cancelled, connect.cancelled) == (1, 0)
    assert client.codes(b"EHLO me.test\r\n" + MAIL) == [250, 250]
    assert [len(connect.asked), len(helo.asked)] == [1, 2]
    client.say(RCPT)
    await connect.say()
    await helo.say()
    assert codes(client.take()) == [250]


async def test_a_reload_counts_for_new_transactions(rig: SmtpRig) -> None:
    ask(rig, Fixed(Stage.RCPT, REFUSED))
    old, new = rig.connect(ip=STRANGER).start(), rig.connect(ip=STRANGER).start()
    assert old.codes(MAIL) == [250]
    ask(rig)
    rig.server.reload(rig)  # type: ignore[arg-type]
    assert old.codes(RCPT) == [554]
    assert new.codes(MAIL + RCPT) == [250, 250]
    assert old.codes(b"RSET\r\n" + MAIL + RCPT) == [250, 250, 250]


async def test_a_reload_gives_an_open_session_new_checks(rig: SmtpRig) -> None:
    ask(rig)
    old = rig.connect(ip=STRANGER).start()
    assert old.codes(MAIL) == [250]
    ask(rig, Fixed(Stage.CONNECT, REFUSED))
    rig.server.reload(rig)  # type: ignore[arg-type]
    assert old.codes(RCPT + b"RSET\r\n" + MAIL + RCPT) == [250, 250, 250, 554]


# --- who is asked, and in which order ---


async def test_a_check_with_effects_starts_when_all_before_it_have_let_pass(rig: SmtpRig) -> None:
    first, effects, last = Waiting(Stage.MAIL), Waiting(Stage.MAIL, has_effects=True), Waiting(Stage.MAIL)
    ask(rig, first, effects, last, delay_reject=False)
    client = rig.connect(ip=STRANGER).start()
    client.say(MAIL)
    assert [len(each.asked) for each in (first, effects, last)] == [1, 0, 0]
    await first.say()
    assert [len(each.asked) for each in (first, effects, last)] == [1, 1, 1]
    await effects.say(REFUSED)
    assert codes(client.take()) == [554]
    assert last.cancelled == 1


async def test_a_check_that_reads_verdicts_is_told_what_those_before_it_have_said(rig: SmtpRig) -> None:
    seen = Verdict(fields=(b"X-Seen: yes\r\n",))
    first, effects = Waiting(Stage.END), Waiting(Stage.END, has_effects=True)
    last = Fixed(Stage.END, reads_verdicts=True)
    ask(rig, Fixed(Stage.RCPT, Verdict(fields=(b"X-Early: yes\r\n",))), first, Fixed(Stage.END), effects, last)
    client = rig.connect().start()
    client.say(MAIL + RCPT + b"DATA\r\n" + LETTER + b".\r\n")
    await first.say(seen)
    assert last.asked == []
    some = Verdict(Action.REJECT, recipients=(7,))
    await effects.say(some)
    assert [(each.head, each.verdicts) for each in last.asked] == [(b"X-Early: yes\r\n", (seen, some))]
    assert first.asked[0].verdicts == () == effects.asked[0].verdicts


async def test_it_is_not_asked_where_one_has_refused(rig: SmtpRig) -> None:
    last = Fixed(Stage.END, reads_verdicts=True)
    ask(rig, Fixed(Stage.END, REFUSED), last)
    client = rig.connect().start()
    client.say(MAIL + RCPT + b"DATA\r\n" + LETTER + b".\r\n")
    assert last.asked == []


async def test_who_refuses_some_recipients_decides_nothing_about_the_others(rig: SmtpRig) -> None:
    some = [Verdict(Action.REJECT, REFUSED.reply, recipients=(number,)) for number in (0, 1)]
    ask(rig, *[Fixed(Stage.END, each) for each in some])
    client = rig.connect("lmtp").start(b"LHLO client.test")
    client.say(MAIL + b"RCPT TO:<x@relay.test>\r\nRCPT TO:<y@relay.test>\r\nRCPT TO:<z@relay.test>\r\nDATA\r\n")
    assert codes(client.say(LETTER + b".\r\n")) == [554, 554, 250]


async def test_the_first_decisive_verdict_counts_and_accept_ends_the_list(rig: SmtpRig) -> None:
    ask(rig, Fixed(Stage.MAIL, Verdict(Action.ACCEPT)), Fixed(Stage.MAIL, REFUSED), delay_reject=False)
    assert rig.connect(ip=STRANGER).start().codes(MAIL + RCPT) == [250, 250]


async def test_a_check_that_fails_answers_for_itself_and_the_session_lives(rig: SmtpRig) -> None:
    def fail(context: object) -> Verdict:
        raise ValueError("broken")

    told: list[str] = []
    rig.log.exception = lambda event, error, **fields: told.append(event)  # type: ignore[method-assign]
    ask(rig, Fixed(Stage.MAIL, fail), delay_reject=False)
    client = rig.connect(ip=STRANGER).start()
    assert client.codes(MAIL) == [451]
    assert told == ["policy.failed"]
    assert client.codes(b"NOOP\r\n") == [250]


async def test_a_client_of_ours_costs_no_stage_where_only_strangers_are_asked_about(rig: SmtpRig) -> None:
    ask(rig, Fixed(Stage.MAIL, REFUSED, known_too=False), delay_reject=False)
    assert rig.connect(ip="127.0.0.1").session.stages == 0
    assert rig.connect(ip=STRANGER).session.stages == 1 << Stage.MAIL


async def test_auth_is_asked_about_before_it_counts(rig: SmtpRig) -> None:
    check = Waiting(Stage.AUTH)
    ask(rig, check)
    client = rig.connect(ip="127.0.0.1").start()
    assert client.say(b"AUTH PLAIN AGJpbGxAZXhhbXBsZS50ZXN0AHNlY3JldA==\r\n") == b""
    assert check.asked[0].login == "bill@example.test"
    assert client.session.login == ""
    await check.say(Verdict(Action.REJECT, Reply(535, "5.7.8", "Not from there")))
    assert codes(client.take()) == [535]
    assert client.session.login == ""


# --- what becomes of a message ---


async def send(
    rig: SmtpRig, verdict: Verdict, *, service: str = "smtp", recipients: tuple[bytes, ...] = (b"x@relay.test",)
) -> bytes:
    check = Waiting(Stage.END)
    ask(rig, check)
    client = rig.connect(service, ip=STRANGER)
    client.say(b"LHLO me.test\r\n" if service == "lmtp" else b"EHLO me.test\r\n")
    client.say(MAIL + b"".join(b"RCPT TO:<%b>\r\n" % each for each in recipients) + b"DATA\r\n")
    assert client.say(LETTER + b".\r\n") == b""
    await check.say(verdict)
    rig.settle()
    return client.take()


async def test_lmtp_tells_each_recipient_what_was_decided_for_it(rig: SmtpRig) -> None:
    rig.add_mailbox(b"bill@example.test")
    verdict = Verdict(Action.REJECT, Reply(550, "5.7.1", "Not you"), recipients=(1,))
    said = await send(rig, verdict, service="lmtp", recipients=(b"bill@example.test", b"y@relay.test", b"z@relay.test"))
    assert codes(said) == [250, 550, 250]
    assert [row.tail.forward_path for _, rows in rig.queue() for row in rows] == [b"z@relay.test"]


async def test_what_a_check_adds_stays_for_those_that_it_does_not_refuse(rig: SmtpRig) -> None:
    refusal = Reply(550, "5.7.1", "Not you")
    verdict = Verdict(Action.REJECT, refusal, recipients=(0,), fields=(b"X-Seen: yes\r\n",), cuts=((0, 12), (0, 12)))
    send_to = (b"y@relay.test", b"z@relay.test")
    assert codes(await send(rig, verdict, service="lmtp", recipients=send_to)) == [550, 250]
    (raw,) = rig.blobs()
    assert raw.startswith(b"X-Seen: yes\r\nReceived: ")
    assert raw.endswith(b"\r\n\r\nHello\r\n") and b"Subject" not in raw


async def test_lmtp_may_refuse_all_one_by_one(rig: SmtpRig) -> None:
    verdict = Verdict(Action.REJECT, Reply(550, "5.7.1", "Not you"), recipients=(0, 1))
    assert codes(await send(rig, verdict, service="lmtp", recipients=(b"y@relay.test", b"z@relay.test"))) == [550, 550]
    assert rig.queue() == []


async def test_smtp_reports_to_the_sender_whom_a_check_refused(rig: SmtpRig) -> None:
    verdict = Verdict(Action.REJECT, Reply(550, "5.7.1", "Not you"), recipients=(1,))
    assert codes(await send(rig, verdict, recipients=(b"y@relay.test", b"z@relay.test"))) == [250]
    ((_, rows),) = rig.queue()
    assert [row.hop for row in rows] == [b"smtp:relay.test", b"error:5.7.1 Not you"]


async def test_smtp_has_the_client_try_again_where_one_recipient_is_deferred(rig: SmtpRig) -> None:
    verdict = Verdict(Action.DEFER, Reply(450, "4.7.1", "Later"), recipients=(1,))
    assert codes(await send(rig, verdict, recipients=(b"y@relay.test", b"z@relay.test"))) == [450]
    assert rig.queue() == []


async def test_a_discarded_message_is_accepted_and_gone(rig: SmtpRig) -> None:
    assert codes(await send(rig, Verdict(Action.DISCARD))) == [250]
    assert rig.queue() == []
    assert rig.blobs() == []


async def test_a_held_message_waits_in_the_queue_local_recipients_too(rig: SmtpRig) -> None:
    mailbox_id = rig.add_mailbox(b"bill@example.test")
    assert codes(await send(rig, Verdict(Action.HOLD), recipients=(b"bill@example.test", b"y@relay.test"))) == [250]
    ((_, rows),) = rig.queue()
    assert [(row.hop, row.state) for row in rows] == [(b"local:", 3), (b"smtp:relay.test", 3)]
    assert list(rig.store.mailboxes.rows(mailbox_id)) == []


async def test_a_redirected_message_goes_elsewhere(rig: SmtpRig) -> None:
    assert codes(await send(rig, Verdict(Action.REDIRECT, target=b"spam@relay.test"))) == [250]
    assert [row.tail.forward_path for _, rows in rig.queue() for row in rows] == [b"spam@relay.test"]


async def test_a_message_may_be_redirected_to_a_mailbox_here(rig: SmtpRig) -> None:
    mailbox_id = rig.add_mailbox(b"bill@example.test")
    assert codes(await send(rig, Verdict(Action.REDIRECT, target=b"bill@example.test"))) == [250]
    assert len(list(rig.store.mailboxes.rows(mailbox_id))) == 1
    assert rig.queue() == []


async def test_a_redirection_to_nobody_is_refused(rig: SmtpRig) -> None:
    assert codes(await send(rig, Verdict(Action.REDIRECT, target=b"nobody@example.test"))) == [550]


def add_bill(rig: SmtpRig) -> tuple[int, int]:
    """A user with an INBOX and a Junk mailbox: their ids."""
    inbox = rig.add_mailbox(b"bill@example.test")
    account_id = rig.directory.accounts[b"bill@example.test"].account_id
    junk, unit = rig.raw.new_id(), rig.raw.new_unit()
    unit.mailbox_new(junk, account_id, b"Junk", b"\\Junk", 1)
    rig.raw.commit_sync(unit)
    return inbox, junk


async def test_a_quarantined_message_is_filed_into_junk(rig: SmtpRig) -> None:
    boxes = add_bill(rig)
    assert codes(await send(rig, Verdict(Action.QUARANTINE), recipients=(b"bill@example.test",))) == [250]
    assert [len(list(rig.store.mailboxes.rows(each))) for each in boxes] == [0, 1]


@pytest.mark.parametrize("service", ["smtp", "lmtp"])
async def test_whom_a_check_lets_pass_has_it_in_his_inbox_though_it_refuses_another(rig: SmtpRig, service: str) -> None:
    boxes = add_bill(rig)
    verdict = Verdict(Action.REJECT, Reply(550, "5.7.1", "Not you"), recipients=(1,))
    said = await send(rig, verdict, service=service, recipients=(b"bill@example.test", b"y@relay.test"))
    assert codes(said) == ([250, 550] if service == "lmtp" else [250])
    assert [len(list(rig.store.mailboxes.rows(each))) for each in boxes] == [1, 0]


async def test_an_action_before_the_end_is_carried_out_at_the_end(rig: SmtpRig) -> None:
    ask(rig, Fixed(Stage.RCPT, Verdict(Action.HOLD, reason="table")))
    client = rig.connect(ip=STRANGER).start()
    client.say(MAIL + RCPT + b"DATA\r\n")
    assert codes(client.say(LETTER + b".\r\n")) == [250]
    assert [row.state for _, rows in rig.queue() for row in rows] == [3]
    ask(rig)
    rig.server.reload(rig)  # type: ignore[arg-type]
    client.say(MAIL + RCPT + b"DATA\r\n")
    client.say(LETTER + b".\r\n")
    assert [row.state for _, rows in rig.queue() for row in rows] == [3, 1]


@pytest.mark.parametrize("code", [421, 521])
async def test_some_codes_of_a_check_end_the_session(rig: SmtpRig, code: int) -> None:
    check = Waiting(Stage.RCPT)
    ask(rig, check)
    client = rig.connect(ip=STRANGER)
    advance_to(client, Stage.RCPT)
    client.say(COMMANDS[Stage.RCPT] + b"NOOP\r\n")
    await check.say(Verdict(Action.REJECT, Reply(code, "4.3.2", "bye")))
    assert codes(client.take()) == [code]
    assert client.say(b"NOOP\r\n") == b""
    assert client.session.transport.closed or client.session.transport.half_closed


async def test_postmaster_without_a_domain_is_asked_about_nobody(rig: SmtpRig) -> None:
    check = Waiting(Stage.RCPT)
    ask(rig, check)
    client = rig.connect(ip=STRANGER)
    advance_to(client, Stage.RCPT)
    assert client.codes(b"RCPT TO:<Postmaster>\r\n")[0] in (250, 550), "it is not kept waiting"
    assert check.asked == []


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.HELO, Stage.MAIL])
async def test_what_defers_if_all_permit_waits_for_the_recipient(rig: SmtpRig, stage: Stage) -> None:
    check = Waiting(stage)
    ask(rig, check, delay_reject=False)
    client = rig.connect(ip=STRANGER)
    if stage is not Stage.CONNECT:
        advance_to(client, stage)
        client.say(COMMANDS[stage])
    await check.say(Verdict(if_permit=Reply(450, "4.3.3", "later")))
    client.take()
    advance_to(client, Stage.RCPT) if stage is Stage.CONNECT else client.say(b"MAIL FROM:<a@b.test>\r\n")
    assert client.codes(COMMANDS[Stage.RCPT]) == [450]
    assert client.codes(b"RCPT TO:<x@nowhere.test>\r\n") == [450], "whom nobody has refused"
