"""smtpd_soft_error_limit, smtpd_error_sleep_time, smtpd_hard_error_limit: slow replies, and an end."""

import msgspec
import pytest

from tests.support.smtp_rig import Client, SmtpRig


@pytest.fixture
def make_rig(tmp_path):
    rigs = []

    def make(**keys) -> SmtpRig:
        rig = SmtpRig(tmp_path)
        rig.config = msgspec.structs.replace(rig.config, smtpd_soft_error_limit=3, smtpd_hard_error_limit=6, **keys)
        rig.server.reload(rig)  # type: ignore[arg-type]
        rigs.append(rig)
        return rig

    yield make
    for rig in rigs:
        rig.store.close()


def errors(client: Client, count: int) -> None:
    for _ in range(count):
        assert client.say(b"WHAT\r\n").startswith(b"500 "), "not yet delayed"


async def test_each_reply_is_delayed_from_the_limit_on(make_rig) -> None:
    rig = make_rig()
    client = rig.connect().start()
    errors(client, 3)
    assert client.say(b"NOOP\r\n") == b""
    rig.pass_seconds(1)
    assert client.take() == b"250 2.0.0 Ok\r\n"
    assert client.say(b"WHAT\r\nNOOP\r\n") == b""
    rig.pass_seconds(1)
    assert client.take().startswith(b"500 ")
    assert client.take() == b"", "a pipeline is delayed reply by reply"
    rig.pass_seconds(1)
    assert client.take() == b"250 2.0.0 Ok\r\n"


async def test_the_delay_is_a_setting_and_zero_is_none(make_rig) -> None:
    rig = make_rig(smtpd_error_sleep_time=3.0)
    client = rig.connect().start()
    errors(client, 3)
    client.say(b"NOOP\r\n")
    rig.pass_seconds(2)
    assert client.take() == b""
    rig.pass_seconds(1)
    assert client.take() == b"250 2.0.0 Ok\r\n"
    rig.config = msgspec.structs.replace(rig.config, smtpd_error_sleep_time=0.0)
    rig.server.reload(rig)
    client = rig.connect().start()
    errors(client, 5)


async def test_the_last_error_ends_the_session_with_all_its_replies(make_rig) -> None:
    rig = make_rig()
    client = rig.connect().start()
    errors(client, 3)
    for _ in range(2):
        client.feed(b"WHAT\r\n")
        rig.pass_seconds(1)
        assert client.take().startswith(b"500 ")
    said = client.say(b"WHAT\r\n")
    assert said.startswith(b"500 ") and b"421 4.7.0 mx.example.test Error: too many errors\r\n" in said
    assert client.ended


async def test_mail_that_is_taken_ends_the_delay(make_rig) -> None:
    rig = make_rig()
    client = rig.connect().start()
    errors(client, 3)
    replies = b""
    for line in (b"MAIL FROM:<a@b.test>", b"RCPT TO:<x@relay.test>", b"DATA"):
        client.feed(line + b"\r\n")
        assert client.take() == b""
        rig.pass_seconds(1)
        replies += client.take()
    assert [line[:3] for line in replies.splitlines()] == [b"250", b"250", b"354"]
    assert client.codes(b"x\r\n.\r\n") == [250]
    assert client.codes(b"NOOP\r\n") == [250]


async def test_starttls_is_never_delayed_half(make_rig) -> None:
    rig = make_rig()
    client = rig.connect().start()
    errors(client, 3)
    assert client.say(b"STARTTLS\r\n") == b"220 2.0.0 Ready to start TLS\r\n"
    for work in rig.tasks.spawned:
        work.close()


async def test_who_leaves_while_he_waits_is_gone(make_rig) -> None:
    rig = make_rig()
    client = rig.connect().start()
    errors(client, 3)
    client.feed(b"NOOP\r\n")
    client.lose()
    rig.pass_seconds(2)
    assert client.take() == b""
