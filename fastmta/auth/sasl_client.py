"""SASL from the client's side (RFC 4422), as rules: what a login at a relay host says, and what it believes.

One `Login` serves one AUTH command. `start` gives the initial response, or None where the mechanism has none; `respond`
answers each challenge; a LoginError means that the server asks for something that this mechanism must not give. No
socket, no base64, no clock.

The strongest mechanism that the server offers and the password allows is taken; what sends the password itself is only
used where the owner says that the connection may carry it (Postfix's smtp_sasl_security_options: noplaintext).
"""

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from fastmta.model.limits import SASL_SCRAM_ITERATIONS

PLAINTEXT: Final = frozenset({"PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"})
PASSWORD_MECHANISMS: Final = ("SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN")  # the strongest first
TOKEN_MECHANISMS: Final = ("OAUTHBEARER", "XOAUTH2")


class LoginError(Exception):
    """The exchange cannot go on; the text says why, without a secret."""


class Secret(msgspec.Struct, frozen=True, gc=False):
    """Who logs in. `token`: `password` is an OAuth access token."""

    user: str
    password: str
    token: bool = False

    def __repr__(self) -> str:
        return f"Secret({self.user!r})"  # a password never reaches a log


class Login(Protocol):
    """One exchange."""

    mechanism: str

    def start(self) -> bytes | None:
        """The initial response; None: the server speaks first."""
        ...

    def respond(self, challenge: bytes) -> bytes:
        """The answer to a decoded challenge; LoginError where there is none."""
        ...

    def proved(self) -> bool:
        """Whether the server may say that the login succeeded: SCRAM's server proves that it knows the password too."""
        ...


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where the login happens: OAUTHBEARER names host and port (RFC 7628 §3.1)."""

    host: str
    port: int


def choose(
    offered: Sequence[str],
    secret: Secret,
    place: Place,
    *,
    plaintext_allowed: bool,
    wanted: Sequence[str] = (),
    nonce: Callable[[], bytes],
) -> Login:
    """The exchange to run. `wanted` (smtp_sasl_mechanism_filter) leaves only those; LoginError where none is left."""
    known = {name.upper() for name in offered}
    names = [name for name in (TOKEN_MECHANISMS if secret.token else PASSWORD_MECHANISMS) if name in known]
    names = [name for name in names if not wanted or name in wanted]
    usable = [name for name in names if plaintext_allowed or name not in PLAINTEXT]
    if not usable:
        why = "none of them may be used without TLS" if names else "none of them can be used"
        raise LoginError(f"the server offers {' '.join(sorted(known)) or 'no mechanism'}: {why}")
    return _MAKERS[usable[0]](usable[0], secret, place, nonce)


class _Plain:
    """RFC 4616."""

    def __init__(self, mechanism: str, secret: Secret, place: Place, nonce: Callable[[], bytes]) -> None:
        self.mechanism = mechanism
        self._secret = secret

    def start(self) -> bytes | None:
        return b"\0" + self._secret.user.encode() + b"\0" + self._secret.password.encode()

    def respond(self, challenge: bytes) -> bytes:
        initial = self.start()
        assert initial is not None
        return initial  # a server that did not take the initial response asks with an empty challenge

    def proved(self) -> bool:
        return True


class _LoginMechanism:
    """LOGIN, which no RFC describes: the user, then the password, whatever the challenges say."""

    def __init__(self, mechanism: str, secret: Secret, place: Place, nonce: Callable[[], bytes]) -> None:
        self.mechanism = mechanism
        self._left = [secret.password.encode(), secret.user.encode()]

    def start(self) -> bytes | None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        if not self._left:
            raise LoginError("the server asks for more than a user and a password")
        return self._left.pop()

    def proved(self) -> bool:
        return not self._left


class _CramMd5:
    """RFC 2195."""

    def __init__(self, mechanism: str, secret: Secret, place: Place, nonce: Callable[[], bytes]) -> None:
        self.mechanism = mechanism
        self._secret = secret
        self._answered = False

    def start(self) -> bytes | None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        if self._answered or not challenge:
            raise LoginError("the server's challenge is none of CRAM-MD5")
        self._answered = True
        digest = hmac.new(self._secret.password.encode(), challenge, hashlib.md5).hexdigest()
        return f"{self._secret.user} {digest}".encode()

    def proved(self) -> bool:
        return self._answered


class _OAuthBearer:
    """RFC 7628. A server that refuses sends its reason as a challenge, which gets a single ^A."""

    def __init__(self, mechanism: str, secret: Secret, place: Place, nonce: Callable[[], bytes]) -> None:
        self.mechanism = mechanism
        user = _sasl_name(secret.user)
        self._initial = (
            f"n,a={user},\x01host={place.host}\x01port={place.port}\x01auth=Bearer {secret.password}\x01\x01".encode()
        )

    def start(self) -> bytes | None:
        return self._initial

    def respond(self, challenge: bytes) -> bytes:
        return b"\x01" if challenge else self._initial

    def proved(self) -> bool:
        return True


class _XOAuth2:
    """Google's and Microsoft's forerunner of it."""

    def __init__(self, mechanism: str, secret: Secret, place: Place, nonce: Callable[[], bytes]) -> None:
        self.mechanism = mechanism
        self._initial = f"user={secret.user}\x01auth=Bearer {secret.password}\x01\x01".encode()

    def start(self) -> bytes | None:
        return self._initial

    def respond(self, challenge: bytes) -> bytes:
        return b"" if challenge else self._initial

    def proved(self) -> bool:
        return True


class _Scram:
    """RFC 5802 and 7677, without channel binding. Deriving the key takes a millisecond or two for 4,096 rounds."""

    def __init__(self, mechanism: str, secret: Secret, place: Place, nonce: Callable[[], bytes]) -> None:
        self.mechanism = mechanism
        self._hash = "sha256" if mechanism == "SCRAM-SHA-256" else "sha1"
        self._password = _normalised(secret.password)
        self._nonce = b64encode(nonce())
        self._first = b"n=" + _sasl_name(secret.user).encode() + b",r=" + self._nonce
        self._expected = b""
        self._step = 0

    def start(self) -> bytes | None:
        return b"n,," + self._first

    def respond(self, challenge: bytes) -> bytes:
        self._step += 1
        if self._step == 1 and not challenge:  # the initial response was not taken
            self._step = 0
            return b"n,," + self._first
        if self._step == 1:
            return self._proof(challenge)
        if self._step == 2:
            fields = _fields(challenge)
            if not self._expected or not hmac.compare_digest(fields.get("v", b""), b64encode(self._expected)):
                raise LoginError("the server does not know the password either")
            self._expected = b""
            self._step = 3
            return b""
        raise LoginError("the server asks for more than SCRAM has")

    def _proof(self, challenge: bytes) -> bytes:
        fields = _fields(challenge)
        nonce, iterations = fields.get("r", b""), fields.get("i", b"")
        if "m" in fields or not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise LoginError("the server's nonce is not made of ours")
        if not iterations.isdigit() or not 1 <= len(iterations) <= 7:
            raise LoginError("the server's iteration count is no number")
        count = int(iterations)
        if not 1 <= count <= SASL_SCRAM_ITERATIONS:
            raise LoginError(f"the server wants {count} iterations, over {SASL_SCRAM_ITERATIONS}")
        try:
            salt = b64decode(fields.get("s", b""), validate=True)
        except ValueError as error:
            raise LoginError("the server's salt is not base64") from error
        salted = hashlib.pbkdf2_hmac(self._hash, self._password, salt, count)
        client_key = hmac.digest(salted, b"Client Key", self._hash)
        stored_key = hashlib.new(self._hash, client_key).digest()
        final = b"c=" + b64encode(b"n,,") + b",r=" + nonce
        message = self._first + b"," + challenge + b"," + final
        signature = hmac.digest(stored_key, message, self._hash)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._expected = hmac.digest(hmac.digest(salted, b"Server Key", self._hash), message, self._hash)
        return final + b",p=" + b64encode(proof)

    def verify(self, final: bytes) -> None:
        """The server's last message where it comes with its success (RFC 4954 §4 has it as a challenge)."""
        self.respond(final)

    def proved(self) -> bool:
        return self._step == 3


def _fields(message: bytes) -> dict[str, bytes]:
    out = {}
    for part in message.split(b","):
        name, equals, value = part.partition(b"=")
        if equals and len(name) == 1:
            out.setdefault(name.decode("ascii", "replace"), value)
    return out


def _sasl_name(user: str) -> str:
    return user.replace("=", "=3D").replace(",", "=2C")


def _normalised(password: str) -> bytes:
    """SASLprep's effect on what passwords are made of: compatibility forms, and no unassigned space."""
    import unicodedata

    return unicodedata.normalize("NFKC", password).encode()


_MAKERS: Final[dict[str, Callable[[str, Secret, Place, Callable[[], bytes]], Login]]] = {
    "PLAIN": _Plain,
    "LOGIN": _LoginMechanism,
    "CRAM-MD5": _CramMd5,
    "SCRAM-SHA-1": _Scram,
    "SCRAM-SHA-256": _Scram,
    "OAUTHBEARER": _OAuthBearer,
    "XOAUTH2": _XOAuth2,
}
