"""Command lines, paths and parameters against RFC 5321's grammar written as regular expressions."""

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmta._parser import VERB_NUMBERS, is_domain, split_command, split_parameters, split_path, unquote

ATEXT = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\x80-\U0010ffff]"
LABEL = r"(?!-)[A-Za-z0-9_\-\x80-\U0010ffff]{1,}(?<!-)"
DOMAIN = rf"{LABEL}(?:\.{LABEL})*"
LOCAL = rf"(?:{ATEXT}+(?:\.{ATEXT}+)*|\"(?:[\x20-\x21\x23-\x5b\x5d-\x7e\x80-\U0010ffff]|\\[\x20-\x7e])*\")"
PATH = re.compile(rf"<(?:@{DOMAIN}(?:,@{DOMAIN})*:)?((?P<local>{LOCAL})(?:@(?P<domain>{DOMAIN}|\[[^\]]*\]))?)>")


def oracle(text: bytes, forward: bool) -> tuple[bytes, bytes] | None:
    if text.startswith(b"<>") and not forward:
        return b"", text[2:]
    decoded = text.decode("utf-8", "surrogateescape")
    match = PATH.match(decoded)
    if match is None or any("\ud800" <= c <= "\udfff" for c in match.group(0)):
        return None
    local, domain = match["local"], match["domain"]
    if domain is None:
        if not forward or local.lower() != "postmaster":
            return None
    elif domain.startswith("["):
        body = domain[1:-1]
        try:
            if body.lower().startswith("ipv6:"):
                ipaddress.IPv6Address(body[5:])
            else:
                ipaddress.IPv4Address(body)
        except ValueError:
            return None
        if "%" in body:
            return None
    for part in match.group(0)[1:-1].replace(":", ",").split(","):
        route = part.removeprefix("@") if part.startswith("@") else None
        if route and any(len(label.encode()) > 63 for label in route.split(".")):
            return None
    if domain and not domain.startswith("[") and any(len(label.encode()) > 63 for label in domain.split(".")):
        return None
    mailbox = match[1].encode()
    if len(local.encode()) > 64 or len((domain or "").encode()) > 255 or len(mailbox) > 254:
        return None
    return mailbox, decoded[match.end() :].encode("utf-8", "surrogateescape")


ALPHABET = [
    b"a", b"B", b"1", b"@", b".", b"<", b">", b'"', b"\\", b"[", b"]", b",", b":", b"-", b"_", b"+", b" ", b"\xc3\xa9",
    b"\xff", b"\x00", b"postmaster", b"127.0.0.1", b"IPv6:::1", b"%", b"!", b"x" * 62, b"a@b", b"@c,@d:",
]  # fmt: skip
soup = st.lists(st.sampled_from(ALPHABET), max_size=10).map(b"".join)


@given(soup, st.booleans())
def test_a_path_is_what_the_grammar_says(inner: bytes, forward: bool) -> None:
    for text in (b"<" + inner + b">", inner, b"<" + inner + b"@ex.org> SIZE=1"):
        expected = oracle(text, forward)
        try:
            mailbox, rest, _ = split_path(text, forward=forward)
        except ValueError:
            assert expected is None, text
        else:
            assert expected is not None, text
            assert (mailbox, rest) == (unquote(expected[0]), expected[1])


@pytest.mark.parametrize(
    ("text", "mailbox"),
    [
        (b"<a@example.org>", b"a@example.org"),
        (b"<@a,@b:c@d>", b"c@d"),
        (b'<"john doe"@d>', b'"john doe"@d'),
        (b'<"john.doe"@d>', b"john.doe@d"),
        (b'<"jo\\hn"@d>', b"john@d"),
        (b'<""@d>', b'""@d'),
        (b"<u%h@d>", b"u%h@d"),
        (b"<g1!g2!u@d>", b"g1!g2!u@d"),
        (b"<a@[127.0.0.1]>", b"a@[127.0.0.1]"),
        (b"<a@[IPv6:::1]>", b"a@[IPv6:::1]"),
        (b"<PostMaster>", b"PostMaster"),
        ("<jörg@exämple.org>".encode(), "jörg@exämple.org".encode()),
        (b"<" + b"a" * 64 + b"@d>", b"a" * 64 + b"@d"),
    ],
)
def test_good_paths(text: bytes, mailbox: bytes) -> None:
    assert split_path(text, forward=True)[0] == mailbox


@pytest.mark.parametrize(
    "text",
    [
        b"", b"<", b"<>", b"a@b", b"<a>", b"<a..b@d>", b"<.a@d>", b"<a.@d>", b"<a@>", b"<@d>", b"<a@-d>", b"<a@d->",
        b"<a@d..e>", b"<a@d.>", b"<a@[1.2.3]>", b"<a@[IPv6:1]>", b"<a b@d>", b'<"a@d>', b'<"a"b@d>', b"<a@d",
        b"<a@\xff>", b"<\xc0\xaf@d>", b"<a\x00@d>", b"<@a,@b,c@d>", b"<|cmd@d",
        b"<" + b"a" * 65 + b"@d>", b"<" + b"a" * 300 + b"@d>", b"<a@" + b".".join([b"d" * 60] * 5) + b">",
    ],
)  # fmt: skip
def test_bad_paths(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"syntax|length"):
        split_path(text, forward=True)


def test_verbs_are_found_in_any_case_and_whole_only() -> None:
    for name, number in VERB_NUMBERS.items():
        if name and name != "HTTP":
            assert split_command(name.encode()) == (number, b"")
            assert split_command(name.lower().encode() + b"  x y ") == (number, b"x y ")
            assert split_command(name.encode() + b"X") == (0, b"")
    for line in (b"GET / HTTP/1.1", b"post /", b"CONNECT a:25 HTTP/1.1"):
        assert split_command(line)[0] == VERB_NUMBERS["HTTP"]
    assert split_command(b"") == (0, b"")
    assert split_command(b" NOOP")[0] == 0


def test_parameters() -> None:
    assert split_parameters(b"") == []
    assert split_parameters(b" SIZE=10  body=8BITMIME SMTPUTF8") == [
        ("SIZE", b"10"), ("BODY", b"8BITMIME"), ("SMTPUTF8", None),
    ]  # fmt: skip
    for bad in (b"SIZE=1", b" =1", b" SIZE=", b" SIZE=a=b", b" -A", b" S(=1", b" A=\x7f"):
        with pytest.raises(ValueError, match="syntax"):
            split_parameters(bad)


def test_domains() -> None:
    assert is_domain(b"a.example") and is_domain(b"[10.0.0.1]") and not is_domain(b"[10.0.0.1]", literal=False)
    assert not is_domain(b"") and not is_domain(b"a b") and not is_domain(b"a..b") and not is_domain(b"-a")
