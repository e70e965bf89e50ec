"""Authentication-Results (RFC 8601): written for what was verified, read where it is ours, known where it is forged."""

import re
from collections.abc import Sequence
from typing import Final

from fastmta.authentication.arc import ArcVerdict
from fastmta.authentication.dkim import DkimVerdict
from fastmta.authentication.message import Field, named

NAME: Final = b"authentication-results"
_FOLDS: Final = re.compile(r"\r\n(?=[ \t])")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`{|}~@/:=]+\Z")
_ID: Final = re.compile(r"[^\s;()\x00-\x20\x7f]+")
_HEAD_BYTES: Final = 4096  # in which an id ends; what has none by then is not ours, nor anybody's
_WIDTH: Final = 76
_VALUE: Final = 320  # characters of a property's value
_COMMENT: Final = 120
_PLAIN: Final = re.compile(r"[ -'*-\[\]-~]*\Z")  # what may stand in a comment


def authserv_id_of(field: Field) -> str:
    """The id in front of the first semicolon, without comments and version, lower case; "" where there is none."""
    value = field.value[:_HEAD_BYTES].decode("utf-8", "replace")
    bare = _without_comments(_split(_FOLDS.sub("", value))[0]).replace('"', "").replace("\\", "")
    match = _ID.search(bare)
    return match[0].rstrip(".").lower() if match is not None else ""


def is_ours(field: Field, authserv_id: str) -> bool:
    """Whether a field is of this server."""
    return field.name == NAME and authserv_id_of(field) == authserv_id.lower().rstrip(".")


def is_forged(field: Field, authserv_id: str) -> bool:
    """Whether a field from outside must go, since somebody may take it for ours (RFC 8601 §5): one with our id, and one
    whose id cannot be told.
    """
    return field.name == NAME and authserv_id_of(field) in ("", authserv_id.lower().rstrip("."))


def consolidated(fields: Sequence[Field], authserv_id: str) -> str:
    """The results of all our own fields as one text, "ID; result; result", for ARC-Authentication-Results."""
    parts: list[str] = []
    for field in named(fields, NAME):
        if is_ours(field, authserv_id):
            text = field.value.decode("utf-8", "replace").strip()
            for part in _split(text)[1:]:
                cleaned = part.strip()
                if cleaned and cleaned.lower() != "none":
                    parts.append(cleaned)
    return ";\r\n  ".join([authserv_id, *parts]) if parts else f"{authserv_id}; none"


def passed_dmarc(results: str, author_domain: str) -> bool:
    """Whether a text of results ("ID; result; result") has a pass of DMARC for this domain in From."""
    for part in _split(_FOLDS.sub("", results)):
        words = _without_comments(part).lower().replace('"', "").split()
        if words[:1] == ["dmarc=pass"] and f"header.from={author_domain}" in words:
            return True
    return False


def _split(text: str) -> list[str]:
    """At semicolons outside of comments and quoted strings."""
    parts, start, depth, quoted, at = [], 0, 0, False, 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif quoted:
            quoted = char != '"'
        elif char == '"' and depth == 0:
            quoted = True
        elif char == "(":
            depth += 1
        elif char == ")":
            depth = max(0, depth - 1)
        elif char == ";" and depth == 0:
            parts.append(text[start:at])
            start = at + 1
        at += 1
    return [*parts, text[start:]]


def _without_comments(text: str) -> str:
    out, depth, at = [], 0, 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            if depth == 0:
                out.append(text[at : at + 2])
            at += 1
        elif char == "(":
            depth += 1
        elif char == ")":
            depth = max(0, depth - 1)
        elif depth == 0:
            out.append(char)
        at += 1
    return "".join(out)


def value(text: str) -> str:
    """A property's value: as it is where it is a token, else quoted, without control octets."""
    if len(text) <= _VALUE and _TOKEN.match(text):
        return text
    clean = "".join(char for char in text if " " <= char != "\x7f")[:_VALUE]
    if clean and _TOKEN.match(clean):
        return clean
    return '"' + clean.replace("\\", "\\\\").replace('"', '\\"') + '"'


def comment(text: str) -> str:
    """` (text)`, made safe, or "" for no text."""
    clean = text
    if len(text) > _COMMENT or not _PLAIN.match(text):
        clean = "".join(char for char in text if " " <= char < "\x7f" and char not in "()\\")[:_COMMENT]
    return f" ({clean})" if clean else ""


def spf_result(result: str, domain: str, *, from_helo: bool, sender: str) -> str:
    """SPF's part (§2.7.2)."""
    prop = f"smtp.helo={value(domain)}" if from_helo else f"smtp.mailfrom={value(sender or domain)}"
    return f"spf={result} {prop}"


def dkim_results(verdicts: Sequence[DkimVerdict]) -> list[str]:
    """DKIM's parts (§2.7.1, and header.b of RFC 6008), one a signature; "dkim=none" where nothing is signed."""
    if not verdicts:
        return ["dkim=none"]
    out = []
    for verdict in verdicts:
        text = f"dkim={verdict.result}"
        if verdict.result == "pass" and verdict.algorithm:
            text += comment(f"{verdict.bits}-bit key" if verdict.algorithm.startswith("rsa") else "ed25519 key")
        else:
            text += comment(verdict.reason)
        if verdict.domain:
            text += f" header.d={value(verdict.domain)}"
        if verdict.selector:
            text += f" header.s={value(verdict.selector)}"
        if verdict.shown:
            text += f" header.b={value(verdict.shown)}"
        out.append(text)
    return out


def arc_result(verdict: ArcVerdict) -> str:
    """ARC's part (RFC 8617 §7)."""
    text = f"arc={verdict.result}{comment(verdict.reason)}"
    if verdict.result == "pass" and verdict.oldest_pass:
        text += f" header.oldest-pass={verdict.oldest_pass}"
    return text


def dmarc_result(result: str, policy: str, disposition: str, author_domain: str) -> str:
    """DMARC's part (RFC 9989): the policy and what was made of it in a comment."""
    note = comment(f"p={policy} dis={disposition}") if policy else ""
    return f"dmarc={result}{note} header.from={value(author_domain)}"


def authentication_results(authserv_id: str, parts: Sequence[str]) -> bytes:
    """The field with its CRLF, folded between results and, where they are long, between properties."""
    lines = [f"Authentication-Results: {authserv_id}" + (";" if parts else "; none")]
    for number, part in enumerate(parts):
        line = "\t"
        whole = part + (";" if number < len(parts) - 1 else "")
        if len(whole) < _WIDTH:
            lines.append(line + whole)
            continue
        for word in whole.split(" "):
            if len(line) > 1 and len(line) + 1 + len(word) > _WIDTH:
                lines.append(line)
                line = "\t  " + word
            else:
                line += ("" if line == "\t" else " ") + word
        lines.append(line)
    return "\r\n".join(lines).encode("utf-8", "replace") + b"\r\n"
