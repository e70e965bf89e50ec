import base64

import pytest

from fastmta.auth.sasl import Challenge, Credentials, Failure, Sasl
from fastmta.model.limits import SASL_RESPONSE_BYTES


def b64(raw):
    return base64.b64encode(raw)


def test_plain_with_an_initial_response():
    assert Sasl().start("PLAIN", b"\0user\0secret") == Credentials("user", "secret", "", "PLAIN")


def test_plain_without_one_is_challenged_with_nothing():
    sasl = Sasl()
    assert sasl.start("plain", None) == Challenge(b"")
    assert sasl.respond(b"admin\0user\0secret") == Credentials("user", "secret", "admin", "PLAIN")


def test_login_asks_for_name_and_password():
    sasl = Sasl()
    assert sasl.start("LOGIN", None) == Challenge(b"Username:")
    assert sasl.respond(b"user") == Challenge(b"Password:")
    assert sasl.respond(b"secret") == Credentials("user", "secret", "", "LOGIN")


def test_login_takes_the_name_as_initial_response():
    sasl = Sasl()
    assert sasl.start("LOGIN", b"user") == Challenge(b"Password:")
    assert sasl.respond("påss".encode()) == Credentials("user", "påss", "", "LOGIN")


@pytest.mark.parametrize(
    "raw", [b"", b"user", b"\0user", b"\0user\0", b"\0\0secret", b"\0a\0b\0c", b"\0\xff\0b", b"a\0\0b"]
)
def test_a_malformed_plain_message_is_a_syntax_failure(raw):
    assert Sasl().start("PLAIN", raw) == Failure("syntax")


@pytest.mark.parametrize("raw", [b"", b"\xff", b"a\0b"])
def test_a_malformed_login_answer_is_a_syntax_failure(raw):
    sasl = Sasl()
    sasl.start("LOGIN", None)
    assert sasl.respond(raw) == Failure("syntax")


def test_a_mechanism_that_is_not_offered_fails():
    assert Sasl().start("CRAM-MD5", None) == Failure("mechanism")
    assert Sasl(("PLAIN",)).start("LOGIN", None) == Failure("mechanism")
    assert Sasl().respond(b"x") == Failure("mechanism")


def test_lines_are_base64():
    sasl = Sasl()
    assert sasl.start_line("LOGIN", None) == Challenge(b"Username:")
    assert sasl.respond_line(b64(b"user")) == Challenge(b"Password:")
    assert sasl.respond_line(b64(b"secret")) == Credentials("user", "secret", "", "LOGIN")
    assert Sasl().start_line("PLAIN", b64(b"\0u\0p")) == Credentials("u", "p", "", "PLAIN")


def test_equals_sign_is_the_empty_initial_response():
    assert Sasl().start_line("PLAIN", b"=") == Failure("syntax")


def test_a_star_cancels():
    sasl = Sasl()
    sasl.start("LOGIN", None)
    assert sasl.respond_line(b"*") == Failure("cancelled")


@pytest.mark.parametrize("line", [b"YQ", b"YQ=", b"Y Q==", b"!!!!", b"YQ==YQ==", b"YQ==\n", b"\xff"])
def test_bad_base64_is_a_syntax_failure(line):
    sasl = Sasl()
    sasl.start("PLAIN", None)
    assert sasl.respond_line(line) == Failure("syntax")


@pytest.mark.parametrize(("extra", "code"), [(-1, "syntax"), (0, "syntax"), (1, "too-long")])
def test_a_response_at_the_bound_is_read_and_one_over_it_is_not(extra, code):
    raw = b"x" * (SASL_RESPONSE_BYTES + extra)
    sasl = Sasl()
    sasl.start("PLAIN", None)
    assert sasl.respond_line(b64(raw)) == Failure(code)
    assert sasl.respond(raw) == Failure(code)


def test_a_password_is_not_in_the_representation():
    assert "secret" not in repr(Credentials("user", "secret"))
