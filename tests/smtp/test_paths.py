"""Paths and greeting names as the world writes them, beside the letter of RFC 5321; the values are Postfix 3.7's."""

import pytest

from fastmta.smtp.paths import read_path, safe_name
from tests.support.smtp_rig import SmtpRig


def read(text: bytes, *, forward: bool = True, strict: bool = False) -> tuple[bytes, bytes, bool]:
    return read_path(text, forward=forward, strict=strict, origin=b"origin.test")


@pytest.mark.parametrize(
    ("text", "mailbox", "rest"),
    [
        (b"a@b SIZE=1", b"a@b", b" SIZE=1"),
        (b'"a b"@c X=1', b'"a b"@c', b" X=1"),
        (b"<a..b@c.test>", b'"a..b"@c.test', b""),
        (b"<.a@c>", b'".a"@c', b""),
        (b"<a.@c>", b'"a."@c', b""),
        (b"...@c", b'"..."@c', b""),
        (b"<a>", b"a@origin.test", b""),
        (b'<"a b">', b'"a b"@origin.test', b""),
        (b"<a@b@c>", b'"a@b"@c', b""),
        (b"< a@b > X=1", b"a@b", b" X=1"),
        (b"<a@b.>", b"a@b", b""),
        (b"<a(b(c)\\))@c>", b"a@c", b""),
        (b"<<a@b>>", b"a@b", b""),
        (b"<@x,@y:a..b@c>", b'"a..b"@c', b""),
        (b"<\\a@b>", b"a@b", b""),
        (b'<"a.".b@c>', b'"a..b"@c', b""),
        (b"a..b@[192.0.2.1]", b'"a..b"@[192.0.2.1]', b""),
        (b"<" + b"l" * 100 + b"@c>", b"l" * 100 + b"@c", b""),
    ],
)
def test_what_postfix_takes_is_taken_and_kept_by_the_letter(text: bytes, mailbox: bytes, rest: bytes) -> None:
    for forward in (True, False):
        assert read(text, forward=forward) == (mailbox, rest, False)
    assert read(b"<" + mailbox + b">", strict=len(mailbox) < 90)[0] == mailbox, "what is kept is valid itself"
    with pytest.raises(ValueError, match=r"syntax|length"):
        read(text, strict=True)


def test_a_bare_postmaster_stays_without_a_domain() -> None:
    assert read(b"postmaster") == read(b"< Postmaster >".lower()) == (b"postmaster", b"", False)


@pytest.mark.parametrize(
    "text",
    [b"", b"<", b"<a", b"<a@", b"<a@b", b"a@b>", b"<a b@c>", b"<a,b@c>", b"<a;b@c>", b"<a:b@c>", b"<a[b@c>",
     b"<a@b..c>", b"<a@-b>", b'"a', b"(", b"(\\", b"\\", b"<a@[x>", b"<a@[1.2.3.4]x>", b"<a@>", b"<@>", b"<<a@b>"],
)  # fmt: skip
def test_what_is_no_path_is_none(text: bytes) -> None:
    for forward in (True, False):
        with pytest.raises(ValueError, match="syntax"):
            read(text, forward=forward)


def test_a_path_over_256_octets_is_too_long() -> None:
    assert read(b"<" + b"l" * 251 + b"@c>")[0] == b"l" * 251 + b"@c"
    with pytest.raises(ValueError, match="length"):
        read(b"<" + b"l" * 254 + b"@c>")
    with pytest.raises(ValueError, match="length"):
        read(b"<" + b"." * 253 + b"@c>")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (b"[1.2.3.4])(by-evil;x]", b"?1.2.3.4???by-evil?x?"),
        (b'"quoted"', b"?quoted?"),
        (b"(comment) host", b"?comment??host"),
        (b"<a@b>", b"?a?b?"),
        ("jörg".encode(), b"j??rg"),
        (b"x" * 3000, b"x" * 255),
        (b"host.test", b"host.test"),
        (b"host.test.", b"host.test"),
        (b"[192.0.2.1]", b"[192.0.2.1]"),
        (b"[IPv6:2001:db8::1]", b"[IPv6:2001:db8::1]"),
        (b"2001:db8::1", b"2001:db8::1"),
        (b"a_b", b"a_b"),
    ],
)
def test_a_greeting_name_is_made_safe_in_all_that_we_write(rig: SmtpRig, said: bytes, kept: bytes) -> None:
    assert safe_name(said) == kept
    client = rig.connect().start(b"EHLO " + said)
    client.say(b"MAIL FROM:<a@b>\r\nRCPT TO:<x@relay.test>\r\nRCPT TO:<y@relay.test>\r\nDATA\r\n")
    assert client.codes(b"Subject: x\r\n\r\n.\r\n") == [250]
    (blob,) = rig.blobs()
    assert blob.startswith(b"Received: from " + kept + b" (unknown [127.0.0.1])\r\n")
    assert max(len(line) for line in blob.split(b"\r\n")) < 998


def test_mail_before_ehlo_is_taken_unless_helo_is_required(make_rig: object) -> None:
    taken = make_rig().connect()  # type: ignore[operator]
    assert taken.codes(b"MAIL FROM:<a@b>\r\nRCPT TO:<x@relay.test>\r\nDATA\r\n") == [250, 250, 354]
    taken.say(b"x\r\n.\r\n")
    assert taken.rig.blobs()[0].startswith(b"Received: from unknown (unknown [127.0.0.1])\r\n\tby mx.example.test")
    assert b" with SMTP id " in taken.rig.blobs()[0]


def test_helo_can_be_required(make_rig: object) -> None:
    rig = make_rig(smtpd_helo_required=True)  # type: ignore[operator]
    assert rig.connect().codes(b"MAIL FROM:<a@b>\r\nHELO x\r\nMAIL FROM:<a@b>\r\n") == [503, 250, 250]
    assert rig.connect("lmtp").codes(b"MAIL FROM:<a@b>\r\nLHLO x\r\nMAIL FROM:<a@b>\r\n") == [503, 250, 250]


def test_strict_envelopes_are_by_the_letter(make_rig: object) -> None:
    rig = make_rig(strict_rfc821_envelopes=True)  # type: ignore[operator]
    client = rig.connect().start()
    assert client.codes(b"MAIL FROM:a@b\r\nMAIL FROM:<a..b@c>\r\nMAIL FROM:<a>\r\nMAIL FROM:<a@b>\r\n") == [
        501, 501, 501, 250,
    ]  # fmt: skip


def test_an_address_without_a_domain_gets_myorigin(make_rig: object) -> None:
    rig = make_rig(myorigin="relay.test")  # type: ignore[operator]
    client = rig.connect().start()
    client.say(b"MAIL FROM:<bill>\r\nRCPT TO:<ted>\r\nDATA\r\nx\r\n.\r\n")
    ((message, recipients),) = rig.queue()
    assert message.envelope.reverse_path == b"bill@relay.test"
    assert [one.tail.forward_path for one in recipients] == [b"ted@relay.test"]
