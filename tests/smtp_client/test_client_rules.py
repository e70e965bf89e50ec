"""The SMTP client's rules as dialogs: what the server says, what we send, and what becomes of each recipient."""

import random

import pytest

from fastmta.model.envelope import HAS_8BIT, NOTIFY_FAILURE, NOTIFY_SUCCESS, Envelope, RecipientTail
from fastmta.smtp.client import Client
from fastmta.smtp.client_states import Event, State
from fastmta.smtp.conversion import Conversion
from fastmta.smtp.transaction import Transaction, xtext

EHLO = "250-mx.test hello\r\n250-PIPELINING\r\n250-SIZE 10000\r\n250-8BITMIME\r\n250-DSN\r\n250 SMTPUTF8"
BODY = b"<body>\r\n.\r\n"


def transaction(*recipients, **envelope):
    fields = {"reverse_path": b"s@a.test", "received_at_ms": 0, "size_bytes": 100, "bits": 0, **envelope}
    tails = [r if isinstance(r, RecipientTail) else RecipientTail(r) for r in recipients or (b"r@b.test",)]
    return Transaction(Envelope(**fields), tails)


class Peer:
    """Feeds a client, whole or byte by byte, and collects what it sends."""

    def __init__(self, *, trickle=False, **options):
        self.client = Client("me.test", "mx.test[192.0.2.1]:25", **options)
        self.trickle = trickle
        self.sent = b""

    def say(self, text):
        raw = text.encode() + b"\r\n"
        event = Event.NOTHING
        for piece in [raw[i : i + 1] for i in range(len(raw))] if self.trickle else [raw]:
            got = self.client.receive(piece)
            self.flush()
            if got == Event.BODY and self.client.state is State.BODY:
                self.sent += BODY
                self.client.body_sent()
            event = got or event
        return event

    def flush(self):
        self.sent += self.client.output
        self.client.output = b""

    def hello(self, ehlo=EHLO):
        self.say("220 mx.test ESMTP")
        event = self.say(ehlo)
        self.sent = b""
        return event

    def start(self, tx, **options):
        event = self.client.start(tx, **options)
        self.flush()
        return event

    def take(self):
        sent, self.sent = self.sent, b""
        return sent


@pytest.fixture(params=[False, True], ids=["whole", "trickle"])
def peer(request):
    peer = Peer(trickle=request.param)
    assert peer.hello() == Event.READY
    return peer


def codes(tx):
    return [result.code if result else None for result in tx.results]


def test_answers_that_come_before_their_questions_end_the_session():
    client = Client("me.test", "mx.test[192.0.2.1]:25")
    assert client.receive(b"220 hi\r\n250 mx\r\n250 ok\r\n354 go\r\n") is Event.CLOSED
    assert client.failure.enhanced == "4.5.0" and not client.is_usable


def test_mail_rcpt_and_data_leave_in_one_segment(peer):
    tx = transaction(b"a@b.test", b"c@b.test")
    peer.start(tx)
    sent = peer.take()
    assert sent == (b"MAIL FROM:<s@a.test> SIZE=100\r\nRCPT TO:<a@b.test>\r\nRCPT TO:<c@b.test>\r\nDATA\r\n")
    assert peer.say("250 2.1.0 ok\r\n250 2.1.5 ok\r\n250 ok\r\n354 go") in (Event.BODY, Event.NOTHING)
    assert peer.say("250 2.0.0 queued as 1") == Event.DONE
    assert codes(tx) == [250, 250]
    assert peer.client.is_usable and peer.client.messages == 1


def test_a_positive_answer_behind_a_refusal_counts_for_its_own_recipient(peer):
    tx = transaction(b"a@b.test", b"c@b.test", b"e@b.test")
    peer.start(tx)
    peer.say("250 ok\r\n250-2.1.5 a\r\n250 2.1.5 b\r\n550 5.1.1 no\r\n250 ok\r\n354 go")
    assert peer.say("250 2.0.0 queued") == Event.DONE
    assert codes(tx) == [250, 550, 250]


def test_every_positive_answer_is_progress(peer):
    peer.start(transaction(b"a@b.test", b"c@b.test"))
    before = peer.client.replies
    for count, stage in enumerate(["sending RCPT TO", "sending RCPT TO", "sending DATA command"], 1):
        peer.say("250 ok")
        assert (peer.client.replies, peer.client.stage) == (before + count, stage)


def test_without_pipelining_one_command_at_a_time():
    peer = Peer()
    peer.hello("250-mx.test\r\n250 HELP")
    tx = transaction(b"a@b.test", b"c@b.test")
    peer.start(tx)
    for command, reply in [
        (b"MAIL FROM:<s@a.test>\r\n", "250 ok"),
        (b"RCPT TO:<a@b.test>\r\n", "550 5.1.1 no"),
        (b"RCPT TO:<c@b.test>\r\n", "250 ok"),
        (b"DATA\r\n", "354 go"),
        (BODY, "250 done"),
    ]:
        assert peer.take() == command
        event = peer.say(reply)
    assert event == Event.DONE and codes(tx) == [550, 250]


def test_without_pipelining_nobody_accepted_means_no_data_and_a_reset_next():
    peer = Peer()
    peer.hello("250 mx.test")
    tx = transaction()
    peer.start(tx)
    peer.say("250 ok")
    assert peer.say("450 4.2.0 later") == Event.DONE
    assert codes(tx) == [450]
    peer.take()
    peer.start(transaction())
    assert peer.take() == b"RSET\r\n"
    peer.say("250 ok")
    assert peer.take().startswith(b"MAIL FROM")


def test_each_rcpt_stands_alone(peer):
    tx = transaction(b"a@b.test", b"b@b.test", b"c@b.test")
    peer.start(tx)
    peer.say("250 ok\r\n550 5.1.1 unknown\r\n451 4.3.0 later\r\n250 ok\r\n354 go")
    assert peer.say("250 ok") == Event.DONE
    assert codes(tx) == [550, 451, 250]


@pytest.mark.parametrize("code", [452, 552])
def test_too_many_recipients_are_sent_again_once_one_was_accepted(peer, code):
    tx = transaction(b"a@b.test", b"b@b.test", b"c@b.test")
    peer.start(tx)
    peer.say(f"250 ok\r\n250 ok\r\n{code} too many\r\n{code} too many\r\n354 go")
    assert peer.say("250 ok") == Event.DONE
    assert codes(tx) == [250, None, None] and tx.again == [1, 2] and tx.undecided() == []


def test_whom_the_next_server_takes_is_not_sent_again(peer):
    tx = transaction(b"a@b.test", b"b@b.test")
    peer.start(tx)
    peer.say("250 ok\r\n250 ok\r\n452 too many\r\n354 go")
    peer.client.lost()
    assert tx.again == [1] and tx.undecided() == [0]
    other = Peer()
    other.hello()
    other.start(tx)
    other.say("250 ok\r\n250 ok\r\n250 ok\r\n354 go")
    assert other.say("250 ok") == Event.DONE
    assert codes(tx) == [250, 250] and tx.again == []


def test_452_to_the_first_recipient_defers_it(peer):
    tx = transaction()
    peer.start(tx)
    assert peer.say("250 ok\r\n452 4.2.2 full\r\n503 no rcpt") == Event.DONE
    assert codes(tx) == [452]


@pytest.mark.parametrize("code", [450, 550])
def test_a_refused_mail_holds_for_all(peer, code):
    tx = transaction(b"a@b.test", b"b@b.test")
    peer.start(tx)
    assert peer.say(f"{code} no\r\n503 bad\r\n503 bad\r\n503 bad") == Event.DONE
    assert codes(tx) == [code, code]


def test_354_with_nobody_accepted_gets_a_dot_whose_answer_is_ignored(peer):
    tx = transaction()
    peer.start(tx)
    peer.take()
    peer.say("250 ok\r\n550 no\r\n354 go")
    assert peer.take() == b".\r\n"
    assert peer.say("250 accepted nothing") == Event.DONE
    assert codes(tx) == [550] and peer.client.is_usable


@pytest.mark.parametrize("code", [451, 554])
def test_a_refused_end_of_data_holds_for_the_accepted(peer, code):
    tx = transaction(b"a@b.test", b"b@b.test")
    peer.start(tx)
    peer.say("250 ok\r\n550 no\r\n250 ok\r\n354 go")
    assert peer.say(f"{code} no") == Event.DONE
    assert codes(tx) == [550, code]


def test_a_refused_data_holds_for_the_accepted_and_resets(peer):
    tx = transaction()
    peer.start(tx)
    assert peer.say("250 ok\r\n250 ok\r\n451 no") == Event.DONE
    assert codes(tx) == [451]
    peer.take()
    peer.start(transaction())
    assert peer.take() == b"RSET\r\n"


@pytest.mark.parametrize("said", ["421 bye", "250 ok\r\n421 bye", "250 ok\r\n250 ok\r\n421 bye"])
def test_421_ends_the_session_and_decides_nothing(peer, said):
    tx = transaction()
    peer.start(tx)
    assert peer.say(said) == Event.CLOSED
    assert tx.undecided() == [0] and peer.client.failure.code == 421 and not peer.client.is_usable


def test_421_behind_the_last_reply_leaves_the_result(peer):
    tx = transaction()
    peer.start(tx)
    peer.say("250 ok\r\n250 ok\r\n354 go")
    assert peer.say("250 ok\r\n421 too many messages") == Event.DONE
    assert codes(tx) == [250] and not peer.client.is_usable


def test_an_answer_before_the_message_is_whole_holds_and_ends_the_connection():
    peer = Peer()
    peer.hello()
    tx = transaction()
    peer.client.start(tx)
    assert peer.client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n") == Event.BODY
    assert peer.client.receive(b"552 5.3.4 too big\r\n") == Event.DONE
    assert codes(tx) == [552] and not peer.client.is_usable


def test_a_lost_connection_says_during_what(peer):
    tx = transaction()
    peer.start(tx)
    peer.say("250 ok\r\n250 ok\r\n354 go")
    peer.client.lost()
    assert "lost connection with mx.test[192.0.2.1]:25 while sending end of data -- message may be sent more than" in (
        peer.client.failure.text
    )
    assert tx.undecided() == [0]


@pytest.mark.parametrize(
    "raw",
    [
        b"x" * 5000,
        b"hello\r\n",
        b"250\x00ok\r\n",
        b"999 no\r\n",
        b"250-a\r\n550 b\r\n",
        b"250-a\r\n" * 20000,
        b"354 go\r\n",
    ],
)
def test_nonsense_ends_the_session_and_decides_nothing(raw):
    peer = Peer()
    peer.hello()
    tx = transaction()
    peer.start(tx)
    assert peer.client.receive(raw) == Event.CLOSED
    assert tx.undecided() == [0] and peer.client.failure.is_temporary


def test_nul_and_control_bytes_of_a_reply_are_escaped(peer):
    tx = transaction()
    peer.start(tx)
    peer.say("250 ok\r\n550 no\x00such\x1b[31m\r\n503 no")
    assert tx.results[0].text == "no\\x00such\\x1b[31m"


# --- the handshake ---


def test_a_5xx_greeting_is_the_hosts_and_temporary():
    peer = Peer()
    assert peer.say("554 5.7.1 go away") == Event.CLOSED
    assert peer.client.failure.code == 450 and peer.client.failure.enhanced == "4.7.1"


@pytest.mark.parametrize(
    "said",
    [["354 go"], ["220 mx.test", "354 go"], ["220 mx.test", "500 what", "354 go"]],
    ids=["greeting", "EHLO", "HELO"],
)
def test_a_reply_that_asks_for_more_fails_as_one_that_nobody_expected(said):
    peer = Peer()
    events = [peer.say(each) for each in said]
    assert events[-1] == Event.CLOSED
    failure = peer.client.failure
    assert failure.is_temporary and failure.enhanced == "4.5.0" and "unexpected reply while" in failure.text


def test_helo_where_ehlo_is_unknown():
    peer = Peer()
    peer.say("220 old")
    assert peer.take() == b"EHLO me.test\r\n"
    peer.say("502 what")
    assert peer.take() == b"HELO me.test\r\n"
    assert peer.say("250 hello") == Event.READY


def test_a_temporary_ehlo_is_no_reason_for_helo():
    peer = Peer()
    peer.say("220 x")
    assert peer.say("451 later") == Event.CLOSED


def test_lmtp_answers_for_each_accepted_recipient():
    peer = Peer(lmtp=True)
    peer.say("220 lmtp")
    assert peer.take() == b"LHLO me.test\r\n"
    assert peer.say(EHLO) == Event.READY
    tx = transaction(b"a@b.test", b"b@b.test", b"c@b.test")
    peer.start(tx)
    peer.say("250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go")
    assert peer.say("250 delivered") in (Event.NOTHING, Event.BODY)
    assert peer.say("452 4.2.2 full") == Event.DONE
    assert codes(tx) == [250, 550, 452]


def test_starttls_forgets_capabilities_and_drops_what_came_behind():
    peer = Peer()
    peer.say("220 x")
    peer.say("250-x\r\n250-STARTTLS\r\n250-SIZE 1\r\n250 PIPELINING")
    assert peer.take().endswith(b"STARTTLS\r\n")
    assert peer.client.receive(b"220 go\r\n250-evil\r\n250 PIPELINING\r\n") == Event.HANDSHAKE
    assert peer.client.offered.words == {}
    peer.client.tls_started()
    peer.flush()
    assert peer.take() == b"EHLO me.test\r\n"
    assert peer.say("250 secure") == Event.READY
    assert peer.client.offered.words == {} and peer.client.tls


@pytest.mark.parametrize(
    "part",
    [
        b"250-PIPELINING",
        b"250-PIPELINING\r\n250-SIZE 1\r",
        b"2",
        b"250",
        b"550 5.7.1 go away\r\n25",
        b"x" * 3000,
        b"\0",
    ],
)
def test_a_part_of_a_plain_text_reply_never_stands_in_front_of_what_tls_brings(part):
    """Whoever can write into the plain text before TLS must not be able to begin the first reply inside it."""
    peer = Peer()
    peer.say("220 x")
    peer.say("250-x\r\n250 STARTTLS")
    raw = b"220 go\r\n" + part
    assert peer.client.receive(raw) == Event.HANDSHAKE
    peer.client.tls_started()
    peer.flush()
    assert peer.say("250-secure\r\n250 8BITMIME") == Event.READY
    assert list(peer.client.offered.words) == ["8BITMIME"]


def test_a_reply_to_starttls_that_is_cut_is_waited_for_and_nothing_of_it_is_kept():
    peer = Peer()
    peer.say("220 x")
    peer.say("250-x\r\n250 STARTTLS")
    for piece in (b"220-go\r\n22", b"0 "):
        assert peer.client.receive(piece) == Event.NOTHING
    assert peer.client.receive(b"on\r\n250-PIPE") == Event.HANDSHAKE
    peer.client.tls_started()
    assert peer.say("250 secure") == Event.READY
    assert peer.client.offered.words == {}


@pytest.mark.parametrize(
    ("level", "event"), [("may", Event.READY), ("encrypt", Event.CLOSED), ("verify", Event.CLOSED)]
)
def test_no_starttls_is_a_failure_only_where_tls_is_required(level, event):
    peer = Peer(tls_level=level)
    assert peer.hello("250 plain") == event
    if event == Event.CLOSED:
        assert peer.client.failure.enhanced == "4.7.4"


def test_a_refused_starttls_goes_on_in_plain_text_where_it_may():
    peer = Peer()
    peer.hello("250-x\r\n250 STARTTLS")
    assert peer.say("454 no TLS now") == Event.READY


def test_level_none_never_starts_tls():
    peer = Peer(tls_level="none")
    assert peer.hello("250-x\r\n250 STARTTLS") == Event.READY


def test_an_idle_server_that_says_goodbye_is_not_used_again(peer):
    peer.say("421 idle too long")
    assert not peer.client.is_usable


def test_a_probe_comes_before_the_envelope_and_its_refusal_decides_nothing(peer):
    tx = transaction()
    peer.start(tx, probe=True)
    assert peer.take() == b"RSET\r\n"
    assert peer.say("502 no") == Event.CLOSED
    assert tx.undecided() == [0]


# --- parameters ---


def test_dsn_parameters_go_where_the_server_knows_them(peer):
    tail = RecipientTail(b"r@b.test", orcpt=b"rfc822;a+b@c.test", notify=NOTIFY_SUCCESS | NOTIFY_FAILURE)
    tx = transaction(tail, envid=b"id =1", ret="HDRS")
    peer.start(tx)
    assert peer.take() == (
        b"MAIL FROM:<s@a.test> SIZE=100 RET=HDRS ENVID=id+20+3D1\r\n"
        b"RCPT TO:<r@b.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2Bb@c.test\r\nDATA\r\n"
    )
    assert tx.dsn_passed_on


def test_a_message_over_the_servers_size_is_refused_without_asking(peer):
    tx = transaction(size_bytes=10_001)
    assert peer.start(tx) == Event.DONE
    assert codes(tx) == [552] and tx.results[0].enhanced == "5.3.4"
    assert peer.start(transaction(size_bytes=10_000)) == Event.NOTHING


def test_8bit_needs_8bitmime(peer):
    peer.start(transaction(bits=HAS_8BIT))
    assert b"BODY=8BITMIME" in peer.take()
    old = Peer()
    old.hello("250 old")
    tx = transaction(bits=HAS_8BIT)
    assert old.client.needs_conversion(tx)
    assert old.start(tx) == Event.DONE and tx.results[0].enhanced == "5.6.3"  # nobody has made a plan for it
    tx = transaction(bits=HAS_8BIT)
    tx.conversion = Conversion([], 0, ())
    old.start(tx)
    assert b"BODY" not in old.take() and old.client.needs_conversion(tx)
    tx = transaction(bits=HAS_8BIT)
    tx.unconverted = True
    assert not old.client.needs_conversion(tx)


def test_utf8_addresses_need_smtputf8_but_domains_can_be_a_labels():
    old = Peer()
    old.hello("250-old\r\n250 PIPELINING")
    tx = transaction("ü@b.test".encode(), "u@bü.test".encode(), smtputf8=True)
    old.start(tx)
    assert old.take() == b"MAIL FROM:<s@a.test>\r\nRCPT TO:<u@xn--b-eha.test>\r\nDATA\r\n"
    assert tx.results[0].enhanced == "5.6.7" and tx.undecided() == [1]
    assert old.say("250 ok\r\n250 ok\r\n354 go") == Event.BODY
    assert old.say("250 ok") == Event.DONE and codes(tx) == [553, 250]


def test_an_address_with_a_control_byte_is_never_sent(peer):
    tx = transaction(b"a@b.test>\r\nRCPT TO:<evil@b.test")
    assert peer.start(tx) == Event.DONE
    assert peer.take() == b"" and codes(tx) == [553]


def test_xtext():
    assert xtext(b"a+b=c \x7f") == b"a+2Bb+3Dc+20+7F"


CODES = [
    "250 ok", "250-a\r\n250 b", "250", "354 go", "220 hi", "421 bye", "450 x", "452 y", "550 5.1.1 no", "221 q",
    "250-x\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 SIZE 9999", "250-x\r\n250 DSN", "334 ", "235 ok", "xx", "150 hm",
    "250-a\r\n251 b", "599 ",
]  # fmt: skip


def fitting(client, rng):
    """What a server may say that does not lie."""
    if client.state is State.GREETING:
        return "220 hi"
    if client.state is State.EHLO:
        return rng.choice(["250-x\r\n250-PIPELINING\r\n250 CHUNKING", "250-x\r\n250 PIPELINING", "250 x"])
    if client.stage == "sending DATA command":
        return "354 go"
    return rng.choice(["250 ok"] * 6 + ["452 later", "550 no"])


@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_server_says_each_recipient_has_an_end_or_none(seed):
    rng = random.Random(seed)
    for _ in range(250):
        client = Client("me.test", "mx.test[192.0.2.1]:25", lmtp=rng.random() < 0.4, tls_level="none")
        honesty = rng.random()
        tx = None
        for _ in range(60):
            said = [rng.choice(CODES) if rng.random() > honesty else fitting(client, rng)]
            while rng.random() < 0.3:
                said.append(rng.choice(CODES))
            event = client.receive("".join(f"{each}\r\n" for each in said).encode())
            while event in (Event.READY, Event.BODY, Event.DONE):
                if event is Event.BODY:
                    if client.chunked:
                        client.chunk(100, last=True)
                    else:
                        client.body_sent()
                    break
                assert tx is None or not tx.undecided()
                if not client.is_usable:
                    break
                tx = transaction(*[b"%d@b.test" % n for n in range(rng.randint(1, 4))])
                event = client.start(tx, probe=rng.random() < 0.2)
                if client.chunked and client.state is State.ENVELOPE and rng.random() < 0.7:
                    client.chunk(100, last=True)
            client.output = b""
            if tx is not None:
                codes_now = [result.code for result in tx.results if result is not None]
                assert all(200 <= code < 300 or code >= 400 for code in codes_now), codes_now
            if not client.is_usable:
                break
        if client.state is State.CLOSED:
            assert client.failure.code >= 400
