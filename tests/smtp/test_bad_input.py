"""Malformed and hostile input, as a client sees the answers."""

import pytest

from fastmta.model.limits import LINE_SKIP_BYTES
from fastmta.runtime.metrics import METRICS
from tests.support.feed import pieces_of
from tests.support.smtp_rig import Client, SmtpRig

OPEN = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<x@relay.test>\r\n"
SMUGGLING = [b"\n.\r\n", b"\n.\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r", b"\r\n.\r\r\n"]


def stored(rig: SmtpRig) -> list[bytes]:
    """The bodies in the store, without the Received field on top."""
    out = []
    for row in rig.blobs():
        head, _, rest = row.partition(b"\r\n")
        assert head.startswith(b"Received: from ")
        while rest.startswith(b"\t"):
            _, _, rest = rest.partition(b"\r\n")
        out.append(rest)
    return out


# --- row 1 ---


@pytest.mark.parametrize("trick", SMUGGLING)
def test_smuggled_ends_are_part_of_one_message_that_is_refused(rig: SmtpRig, trick: bytes) -> None:
    client = rig.connect().start()
    client.say(OPEN + b"DATA\r\n")
    answer = client.say(b"Subject: x\r\n\r\na" + trick + b"MAIL FROM:<evil@b>\r\n.\r\nNOOP\r\n")
    assert answer == b"550 5.6.11 Error: bare <CR> or <LF> received\r\n"
    assert client.ended
    assert stored(rig) == []
    assert rig.rejected("bare_newline") == 1


@pytest.mark.parametrize("trick", SMUGGLING)
def test_no_keeps_the_bytes_and_still_ends_only_at_crlf_dot_crlf(make_rig: object, trick: bytes) -> None:
    rig = make_rig(smtpd_forbid_bare_newline="no")  # type: ignore[operator]
    client = rig.connect().start()
    client.say(OPEN + b"DATA\r\n")
    assert client.codes(b"a" + trick + b"b\r\n.\r\n") == [250]
    (body,) = stored(rig)
    assert body == b"a" + trick.replace(b"\r\n.", b"\r\n", 1) + b"b\r\n"


@pytest.mark.parametrize("trick", SMUGGLING)
def test_normalize_leaves_no_bare_newline(make_rig: object, trick: bytes) -> None:
    rig = make_rig(smtpd_forbid_bare_newline="normalize")  # type: ignore[operator]
    client = rig.connect().start()
    client.say(OPEN + b"DATA\r\n")
    assert client.codes(b"a" + trick + b"b\r\n.\r\n") == [250]
    (body,) = stored(rig)
    assert b"\r" not in body.replace(b"\r\n", b"") and b"\n" not in body.replace(b"\r\n", b"")


def test_excluded_clients_may_send_bare_newlines(make_rig: object) -> None:
    rig = make_rig(smtpd_forbid_bare_newline_exclusions=("192.0.2.0/24",))  # type: ignore[operator]
    client = rig.connect(ip="192.0.2.7").start()
    client.say(OPEN + b"DATA\r\n")
    assert client.codes(b"a\nb\r\n.\r\n") == [250]


@pytest.mark.parametrize("line", [b"EHLO a.test\n", b"NOOP\rX\r\n", b"MAIL FROM:<a@b>\rRCPT TO:<x@relay.test>\r\n"])
def test_a_bare_newline_in_a_command_ends_the_session(rig: SmtpRig, line: bytes) -> None:
    client = rig.connect().start()
    assert client.codes(line + b"NOOP\r\n") == [550]
    assert client.ended


def test_a_bare_newline_in_a_sasl_response_ends_the_session(rig: SmtpRig) -> None:
    client = rig.connect().start()
    assert client.codes(b"AUTH PLAIN\r\n") == [334]
    assert client.codes(b"AGJpbGxA\nNOOP\r\n") == [550]
    assert client.ended


def test_an_lmtp_client_hears_of_a_bare_newline_for_each_recipient(rig: SmtpRig) -> None:
    client = rig.connect("lmtp").start(b"LHLO me")
    client.say(OPEN + b"RCPT TO:<y@relay.test>\r\nDATA\r\n")
    assert client.codes(b"a\nb\r\n.\r\nNOOP\r\n") == [550, 550]
    assert client.ended


# --- row 2 ---


def test_every_cut_of_a_session_gives_the_same_replies(rig: SmtpRig) -> None:
    script = b"EHLO a.test\r\n" + OPEN + b"DATA\r\nA: b\r\n\r\n..x\r\n.\r\nQUIT\r\n"
    answers = set()
    for pieces in pieces_of(script):
        client = rig.connect()
        said = b"".join(client.say(piece) for piece in pieces)
        answers.add(b"\n".join(line for line in said.split(b"\r\n") if b"queued as" not in line))
        assert client.ended
    assert len(answers) == 1
    assert set(stored(rig)) == {b"A: b\r\n\r\n.x\r\n"}


def test_the_empty_message_is_accepted_as_empty(rig: SmtpRig) -> None:
    client = rig.connect().start()
    assert client.codes(OPEN + b"DATA\r\n.\r\n") == [250, 250, 354, 250]
    assert stored(rig) == [b""]


# --- row 3 ---


def test_what_stands_behind_starttls_is_dropped(rig: SmtpRig) -> None:
    client = rig.connect().start()
    answer = client.say(b"STARTTLS\r\nMAIL FROM:<evil@b>\r\nNOO")
    assert answer == b"220 2.0.0 Ready to start TLS\r\n"
    assert not client.transport.reading and len(rig.tasks.spawned) == 1
    client.feed(b"P\r\nNOOP\r\n")
    secure = rig.secure(client)
    assert client.session.helo == b"" and client.session.tls
    assert secure.codes(b"RCPT TO:<x@relay.test>\r\n") == [503]
    assert b"STARTTLS" not in secure.say(b"EHLO a.test\r\n")


# --- row 4 ---


@pytest.mark.parametrize(
    "line", [b"GET / HTTP/1.1", b"POST /x HTTP/1.0", b"CONNECT a:25 HTTP/1.1", b"\x16\x03\x01\x00"]
)
def test_another_protocol_ends_the_session(rig: SmtpRig, line: bytes) -> None:
    client = rig.connect()
    assert client.codes(line + b"\r\nHost: x\r\n\r\nNOOP\r\n") == [554]
    assert client.ended


def test_a_message_behind_a_refused_data_ends_the_session(rig: SmtpRig) -> None:
    client = rig.connect().start()
    said = client.codes(b"MAIL FROM:<a@b>\r\nRCPT TO:<no@example.test>\r\nDATA\r\nRSET\r\nMAIL FROM:<evil@b>\r\n.\r\n")
    assert said == [250, 550, 554]
    assert client.ended


def test_early_pipelining_is_answered_in_order_and_in_one_write(rig: SmtpRig) -> None:
    client = rig.connect()
    assert client.codes(b"EHLO a.test\r\n" + OPEN + b"DATA\r\nx\r\n.\r\n" + OPEN + b"RSET\r\nQUIT\r\n") == [
        250, 250, 250, 354, 250, 250, 250, 250, 221,
    ]  # fmt: skip
    assert len(client.transport.written) == 3, "the greeting, what came before the commit, what came after"


# --- row 5 ---


def test_an_endless_command_line_ends_the_session_early(rig: SmtpRig) -> None:
    client = rig.connect().start()
    said = b""
    sent = 0
    while not client.ended and not client.transport.half_closed:
        said += client.say(b"x" * 10_000)
        sent += 10_000
        assert sent <= LINE_SKIP_BYTES + 20_000
    first, last = said.splitlines()
    assert first == b"500 5.5.2 Line too long"  # X.5.6 is for AUTH alone (RFC 4954 §6)
    assert last.startswith(b"421 4.7.0 ")


@pytest.mark.parametrize("length", [4097, LINE_SKIP_BYTES])
def test_a_long_line_that_ends_is_refused_and_the_session_goes_on(rig: SmtpRig, length: int) -> None:
    client = rig.connect().start()
    said = b""
    for start in range(0, length, 10_000):
        said += client.say(b"x" * min(10_000, length - start))
    said += client.say(b"\r\n")
    assert said == b"500 5.5.2 Line too long\r\n"
    assert client.codes(b"NOOP\r\n") == [250]


@pytest.mark.parametrize(("length", "code"), [(4095, 250), (4096, 250), (4097, 500)])
def test_a_command_line_has_at_most_4096_octets(rig: SmtpRig, length: int, code: int) -> None:
    assert rig.connect().codes(b"NOOP " + b"x" * (length - 7) + b"\r\n") == [code]


def test_long_lines_end_the_session_after_a_few(rig: SmtpRig) -> None:
    client = rig.connect().start()
    for _ in range(40):
        client.say(b"x" * 5000 + b"\r\n")
        rig.pass_seconds(2)
    assert client.ended


def test_a_giant_header_and_a_million_fields_are_taken_in_linear_time(rig: SmtpRig) -> None:
    client = rig.connect().start()
    client.say(OPEN + b"DATA\r\n")
    for _ in range(20):
        client.say(b"X-A: b\r\n" * 10_000)
    client.say(b"X-Long: ")
    for _ in range(20):
        client.say(b"y" * 100_000)
    assert client.codes(b"\r\n\r\nbody\r\n.\r\n") == [250]


# --- row 6 ---


@pytest.mark.parametrize(
    "line",
    [b"EHLO a\x00b", b"NO\x01OP", b"\x00", b"MAIL FROM:<a\x07@b>", b"MAIL FROM:<\xff@b>", b"VRFY \xc3\x28",
     b"NOOP \x7f"],
)  # fmt: skip
def test_control_octets_and_bad_utf8_are_501_and_the_session_goes_on(rig: SmtpRig, line: bytes) -> None:
    client = rig.connect().start()
    assert client.codes(line + b"\r\nNOOP\r\n") == [501, 250]


def test_utf8_needs_smtputf8(rig: SmtpRig) -> None:
    client = rig.connect().start()
    address = "jörg@relay.test".encode()
    assert client.codes(b"MAIL FROM:<" + address + b">\r\n") == [553]
    assert client.codes(b"MAIL FROM:<" + address + b"> SMTPUTF8\r\nRCPT TO:<" + address + b">\r\n") == [250, 250]
    assert client.codes(b"RSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<" + address + b">\r\n") == [250, 250, 553]


def test_peer_octets_are_escaped_in_the_log(rig: SmtpRig) -> None:
    client = rig.connect().start()
    client.say('MAIL FROM:<"a\\"b"@b.test> SMTPUTF8\r\nRCPT TO:<é@relay.test>\r\nDATA\r\nx\r\n.\r\n'.encode())
    (line,) = rig.log.lines
    assert line.isascii() and line.count(b"\n") == 1
    assert b'"from":"\\"a\\\\\\"b\\"@b.test"' in line and b'"to":["\\\\xc3\\\\xa9@relay.test"]' in line


# --- row 9 ---


@pytest.mark.parametrize(
    "path",
    [b'<"">', b"", b"<>", b"<" + b"l" * 300 + b"@relay.test>", b"<a b@c>", b"<a,b@c>", b"<a@b..c>", b"<a@-b>", b"<a@b",
     b"a@b>", b"<a[b@c>", b"<a@b>NOTIFY=NEVER"],
)  # fmt: skip
def test_bad_forward_paths_are_501(rig: SmtpRig, path: bytes) -> None:
    client = rig.connect().start()
    client.say(b"MAIL FROM:<a@b>\r\n")
    assert client.codes(b"RCPT TO:" + path + b"\r\n") == [501]


@pytest.mark.parametrize(
    "path", [b"<@relay.test,@example.test:c@d.test>", b"<u%relay.test@d.test>", b"<relay.test!u@d.test>"]
)
def test_no_form_of_address_relays_for_a_stranger(rig: SmtpRig, path: bytes) -> None:
    client = rig.connect(ip="198.51.100.1").start()
    client.say(b"MAIL FROM:<a@b>\r\n")
    assert client.codes(b"RCPT TO:" + path + b"\r\n") == [554]
    assert rig.rejected("relay_denied") == 1


def test_a_stranger_may_not_relay_and_a_neighbour_may(rig: SmtpRig) -> None:
    line = b"MAIL FROM:<a@b>\r\nRCPT TO:<x@elsewhere.test>\r\n"
    assert rig.connect(ip="198.51.100.1").start().codes(line) == [250, 554]
    assert rig.connect(ip="127.0.0.1").start().codes(line) == [250, 250]


# --- row 11 ---


def test_vrfy_and_expn_tell_nothing(rig: SmtpRig) -> None:
    rig.add_mailbox(b"bill@example.test")
    client = rig.connect().start()
    assert client.say(b"VRFY bill\r\n") == client.say(b"VRFY nobody\r\n")
    assert client.codes(b"VRFY bill\r\nEXPN list\r\n") == [252, 502]


def test_rcpt_probing_is_slowed_and_then_ended(rig: SmtpRig) -> None:
    client = rig.connect().start()
    client.say(b"MAIL FROM:<a@b>\r\n")
    probe = b"RCPT TO:<no@example.test>\r\n"
    assert client.codes(probe * 30) == [550] * 10, "from the soft limit on a reply costs a second"
    assert not client.transport.reading
    rig.pass_seconds(1)
    assert client.take().count(b"550 ") == 1
    rig.pass_seconds(20)
    assert b"421 4.7.0 " in client.take()
    assert client.ended


@pytest.mark.parametrize("junk", [b"NOOP\r\n", b"RSET\r\n", b"VRFY x\r\n", b"HELP\r\n", b"EHLO x\r\n", b"HELO x\r\n"])
def test_floods_of_harmless_commands_end_in_421(rig: SmtpRig, junk: bytes) -> None:
    client = rig.connect().start()
    client.say(junk * 100)
    assert not client.ended
    for _ in range(30):
        client.say(junk)
        rig.pass_seconds(2)
    assert b"421 4.7.0" in b"".join(client.transport.written)
    assert client.ended


def test_errors_are_forgiven_by_an_accepted_message(rig: SmtpRig) -> None:
    client = rig.connect().start()
    for _ in range(3):
        assert client.codes(b"BOGUS\r\n" * 9) == [500] * 9
        client.say(OPEN + b"DATA\r\nx\r\n.\r\n")
    assert not client.ended


@pytest.mark.parametrize(("count", "last"), [(999, 250), (1000, 250), (1001, 452)])
def test_a_transaction_takes_1000_recipients(rig: SmtpRig, count: int, last: int) -> None:
    client = rig.connect().start()
    client.say(b"MAIL FROM:<a@b>\r\n")
    codes = client.codes(b"".join(b"RCPT TO:<u%d@relay.test>\r\n" % i for i in range(count)))
    assert set(codes[:-1]) == {250} and codes[-1] == last and len(codes) == count
    assert client.codes(b"DATA\r\nx\r\n.\r\n") == [354, 250]


# --- row 13 ---


def test_a_size_announced_over_the_limit_is_552_at_once(make_rig: object) -> None:
    rig = make_rig(message_size_limit=1000)  # type: ignore[operator]
    client = rig.connect().start()
    assert client.codes(b"MAIL FROM:<a@b> SIZE=1001\r\nMAIL FROM:<a@b> SIZE=1000\r\n") == [552, 250]
    assert rig.rejected("size") == 1


@pytest.mark.parametrize(("size", "code"), [(999, 250), (1000, 250), (1001, 552), (500_000, 552)])
def test_a_message_over_the_limit_is_552_and_the_session_goes_on(make_rig: object, size: int, code: int) -> None:
    rig = make_rig(message_size_limit=1000)  # type: ignore[operator]
    client = rig.connect().start()
    client.say(OPEN + b"DATA\r\n")
    answer = client.say(b"x" * (size - 2) + b"\r\n.\r\nNOOP\r\n")
    assert int(answer[:3]) == code and answer.endswith(b"250 2.0.0 Ok\r\n")
    if code == 552:
        assert answer.startswith(b"552 5.3.4 ")
        assert stored(rig) == []


# --- row 18 ---


def drip(client: Client, rig: SmtpRig, data: bytes, seconds: int) -> None:
    for i in range(len(data)):
        if client.ended:
            return
        client.feed(data[i : i + 1])
        rig.pass_seconds(seconds)


def test_a_command_must_be_whole_within_its_time_however_it_drips(rig: SmtpRig) -> None:
    client = rig.connect().start()
    drip(client, rig, b"NOOP xxxxxxxxxxxxxxx\r\n", 60)
    assert client.take().startswith(b"421 4.4.2 ") and client.ended


def test_a_message_must_come_at_a_least_rate(rig: SmtpRig) -> None:
    client = rig.connect().start()
    client.say(OPEN + b"DATA\r\n")
    drip(client, rig, b"Subject: slow\r\n", 60)
    assert client.take().startswith(b"421 4.4.2 ") and client.ended
    client.lose()
    assert stored(rig) == []


def test_a_slow_message_above_the_least_rate_is_taken(rig: SmtpRig) -> None:
    client = rig.connect().start()
    client.say(OPEN + b"DATA\r\n")
    for _ in range(100):
        client.feed(b"x" * 998 + b"\r\n" + b"y" * 9_000 + b"\r\n")
        rig.pass_seconds(10)
    assert client.codes(b".\r\n") == [250]


def test_an_idle_session_ends_after_smtpd_timeout(make_rig: object) -> None:
    rig = make_rig(smtpd_timeout=10.0)  # type: ignore[operator]
    client = rig.connect().start()
    rig.pass_seconds(10)
    assert not client.ended
    rig.pass_seconds(1)
    assert client.ended


def test_a_peer_that_does_not_read_stops_being_read(rig: SmtpRig) -> None:
    client = rig.connect().start()
    client.session.pause_writing()
    assert not client.transport.reading
    assert client.say(b"NOOP\r\n") == b""
    client.session.resume_writing()
    assert client.transport.reading and client.take() == b"250 2.0.0 Ok\r\n"
    client.session.pause_writing()
    rig.pass_seconds(302)
    assert client.transport.aborted


def test_input_behind_a_dot_waits_within_a_bound(rig: SmtpRig) -> None:
    client = rig.connect().start()
    client.say(OPEN + b"DATA\r\n")
    client.feed(b"x\r\n.\r\nNOOP\r\n")
    assert client.transport.reading
    client.feed(b"NOOP\r\n" * 4000)
    assert not client.transport.reading, "16 KB wait; more stays in the socket"
    rig.dispatch_once()
    assert client.take().startswith(b"250 2.0.0 Ok: queued as ")


def test_an_idle_session_costs_a_few_kilobytes(rig: SmtpRig) -> None:
    import tracemalloc

    rig.connect().start()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    clients = [rig.connect() for _ in range(200)]
    for client in clients:
        client.transport.written.clear()
    used = (tracemalloc.get_traced_memory()[0] - before) / 200
    tracemalloc.stop()
    assert used < 4096, f"{used:.0f} bytes, the test's own transport included"
    assert rig.counter(METRICS.connections["smtp"]) == 201


def test_recipients_beyond_the_limit_are_452_and_no_errors_up_to_the_overshoot(make_rig: object) -> None:
    rig = make_rig(smtpd_recipient_limit=5, smtpd_recipient_overshoot_limit=30)  # type: ignore[operator]
    client = rig.connect().start()
    client.say(b"MAIL FROM:<a@b>\r\n")
    lines = [b"RCPT TO:<x%d@relay.test>\r\n" % n for n in range(35)]
    assert client.codes(b"".join(lines)) == [250] * 5 + [452] * 30
    assert client.codes(b"DATA\r\n") == [354]
    assert client.codes(b"x\r\n.\r\n") == [250]
    assert len(rig.queue()[0][1]) == 5


def test_the_overshoot_is_counted_anew_in_each_transaction(make_rig: object) -> None:
    rig = make_rig(smtpd_recipient_limit=1, smtpd_recipient_overshoot_limit=15)  # type: ignore[operator]
    client = rig.connect().start()
    for _ in range(3):
        assert client.codes(b"MAIL FROM:<a@b>\r\n" + b"RCPT TO:<x@relay.test>\r\n" * 16 + b"RSET\r\n") == [
            250, 250, *[452] * 15, 250,
        ]  # fmt: skip


def test_recipients_beyond_the_overshoot_count_as_errors_until_421(make_rig: object) -> None:
    rig = make_rig(smtpd_recipient_limit=5, smtpd_recipient_overshoot_limit=30, smtpd_error_sleep_time=0)  # type: ignore[operator]
    client = rig.connect().start()
    client.say(b"MAIL FROM:<a@b>\r\n")
    codes = client.codes(b"RCPT TO:<x@relay.test> NOTIFY=NEVER\r\n" * 100)
    assert codes == [250] * 5 + [452] * (30 + 20) + [421]
    assert client.ended


def test_twice_the_default_limit_of_recipients_gets_through(rig: SmtpRig) -> None:
    client = rig.connect().start()
    client.say(b"MAIL FROM:<a@b>\r\n")
    lines = [b"RCPT TO:<x%d@relay.test>\r\n" % n for n in range(2000)]
    assert client.codes(b"".join(lines)) == [250] * 1000 + [452] * 1000
    assert client.codes(b"DATA\r\n") == [354]
    assert client.codes(b"x\r\n.\r\n") == [250]
    assert len(rig.queue()[0][1]) == 1000
