"""Mailbox names: modified UTF-7 (RFC 3501 §5.1.3) and what may be stored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmta.imap import mailbox_name
from fastmta.imap.mailbox_name import BadName
from fastmta.model.limits import IMAP_MAILBOX_DEPTH, IMAP_MAILBOX_NAME_BYTES


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語"),
        (b"a&-b", "a&b"),
        (b"Entw&APw-rfe", "Entwürfe"),
        (b"&2D3eAA-", "\U0001f600"),
        (b"plain name", "plain name"),
    ],
)
def test_names_of_the_rfc(raw: bytes, text: str) -> None:
    assert mailbox_name.decode(raw) == text
    assert mailbox_name.encode(text) == raw


@pytest.mark.parametrize(
    "raw",
    [
        b"&",
        b"a&b",
        b"&AGE-",
        b"&U,BTFw",
        b"&U,BTFw-&ZeVnLIqe-",
        b"&2D0-",
        b"&****-",
        b"\xc3\xa9",
        b"a\x00b",
        b"&AA-",
        b"&/-",
        b"a\x7f",
    ],
)
def test_broken_modified_utf7_is_no_name(raw: bytes) -> None:
    with pytest.raises(BadName):
        mailbox_name.decode(raw)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=30))
def test_every_text_comes_back(text: str) -> None:
    assert mailbox_name.decode(mailbox_name.encode(text)) == text


@pytest.mark.parametrize("raw", [b"inbox", b"INBOX", b"InBoX"])
def test_inbox_is_one_in_any_case(raw: bytes) -> None:
    assert mailbox_name.parse(raw) == "INBOX"
    assert mailbox_name.parse(raw + b"/x") == "INBOX/x"


@pytest.mark.parametrize("name", ["", "/a", "a//b", "a/", "..", "../../etc/passwd", "a/.", "a*", "a%", "a\0b", "a\nb"])
def test_what_no_mailbox_may_be_called(name: str) -> None:
    with pytest.raises(BadName):
        mailbox_name.require_creatable(name)


def test_depth_and_length_are_bounded() -> None:
    mailbox_name.require_creatable("/".join("a" * IMAP_MAILBOX_DEPTH))
    mailbox_name.require_creatable("a" * IMAP_MAILBOX_NAME_BYTES)
    for name in (
        "/".join("a" * (IMAP_MAILBOX_DEPTH + 1)),
        "/".join("a" * 10_000),
        "a" * (IMAP_MAILBOX_NAME_BYTES + 1),
        "é" * (IMAP_MAILBOX_NAME_BYTES // 2 + 1),
    ):
        with pytest.raises(BadName):
            mailbox_name.require_creatable(name)
