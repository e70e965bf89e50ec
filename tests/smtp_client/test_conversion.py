"""8-bit messages as 7-bit MIME: the hard cases, and that a reader finds what was there before."""

import email
import email.policy
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmta.model.limits import CONVERTED_HEADER_BYTES, CONVERTED_PIECE_BYTES, MIME_PARTS
from fastmta.smtp.conversion import Gone, Unconvertible, converted, plan
from fastmta.smtp.header_words import encoded_words, seven_bit_field

ROOT = b"Received: by mx.test; now\r\n"


def planned(message):
    *_, conversion = plan(lambda offset, length: message[offset : offset + length], len(message))
    return conversion


def read(raw):
    assert raw.isascii()
    return email.message_from_bytes(raw, policy=email.policy.default)


def leaves(message):
    """Every leaf's type and content, decoded as its label says."""
    return [(p.get_content_type(), p.get_payload(decode=True)) for p in message.walk() if not p.is_multipart()]


def part(kind, body, encoding=b"8bit"):
    label = b"Content-Transfer-Encoding: %b\r\n" % encoding if encoding else b""
    kind = b"Content-Type: %b\r\n" % kind if kind else b""
    return b"--b\r\n" + kind + label + b"\r\n" + body + b"\r\n"


def mixed(*parts, boundary=b"b", encoding=b"8bit"):
    label = b"Content-Transfer-Encoding: %b\r\n" % encoding if encoding else b""
    return (
        ROOT + b"MIME-Version: 1.0\r\n" + label + b"Content-Type: multipart/mixed; boundary=" + boundary + b"\r\n\r\n"
        b"preamble\r\n" + b"".join(parts) + b"--b--\r\nepilogue\r\n"
    )


def test_text_becomes_quoted_printable_and_its_label_follows():
    out = converted(
        ROOT + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
        b"content-transfer-encoding: 8BIT\r\n\r\nf\xfcr = x \r\n.\r\n"
    )
    assert re.search(rb"Content-Transfer-Encoding: quoted-printable\r\n\r\nf=FCr =3D x=20\r\n(\.|=2E)\r\n$", out)
    assert out.lower().count(b"content-transfer-encoding") == 1
    assert read(out).get_content().splitlines() == ["f\u00fcr = x ", "."]


def test_without_mime_fields_they_are_added():
    assert read(converted(ROOT + "\r\ngr\u00fc\u00df\r\n".encode())).get_content() == "gr\u00fc\u00df\r\n"
    out = converted(ROOT + b"\r\ngr\xfc\xdf\r\n")
    assert b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n" in out
    assert leaves(read(out)) == [("text/plain", b"gr\xfc\xdf\r\n")]


@pytest.mark.parametrize("label", [b"8bit", b"7bit", b"binary", b"", b"nonsense", b'"8bit"', b"8bit (really)"])
def test_no_label_is_believed(label):
    text, data = b"caf\xe9 =41\r\nend", b"\x89PNG\r\n\x1a\n\xff\x80"
    out = converted(mixed(part(b"text/plain; charset=latin1", text, label), part(b"image/png", data, label)))
    message = read(out)
    assert [part["content-transfer-encoding"] for part in message.iter_parts()] == ["quoted-printable", "base64"]
    assert leaves(message) == [("text/plain", text), ("image/png", data)]


def test_what_is_7bit_already_leaves_byte_for_byte():
    attachment = part(b"application/pdf", b"JVBERi0xLjQK", b"base64")
    plain = part(b"text/plain", b"plain = text ", b"7bit")
    raw = mixed(attachment, plain, part(b"text/html", b"<p>\xe9</p>"), encoding=b"")
    out = converted(raw)
    assert attachment in out and plain in out
    assert planned(raw).parts == 1


def test_a_label_of_8bit_without_8bit_bytes_becomes_7bit():
    out = converted(mixed(part(b"text/plain", b"ascii"), part(b"text/plain", b"\xe9")))
    message = read(out)
    assert message["content-transfer-encoding"] == "7bit"
    assert [part["content-transfer-encoding"] for part in message.iter_parts()] == ["7bit", "quoted-printable"]


def test_nested_multiparts_and_messages_are_converted_inside():
    inner = b"Subject: in\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n\r\ninn\xc3\xa9r\r\n"
    nested = (
        b"--b\r\nContent-Type: multipart/alternative; boundary=c\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        b"--c\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xe4\r\n"
        b"--c\r\nContent-Type: text/html\r\n\r\n<b>\xf6</b>\r\n--c--\r\n"
    )
    out = converted(mixed(nested, part(b"message/rfc822", inner)))
    message = read(out)
    labels = [p["content-transfer-encoding"] for p in message.walk()]
    assert labels == ["7bit", "7bit", "quoted-printable", "quoted-printable", "7bit", "quoted-printable"]
    assert [body for _, body in leaves(message)] == [b"\xe4", b"<b>\xf6</b>", b"inn\xc3\xa9r\r\n"]


@pytest.mark.parametrize("label", [b"base64", b"quoted-printable", b"x-odd"])
def test_a_multipart_keeps_its_parts_whatever_its_label_says(label):
    message = read(converted(mixed(part(b"text/plain", b"\xe9"), encoding=label)))
    assert message["content-transfer-encoding"] == "7bit"
    assert leaves(message) == [("text/plain", b"\xe9")]


def test_encoded_bodies_with_stray_8bit_bytes_stay_decodable():
    out = converted(
        mixed(part(b"image/png", b"aGVs\xe9bG8=", b"base64"), part(b"text/plain", b"a=3Db\xe9", b"quoted-printable"))
    )
    assert leaves(read(out)) == [("image/png", b"hello"), ("text/plain", b"a=b\xe9")]


def test_a_multipart_without_a_boundary_is_text():
    raw = ROOT + b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed\r\n\r\n--x\r\n\r\n\xc3\xa9\r\n--x--\r\n"
    out = converted(raw)
    assert read(out).get_content_type() == "text/plain" and b"=C3=A9" in out and b"multipart" not in out


def test_delimiters_and_preambles_with_8bit_bytes_still_fit():
    raw = (
        mixed(part(b"text/plain", b"ok"), boundary=b'"b\xe9"')
        .replace(b"--b\r", b"--b\xe9\r")
        .replace(b"--b--", b"--b\xe9--")
    )
    raw = raw.replace(b"preamble", b"pr\xe9amble").replace(b"epilogue", b"\xe9pilogue")
    assert leaves(read(converted(raw))) == [("text/plain", b"ok")]


def test_header_fields_become_encoded_words_and_parameters():
    message = read(
        converted(
            ROOT
            + 'From: "M\u00fcller, J\u00f6rg" <j@a.test>\r\nTo: \u00c4nne <a@a.test>, plain@b.test\r\n'
            "Subject: nothing gr\u00fc\u00dft\r\n s\u00f6 long\r\nX-Odd: \u65e5\u672c\u8a9e\r\n"
            'Content-Disposition: attachment; filename="\u00fc b.pdf"; size=1\r\n\r\nbody\r\n'.encode()
        )
    )
    sender = message["From"].addresses[0]
    assert (sender.display_name, sender.addr_spec) == ("M\u00fcller, J\u00f6rg", "j@a.test")
    assert [a.display_name for a in message["To"].addresses] == ["\u00c4nne", ""]
    assert message["Subject"] == "nothing gr\u00fc\u00dft s\u00f6 long" and message["X-Odd"] == "\u65e5\u672c\u8a9e"
    assert message.get_filename() == "\u00fc b.pdf" and message["Content-Disposition"].params["size"] == "1"


@pytest.mark.parametrize("name", [b"From", b"Subject", b"Content-Type", b"X\xe9", b"Received", b"Message-ID"])
@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_no_field_keeps_an_8bit_byte_or_gains_a_line(name, value):
    field = name + b": " + value.replace(b"\n", b"").replace(b"\r", b"") + b"\xe9\r\n"
    out = seven_bit_field(field)
    assert out.isascii() and out.endswith(b"\r\n")
    assert not re.search(rb"\n[^ \t]", out[:-2])


def test_encoded_words_are_short_and_split_no_character():
    for text in ("\u00e9" * 200, "a\u00e9 " * 100, "\U0001f600" * 50):
        words = encoded_words(text.encode(), "utf-8")
        assert all(len(word) <= 75 for word in words)
        assert str(email.header.make_header(email.header.decode_header(b"\r\n ".join(words).decode()))) == text


def test_long_lines_fit_and_come_back():
    line = b"\xe9" + b"x" * (3 * CONVERTED_PIECE_BYTES) + b" \r\n"
    raw = ROOT + b"Content-Type: text/plain; charset=latin1\r\n\r\n" + line * 3
    out = converted(raw)
    assert max(len(each) for each in out.split(b"\r\n")) <= 76 + 1
    assert leaves(read(out)) == [("text/plain", line * 3)]


@given(st.lists(st.sampled_from([b"\xe9", b" ", b"\t", b"=", b".", b"\r\n", b"a", b"From ", b"\r", b"x" * 80])))
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back(words):
    body = b"".join(words) + b"\xe9"
    out = converted(ROOT + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=latin1\r\n\r\n" + body)
    assert leaves(read(out)) == [("text/plain", body)]


def test_pieces_are_bounded_and_split_anywhere():
    data = bytes(range(256)) * 3000
    raw = mixed(part(b"application/octet-stream", data), part(b"text/plain; charset=latin1", b"\xe9x\r\n" * 50_000))
    conversion = planned(raw)
    for most in (CONVERTED_PIECE_BYTES, 4097, 1001):
        pieces = list(conversion.pieces(lambda at, n, most=most: raw[at : at + min(n, most)]))
        assert max(map(len, pieces)) <= 4 * CONVERTED_PIECE_BYTES
        assert leaves(read(b"".join(pieces)))[0][1] == data


def test_signatures_that_break_are_named():
    signed = (
        ROOT
        + b"DKIM-Signature: v=1\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n"
        + part(b"text/plain", b"%b")
        + part(b"application/pgp-signature", b"xx", b"7bit")
        + b"--b--\r\n"
    )
    assert planned(signed % b"\xe9").breaks == ("multipart/signed", "DKIM")
    assert planned((signed % b"e").replace(b"8bit", b"7bit")).breaks == ()


@pytest.mark.parametrize(
    "raw",
    [
        ROOT + b"X: " + b"y" * CONVERTED_HEADER_BYTES + b"\xe9\r\n\r\n",
        ROOT + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n\xe9\r\n" * (MIME_PARTS + 1),
    ],
)
def test_what_has_too_many_parts_or_too_long_a_header_is_not_converted(raw):
    with pytest.raises(Unconvertible):
        converted(raw)


def test_a_message_that_goes_meanwhile_is_not_sent_by_halves():
    conversion = planned(ROOT + b"\r\n\xe9\r\n" * 100)
    with pytest.raises(Gone):
        list(conversion.pieces(lambda offset, length: None))
