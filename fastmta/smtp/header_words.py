"""Header fields with 8-bit bytes, said in 7-bit: encoded words (RFC 2047), extended parameters (RFC 2231).

Pure functions over one field or one header. The text is taken for UTF-8 where it is valid as such, else its charset is
given as unknown-8bit (RFC 1428): bytes are kept, never guessed at. Whatever stands where neither form is allowed (an
address itself, a field's name) is made 7-bit all the same, since a message that no server takes helps nobody.
"""

import base64
import re
from collections.abc import Iterator
from typing import Final

WORD_CHARACTERS: Final = 75  # RFC 2047 §2
UNKNOWN: Final = "unknown-8bit"

_FIELD: Final = re.compile(rb"[^\n]*(?:\n[ \t][^\n]*)*\n?")
_STRUCTURED: Final = frozenset(
    b"from to cc bcc sender reply-to return-path delivered-to received message-id in-reply-to references errors-to "
    b"resent-from resent-to resent-cc resent-bcc resent-sender resent-reply-to resent-message-id "
    b"disposition-notification-to mail-followup-to content-id dkim-signature arc-seal arc-message-signature "
    b"authentication-results arc-authentication-results mime-version list-id list-post list-unsubscribe".split()
)
_PARAMETERS: Final = frozenset((b"content-type", b"content-disposition"))
_UNSTRUCTURED_TOKEN: Final = re.compile(rb"[ \t\r\n]+|[^ \t\r\n]+")
_TOKEN: Final = re.compile(rb'[ \t\r\n]+|"(?:\\.|[^"\\])*"|[()<>@,:;\[\]]|[^ \t\r\n"()<>@,:;\[\]]+|"', re.DOTALL)
_PARAMETER: Final = re.compile(rb';[ \t\r\n]*([!-~]+?)[ \t]*=[ \t]*("(?:\\.|[^"\\])*"|[^;"]*)', re.DOTALL)
_HIGH: Final = re.compile(rb"[\x80-\xff]")
_SAFE: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/")
_ATTRIBUTE: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&+-.^_`|~")


def fields(raw: bytes) -> Iterator[bytes]:
    """The fields of a header, each with its continuation lines; the empty line at the end is one too."""
    for match in _FIELD.finditer(raw):
        if match[0]:
            yield match[0]


def field_name(field: bytes) -> bytes:
    """The name in lower case, b"" where there is none."""
    name, colon, _ = field.partition(b":")
    return name.strip(b" \t").lower() if colon else b""


def masked(raw: bytes) -> bytes:
    """Every 8-bit byte as "?": for places that no reader looks at, and that must keep their length."""
    return raw if raw.isascii() else _HIGH.sub(b"?", raw)


def seven_bit_field(field: bytes) -> bytes:
    """One field without 8-bit bytes; its line ends are CRLF where it was changed."""
    if field.isascii():
        return field
    name, colon, value = field.partition(b":")
    if not colon:
        name, value = b"", field
    lower = name.strip(b" \t").lower()
    end = b"\r\n" if value.endswith(b"\n") else b""
    value = value.rstrip(b"\r\n")
    if lower in _PARAMETERS:
        value = _parameters(value, multipart=b"multipart/" in value.lower())
    elif lower in _STRUCTURED:
        value = _words(value, _TOKEN)
    else:
        value = _words(value, _UNSTRUCTURED_TOKEN)
    return masked(name + colon + value + end)


def _words(value: bytes, pattern: re.Pattern[bytes]) -> bytes:
    """The value with each run of 8-bit words, the space between them included, as encoded words."""
    tokens = pattern.findall(value)
    charset = _charset(value)
    out: list[bytes] = []
    at = 0
    while at < len(tokens):
        if tokens[at].isascii():
            out.append(tokens[at])
            at += 1
            continue
        end = at + 1  # a run goes on over white space to the next 8-bit word: space between encoded words is not shown
        while end + 1 < len(tokens) and tokens[end].isspace() and not tokens[end + 1].isascii():
            end += 2
        text = b"".join(b" " if token.isspace() else _unquoted(token) for token in tokens[at:end])
        if out and not out[-1].isspace() and out[-1] not in (b"(", b"<", b"["):
            out.append(b" ")  # an encoded word is a word of its own
        out.append(b"\r\n ".join(encoded_words(text, charset)))
        if end < len(tokens) and tokens[end][:1] in (b'"', b"(", b"<") and pattern is _TOKEN:
            out.append(b" ")
        at = end
    return b"".join(out)


def _charset(raw: bytes) -> str:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return UNKNOWN
    return "utf-8"


def _unquoted(token: bytes) -> bytes:
    if len(token) >= 2 and token[:1] == b'"' == token[-1:]:
        return re.sub(rb"\\(.)", rb"\1", token[1:-1], flags=re.DOTALL)
    return token


def encoded_words(text: bytes, charset: str) -> list[bytes]:
    """`text` as encoded words of at most 75 characters; no character of UTF-8 is split."""
    high = len(_HIGH.findall(text))
    in_base64 = 3 * high > len(text)
    room = WORD_CHARACTERS - len(charset) - len("=??b??=")
    units = [each.encode() for each in text.decode()] if charset == "utf-8" else [bytes((octet,)) for octet in text]
    words: list[bytes] = []
    chunk = b""
    cost = 0
    for unit in units:
        unit_cost = len(unit) if in_base64 else sum(1 if o in _SAFE or o == 32 else 3 for o in unit)
        if chunk and (4 * ((cost + unit_cost + 2) // 3) if in_base64 else cost + unit_cost) > room:
            words.append(_word(chunk, charset, in_base64))
            chunk, cost = b"", 0
        chunk += unit
        cost += unit_cost
    words.append(_word(chunk, charset, in_base64))
    return words


def _word(chunk: bytes, charset: str, in_base64: bool) -> bytes:
    if in_base64:
        return b"=?%b?b?%b?=" % (charset.encode(), base64.b64encode(chunk))
    text = b"".join(b"_" if o == 32 else bytes((o,)) if o in _SAFE else b"=%02X" % o for o in chunk)
    return b"=?%b?q?%b?=" % (charset.encode(), text)


def _parameters(value: bytes, *, multipart: bool) -> bytes:
    """A value with parameters; those of a multipart are masked, so that the boundary still fits its masked lines."""
    if multipart:
        return masked(value)
    charset = _charset(value)

    def extended(match: re.Match[bytes]) -> bytes:
        name, raw = match[1], match[2]
        if raw.isascii() or not name.isascii() or b"*" in name:
            return match[0]
        text = _unquoted(raw.strip())
        octets = [bytes((o,)) if o in _ATTRIBUTE else b"%%%02X" % o for o in text]
        whole = charset.encode() + b"''" + b"".join(octets)
        if len(name) + len(whole) <= 70:
            return b";\r\n\t%b*=%b" % (name, whole)
        parts, part = [], charset.encode() + b"''"
        for octet in octets:  # RFC 2231 §4.1
            if len(part) + len(octet) > 60:
                parts.append(part)
                part = b""
            part += octet
        parts.append(part)
        return b"".join(b";\r\n\t%b*%d*=%b" % (name, n, each) for n, each in enumerate(parts))

    return masked(_PARAMETER.sub(extended, value))
