"""What negative replies mean: those that large receivers give, and files of one's own."""

import pytest

from fastmta.model.limits import REPLIES_KEPT, REPLY_KEPT_CHARACTERS
from fastmta.model.reply import Reply
from fastmta.queue.replies import Line, ReplyClasses, parse_lines
from fastmta.runtime.metrics import REPLY_CLASSES

SHIPPED = ReplyClasses.of()
REPLIES = [
    ("421-4.7.28 Our system has detected an unusual rate of unsolicited mail originating from your IP", "rate-limited"),
    ("421 4.7.0 Our system has detected an unusual rate of unsolicited mail", "rate-limited"),
    ("450 4.2.1 The user you are trying to contact is receiving mail too quickly.", "rate-limited"),
    ("421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to user complaints", "rate-limited"),
    ("421 RP-001 (SNT004) Unfortunately, some messages weren't sent: exceeded the rate limit", "rate-limited"),
    ("451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation.", "rate-limited"),
    ("452 4.3.2 Connection rate limit exceeded.", "rate-limited"),
    ("421 4.3.2 too many concurrent sessions from your host", "rate-limited"),
    ("450 4.7.1 Error: too much mail from 192.0.2.1, throttled", "rate-limited"),
    ("421 4.7.0 mx.test Error: too many errors", "rate-limited"),
    ("450 4.7.1 <a@b.test>: Recipient address rejected: Greylisted, see http://x", "greylisted"),
    ("451 4.7.1 Please try again in 300 seconds", "greylisted"),
    ("550 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", "blocked"),
    ("550 5.7.606 Access denied, banned sending IP [192.0.2.1]", "blocked"),
    ("554 5.7.1 Your IP has a poor reputation", "blocked"),
    ("552 5.2.2 The email account that you tried to reach is over quota.", "mailbox-full"),
    ("452 4.2.2 Mailbox full", "mailbox-full"),
    ("550 5.1.1 The email account that you tried to reach does not exist", "unknown-user"),
    ("550 No such user here", "unknown-user"),
    ("550 5.4.1 Recipient address rejected: Access denied. user unknown in relay table", "unknown-user"),
    ("553 sorry, that domain isn't in my list; mailbox not found", "unknown-user"),
    ("550 5.7.26 This mail has been rejected because it is unauthenticated: DMARC", "policy"),
    ("554 5.7.1 <x>: Relay access denied", "policy"),
    ("554 5.7.1 Message rejected due to content: spam detected", "content"),
    ("552 5.3.4 message size 10 exceeds size limit 5 of server x", "content"),
    ("450 4.7.4 TLS is required, but was not offered by mx", "tls"),
    ("451 4.7.5 TLSA lookup error for mx:25: SERVFAIL", "tls"),
    ("550 5.1.2 Host or domain name not found. Name service error", "dns"),
    ("451 4.4.3 lookup failed", "dns"),
    ("450 4.4.1 connect to mx[192.0.2.1]:25: Connection refused", "connection"),
    ("450 4.4.2 lost connection with mx while sending RCPT TO", "connection"),
    ("451 4.3.0 internal error", "other"),
    ("451 4.3.5 Server configuration problem", "other"),
]


@pytest.mark.parametrize(("text", "meaning"), REPLIES)
def test_the_shipped_lines_know(text, meaning):
    assert SHIPPED.of_text(text.replace("421-", "421 ")) == meaning
    assert SHIPPED.of_text(f"host mx.test[192.0.2.1]:25 said: {text.replace('421-', '421 ')}") == meaning


def test_each_class_is_met_and_each_is_a_label():
    assert {meaning for _, meaning in REPLIES} == set(REPLY_CLASSES)
    assert SHIPPED.of_text("no reply at all") == "other"


def test_octets_of_a_table_that_are_no_text_have_a_class():
    assert SHIPPED.of_reply(Reply(550, "5.1.1", "caf\udce9: no such user here")) == "unknown-user"


def test_own_lines_come_first(tmp_path):
    path = tmp_path / "replies"
    path.write_text("# ours\nblocked  4.7.28  unusual rate\n\nother * ^hello$\n")
    found = ReplyClasses.of(str(path))
    assert found.of_reply(Reply(421, "4.7.28", "an unusual rate")) == "blocked"
    assert found.of_reply(Reply(550, "", "HELLO")) == "other"
    assert found.of_reply(Reply(452, "4.2.2", "x")) == "mailbox-full"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nothing 4 x", "expected a class"),
        ("policy 4", "expected a class"),
        ("policy 3 x", "expected codes"),
        ("policy 4.x x", "expected codes"),
        ("policy 4 (", "RE2 cannot"),
        ("policy 4 (?=x)", "RE2 cannot"),
    ],
)
def test_a_line_that_is_none_is_named(line, says):
    with pytest.raises(ValueError, match=f"f:2.*{says}"):
        parse_lines(f"# x\n{line}\n", "f")


def test_a_file_that_cannot_be_used_leaves_the_shipped_ones(tmp_path):
    assert ReplyClasses.usable(str(tmp_path / "none")).of_text("452 4.2.2 x") == "mailbox-full"


@pytest.mark.parametrize(("replies", "times", "looked"), [(1, 5, 1), (REPLIES_KEPT, 2, REPLIES_KEPT)])
def test_what_is_said_again_is_not_looked_through_again(replies, times, looked):
    seen = []
    classes = ReplyClasses([Line("policy", ("5",), lambda text: seen.append(text) or "spf" in text)])
    said = [Reply(550, "5.7.1", f"spf fails for message {n}") for n in range(replies)]
    for reply in said * times:
        assert classes.of_reply(Reply(reply.code, reply.enhanced, reply.text)) == "policy"
    assert len(seen) == looked
    assert classes.of_reply(Reply(450, "4.7.1", said[0].text)) == "other", "the codes are part of it"
    assert len(seen) == looked


@pytest.mark.parametrize(("characters", "looked"), [(REPLY_KEPT_CHARACTERS, 1), (REPLY_KEPT_CHARACTERS + 1, 3)])
def test_what_is_remembered_is_bounded(characters, looked):
    seen = []
    classes = ReplyClasses([Line("policy", (), lambda text: seen.append(text) or "spf" in text)])
    for _ in range(3):
        assert classes.of_reply(Reply(550, "5.7.1", "spf".ljust(characters))) == "policy"
    assert len(seen) == looked
    for n in range(2 * REPLIES_KEPT + 1):  # of codes and of texts
        assert classes.of_reply(Reply(550, f"5.7.{n}", "spf")) == "policy"
    assert len(classes._known) <= REPLIES_KEPT and len(classes._by_codes) <= REPLIES_KEPT
