import json
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fastmta.auth.bearer import Bearers, TokenRefused
from fastmta.config.tables import AuthConfig
from fastmta.model.errors import TemporaryFailure
from tests.support.authority import issue
from tests.support.https_stub import HttpsStub

ISSUER = "https://issuer.example.test"
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(1) as made:
        yield made


def jwk(key, key_id, algorithm=jwt.algorithms.ECAlgorithm):
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": key_id, "use": "sig"}


@pytest.fixture
def make(pool, tmp_path):
    def made(keys=None, **settings):
        path = tmp_path / "keys.json"
        path.write_text(json.dumps({"keys": keys if keys is not None else [jwk(KEY, "one")]}))

        async def addresses(host):
            raise OSError("no network in this test")

        bearers = Bearers(
            AuthConfig(**{"oauth2_jwks_file": str(path), **settings}),
            context=lambda: pytest.fail("nothing is fetched"),
            addresses=addresses,
            pool=pool,
            monotonic=lambda: clock.monotonic,
            now=time.time,
        )
        return bearers, path

    class Clock:
        monotonic = 1000.0

    clock = Clock()
    made.clock = clock
    return made


def token(key=KEY, key_id="one", algorithm="ES256", **claims):
    now = int(time.time())
    body = {"iss": ISSUER, "email": "user@example.test", "exp": now + 60, **claims}
    return jwt.encode({k: v for k, v in body.items() if v is not None}, key, algorithm, headers={"kid": key_id})


async def test_a_token_that_the_issuer_signed_names_its_user(make):
    bearers, _ = make(oauth2_issuers=(ISSUER,))
    assert await bearers.user(token()) == "user@example.test"


async def test_a_token_is_remembered_no_longer_than_it_is_good(make):
    bearers, path = make()
    good = token()
    await bearers.user(good)
    path.unlink()
    assert await bearers.user(good) == "user@example.test"
    make.clock.monotonic += 61.0
    assert await bearers.user(good)  # verified again, by the keys that are kept


async def test_the_keys_are_read_again_for_a_key_that_is_new(make):
    bearers, path = make()
    await bearers.user(token())
    path.write_text(json.dumps({"keys": [jwk(OTHER, "two")]}))
    with pytest.raises(TokenRefused):
        await bearers.user(token(OTHER, "two"))  # not so soon: strangers could make us ask for ever
    make.clock.monotonic += 31.0
    assert await bearers.user(token(OTHER, "two")) == "user@example.test"


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        ({}, lambda: token(OTHER)),  # signed by somebody else under the issuer's key id
        ({}, lambda: token(key_id="nine")),
        ({}, lambda: token(exp=int(time.time()) - 3600)),
        ({}, lambda: token(exp=None)),
        ({}, lambda: token(email=None)),
        ({}, lambda: token(email=7)),
        ({}, lambda: "no.jwt"),
        ({}, lambda: ""),
        ({}, lambda: jwt.encode({"email": "user@example.test"}, None, "none")),
        ({}, lambda: token("a secret that is long enough for sha256", algorithm="HS256")),
        ({"oauth2_issuers": ("https://other.test",)}, token),
        ({"oauth2_client_id": "mail"}, token),
        ({"oauth2_client_id": "mail"}, lambda: token(aud=["web"])),
        ({"oauth2_scope": ("mail",)}, lambda: token(scope="profile email")),
        ({"oauth2_active_attribute": "enabled"}, token),
        ({"oauth2_active_attribute": "enabled"}, lambda: token(enabled=False)),
        ({"oauth2_username_attribute": "sub"}, token),
    ],
)
async def test_what_is_not_so_is_refused(make, settings, given):
    bearers, _ = make(**settings)
    with pytest.raises(TokenRefused):
        await bearers.user(given())


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        ({"oauth2_client_id": "mail"}, lambda: token(aud=["web", "mail"])),
        ({"oauth2_client_id": "mail"}, lambda: token(azp="mail", aud="web")),
        ({"oauth2_scope": ("mail",)}, lambda: token(scope="profile mail")),
        ({"oauth2_scope": ("mail",)}, lambda: token(scp=["mail"])),
        ({"oauth2_active_attribute": "enabled"}, lambda: token(enabled=True)),
        ({"oauth2_username_attribute": "sub"}, lambda: token(sub="user@example.test")),
    ],
)
async def test_what_the_settings_ask_for_is_let_in(make, settings, given):
    bearers, _ = make(**settings)
    assert await bearers.user(given()) == "user@example.test"


async def test_rsa_keys_are_taken_and_a_private_key_of_another_kind_is_not(make):
    bearers, _ = make([jwk(RSA, "rsa", jwt.algorithms.RSAAlgorithm), jwk(KEY, "one")])
    assert await bearers.user(token(RSA, "rsa", "RS256")) == "user@example.test"
    with pytest.raises(TokenRefused):
        await bearers.user(token(KEY, "rsa"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": []}', '{"keys": [{"kty": "EC"}]}'])
async def test_keys_that_cannot_be_read_are_no_verdict(make, text):
    bearers, path = make()
    path.write_text(text)
    with pytest.raises((TemporaryFailure, TokenRefused)):
        await bearers.user(token())


async def test_no_file_and_no_issuer_is_no_verdict(make):
    bearers, path = make()
    path.unlink()
    with pytest.raises(TemporaryFailure):
        await bearers.user(token())
    bearers, _ = make(oauth2_jwks_file="", oauth2_introspection_url="https://issuer.example.test/introspect")
    with pytest.raises(TemporaryFailure):
        await bearers.user("opaque")


async def test_nothing_of_a_token_is_in_a_refusal(make):
    bearers, _ = make()
    for bad in (token(OTHER), token(key_id="nine"), "abc.def.ghi"):
        with pytest.raises(TokenRefused) as caught:
            await bearers.user(bad)
        assert not any(part in str(caught.value) for part in bad.split(".") if part)


async def test_a_deeply_nested_token_is_no_jwt(make):
    bearers, _ = make()
    nested = jwt.utils.base64url_encode(b"[" * 6000).decode()
    for bad in (f"{nested}.e30.e30", f"{token().split('.')[0]}.{nested}.AAAA"):
        with pytest.raises(TokenRefused):
            await bearers.user(bad)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(the context of a server, the file that trusts it)."""
    folder = tmp_path_factory.mktemp("issuer")
    issued = issue(["localhost"])
    return issued.context(folder), str(folder / "server.pem")


def asking(pool, certificate, stub, mode, **settings):
    async def addresses(host):
        return ("127.0.0.1",)

    path = "/userinfo/" if mode == "get" else "/introspect"
    return Bearers(
        AuthConfig(
            oauth2_introspection_url=f"https://localhost:{stub.port}{path}",
            oauth2_introspection_mode=mode,
            oauth2_client_id="mail server",
            **settings,
        ),
        context=lambda: ssl.create_default_context(cafile=certificate[1]),
        addresses=addresses,
        pool=pool,
        monotonic=lambda: 1.0,
        now=time.time,
    )


ANSWER = b'{"active": true, "email": "user@example.test", "scope": "mail"}'


@pytest.mark.parametrize("mode", ["post", "get", "auth"])
async def test_an_opaque_token_is_asked_about(pool, certificate, mode, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("p:w\n")
    async with HttpsStub(certificate[0]) as stub:
        stub.answers = dict.fromkeys(("/introspect", "/userinfo/abc%2Fd"), (200, "application/json", ANSWER))
        bearers = asking(pool, certificate, stub, mode, oauth2_client_secret_file=str(secret))
        assert await bearers.user("abc/d") == "user@example.test"
        assert await bearers.user("abc/d") == "user@example.test"
        assert len(stub.requests) == 1
        if mode == "post":
            assert stub.requests[0][2] == b"token=abc%2Fd"


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, b'{"active": false}', TokenRefused),
        (200, b"{}", TokenRefused),
        (200, b'{"active": "true", "email": "user@example.test"}', TokenRefused),
        (200, b'{"active": true}', TokenRefused),
        (401, b"", TokenRefused),
        (500, b"", TemporaryFailure),
        (200, b"<html>", TemporaryFailure),
        (200, b"[]", TemporaryFailure),
        (302, b"", TemporaryFailure),
    ],
)
async def test_what_the_issuer_says(pool, certificate, status, body, verdict, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s")
    async with HttpsStub(certificate[0]) as stub:
        stub.answers = {"/introspect": (status, "application/json", body)}
        bearers = asking(pool, certificate, stub, "post", oauth2_client_secret_file=str(secret))
        with pytest.raises(verdict):
            await bearers.user("opaque")
