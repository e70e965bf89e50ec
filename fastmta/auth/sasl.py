"""SASL as rules (RFC 4422): mechanism and responses in, challenges and at last credentials out.

No socket, no base64 line handling of a protocol, no password is checked here. One `Sasl` serves one AUTH command; the
next command takes a new one. Responses are bounded before they are decoded (RFC 4954 §4 lets a line be 12,288 octets).
"""

import binascii
import os
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from fastmta.auth.sasl_scram import KeysOf, ScramServer
from fastmta.auth.sasl_steps import Challenge, Credentials, Failure, Step
from fastmta.auth.scram import ITERATIONS, SALT_BYTES
from fastmta.model.credentials import ScramKeys
from fastmta.model.limits import OAUTH_TOKEN_BYTES, SASL_RESPONSE_BYTES
from fastmta.model.mechanisms import EXTERNAL, MECHANISMS


class Exchange(Protocol):
    """One mechanism's dialogue."""

    def respond(self, response: bytes) -> Step: ...


def nobodys_keys(name: str, mechanism: str) -> ScramKeys:
    """Keys that no proof fits."""
    return ScramKeys(os.urandom(SALT_BYTES), ITERATIONS, os.urandom(32), os.urandom(32))


class Sasl:
    """One exchange. `start` once, then `respond` for each answer to a Challenge. Order is enforced, not trusted."""

    __slots__ = ("_allowed", "_certified", "_exchange", "_keys_of", "_refused", "_scope")

    def __init__(
        self,
        allowed: tuple[str, ...] = MECHANISMS,
        keys_of: KeysOf = nobodys_keys,
        scope: tuple[str, ...] = (),
        certified: str = "",
    ) -> None:
        """`scope`: what a token must grant, for a client whose token does not. `certified`: the login name in the
        client's certificate, "" where it has shown none that is trusted.
        """
        self._certified = certified
        self._allowed = allowed
        self._keys_of = keys_of
        self._scope = scope
        self._refused = False
        self._exchange: Exchange | None = None

    def start(self, mechanism: str, initial: bytes | None) -> Step:
        """Begins with the decoded initial response, or None where the client sent none."""
        name = mechanism.upper()
        make = _MAKERS.get(name)
        if name not in self._allowed or (make is None and not (name == EXTERNAL and self._certified)):
            return Failure("mechanism")
        self._exchange = _External(self._certified) if make is None else make(name, self._keys_of)
        if initial is not None:
            return self.respond(initial)
        return Challenge(b"Username:" if name == "LOGIN" else b"")

    def refusal(self) -> Challenge | None:
        """What wrong credentials are answered with before the failure: the error of a token (RFC 7628 §3.2.2; XOAUTH2
        has words of its own). The client's answer, whatever it is, gives Failure("refused"). None: nothing is said.
        """
        if self._refused or not isinstance(self._exchange, _Bearer):
            return None
        self._refused = True
        return Challenge(self._exchange.error(self._scope))

    def respond(self, response: bytes) -> Step:
        """Takes a decoded response."""
        if self._refused:
            return Failure("refused")
        if len(response) > SASL_RESPONSE_BYTES:
            return Failure("too-long")
        return Failure("mechanism") if self._exchange is None else self._exchange.respond(response)

    def respond_line(self, raw_line: bytes) -> Step:
        """Takes a response as it came, base64 without CRLF; "*" alone cancels (RFC 4954 §4, RFC 9051 §6.2.2)."""
        if self._refused:
            return Failure("refused")
        if raw_line == b"*":
            return Failure("cancelled")
        decoded = decode_base64(raw_line)
        return decoded if isinstance(decoded, Failure) else self.respond(decoded)

    def start_line(self, mechanism: str, raw_initial: bytes | None) -> Step:
        """`start` with the initial response as it came: base64, "=" for the empty one, None for none."""
        if raw_initial is None:
            return self.start(mechanism, None)
        if mechanism.upper() not in self._allowed:
            return Failure("mechanism")
        if raw_initial == b"=":
            return self.start(mechanism, b"")
        decoded = decode_base64(raw_initial)
        return decoded if isinstance(decoded, Failure) else self.start(mechanism, decoded)


class _Plain:
    """RFC 4616 §2: [authzid] NUL authcid NUL passwd, UTF-8, the last two not empty."""

    __slots__ = ()

    def respond(self, response: bytes) -> Step:
        parts = response.split(b"\0")
        if len(parts) != 3:
            return Failure("syntax")
        authzid, authcid, password = (_text(part) for part in parts)
        if authzid is None or not authcid or not password:
            return Failure("syntax")
        return Credentials(authcid, password, authzid, "PLAIN")


class _Login:
    """LOGIN, which no RFC describes: the user, then the password."""

    __slots__ = ("_user",)

    def __init__(self) -> None:
        self._user: str | None = None

    def respond(self, response: bytes) -> Step:
        text = _text(response)
        if not text:
            return Failure("syntax")
        if self._user is None:
            self._user = text
            return Challenge(b"Password:")
        return Credentials(self._user, text, "", "LOGIN")


class _Bearer:
    """OAUTHBEARER (RFC 7628 §3.1) and XOAUTH2, its forerunner: a user name and an access token in one message."""

    __slots__ = ("_mechanism",)

    def __init__(self, mechanism: str) -> None:
        self._mechanism = mechanism

    def error(self, scope: tuple[str, ...]) -> bytes:
        words = {"status": "invalid_token"} if self._mechanism == "OAUTHBEARER" else {"status": "401"}
        if self._mechanism == "XOAUTH2":
            words["schemes"] = "bearer"
        if scope:
            words["scope"] = " ".join(scope)
        return msgspec.json.encode(words)

    def respond(self, response: bytes) -> Step:
        lead, *pairs = response.split(b"\x01")
        if response[-2:] != b"\x01\x01":
            return Failure("syntax")
        if self._mechanism == "OAUTHBEARER":
            binding, _, rest = lead.partition(b",")
            if binding not in (b"n", b"y") or not rest.endswith(b",") or not rest.startswith((b"a=", b",")):
                return Failure("syntax")
            raw_user = rest[2:-1].replace(b"=2C", b",").replace(b"=3D", b"=") if rest != b"," else b""
        else:
            if not lead.startswith(b"user="):
                return Failure("syntax")
            raw_user = lead[5:]
        user = _text(raw_user)
        fields = dict(pair.partition(b"=")[::2] for pair in pairs if pair)
        kind, _, token = fields.get(b"auth", b"").partition(b" ")
        if user is None or kind.lower() != b"bearer" or not 0 < len(token) <= OAUTH_TOKEN_BYTES:
            return Failure("syntax")
        if any(not 0x21 <= octet <= 0x7E for octet in token):
            return Failure("syntax")
        return Credentials(user, token.decode("ascii"), "", self._mechanism, token=True)


class _External:
    """EXTERNAL (RFC 4422 appendix A): the identity to act as, or nothing; who it is has been shown outside of SASL."""

    __slots__ = ("_certified",)

    def __init__(self, certified: str) -> None:
        self._certified = certified

    def respond(self, response: bytes) -> Step:
        authzid = _text(response)
        if authzid is None:
            return Failure("syntax")
        return Credentials(self._certified, "", authzid, EXTERNAL, True)


_MAKERS: Final[dict[str, Callable[[str, KeysOf], Exchange]]] = {
    "PLAIN": lambda name, keys_of: _Plain(),
    "LOGIN": lambda name, keys_of: _Login(),
    "OAUTHBEARER": lambda name, keys_of: _Bearer(name),
    "XOAUTH2": lambda name, keys_of: _Bearer(name),
    "SCRAM-SHA-1": ScramServer,
    "SCRAM-SHA-256": ScramServer,
}


def decode_base64(raw: bytes) -> bytes | Failure:
    """Strict base64 (RFC 4648 §4): no white space, right padding; bounded before anything is allocated."""
    if len(raw) > (SASL_RESPONSE_BYTES + 2) // 3 * 4:
        return Failure("too-long")
    try:
        return binascii.a2b_base64(raw, strict_mode=True)
    except binascii.Error:
        return Failure("syntax")


def _text(raw: bytes) -> str | None:
    if b"\0" in raw:
        return None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


__all__ = ["Challenge", "Credentials", "Failure", "Sasl", "Step", "decode_base64"]
