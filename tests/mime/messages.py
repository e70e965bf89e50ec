"""Messages for the tests of _mime: hand-made cases by name, and a generator of nested ones from a seed."""

import random

PLAIN = b"From: a@example.org\nTo: b@example.org\nSubject: x\nDate: Thu, 1 Jan 2026 00:00:00 +0000\nMessage-ID: <1@x>\n"

_LF_CASES: dict[str, bytes] = {
    "plain": PLAIN + b"\nline one\nline two\n",
    "no_final_newline": PLAIN + b"\nline one\nline two",
    "empty_body": PLAIN + b"\n",
    "header_only_whole_lines": PLAIN,
    "utf8_subject": b"Subject: caf\xc3\xa9 \xe2\x82\xac\nFrom: \xc3\xa9 <e@x.org>\n\nx\n",
    "folded": b"Subject: one\n two\n\tthree\nTo: a@b.c,\n d@e.f\n\nx\n",
    "quotes": b'Subject: say "hi" \\ back\nFrom: "A \\"B\\" C" <a@b.c>\nTo: "a b"@c.d, "x"@y.z\n\nx\n',
    "groups": b"To: Team: a@b.c, D <d@e.f>; , g@h.i\nCc: undisclosed-recipients:;\n\nx\n",
    "routes": b"From: <@hop.a,@hop.b:joe@c.d>\nTo: J <@r:j@k.l>\n\nx\n",
    "comments": b"From: a@b.c (The (nested) \\) Name)\nTo: (before) d@e.f, G (inside) H <g@h.i>\n\nx\n",
    "sender_reply_to": b"From: a@b.c\nSender: s@b.c\nReply-To: r@b.c, q@b.c\nIn-Reply-To: <z@z>\nBcc: y@y.y\n\nx\n",
    "empty_sender": b"From: a@b.c\nSender:\nReply-To: \nSubject:\n\nx\n",
    "phrase_dots": b"From: John Q. Public <j@x.org>\nTo: Mary Smith <m@x.org>\n\nx\n",
    "obsolete_spaces": b"From: a . b @ c . d\nTo: x@[127.0.0.1]\n\nx\n",
    "encoded_words": b"Subject: =?utf-8?q?caf=C3=A9?=\nFrom: =?utf-8?b?w6k=?= <e@x.org>\n\nx\n",
    "html": b"Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n<p>x=\ny</p>\n",
    "attachment": (
        b'Content-Type: application/pdf; name="a b.pdf"\nContent-Disposition: attachment; filename="a b.pdf"; size=5\n'
        b"Content-Transfer-Encoding: base64\nContent-ID: <part1@x>\nContent-Description: a paper\n"
        b"Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==\nContent-Language: en, de\nContent-Location: http://x/y\n\nAAAA\nBBBB\n"
    ),
    "rfc2231": (
        b"Content-Type: application/x; name*0*=utf-8'en'a%20b; name*1=\"c d\"\n"
        b"Content-Disposition: inline; filename*=utf-8''%e2%82%ac.txt\n\nx\n"
    ),
    "mixed": (
        PLAIN
        + b'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="=_b"\n\npreamble\n--=_b\n\nimplicit text\n'
        b"two lines\n--=_b\nContent-Type: text/html\n\n<p>\n--=_b\nContent-Type: image/png\n"
        b"Content-Transfer-Encoding: base64\n\nAAAA\n\n--=_b--\nepilogue\n"
    ),
    "alternative_in_mixed": (
        b"Content-Type: multipart/mixed; boundary=out\n\n--out\nContent-Type: multipart/alternative; boundary=in\n\n"
        b"--in\nContent-Type: text/plain; charset=utf-8\n\nhello\n--in\nContent-Type: text/html; charset=utf-8\n\n<b>\n"
        b"--in--\n\n--out\nContent-Type: text/x-diff; name=x.diff\nContent-Disposition: attachment\n\n+ a\n- b\n--- c\n"
        b"--out--\n"
    ),
    "forwarded": (
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nsee below\n--b\nContent-Type: message/rfc822\n\n"
        b"From: in@ner.org\nSubject: inner\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\none\n--c\n"
        b"Content-Type: text/html\n\ntwo\n--c--\n\n--b--\n"
    ),
    "message_at_top": b"Subject: outer\nContent-Type: message/rfc822\n\nSubject: inner\nFrom: a@b.c\n\nbody\nmore\n",
    "digest": (
        b"Content-Type: multipart/digest; boundary=d\n\n--d\n\nSubject: one\n\nfirst\n--d\n\nSubject: two\n\nsecond\n"
        b"--d\nContent-Type: text/plain\n\nthird\n--d--\n"
    ),
    "report": (
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=r\n\n--r\n\nsorry\n--r\n"
        b"Content-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\n--r\nContent-Type: text/rfc822-headers\n\n"
        b"Subject: q\n\n--r--\n"
    ),
    "unclosed": b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo\n",
    "unclosed_inner": (
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\none\n"
        b"--b\n\ntwo\n--b--\n"
    ),
    "no_parts": b"Content-Type: multipart/mixed; boundary=b\n\nnothing here\n",
    "only_close": b"Content-Type: multipart/mixed; boundary=b\n\n--b--\n",
    "empty_parts": b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\n--b\n\n\n--b--\n",
    "prefix_boundaries": (
        b"Content-Type: multipart/mixed; boundary=foo\n\n--foo\nContent-Type: multipart/mixed; boundary=foobar\n\n"
        b"--foobar\n\none\n--foobar--\n--foo\n\ntwo\n--foo--\n"
    ),
    "boundary_with_spaces": b'Content-Type: multipart/mixed; boundary="a b "\n\n--a b\t \n\none\n--a b--  \n',
    "dashes_in_text": b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\n-\n--\n---\n- b\n-- b\n--a\n--b--\n",
    "type_comment": b"Content-Type: text/plain (really); charset=us-ascii (plain)\n\nx\n",
    "bad_type": b"Content-Type: nonsense\n\nx\n",
    "empty_type": b"Content-Type:\n\nx\n",
    "upper_case": b"CONTENT-TYPE: TEXT/HTML; CHARSET=UTF-8\nCONTENT-TRANSFER-ENCODING: BASE64\n\nx\n",
}

#: Every case with CRLF line ends.
CASES: dict[str, bytes] = {name: text.replace(b"\n", b"\r\n") for name, text in _LF_CASES.items()}

_MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"

#: What no reader agrees on: for these only validity, offsets and independence of cuts are asked.
BROKEN: dict[str, bytes] = {
    "empty": b"",
    "one_newline": b"\r\n",
    "one_byte": b"x",
    "header_without_newline": b"Subject: x",
    "bare_lf": b"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b--\n",
    "bare_cr": b"Subject: x\rInjected: y\r\n\r\na\rb\r\n",
    "nul": b"Subject: a\0b\r\nFrom: \0 <\0@\0>\r\n\r\n\0\r\n",
    "binary": bytes(range(256)) * 3,
    "no_boundary": b"Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\nx\r\n",
    "boundary_in_header": _MIXED + b"--b\r\nContent-Type: text/html\r\n--b\r\n\r\nx\r\n--b--",
    "message_without_body": _MIXED + b"--b\r\nContent-Type: message/rfc822\r\n--b--\r\n",
    "delimiter_at_end": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b",
    "unclosed_quote": b'From: "abc <a@b.c>\r\nContent-Type: text/plain; name="abc\r\n\r\nx\r\n',
    "comment_backslash": b"From: (abc\\\r\nTo: a@b.c (\\\r\nContent-Type: text/plain (\\\r\n\r\nx\r\n",
    "list_garbage": b'From: ,,;;<>,@,:,<@>,<@:>,a@,@b,>,),(,\r\nTo: a:b:c:d;e;\r\nCc: ""@x, <""@x>\r\n\r\nx',
    "continuation_first": b" Subject: x\r\nTo: a@b.c\r\n\r\nx\r\n",
    "same_boundary": (_MIXED + b"--b\r\n" + _MIXED + b"--b\r\n\r\nx\r\n--b--\r\n--b--\r\n"),
    "long_delimiter_line": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b"
    + b" " * 400
    + b"\r\n\r\nx\r\n--b--"
    + b"y" * 400,
    "parameters_everywhere": b'Content-Type: text/plain;;; =;a;b=;=c;"d"=e; f = g ;h="i"j\r\n\r\nx\r\n',
}

_LEAVES = ("text/plain", "text/html; charset=utf-8", 'image/png; name="x y.png"', "application/octet-stream")
_MULTIPARTS = ("mixed", "alternative", "related", "digest", "signed")


def generated(seed: int) -> bytes:
    """A well-formed nested message, the same for the same seed."""
    source = random.Random(seed)
    serial = iter(range(10_000))

    def body() -> bytes:
        words = (b"word", b"-", b"--", b"--b", b"", b"a longer line of text", b".")
        return b"".join(source.choice(words) + b"\r\n" for _ in range(source.randrange(6)))

    def entity(depth: int, message: bool) -> bytes:
        head = b""
        if message:
            head = f"From: P{next(serial)} <p{next(serial)}@x.org>\r\nSubject: s{next(serial)}\r\n".encode()
        kind = source.randrange(8) if depth < 5 else 0
        if kind >= 5:
            mark = f"=_{next(serial)}_{source.randrange(10)}"
            parts = [entity(depth + 1, False) for _ in range(source.randrange(1, 4))]
            inner = b"".join(b"--%s\r\n%s\r\n" % (mark.encode(), part) for part in parts)
            subtype = source.choice(_MULTIPARTS)
            return (
                head
                + f'Content-Type: multipart/{subtype}; boundary="{mark}"\r\n\r\n'.encode()
                + source.choice((b"", b"preamble\r\n"))
                + inner
                + f"--{mark}--\r\n".encode()
                + source.choice((b"", b"epilogue\r\n"))
            )
        if kind == 4:
            return head + b"Content-Type: message/rfc822\r\n\r\n" + entity(depth + 1, True)
        return head + f"Content-Type: {source.choice(_LEAVES)}\r\n\r\n".encode() + body()

    return entity(0, True)
