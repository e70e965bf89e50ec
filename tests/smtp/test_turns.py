"""A client that sends without a pause gets its replies in turns, in order, and delays no other."""

import pytest

from tests.support.smtp_rig import SmtpRig

PIECE_NS = 50_000
OPEN = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<x@relay.test>\r\n"


@pytest.mark.parametrize(("service", "hello"), [("smtp", b"EHLO me\r\n"), ("lmtp", b"LHLO me\r\n")])
@pytest.mark.parametrize(
    "line", [b"NOOP\r\n", b"RSET\r\n", b"MAIL FROM:<a@b.test>\r\nRCPT TO:<x@relay.test>\r\nRSET\r\n"]
)
def test_pipelined_commands_are_answered_in_turns(rig: SmtpRig, service: str, hello: bytes, line: bytes) -> None:
    greedy, other = rig.connect(service), rig.connect(service)
    greedy.say(hello)
    other.say(hello)
    rig.passes.tick_ns = PIECE_NS
    count = 90  # a session ends at smtpd_junk_command_limit
    first = greedy.say(line * count)
    assert 0 < len(first.splitlines()) < 60
    assert other.say(b"NOOP\r\n") == b"250 2.0.0 Ok\r\n"
    said = first
    while rig.turns.waiting:
        rig.passes.next()
        said += greedy.take()
    lines = said.splitlines()
    assert len(lines) == count * line.count(b"\r\n")
    assert all(each.startswith(b"250 ") for each in lines)
    assert greedy.transport.reading


def test_a_client_that_leaves_while_it_waits_is_forgotten(rig: SmtpRig) -> None:
    greedy = rig.connect().start()
    rig.passes.tick_ns = PIECE_NS
    greedy.say(b"NOOP\r\n" * 90)
    greedy.session.connection_lost(None)
    rig.passes.next()
    assert rig.turns.waiting == 0


def test_the_last_reply_of_a_draining_server_comes_behind_the_commands_that_were_sent(rig: SmtpRig) -> None:
    greedy = rig.connect().start()
    rig.passes.tick_ns = PIECE_NS
    said = greedy.say(b"NOOP\r\n" * 100)
    rig.server.drain()
    while rig.turns.waiting:
        rig.passes.next()
        said += greedy.take()
    lines = said.splitlines()
    assert [line[:3] for line in lines] == [b"250"] * 100 + [b"421"]


def test_starttls_behind_a_pause_drops_what_came_with_it(rig: SmtpRig) -> None:
    greedy = rig.connect().start()
    rig.passes.tick_ns = PIECE_NS
    said = greedy.say(b"NOOP\r\n" * 100 + b"STARTTLS\r\nMAIL FROM:<evil@b.test>\r\n")
    while rig.turns.waiting:
        rig.passes.next()
        said += greedy.take()
    assert len(said.splitlines()) == 101
    assert said.splitlines()[-1].startswith(b"220 ")


def test_a_message_behind_a_pause_is_taken_whole(rig: SmtpRig) -> None:
    greedy = rig.connect().start()
    rig.passes.tick_ns = PIECE_NS
    body = b"Subject: x\r\n\r\n" + b"line\r\n" * 50_000
    said = greedy.say(b"NOOP\r\n" * 50 + b"MAIL FROM:<a@b.test>\r\nRCPT TO:<x@relay.test>\r\nDATA\r\n")
    while rig.turns.waiting:
        rig.passes.next()
        said += greedy.take()
    assert said.splitlines()[-1].startswith(b"354 ")
    said = greedy.say(body + b".\r\nNOOP\r\n")
    for _ in range(10):
        rig.passes.next()
        rig.settle()
    said += greedy.take()
    assert [line[:3] for line in said.splitlines()] == [b"250", b"250"]
    (blob,) = rig.blobs()
    assert blob.endswith(body)
