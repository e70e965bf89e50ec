import base64

import pytest

from fastmta.auth import sasl_scram
from fastmta.auth.sasl import Challenge, Credentials, Failure, Sasl
from fastmta.auth.sasl_client import LoginError, Place, Secret, choose
from fastmta.auth.scram import derive

SALT = b"sixteen octets.."


def keys_of(password):
    return lambda name, mechanism: derive(mechanism, password, SALT)


def client(mechanism, user="user", password="pencil"):
    return choose([mechanism], Secret(user, password), Place("mx", 143), nonce=lambda: b"n" * 18)


def talk(login, sasl, *, initial=True):
    """Runs both sides; what the server says in the end."""
    first = login.start()
    step = sasl.start(login.mechanism, first if initial else None)
    if not initial:
        assert step == Challenge(b"")
        step = sasl.respond(first)
    while isinstance(step, Challenge):
        step = sasl.respond(login.respond(step.raw))
    return step


@pytest.mark.parametrize("initial", [True, False])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
def test_both_sides_prove_that_they_know_the_password(mechanism, initial):
    login = client(mechanism)
    assert talk(login, Sasl(keys_of=keys_of("pencil")), initial=initial) == Credentials("user", "", "", mechanism, True)
    assert login.proved()


def test_another_password_is_no_proof():
    login = client("SCRAM-SHA-256", password="pen")
    assert talk(login, Sasl(keys_of=keys_of("pencil"))) == Credentials("user", "", "", "SCRAM-SHA-256", False)
    assert not login.proved()


def test_a_server_without_keys_proves_nothing_to_the_client():
    class Lying(Sasl):
        def respond(self, response):
            step = super().respond(response)
            return Challenge(b"v=" + base64.b64encode(b"x" * 32)) if isinstance(step, Credentials) else step

    with pytest.raises(LoginError):
        talk(client("SCRAM-SHA-256"), Lying())


def test_odd_names_and_passwords_are_prepared_on_both_sides():
    login = client("SCRAM-SHA-256", user="a=b,c\u00ad", password="p\u00e4ss\u2000w\ufb01rd")
    step = talk(login, Sasl(keys_of=keys_of("pa\u0308ss wfird")))
    assert step == Credentials("a=b,c", "", "", "SCRAM-SHA-256", True)


def test_the_example_of_rfc_7677(monkeypatch):
    """§3: user "user", password "pencil"."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    monkeypatch.setattr(sasl_scram, "new_nonce", lambda: b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    sasl = Sasl(keys_of=lambda name, mechanism: derive(mechanism, "pencil", salt))
    assert sasl.start("SCRAM-SHA-256", b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == Challenge(
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    assert sasl.respond(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    ) == Challenge(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    assert sasl.respond(b"") == Credentials("user", "", "", "SCRAM-SHA-256", True)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n,,",
        b"n,,n=user",
        b"n,,n=,r=abc",
        b"n,,n=user,r=",
        b"n,,n=us=er,r=abc",
        b"n,,n=us=2cer,r=abc",
        b"n,,n=\xff,r=abc",
        b"n,,m=x,n=user,r=abc",
        b"n,,r=abc,n=user",
        b"p=tls-unique,,n=user,r=abc",
        b"x,,n=user,r=abc",
        b"n,user,n=user,r=abc",
        b"n,,n=user,r=a c",
        b"n,,n=user,r=" + b"a" * 2000,
    ],
)
def test_a_malformed_first_message_is_a_syntax_failure(message):
    assert Sasl(keys_of=keys_of("pencil")).start("SCRAM-SHA-256", message) == Failure("syntax")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda message: b"",
        lambda message: message.replace(b"c=biws", b"c=eSws"),  # another header than the first message had
        lambda message: message.replace(b"c=biws,", b""),
        lambda message: message.replace(b"r=", b"r=x"),
        lambda message: message.rpartition(b",p=")[0],
        lambda message: message + b"!",
        lambda message: message.replace(b"c=biws", b"c=biw"),
    ],
)
def test_a_malformed_last_message_is_a_syntax_failure(spoil):
    login, sasl = client("SCRAM-SHA-256"), Sasl(keys_of=keys_of("pencil"))
    step = sasl.start("SCRAM-SHA-256", login.start())
    assert sasl.respond(spoil(login.respond(step.raw))) == Failure("syntax")


def test_a_proof_of_another_length_is_no_proof():
    login, sasl = client("SCRAM-SHA-256"), Sasl(keys_of=keys_of("pencil"))
    message = login.respond(sasl.start("SCRAM-SHA-256", login.start()).raw)
    short = message.rpartition(b",p=")[0] + b",p=" + base64.b64encode(b"short")
    assert sasl.respond(short) == Credentials("user", "", "", "SCRAM-SHA-256", False)


def test_a_message_after_our_proof_is_a_syntax_failure():
    login, sasl = client("SCRAM-SHA-256"), Sasl(keys_of=keys_of("pencil"))
    step = sasl.respond(login.respond(sasl.start("SCRAM-SHA-256", login.start()).raw))
    assert isinstance(step, Challenge)
    assert sasl.respond(b"more") == Failure("syntax")


def test_an_authorization_identity_is_handed_on():
    sasl = Sasl(keys_of=keys_of("pencil"))
    sasl.start("SCRAM-SHA-256", b"n,a=other=2Cname,n=user,r=abc")
    step = sasl.respond(b"c=" + base64.b64encode(b"n,a=other=2Cname,") + b",r=zzz,p=" + base64.b64encode(b"x" * 32))
    assert step == Failure("syntax")  # the nonce is another


@pytest.mark.parametrize(
    "message",
    [
        b"n,a=user@example.test,\x01host=mx\x01port=143\x01auth=Bearer tok.en\x01\x01",
        b"n,a=user@example.test,\x01auth=bearer tok.en\x01\x01",
    ],
)
def test_oauthbearer_brings_a_token(message):
    assert Sasl().start("OAUTHBEARER", message) == Credentials(
        "user@example.test", "tok.en", "", "OAUTHBEARER", None, True
    )


def test_xoauth2_brings_a_token():
    message = b"user=user@example.test\x01auth=Bearer tok.en\x01\x01"
    assert Sasl().start("XOAUTH2", message) == Credentials("user@example.test", "tok.en", "", "XOAUTH2", None, True)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n,a=u,\x01auth=Bearer x",
        b"n,a=u,\x01auth=Basic x\x01\x01",
        b"n,a=u,\x01auth=Bearer \x01\x01",
        b"n,a=u,\x01auth=Bearer a b\x01\x01",
        b"n,a=u,\x01host=mx\x01\x01",
        b"p=x,a=u,\x01auth=Bearer x\x01\x01",
        b"n,a=\xff,\x01auth=Bearer x\x01\x01",
    ],
)
def test_a_malformed_bearer_message_is_a_syntax_failure(message):
    assert Sasl().start("OAUTHBEARER", message) == Failure("syntax")
