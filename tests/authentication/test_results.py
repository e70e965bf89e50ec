"""Authentication-Results: what is written can be read, what is forged is known, and nothing in it can break out."""

import email
import email.policy

import pytest

from fastmta.authentication.arc import ArcVerdict
from fastmta.authentication.dkim import DkimVerdict
from fastmta.authentication.dmarc import DmarcVerdict
from fastmta.authentication.message import parse_fields
from fastmta.authentication.results import authentication_results, consolidated, is_ours
from fastmta.authentication.spf import SpfVerdict
from fastmta.authentication.verifying import Verdicts


@pytest.mark.parametrize(
    ("value", "ours"),
    [
        ("mx.example.org; spf=pass", True),
        ("MX.Example.ORG ; none", True),
        ("mx.example.org 1; none", True),
        ("(a; comment) mx.example.org (x); spf=pass", True),
        ('"mx.example.org"; spf=pass', True),
        ("\r\n mx.example.org;\r\n spf=pass", True),
        ("mx.example.org.; spf=pass", True),
        ('"mx.example\\.org"; spf=pass', True),
        ("mx.example.org", True),
        ("mx.example.net; spf=pass", False),
        ("notmx.example.org; spf=pass", False),
        ("", False),
    ],
)
def test_a_forged_field_is_known_however_it_is_written(value: str, ours: bool) -> None:
    (field,) = parse_fields(f"Authentication-results : {value}\r\n".encode())
    assert is_ours(field, "mx.example.org") is ours


def test_the_field_tells_everything_and_is_folded() -> None:
    verdicts = Verdicts(
        SpfVerdict("pass", "example.net"),
        (
            DkimVerdict("pass", "example.net", "s1", "", "abcd+/12", "rsa-sha256", 2048),
            DkimVerdict("fail", "example.com", "s2", "body hash did not verify", "xyz"),
        ),
        ArcVerdict("fail", 2, "seal 1: no key"),
        DmarcVerdict("pass", "reject", "none", "example.net", "example.net"),
    )
    raw = authentication_results("mx.example.org", verdicts.parts("ann@example.net"))
    assert all(len(line) <= 78 for line in raw.split(b"\r\n"))
    parsed = email.message_from_bytes(raw + b"\r\n", policy=email.policy.SMTP)
    text = " ".join(str(parsed["Authentication-Results"]).split())
    assert text == (
        "mx.example.org; spf=pass smtp.mailfrom=ann@example.net;"
        " dkim=pass (2048-bit key) header.d=example.net header.s=s1 header.b=abcd+/12;"
        " dkim=fail (body hash did not verify) header.d=example.com header.s=s2 header.b=xyz;"
        " arc=fail (seal 1: no key); dmarc=pass (p=reject dis=none) header.from=example.net"
    )


@pytest.mark.parametrize(
    "sender", ["a\r\nX: y@b.example", 'a"b@c.example', "a;b@c.example", "a(b@c.example", "ü@b.example"]
)
def test_a_senders_words_do_not_break_out(sender: str) -> None:
    verdicts = Verdicts(
        SpfVerdict("fail", "b.example"), (), ArcVerdict("none", 0, ""), DmarcVerdict("none", "", "none", "")
    )
    raw = authentication_results("mx.example.org", verdicts.parts(sender))
    assert [field.name for field in parse_fields(raw)] == [b"authentication-results"]
    assert consolidated(parse_fields(raw), "mx.example.org").count(";") - sender.count(";") == 2


def test_our_own_results_are_gathered_in_order() -> None:
    fields = parse_fields(
        b"Authentication-Results: mx.example.org; spf=pass; dkim=pass (a;b)\r\n"
        b"Authentication-Results: other.example; spf=fail\r\n"
        b"Authentication-Results: mx.example.org; none\r\n"
        b"Authentication-Results: mx.example.org; dmarc=pass\r\n"
    )
    assert (
        " ".join(consolidated(fields, "mx.example.org").split())
        == "mx.example.org; spf=pass; dkim=pass (a;b); dmarc=pass"
    )
