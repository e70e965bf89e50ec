"""What a login at a relay host says: the RFCs' own examples, and what it refuses to say."""

from base64 import b64decode

import pytest

from fastmta.auth.sasl_client import LoginError, Place, Secret, choose, is_wanted
from fastmta.model.limits import SASL_SCRAM_ITERATIONS
from tests.support.sasl_server import Refused, exchange

PLACE = Place("mx.test", 587)
ALL = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER")


def login(mechanism, user="user", password="pencil", nonce=b"\0" * 18, **options):
    secret = Secret(user, password, token=mechanism in ("XOAUTH2", "OAUTHBEARER"))
    return choose([mechanism], secret, PLACE, nonce=lambda: nonce, **options)


def run(mechanism, passwords, user="user", password="pencil", **options):
    """The login against the server of tests/support; gives the user that it believes."""
    ours = login(mechanism, user, password)
    steps = exchange(mechanism, passwords, **options)
    challenge = next(steps)
    initial = ours.start()
    try:
        if initial is not None:
            challenge = steps.send(initial)
        for _ in range(5):
            challenge = steps.send(ours.respond(challenge))
    except StopIteration as end:
        assert ours.proved()
        return end.value


USERS = ["user", "bill@example.test", "a=b,c"]
# The server of these tests does not take apart the escaped name of OAUTHBEARER.
LOGINS = [(name, user) for name in ALL for user in USERS if name != "OAUTHBEARER" or "=" not in user]


@pytest.mark.parametrize(("mechanism", "user"), LOGINS)
@pytest.mark.parametrize("password", ["pencil", "a:b=c,d", "p\u00e4ss"])
def test_every_mechanism_logs_in(mechanism, user, password):
    assert run(mechanism, {user: password}, user, password) == user


@pytest.mark.parametrize("mechanism", ALL)
def test_a_wrong_password_is_refused(mechanism):
    with pytest.raises(Refused):
        run(mechanism, {"user": "other"})


def test_cram_md5_as_rfc_2195_has_it():
    ours = login("CRAM-MD5", "tim", "tanstaaftanstaaf")
    said = ours.respond(b"<1896.697170952@postoffice.reston.mci.net>")
    assert said == b"tim b913a602c7eda7a495b4e6e7334d3890"


@pytest.mark.parametrize(
    ("mechanism", "nonce", "challenge", "final", "server_final"),
    [
        (
            "SCRAM-SHA-1",
            "fyko+d2lbbFgONRv9qkxdawL",
            "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ),
        (
            "SCRAM-SHA-256",
            "rOprNGfwEbeRWgbNEkqO",
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
            "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
    ],
)
def test_scram_as_rfc_5802_and_7677_have_it(mechanism, nonce, challenge, final, server_final):
    ours = login(mechanism, nonce=b64decode(nonce))
    assert ours.start() == f"n,,n=user,r={nonce}".encode()
    assert ours.respond(challenge.encode()).decode() == final
    assert not ours.proved()
    assert ours.respond(server_final.encode()) == b"" and ours.proved()


@pytest.mark.parametrize(
    "challenge",
    [
        b"r=other,s=QSXCR+Q6sek8bf92,i=4096",
        b"r=AAAAAAAAAAAAAAAAAAAAAAAA,s=QSXCR+Q6sek8bf92,i=4096",  # nothing of the server's own
        b"r=AAAAAAAAAAAAAAAAAAAAAAAAx,s=*,i=4096",
        b"r=AAAAAAAAAAAAAAAAAAAAAAAAx,s=QSXC,i=0",
        b"r=AAAAAAAAAAAAAAAAAAAAAAAAx,s=QSXC,i=-1",
        b"r=AAAAAAAAAAAAAAAAAAAAAAAAx,s=QSXC,i=%d" % (SASL_SCRAM_ITERATIONS + 1),
        b"r=AAAAAAAAAAAAAAAAAAAAAAAAx,s=QSXC,i=99999999999999999999",
        b"m=x,r=AAAAAAAAAAAAAAAAAAAAAAAAx,s=QSXC,i=4096",
        b"\xff\x00",
    ],
)
def test_scram_gives_no_proof_for_a_bad_challenge(challenge):
    ours = login("SCRAM-SHA-256")
    ours.start()
    with pytest.raises(LoginError):
        ours.respond(challenge)


def test_scram_finds_a_server_that_does_not_know_the_password():
    with pytest.raises(LoginError, match="does not know the password"):
        run("SCRAM-SHA-256", {"user": "pencil"}, lies=True)


def test_scram_prepares_what_is_not_ascii():
    nonce = b"\0" * 18
    plain, odd = login("SCRAM-SHA-1", password="IX 1"), login("SCRAM-SHA-1", password="\u2168\u00a01\u00ad")
    challenge = b"r=" + b"A" * 24 + b"x,s=QSXC,i=10"
    assert plain.respond(challenge) == odd.respond(challenge)
    assert nonce


@pytest.mark.parametrize("mechanism", ["PLAIN", "CRAM-MD5", "LOGIN"])
def test_no_mechanism_answers_without_end(mechanism):
    ours = login(mechanism)
    with pytest.raises(LoginError):
        for _ in range(4):
            ours.respond(b"" if mechanism == "PLAIN" else b"again")


@pytest.mark.parametrize("secret", [Secret("u\0", "p"), Secret("u", "p\r\n"), Secret("u", "p\1x", token=True)])
def test_control_characters_reach_no_server(secret):
    with pytest.raises(LoginError):
        choose(ALL, secret, PLACE, nonce=bytes)


@pytest.mark.parametrize(
    ("offered", "options", "wanted", "mechanism"),
    [
        (ALL, (), (), "SCRAM-SHA-256"),
        (("login", "plain"), (), (), "PLAIN"),
        (ALL, (), ("plain",), "PLAIN"),
        (ALL, (), ("!scram-sha-256", "static:all"), "SCRAM-SHA-1"),
        (("PLAIN", "CRAM-MD5"), ("noplaintext", "noanonymous"), (), "CRAM-MD5"),
        (ALL, ("mutual_auth",), (), "SCRAM-SHA-256"),
        (("PLAIN", "LOGIN"), ("noplaintext",), (), None),
        (("CRAM-MD5",), ("noactive",), (), None),
        (ALL, ("nodictionary",), (), None),
        (("GSSAPI",), (), (), None),
        (ALL, (), ("gssapi",), None),
    ],
)
def test_the_strongest_mechanism_that_is_permitted_is_taken(offered, options, wanted, mechanism):
    secret = Secret("user", "pencil")
    if mechanism is None:
        with pytest.raises(LoginError):
            choose(offered, secret, PLACE, options=options, wanted=wanted, nonce=bytes)
        return
    assert choose(offered, secret, PLACE, options=options, wanted=wanted, nonce=bytes).mechanism == mechanism


def test_a_filter_is_read_from_left_to_right():
    assert is_wanted("PLAIN", ()) and not is_wanted("PLAIN", ("login",)) and not is_wanted("PLAIN", ("!login",))
    assert is_wanted("PLAIN", ("!login", "static:rest")) and not is_wanted("LOGIN", ("!login", "static:rest"))
    assert is_wanted("PLAIN", ("!!plain",))


def test_a_secret_is_never_shown():
    assert "pencil" not in repr(Secret("user", "pencil")) + str(Secret("user", "pencil"))
