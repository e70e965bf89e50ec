"""Postfix's policy delegation protocol (SMTPD_POLICY_README) without sockets: a request's lines, an answer's action.

A request is "name=value" lines and an empty line; so is the answer, of which only action= counts. What a peer has said
goes into a request without control characters: no client can add a line.
"""

import os
from typing import Final

from fastmta.model.ids import queue_id_text
from fastmta.model.limits import POLICY_ANSWER_BYTES, POLICY_VALUE_CHARACTERS
from fastmta.model.services import BY_NAME
from fastmta.model.stages import Stage
from fastmta.policy.check import Context

_STATES: Final = {
    Stage.CONNECT: "CONNECT",
    Stage.HELO: "EHLO",
    Stage.MAIL: "MAIL",
    Stage.RCPT: "RCPT",
    Stage.DATA: "DATA",
    Stage.END: "END-OF-MESSAGE",
}


class NoAnswer(ValueError):
    """What the service said is no answer."""


def encode_request(context: Context) -> bytes:
    """The request about what is known."""
    sender = (context.sender or b"").decode("utf-8", "replace")
    recipient = context.recipient.decode("utf-8", "replace")
    if not recipient and len(context.recipients) == 1:
        recipient = context.recipients[0].decode("utf-8", "replace")
    protocol = "LMTP" if BY_NAME[context.service].protocol == "lmtp" else "ESMTP" if context.esmtp else "SMTP"
    cipher, tls_version, bits = context.cipher
    shown = context.certificate
    vouched = shown if shown is not None and shown.is_trusted else None
    state = "HELO" if context.stage is Stage.HELO and not context.esmtp else _STATES.get(context.stage, "MAIL")
    pairs: tuple[tuple[str, str], ...] = (
        ("request", "smtpd_access_policy"),
        ("protocol_state", state),
        ("protocol_name", protocol),
        ("client_address", context.client_ip),
        ("client_name", context.client_name),
        ("client_port", str(context.client_port or "")),
        ("reverse_client_name", context.reverse_name),
        ("helo_name", context.helo),
        ("sender", sender),
        ("recipient", recipient),
        ("recipient_count", str(len(context.recipients) if context.stage >= Stage.DATA else 0)),
        ("queue_id", queue_id_text(context.queue_id) if context.queue_id else ""),
        ("instance", f"{os.getpid():x}.{context.session:x}.{context.transaction:x}"),
        ("size", str(context.size_bytes)),
        ("etrn_domain", ""),
        ("stress", ""),
        ("sasl_method", ""),  # a login is known, not how it was proved
        ("sasl_username", context.login),
        ("sasl_sender", ""),
        ("ccert_subject", _xtext(vouched.subject) if vouched else ""),  # what nobody vouches for is no subject
        ("ccert_issuer", _xtext(vouched.issuer) if vouched else ""),
        ("ccert_fingerprint", shown.fingerprint if shown else ""),
        ("ccert_pubkey_fingerprint", shown.key_fingerprint if shown else ""),
        ("encryption_protocol", tls_version),
        ("encryption_cipher", cipher),
        ("encryption_keysize", str(bits)),
        ("policy_context", ""),
    )
    return "".join(f"{name}={_clean(value)}\n" for name, value in pairs).encode("utf-8", "replace") + b"\n"


def _xtext(text: str) -> str:
    """As SMTPD_POLICY_README has it of certificates' names (RFC 3461 §4)."""
    return "".join(chr(c) if 33 <= c <= 126 and c not in b"+=" else f"+{c:02X}" for c in text.encode())


def _clean(value: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in value[:POLICY_VALUE_CHARACTERS])


def parse_answer(received: bytes) -> str | None:
    """The action of what was received; None: its empty line has not come yet. Raises NoAnswer."""
    if len(received) > POLICY_ANSWER_BYTES:
        raise NoAnswer(f"an answer over {POLICY_ANSWER_BYTES} octets")
    lines, end, rest = received.replace(b"\r\n", b"\n").partition(b"\n\n")
    if not end:
        return None
    if rest:
        raise NoAnswer("more than one answer")
    action = ""
    for line in lines.decode("utf-8", "replace").split("\n"):
        name, separator, value = line.partition("=")
        if not separator:
            raise NoAnswer("a line without =")
        if name.strip() == "action":
            action = value.strip()
    if not action or not action.isprintable():
        raise NoAnswer("an answer without an action")
    return action
