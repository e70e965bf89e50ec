"""SCRAM from the server's side (RFC 5802, RFC 7677), without channel binding.

The client proves that it has the password, we prove that we have what was derived from it, and neither sends it. An
account without such keys, and a name that nobody has, go through the same steps with keys that nothing fits.
"""

import binascii
import hmac
import os
from collections.abc import Callable
from typing import Final

from fastmta.auth.sasl_steps import Challenge, Credentials, Failure, Step
from fastmta.auth.scram import HASHES, masked, prepared, stored_key
from fastmta.model.credentials import ScramKeys

KeysOf = Callable[[str, str], ScramKeys]  # (login name, mechanism) -> the keys, made up where there are none
_NONCE_BYTES: Final = 18
_CHARACTERS: Final = 1024  # of a client's nonce; 24 to 44 are usual


def new_nonce() -> bytes:
    return binascii.b2a_base64(os.urandom(_NONCE_BYTES), newline=False)


class ScramServer:
    """One exchange of one client."""

    __slots__ = ("_authzid", "_first", "_header", "_keys", "_keys_of", "_mechanism", "_name", "_nonce", "_step")

    def __init__(self, mechanism: str, keys_of: KeysOf) -> None:
        self._mechanism = mechanism
        self._keys_of = keys_of
        self._step = 0
        self._first = b""  # both first messages, as they are signed
        self._header = b""
        self._name = self._authzid = ""
        self._nonce = b""
        self._keys: ScramKeys | None = None

    def respond(self, response: bytes) -> Step:
        """The client's first message, its last one, and the empty answer to our proof."""
        self._step += 1
        if self._step == 1:
            return self._begin(response)
        if self._step == 2:
            return self._prove(response)
        return Failure("syntax") if response else self._verdict(True)

    def _begin(self, message: bytes) -> Step:
        parts = message.split(b",", 2)
        if len(parts) != 3:
            return Failure("syntax")
        binding, authzid, bare = parts
        # "y": the client could bind the channel and believes that we cannot, which is so. "p=...": it insists.
        if binding not in (b"n", b"y") or (authzid and not authzid.startswith(b"a=")):
            return Failure("syntax")
        attributes = bare.split(b",")
        if len(attributes) < 2 or not attributes[0].startswith(b"n=") or not attributes[1].startswith(b"r="):
            return Failure("syntax")  # "m=" comes first where an extension must be understood (RFC 5802 §5.1)
        name, opened = _name(attributes[0][2:]), _name(authzid[2:]) if authzid else ""
        nonce = attributes[1][2:]
        if not name or opened is None or not 0 < len(nonce) <= _CHARACTERS:
            return Failure("syntax")
        if any(not 0x21 <= octet <= 0x7E for octet in nonce):
            return Failure("syntax")
        self._name, self._authzid = name, opened
        self._keys = self._keys_of(name, self._mechanism)
        self._nonce = nonce + new_nonce()
        salt = binascii.b2a_base64(self._keys.salt, newline=False)
        reply = b"r=%b,s=%b,i=%d" % (self._nonce, salt, self._keys.iterations)
        self._header = binding + b"," + authzid + b","
        self._first = bare + b"," + reply
        return Challenge(reply)

    def _prove(self, message: bytes) -> Step:
        without, comma, proof = message.rpartition(b",p=")
        attributes = without.split(b",")
        if not comma or len(attributes) < 2 or not attributes[0].startswith(b"c="):
            return Failure("syntax")
        try:
            header = binascii.a2b_base64(attributes[0][2:], strict_mode=True)
            given = binascii.a2b_base64(proof, strict_mode=True)
        except binascii.Error:
            return Failure("syntax")
        keys = self._keys
        if keys is None or header != self._header or attributes[1] != b"r=" + self._nonce:
            return Failure("syntax")
        hash_name = HASHES[self._mechanism]
        if len(given) != len(keys.stored):
            return self._verdict(False)
        signed = self._first + b"," + without
        key = masked(hash_name, keys.stored, signed, given)
        if not hmac.compare_digest(stored_key(hash_name, key), keys.stored):
            return self._verdict(False)
        return Challenge(b"v=" + binascii.b2a_base64(hmac.digest(keys.server, signed, hash_name), newline=False))

    def _verdict(self, right: bool) -> Step:
        return Credentials(self._name, "", self._authzid, self._mechanism, right)


def _name(raw: bytes) -> str | None:
    """A user name from a message; None where it is none (RFC 5802 §5.1: "=" stands only before 2C and 3D)."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if text.count("=") != text.count("=2C") + text.count("=3D") or "\0" in text:
        return None
    return prepared(text.replace("=2C", ",").replace("=3D", "="))
