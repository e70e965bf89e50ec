"""SASL from the client's side (RFC 4422), as rules: what a login at a relay host says, and what it believes.

One `Login` serves one AUTH command. `start` gives the initial response, or None where the mechanism has none; `respond`
answers each challenge; a LoginError means that the server asks for something that this mechanism must not give. No
socket, no base64, no clock.

The strongest mechanism is taken that the server offers, the password allows, and the options in force for this
connection permit (Postfix's smtp_sasl_security_options).
"""

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

import msgspec

from fastmta.auth.scram import HASHES, client_key, masked, prepared, salted_password, sasl_name, server_key, stored_key
from fastmta.model.limits import SASL_SCRAM_ITERATIONS

PASSWORD_MECHANISMS: Final = ("SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN")  # the strongest first
TOKEN_MECHANISMS: Final = ("OAUTHBEARER", "XOAUTH2")
_PLAINTEXT: Final = frozenset({"noanonymous"})
_SCRAM_HAS: Final = frozenset({"noanonymous", "noplaintext", "noactive", "mutual_auth"})
# What a mechanism has of Postfix's security options. A bearer token is a password to whoever sees it.
PROPERTIES: Final = {
    "PLAIN": _PLAINTEXT,
    "LOGIN": _PLAINTEXT,
    "XOAUTH2": _PLAINTEXT,
    "OAUTHBEARER": _PLAINTEXT,
    "CRAM-MD5": frozenset({"noanonymous", "noplaintext"}),
    "SCRAM-SHA-1": _SCRAM_HAS,
    "SCRAM-SHA-256": _SCRAM_HAS,
}


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
    is_slow: bool  # an answer may take long enough that it belongs on a thread

    def start(self) -> bytes | None:
        """The initial response; None: the server speaks first."""
        ...

    def respond(self, challenge: bytes) -> bytes:
        """The answer to a decoded challenge; LoginError where there is none."""
        ...

    def proved(self) -> bool:
        """Whether the server may say that the login succeeded: SCRAM's server proves that it knows the password too."""
        ...


class Credentials(Protocol):
    """Who logs in."""

    @property
    def user(self) -> str: ...
    def choose(self, offered: Sequence[str], *, tls: bool) -> Login:
        """The exchange to run with a server; LoginError where none may be."""
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
    options: Collection[str] = (),
    wanted: Sequence[str] = (),
    nonce: Callable[[], bytes],
) -> Login:
    """The exchange to run. `options`: smtp_sasl_security_options; `wanted`: smtp_sasl_mechanism_filter.

    LoginError where no mechanism is left, which says why.
    """
    known = {name.upper() for name in offered}
    names = [name for name in (TOKEN_MECHANISMS if secret.token else PASSWORD_MECHANISMS) if name in known]
    filtered = [name for name in names if is_wanted(name, wanted)]
    usable = [name for name in filtered if PROPERTIES[name].issuperset(options)]
    if not usable:
        if filtered:
            lacking = sorted(set(options).difference(*(PROPERTIES[name] for name in filtered)))
            why = f"{' and '.join(lacking)} forbids {' and '.join(filtered)} on this connection"
        else:
            why = "smtp_sasl_mechanism_filter leaves none of them" if names else "none of them can be used"
        raise LoginError(f"the server offers {' '.join(sorted(known))[:200] or 'no mechanism'}: {why}")
    if any(ord(character) < 32 for character in secret.user + secret.password):
        raise LoginError("the user name or the password has control characters")
    return _MAKERS[usable[0]](usable[0], secret, place, nonce)


def is_wanted(mechanism: str, patterns: Sequence[str]) -> bool:
    """Whether a match list takes a mechanism, as Postfix reads it: the first pattern that fits decides, "!" turns its
    verdict round, static: fits all; without patterns every one is wanted.
    """
    for pattern in patterns:
        name = pattern.lstrip("!")
        if name.lower().startswith("static:") or name.upper() == mechanism:
            return (len(pattern) - len(name)) % 2 == 0
    return not patterns


class _Plain:
    """RFC 4616."""

    is_slow = False

    def __init__(self, mechanism: str, secret: Secret, place: Place, nonce: Callable[[], bytes]) -> None:
        self.mechanism = mechanism
        self._initial = b"\0" + secret.user.encode() + b"\0" + secret.password.encode()
        self._asked = False

    def start(self) -> bytes | None:
        return self._initial

    def respond(self, challenge: bytes) -> bytes:
        if challenge or self._asked:
            raise LoginError("the server asks for more than PLAIN has")
        self._asked = True
        return self._initial  # a server that did not take the initial response asks with an empty challenge

    def proved(self) -> bool:
        return True


class _LoginMechanism:
    """LOGIN, which no RFC describes: the user, then the password, whatever the challenges say."""

    is_slow = False

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

    is_slow = False

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

    is_slow = False

    def __init__(self, mechanism: str, secret: Secret, place: Place, nonce: Callable[[], bytes]) -> None:
        self.mechanism = mechanism
        self._refused = False
        user = sasl_name(secret.user)
        self._initial = (
            f"n,a={user},\x01host={place.host}\x01port={place.port}\x01auth=Bearer {secret.password}\x01\x01".encode()
        )

    def start(self) -> bytes | None:
        return self._initial

    def respond(self, challenge: bytes) -> bytes:
        if challenge:
            self._refused = True
        return b"\x01" if challenge else self._initial

    def proved(self) -> bool:
        return not self._refused


class _XOAuth2:
    """Google's and Microsoft's forerunner of it."""

    is_slow = False

    def __init__(self, mechanism: str, secret: Secret, place: Place, nonce: Callable[[], bytes]) -> None:
        self.mechanism = mechanism
        self._refused = False
        self._initial = f"user={secret.user}\x01auth=Bearer {secret.password}\x01\x01".encode()

    def start(self) -> bytes | None:
        return self._initial

    def respond(self, challenge: bytes) -> bytes:
        if challenge:
            self._refused = True
        return b"" if challenge else self._initial

    def proved(self) -> bool:
        return not self._refused


class _Scram:
    """RFC 5802 and 7677, without channel binding. Deriving the key takes a millisecond or two for 4,096 rounds."""

    is_slow = True

    def __init__(self, mechanism: str, secret: Secret, place: Place, nonce: Callable[[], bytes]) -> None:
        self.mechanism = mechanism
        self._hash = HASHES[mechanism]
        self._password = secret.password
        self._nonce = b64encode(nonce())
        self._first = b"n=" + sasl_name(prepared(secret.user)).encode() + b",r=" + self._nonce
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
            if "e" in fields:
                raise LoginError(f"the server says {fields['e'].decode('ascii', 'backslashreplace')[:100]}")
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
        salted = salted_password(self._hash, self._password, salt, count)
        key = client_key(self._hash, salted)
        final = b"c=" + b64encode(b"n,,") + b",r=" + nonce
        message = self._first + b"," + challenge + b"," + final
        proof = masked(self._hash, stored_key(self._hash, key), message, key)
        self._expected = hmac.digest(server_key(self._hash, salted), message, self._hash)
        return final + b",p=" + b64encode(proof)

    def proved(self) -> bool:
        return self._step == 3


def _fields(message: bytes) -> dict[str, bytes]:
    out: dict[str, bytes] = {}
    for part in message.split(b","):
        name, equals, value = part.partition(b"=")
        if equals and len(name) == 1:
            out.setdefault(name.decode("ascii", "replace"), value)
    return out


_MAKERS: Final[dict[str, Callable[[str, Secret, Place, Callable[[], bytes]], Login]]] = {
    "PLAIN": _Plain,
    "LOGIN": _LoginMechanism,
    "CRAM-MD5": _CramMd5,
    "SCRAM-SHA-1": _Scram,
    "SCRAM-SHA-256": _Scram,
    "OAUTHBEARER": _OAuthBearer,
    "XOAUTH2": _XOAuth2,
}
