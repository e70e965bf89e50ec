"""What a client is told at a limit of its address: Postfix's replies."""

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
