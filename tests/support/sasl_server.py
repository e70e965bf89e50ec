"""The server's side of SASL for tests, slow and obvious: a client's words against a table of passwords."""

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Generator, Mapping

SALT = b"a salt of tests"


class Refused(Exception):
    """535."""


def exchange(
    mechanism: str, passwords: Mapping[str, str], *, iterations: int = 4096, lies: bool = False
) -> Generator[bytes, bytes, str]:
    """Yields challenges, is sent responses, returns the user. `lies`: SCRAM's server does not know the password."""
    if mechanism == "PLAIN":
        _, user, password = (yield b"").decode().split("\0")
        return _checked(passwords, user, password)
    if mechanism == "LOGIN":
        user = (yield b"Username:").decode()
        return _checked(passwords, user, (yield b"Password:").decode())
    if mechanism == "CRAM-MD5":
        challenge = b"<1896.697170952@sink.test>"
        user, _, digest = (yield challenge).decode().rpartition(" ")
        wanted = hmac.new(passwords.get(user, "\0").encode(), challenge, hashlib.md5).hexdigest()
        return _checked({user: wanted}, user, digest)
    if mechanism in ("XOAUTH2", "OAUTHBEARER"):
        fields = dict(part.split("=", 1) for part in (yield b"").decode().split("\1") if "=" in part)
        user = fields["user"] if mechanism == "XOAUTH2" else fields["n,a"].rstrip(",")
        if fields["auth"] != f"Bearer {passwords.get(user)}":
            yield b'{"status":"401","schemes":"bearer"}'
            raise Refused
        return user
    name = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}[mechanism]
    first = (yield b"").removeprefix(b"n,,")
    fields_of_client = _fields(first)
    user = fields_of_client["n"].replace("=2C", ",").replace("=3D", "=")
    nonce = fields_of_client["r"] + "of-the-server"
    server_first = f"r={nonce},s={b64encode(SALT).decode()},i={iterations}".encode()
    final = yield server_first
    without_proof, _, proof = final.rpartition(b",p=")
    salted = hashlib.pbkdf2_hmac(name, passwords.get(user, "\0").encode(), SALT, iterations)
    client_key = hmac.digest(salted, b"Client Key", name)
    message = first + b"," + server_first + b"," + without_proof
    signature = hmac.digest(hashlib.new(name, client_key).digest(), message, name)
    if bytes(a ^ b for a, b in zip(b64decode(proof), signature, strict=True)) != client_key:
        raise Refused
    server_key = hmac.digest(salted if not lies else b"", b"Server Key", name)
    yield b"v=" + b64encode(hmac.digest(server_key, message, name))
    return user


def _checked(passwords: Mapping[str, str], user: str, password: str) -> str:
    if passwords.get(user) != password:
        raise Refused
    return user


def _fields(raw: bytes) -> dict[str, str]:
    return dict(part.split("=", 1) for part in raw.decode().split(","))
