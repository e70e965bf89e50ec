"""The rules of POP3 without a socket: every state and verb, replies, numbering, listings."""

import base64

import pytest

from fastmta.auth.sasl import Credentials
from fastmta.model.limits import POP3_BAD_COMMANDS, POP3_LOGIN_ATTEMPTS
from fastmta.pop3 import session as rules
from fastmta.pop3.session import Close, Listing, LogIn, Maildrop, Retrieve, Session, StartTls, State, Update, Verb

NOT_HERE = b"-ERR Command not valid in this state\r\n"


def fresh(*, stls: bool = True, allowed: bool = True) -> Session:
    return Session(stls=stls, mechanisms=("PLAIN", "LOGIN") if allowed else (), login_allowed=allowed)


def opened(count: int = 3) -> Session:
    session = fresh()
    drop = Maildrop(1, 9, range(11, 11 + count), [100 * (n + 1) for n in range(count)], [0] * count)
    assert session.opened(drop).startswith(b"+OK")
    return session


def in_state(state: State) -> Session:
    if state is State.TRANSACTION:
        return opened()
    session = fresh()
    if state is State.NAMED:
        session.command(b"USER bill")
    elif state is State.SASL:
        session.command(b"AUTH PLAIN")
    elif state is State.UPDATE:
        session.command(b"QUIT")
    assert session.state is state
    return session


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("verb", Verb)
def test_every_state_and_verb(state: State, verb: Verb) -> None:
    session = in_state(state)
    action = session.command(verb.value + b" 1 1")
    if state is State.SASL:
        assert action == b"-ERR Not a valid SASL response\r\n"
    elif verb in rules.ALLOWED[state]:
        assert action != NOT_HERE
    else:
        assert action == NOT_HERE
        assert session.state is state


def test_user_and_pass_keep_spaces_of_the_password() -> None:
    session = fresh()
    assert session.command(b"user bill ") == b"+OK\r\n"
    assert session.command(b"PASS  a b ") == LogIn(Credentials("bill", " a b ", "", "USER"))


def test_pass_needs_user_again_after_a_failure() -> None:
    session = fresh()
    session.command(b"USER bill")
    session.command(b"PASS x")
    session.refused(b"AUTH", b"no")
    assert session.command(b"PASS x") == NOT_HERE


@pytest.mark.parametrize("line", [b"USER", b"USER \xff", b"USER a\0b"])
def test_bad_user_is_refused(line: bytes) -> None:
    session = fresh()
    action = session.command(line)
    assert isinstance(action, bytes)
    assert action.startswith(b"-ERR")
    assert session.state is State.AUTHORIZATION


def test_auth_plain_with_and_without_initial_response() -> None:
    response = base64.b64encode(b"\0bill\0pw")
    expected = LogIn(Credentials("bill", "pw", "", "PLAIN"))
    assert fresh().command(b"AUTH PLAIN " + response) == expected
    session = fresh()
    assert session.command(b"auth plain") == b"+ \r\n"
    assert session.command(response) == expected
    session = fresh()
    session.command(b"AUTH PLAIN")
    assert session.command(b"*") == b"-ERR Authentication cancelled\r\n"
    assert session.state is State.AUTHORIZATION


def test_auth_login() -> None:
    session = fresh()
    assert session.command(b"AUTH LOGIN") == b"+ VXNlcm5hbWU6\r\n"
    assert session.command(base64.b64encode(b"bill")) == b"+ UGFzc3dvcmQ6\r\n"
    assert session.command(base64.b64encode(b"pw")) == LogIn(Credentials("bill", "pw", "", "LOGIN"))


@pytest.mark.parametrize("line", [b"AUTH CRAM-MD5", b"AUTH \xff", b"AUTH PLAIN !!!", b"AUTH PLAIN eA=="])
def test_bad_auth_is_refused(line: bytes) -> None:
    action = fresh().command(line)
    assert isinstance(action, bytes)
    assert action.startswith(b"-ERR")


def test_plaintext_is_refused_where_it_is_not_allowed() -> None:
    session = fresh(allowed=False)
    for line in (b"USER bill", b"AUTH PLAIN AGEAYg=="):
        action = session.command(line)
        assert isinstance(action, bytes)
        assert action.startswith(b"-ERR [AUTH] Plaintext")
    capabilities = session.command(b"CAPA")
    assert isinstance(capabilities, bytes)
    assert b"USER" not in capabilities
    assert b"SASL" not in capabilities


def test_capabilities() -> None:
    before = fresh().command(b"CAPA")
    assert before == (
        b"+OK\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nUTF8\r\nLANG\r\nSTLS\r\nUSER\r\n"
        b"SASL PLAIN LOGIN\r\nIMPLEMENTATION FastMTA\r\n.\r\n"
    )
    after = opened().command(b"CAPA")
    assert isinstance(after, bytes)
    assert b"STLS" not in after
    assert b"STLS" not in bytes(fresh(stls=False).command(b"CAPA"))  # type: ignore[arg-type]


@pytest.mark.parametrize("state", [State.AUTHORIZATION, State.NAMED, State.TRANSACTION])
def test_languages_are_told_and_chosen(state: State) -> None:
    session = in_state(state)
    assert session.command(b"LANG") == b"+OK Language listing follows:\r\nen English\r\n.\r\n"
    for chosen in (b"en", b"EN", b"en-GB", b"*"):
        assert bytes(session.command(b"LANG " + chosen)).startswith(b"+OK en ")  # type: ignore[arg-type]
    for unknown in (b"de", b"eng", b"e", b"**", b"*-GB"):
        assert bytes(session.command(b"LANG " + unknown)).startswith(b"-ERR ")  # type: ignore[arg-type]
    assert session.state is state


def test_utf8_is_of_the_time_before_login_and_takes_no_argument() -> None:
    assert fresh().command(b"utf8") == b"+OK UTF8 enabled\r\n"
    assert bytes(fresh().command(b"UTF8 USER")).startswith(b"-ERR")  # type: ignore[arg-type]
    assert opened().command(b"UTF8") == NOT_HERE


def test_stls() -> None:
    assert isinstance(fresh().command(b"STLS"), StartTls)
    assert fresh(stls=False).command(b"STLS") == b"-ERR STLS is not available\r\n"


def test_attempts_are_limited() -> None:
    session = fresh()
    replies = [session.refused(b"AUTH", b"Authentication failed") for _ in range(POP3_LOGIN_ATTEMPTS)]
    assert replies[:-1] == [b"-ERR [AUTH] Authentication failed\r\n"] * (POP3_LOGIN_ATTEMPTS - 1)
    assert replies[-1] == Close(b"-ERR [AUTH] Authentication failed\r\n")


def test_bad_commands_in_a_row_end_the_connection() -> None:
    session = opened()
    for _ in range(POP3_BAD_COMMANDS - 1):
        assert session.command(b"XYZZY") == b"-ERR Unknown command\r\n"
    assert session.command(b"NOOP") == b"+OK\r\n"
    for _ in range(POP3_BAD_COMMANDS - 1):
        assert session.command(b"DELE 9") == b"-ERR There is no message 9\r\n"
    assert session.command(b"") == Close(b"-ERR Unknown command\r\n")


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"POST / HTTP/1.0", b"EHLO x"])
def test_another_protocol_is_sent_away(line: bytes) -> None:
    assert fresh().command(line) == Close(b"-ERR This is a POP3 server\r\n")


def listing(action: object) -> bytes:
    assert isinstance(action, Listing)
    return b"".join(action.blocks)


def test_listings_and_deletions() -> None:
    session = opened()
    assert session.command(b"STAT") == b"+OK 3 600\r\n"
    assert session.command(b"LIST 2") == b"+OK 2 200\r\n"
    assert session.command(b"UIDL 2") == b"+OK 2 9.12\r\n"
    assert session.command(b"DELE 2") == b"+OK Marked to be deleted\r\n"
    assert session.command(b"STAT") == b"+OK 2 400\r\n"
    assert listing(session.command(b"LIST")) == b"+OK 2 messages (400 octets)\r\n1 100\r\n3 300\r\n.\r\n"
    assert listing(session.command(b"UIDL")) == b"+OK\r\n1 9.11\r\n3 9.13\r\n.\r\n"
    for line in (b"DELE 2", b"RETR 2", b"LIST 2", b"UIDL 2", b"TOP 2 0"):
        assert session.command(line) == b"-ERR There is no message 2\r\n"
    assert session.command(b"RSET") == b"+OK\r\n"
    assert session.command(b"STAT") == b"+OK 3 600\r\n"


def test_empty_maildrop() -> None:
    session = opened(0)
    assert session.command(b"STAT") == b"+OK 0 0\r\n"
    assert listing(session.command(b"LIST")) == b"+OK 0 messages (0 octets)\r\n.\r\n"


@pytest.mark.parametrize(
    "number", [b"0", b"-1", b"4", b"99999999999999999999", b"x", b"", b"1x", b"+1", b"\xb2", b"1 1"]
)
def test_wrong_message_numbers(number: bytes) -> None:
    session = opened()
    for verb in (b"RETR", b"DELE"):
        action = session.command(verb + b" " + number)
        assert isinstance(action, bytes)
        assert action.startswith(b"-ERR")
    assert session.command(b"STAT") == b"+OK 3 600\r\n"


@pytest.mark.parametrize("count", [b"", b"-1", b"x", b"99999999999", b"1 1"])
def test_wrong_line_counts_of_top(count: bytes) -> None:
    assert opened().command(b"TOP 1 " + count) == b"-ERR Not a number of lines\r\n"


def test_retrieve_and_top() -> None:
    session = opened()
    assert session.command(b"RETR 1") == Retrieve(0, None)
    assert session.command(b"TOP 3 4294967295") == Retrieve(2, 4294967295)


def test_quit_updates_only_after_login() -> None:
    session = opened()
    drop = session.maildrop
    assert drop is not None
    session.command(b"DELE 1")
    drop.retrieved(0)
    drop.retrieved(1)
    assert session.command(b"QUIT") == Update()
    assert [list(uids) for uids in drop.deleted_uids()] == [[11]]
    assert [list(uids) for uids in drop.seen_uids()] == [[12]]
    assert fresh().command(b"QUIT") == Close(b"+OK Bye\r\n")


def test_long_lines() -> None:
    session = fresh()
    assert session.too_long() == b"-ERR Line too long\r\n"
    session.command(b"AUTH PLAIN")
    assert session.too_long() == b"-ERR SASL response too long\r\n"
    assert session.state is State.AUTHORIZATION
