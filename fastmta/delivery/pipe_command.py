"""What a command of pipe: is given and what its end means, as Postfix's pipe(8) has it: arguments, mail, exit codes.

Pure. Arguments are expanded by whoever starts the command (supervisor/launcher.py), from templates of the configuration
file; nothing that came with a message is ever a template, a path or a line for a shell.
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from fastmta.config.pipes import EACH, MACRO, macros_of
from fastmta.config.tables import PipeConfig
from fastmta.model.reply import Reply

_CODE: Final = re.compile(r"([245])\.\d{1,3}\.\d{1,3}(?=\s|$)")
_ATOM: Final = re.compile(r"[^\x00-\x20\x7f()<>\[\]:;@\\,.\"]+(?:\.[^\x00-\x20\x7f()<>\[\]:;@\\,.\"]+)*")
_SYSEXITS: Final = {  # sysexits(3): enhanced code, words
    64: ("5.3.0", "command line usage error"),
    65: ("5.6.0", "data format error"),
    66: ("5.3.0", "cannot open input"),
    67: ("5.1.1", "user unknown"),
    68: ("5.1.2", "host name unknown"),
    69: ("5.3.0", "service unavailable"),
    70: ("5.3.0", "internal software error"),
    71: ("4.3.0", "system resource problem"),
    72: ("5.3.0", "critical OS file missing"),
    73: ("5.2.0", "can't create user output file"),
    74: ("5.3.0", "input/output error"),
    75: ("4.3.0", "temporary failure"),
    76: ("5.5.0", "remote error in protocol"),
    77: ("5.7.0", "permission denied"),
    78: ("5.3.5", "local configuration error"),
}


class Unsafe(ValueError):
    """An argument cannot be given to a command; the text says which and why."""


def expand(templates: Sequence[str], common: Mapping[str, str], recipients: Sequence[Mapping[str, str]]) -> list[str]:
    """The arguments. A template with a macro of a recipient gives one for each recipient.

    Unsafe: a value would make an argument an option, or has a NUL.
    """
    out: list[str] = []
    for template in templates:
        names = macros_of(template)
        each = recipients if not names.isdisjoint(EACH) else [{}]
        for recipient in each:
            values = {**common, **recipient}
            if "user" in names and not values["user"]:
                continue  # as pipe(8): +extension@domain has no user
            out.append(_expanded(template, values))
    return out


def _expanded(template: str, values: Mapping[str, str]) -> str:
    text = MACRO.sub(lambda match: values[match[1] or match[2] or match[3]] if match[0] != "$$" else "$", template)
    if text.startswith("-") and not template.startswith("-"):
        raise Unsafe(f"{text[:80]} begins with -, and a command could take it for an option")
    if "\0" in text:
        raise Unsafe("an argument has a NUL")
    return text


def recipient_values(pipe: PipeConfig, address: str, original: str, delimiters: str) -> dict[str, str]:
    """The macros of one recipient, with the foldings and quoting of the flags h, u and q."""
    folded = _folded(pipe.flags, address)
    mailbox, _, domain = folded.rpartition("@")
    at = min((mailbox.find(each, 1) for each in delimiters if each in mailbox[1:]), default=-1)
    return {
        "recipient": _folded(pipe.flags, quoted(address) if "q" in pipe.flags else address),
        "original_recipient": _folded(pipe.flags, quoted(original) if "q" in pipe.flags else original),
        "mailbox": mailbox,
        "user": mailbox[:at] if at > 0 else mailbox,
        "extension": mailbox[at + 1 :] if at > 0 else "",
        "domain": domain,
    }


def sender_value(pipe: PipeConfig, reverse_path: str) -> str:
    sender = reverse_path or pipe.null_sender
    return quoted(sender) if sender and "q" in pipe.flags else sender


def _folded(flags: str, address: str) -> str:
    local, at, domain = address.rpartition("@")
    return (local.lower() if "u" in flags else local) + at + (domain.lower() if "h" in flags else domain)


def quoted(address: str) -> str:
    """The address with its local part quoted where RFC 5322 wants it; octets over 127 stay."""
    local, at, domain = address.rpartition("@")
    if not at:
        local, domain = domain, ""
    if _ATOM.fullmatch(local):
        return address
    return '"' + re.sub(r'([\\"\r\n])', r"\\\1", local) + '"' + at + domain


# --- the mail on standard input ---


def opening(pipe: PipeConfig, sender: str, recipient: str, original: str, now_s: float) -> bytes:
    """What the flags F, R, O and D put in front."""
    lines = []
    if "F" in pipe.flags:
        lines.append(f"From {sender}  {time.asctime(time.localtime(now_s))}")
    if "R" in pipe.flags:
        lines.append(f"Return-Path: <{sender}>")
    if "O" in pipe.flags:
        lines.append(f"X-Original-To: {original}")
    if "D" in pipe.flags:
        lines.append(f"Delivered-To: {recipient}")
    return "".join(line + "\r\n" for line in lines).encode("utf-8", "surrogateescape")


def converted(pipe: PipeConfig, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Mail with CRLF as the command wants it: line ends (eol), dots (.), From lines (>), and a blank line at the end
    (B). The last line is ended where it is not.
    """
    eol = unescaped(pipe.eol)
    dots, froms = "." in pipe.flags, ">" in pipe.flags
    rest, at_start, ended = b"", True, True
    for piece in pieces:
        data = rest + piece
        last = data.rfind(b"\n") + 1
        tail = data[last:]
        keep = len(tail) if len(tail) < 6 else tail.endswith(b"\r")  # "From " may be cut, or CRLF
        rest = data[len(data) - keep :] if keep else b""
        data = data[: len(data) - keep] if keep else data
        if data:
            yield _lines(data, eol, at_start, dots, froms)
            at_start = ended = data.endswith(b"\n")
    if rest:
        yield _lines(rest, eol, at_start, dots, froms)
        ended = False
    if not ended:
        yield eol
    if "B" in pipe.flags:
        yield eol


def _lines(data: bytes, eol: bytes, at_start: bool, dots: bool, froms: bool) -> bytes:
    if froms or dots:
        data = b"\n" + data if at_start else data
        if froms:
            data = data.replace(b"\nFrom ", b"\n>From ")
        if dots:
            data = data.replace(b"\n.", b"\n..")
        data = data[1:] if at_start else data
    return data.replace(b"\r\n", eol)


def unescaped(text: str) -> bytes:
    """C's backslash sequences: \\a \\b \\f \\n \\r \\t \\v \\ddd \\\\."""
    named = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
    return re.sub(
        r"\\(?:([0-7]{1,3})|(.))", lambda m: chr(int(m[1], 8) & 255) if m[1] else named.get(m[2], m[2]), text
    ).encode("latin-1", "replace")


# --- the end ---


def verdict(pipe: str, program: str, status: int, output: bytes, *, late: bool = False) -> Reply:
    """The reply for a command that ended with a code, with minus a signal's number, or was killed for being late."""
    said = re.sub(r"[^\x20-\x7e]", "_", re.sub(r"[\t\r\n]", " ", output.decode("ascii", "replace"))).strip()
    tail = f". Command output: {said}" if said else ""
    if late:
        return _reply("5.3.0", f'Command time limit exceeded: "{program}"{tail}')
    if status == 0:
        return Reply(250, "2.0.0", f"delivered via {pipe} service")
    if status < 0:
        return _reply("4.3.0", f'Command died with signal {-status}: "{program}"{tail}')
    code = _CODE.match(said)
    if code and code[1] != "2":
        return _reply(code[0], said[code.end() :].strip() or "the command gave no reason")
    if status in _SYSEXITS:
        enhanced, words = _SYSEXITS[status]
        return _reply(enhanced, words + tail)
    return _reply("5.3.0", f'Command died with status {status}: "{program}"{tail}')


def _reply(enhanced: str, text: str) -> Reply:
    return Reply(451 if enhanced.startswith("4") else 554, enhanced, text)
