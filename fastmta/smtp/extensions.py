"""The ESMTP extensions that we speak: their EHLO lines, and the parameters of MAIL and RCPT.

SIZE RFC 1870, 8BITMIME RFC 6152, SMTPUTF8 RFC 6531, DSN RFC 3461, AUTH= RFC 4954 §5. Rules only: no session, no I/O.
"""

import re
from typing import Final

import msgspec

from fastmta._parser import split_parameters
from fastmta.model.envelope import NOTIFY_DELAY, NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS
from fastmta.model.limits import SMTP_ENVID_BYTES, SMTP_ORCPT_BYTES
from fastmta.model.reply import Reply

_NOTIFY: Final = {
    b"NEVER": NOTIFY_NEVER,
    b"SUCCESS": NOTIFY_SUCCESS,
    b"FAILURE": NOTIFY_FAILURE,
    b"DELAY": NOTIFY_DELAY,
}
_HEX: Final = re.compile(rb"\+([0-9A-F]{2})")
_XTEXT: Final = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_ADDRESS_TYPE: Final = re.compile(rb"[A-Za-z0-9-]{1,32}")

_SYNTAX: Final = Reply(501, "5.5.4", "Bad parameter syntax")


class MailParameters(msgspec.Struct, gc=False):
    """What MAIL said behind its path; `size_bytes` -1: not declared."""

    size_bytes: int = -1
    smtputf8: bool = False
    envid: bytes = b""
    ret: str = ""


class RcptParameters(msgspec.Struct, gc=False):
    """What RCPT said behind its path; `notify` 0: not given."""

    notify: int = 0
    orcpt: bytes = b""


def ehlo_lines(
    *, size_limit_bytes: int, starttls: bool, mechanisms: tuple[str, ...], chunking: bool = True
) -> list[str]:
    """The keywords of an EHLO or LHLO reply, in a fixed order."""
    lines = ["PIPELINING", f"SIZE {size_limit_bytes}" if size_limit_bytes else "SIZE"]
    if starttls:
        lines.append("STARTTLS")
    if mechanisms:
        lines.append("AUTH " + " ".join(mechanisms))
    lines += ["ENHANCEDSTATUSCODES", "8BITMIME", "DSN", "SMTPUTF8"]
    if chunking:
        lines.append("CHUNKING")
    return lines


def decode_xtext(raw: bytes) -> bytes | None:
    """RFC 3461 §4: "+" and two upper-case hex digits for an octet; None where it is not xtext."""
    if not _XTEXT.fullmatch(raw):
        return None
    return _HEX.sub(lambda match: bytes([int(match[1], 16)]), raw)


def parse_mail_parameters(text: bytes) -> MailParameters | Reply:
    """The parameters of MAIL, or the reply that refuses them: 501 for syntax or repetition, 555 for an unknown one."""
    out = MailParameters()
    try:
        items = split_parameters(text)
    except ValueError:
        return _SYNTAX
    if len({name for name, _ in items}) != len(items):
        return Reply(501, "5.5.4", "A parameter is given twice")
    for name, value in items:
        if name == "SIZE":
            if value is None or not value.isdigit() or len(value) > 20:
                return Reply(501, "5.5.4", "Bad SIZE value")
            out.size_bytes = int(value)
        elif name == "BODY":
            if value is None or value.upper() not in (b"7BIT", b"8BITMIME"):
                return Reply(501, "5.5.4", "Bad BODY value")
        elif name == "SMTPUTF8":
            if value is not None:
                return Reply(501, "5.5.4", "SMTPUTF8 takes no value")
            out.smtputf8 = True
        elif name == "RET":
            if value is None or value.upper() not in (b"FULL", b"HDRS"):
                return Reply(501, "5.5.4", "Bad RET value")
            out.ret = value.upper().decode()
        elif name == "ENVID":
            envid = decode_xtext(value or b"")
            if not envid or len(envid) > SMTP_ENVID_BYTES or not envid.isascii() or not envid.decode().isprintable():
                return Reply(501, "5.5.4", "Bad ENVID value")
            out.envid = envid
        elif name == "AUTH":  # RFC 4954 §5: whom a trusted relay names. Parsed, never believed
            if value is None or decode_xtext(value) is None:
                return Reply(501, "5.5.4", "Bad AUTH value")
        else:
            return Reply(555, "5.5.4", f"Unsupported parameter {name[:40]}")
    return out


def parse_rcpt_parameters(text: bytes) -> RcptParameters | Reply:
    """The parameters of RCPT (RFC 3461 §4.1, §4.2), or the reply that refuses them."""
    out = RcptParameters()
    try:
        items = split_parameters(text)
    except ValueError:
        return _SYNTAX
    if len({name for name, _ in items}) != len(items):
        return Reply(501, "5.5.4", "A parameter is given twice")
    for name, value in items:
        if name == "NOTIFY":
            notify = _parse_notify(value or b"")
            if not notify:
                return Reply(501, "5.5.4", "Bad NOTIFY value")
            out.notify = notify
        elif name == "ORCPT":
            orcpt = _parse_orcpt(value or b"")
            if orcpt is None:
                return Reply(501, "5.5.4", "Bad ORCPT value")
            out.orcpt = orcpt
        else:
            return Reply(555, "5.5.4", f"Unsupported parameter {name[:40]}")
    return out


def _parse_notify(value: bytes) -> int:
    out = 0
    for word in value.upper().split(b","):
        bit = _NOTIFY.get(word, 0)
        if not bit or out & bit:
            return 0
        out |= bit
    return 0 if out & NOTIFY_NEVER and out != NOTIFY_NEVER else out


def _parse_orcpt(value: bytes) -> bytes | None:
    address_type, semicolon, raw = value.partition(b";")
    if not semicolon or not raw or len(value) > SMTP_ORCPT_BYTES or not _ADDRESS_TYPE.fullmatch(address_type):
        return None
    if address_type.lower() == b"utf-8":  # RFC 6533 §3: kept as it came, its own escaping included
        return b"utf-8;" + raw if _printable(raw) else None
    address = decode_xtext(raw)
    if address is None or not _printable(address):  # an octet below 32 could forge a line of a DSN
        return None
    return address_type.lower() + b";" + address


def _printable(raw: bytes) -> bool:
    try:
        return raw.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False
