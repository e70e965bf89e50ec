"""Hard messages by kind and seed: what real mail, and those who attack readers of mail, do to headers and structure.

A message is the same for the same kind and seed, has CRLF line ends (but "line_ends") and no NUL, as APPEND takes it.
"""

import base64
import random
from collections.abc import Callable

_HEAD = (
    "MIME-Version: 1.0",
    "From: Ann <ann@x.test>",
    "To: bob@y.test",
    "Date: Mon, 2 Mar 2026 10:00:00 +0000",
    "Message-ID: <1@x.test>",
)


def _message(fields: list[str | bytes], body: bytes = b"text\r\n") -> bytes:
    raw = [field.encode() if isinstance(field, str) else field for field in fields]
    return b"".join(field + b"\r\n" for field in raw) + b"\r\n" + body


def _text(source: random.Random) -> bytes:
    words = ("alpha", "beta", "gamma", "-", "--", "--b1", "", "a longer line of text ", "Grüße", ".", "From x")
    return b"".join(source.choice(words).encode() + b"\r\n" for _ in range(source.randrange(6)))


def _leaf(source: random.Random) -> bytes:
    kind = source.choice(("text/plain", "text/html; charset=utf-8", "image/png", "application/x; name=a.bin", ""))
    head = [f"Content-Type: {kind}"] if kind else []
    if source.random() < 0.4:
        head += ["Content-Transfer-Encoding: base64"]
        return _message(list(head), base64.encodebytes(_text(source)).replace(b"\n", b"\r\n"))
    if source.random() < 0.3:
        head += [f"Content-Disposition: attachment; filename=f{source.randrange(9)}.txt"]
    return _message(list(head), _text(source))


def _entity(source: random.Random, depth: int, *, colliding: bool = False) -> bytes:
    """`colliding`: boundaries may be those of the multipart around, or their beginnings."""
    roll = source.random()
    if depth and roll < 0.5:
        mark = f"b{source.randrange(5)}{'x' * source.randrange(3)}" if colliding else f"m{depth}_{source.random()}"
        subtype = source.choice(("mixed", "alternative", "digest", "related", "signed; protocol=x", "x-odd", "report"))
        within = b""
        for _ in range(source.randint(1, 4)):
            part = _entity(source, depth - 1, colliding=colliding)
            if subtype == "digest" and not colliding:
                part = b"\r\nSubject: of a digest\r\n" + part  # its parts are messages
            within += b"--%b\r\n%b%b" % (mark.encode(), part, source.choice((b"", b"\r\n")))
        ends = (b"--%b--\r\n", b"--%b--\r\nepilogue\r\n", b"--%b-- \t\r\n", b"--%b--")
        end = source.choice(ends if colliding else ends[:3]) % mark.encode()
        quoted = f'"{mark}"' if source.random() < 0.7 else mark
        preamble = source.choice((b"", b"", b"preamble\r\n", b"\r\n"))
        return _message([f"Content-Type: multipart/{subtype}; boundary={quoted}"], preamble + within + end)
    if depth and roll < 0.65:
        within = f"Subject: inner {source.randrange(99)}\r\nFrom: in@x.test\r\n".encode()
        return _message(["Content-Type: message/rfc822"], within + _entity(source, depth - 1, colliding=colliding))
    return _leaf(source)


def nested(source: random.Random) -> bytes:
    head = "".join(line + "\r\n" for line in (*_HEAD, "Subject: nested"))
    return head.encode() + _entity(source, source.randint(2, 5))


def colliding(source: random.Random) -> bytes:
    """Multiparts within multiparts of the same boundary, or of one that begins with the other's."""
    head = "".join(line + "\r\n" for line in (*_HEAD, "Subject: colliding"))
    return head.encode() + _entity(source, source.randint(2, 4), colliding=True)


def boundaries(source: random.Random) -> bytes:
    """Delimiters that are missing, cut, doubled, beginnings of others, at the end without a line end, in odd places."""
    mark = source.choice(("b", "b1", "=_x", "a'()+_,-./:=?", "x" * 70, "b b"))
    raw = mark.encode()
    named = f"boundary={mark}" if mark.isalnum() and source.random() < 0.5 else f'boundary="{mark}"'
    field = source.choice(
        (f"multipart/mixed; {named}", f"multipart/mixed;\r\n {named}", f"multipart/mixed; charset=x; {named}; y=z")
    )
    part = b"--%b\r\nContent-Type: text/plain\r\n\r\none\r\n" % raw
    pieces = (
        part,
        part,
        b"--%b \t\r\n\r\ntwo\r\n" % raw,
        b"--%b\r\n" % raw,
        b"--%bx\r\nnot a delimiter\r\n" % raw if not named.endswith("xx") else b"",
        b" --%b\r\n" % raw,
        b"--%b\r\nContent-Type: multipart/mixed; boundary=%bi\r\n\r\n--%bi\r\n\r\nin\r\n" % (raw, b"q", b"q"),
        b"--%b\r\n\r\n" % raw,
        b"--\r\n",
        b"-%b\r\n" % raw,
        b"--%b--\r\n" % raw,
    )
    body = b"".join(source.choice(pieces) for _ in range(source.randint(1, 6)))
    body += source.choice((b"", b"--%b--\r\n" % raw, b"--%b--" % raw, b"--%b" % raw, b"--%b-" % raw))
    return _message([*_HEAD, "Subject: boundaries", f"Content-Type: {field}"], body)


def eight_bit(source: random.Random) -> bytes:
    """Octets over 127 in header fields: UTF-8, Latin-1, and what is neither."""
    words = ("Grüße".encode(), "Grüße".encode("latin-1"), b"\xff\xfe", "日本".encode(), b"\xc3", b"plain", b"\xe2\x82")
    one, two, three = (source.choice(words) for _ in range(3))
    fields = [
        b"From: " + one + b" <ann@x.test>",
        b'To: "' + two + b'" <bob@y.test>, ' + three + b"@z.test",
        b"Subject: " + one + b" " + two,
        b"Date: Mon, 2 Mar 2026 10:00:00 +0000",
        b"Content-Type: text/plain; name=" + (b'"' + two + b'"' if source.random() < 0.8 else two),
        b'Content-Disposition: attachment; filename="' + three + b'"',
        b"Content-Description: " + two,
        b"In-Reply-To: <" + one + b"@x>",
    ]
    source.shuffle(fields)
    return _message([b"MIME-Version: 1.0", *fields[: source.randint(3, 8)]], one + b"\r\n")


def parameters(source: random.Random) -> bytes:
    """RFC 2231's pieces and encodings, doubled and unfinished parameters, comments and garbage."""
    pool = (
        "name*=utf-8''%e2%82%ac.txt",
        "name*=UTF-8'en'a%20b",
        "name*0*=utf-8''a%20",
        'name*1="b c"',
        "name*2=d",
        "name=plain.txt",
        'name="a \\"quoted\\" name"',
        "name*0=x",
        "name*1*=%41",
        "name*=broken",
        "name*=utf-8''%zz%4",
        "name*x=y",
        'charset="utf-8"',
        "charset=us-ascii (comment)",
        "format=flowed",
        "=value",
        "novalue",
        "novalue=",
        'a="',
        'a=""',
        "A=upper",
        "a=b=c",
        "a = b",
        "x y=z",
        "delsp=yes;;",
        '"q"=r',
    )
    chosen = [source.choice(pool) for _ in range(source.randint(1, 5))]
    joined = source.choice(("; ", ";", " ; ", ";\r\n\t")).join(chosen)
    kind = source.choice(("text/plain", "application/octet-stream", "image/x (really)", "TEXT/HTML", "text/x.y-z+w"))
    shown = [source.choice(pool).replace("name", "filename") for _ in range(source.randint(0, 3))]
    disposition = "; ".join([source.choice(("attachment", "inline", "ATTACHMENT", "form-data")), *shown])
    return _message([*_HEAD, f"Content-Type: {kind}; {joined}", f"Content-Disposition: {disposition}"])


def empty(source: random.Random) -> bytes:
    """Parts, headers and bodies without anything in them."""
    pieces = (b"--b\r\n\r\n", b"--b\r\n", b"--b\r\n\r\n\r\n", b"--b\r\nContent-Type: text/plain\r\n\r\n")
    pieces += (b"--b\r\nContent-Type: message/rfc822\r\n\r\n", b"--b\r\nContent-Type: message/rfc822\r\n\r\n\r\n")
    pieces += (b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n", b"--b\r\nContent-Type: text/html\r\n")
    body = b"".join(source.choice(pieces) for _ in range(source.randint(0, 4))) + source.choice((b"--b--\r\n", b""))
    kind = source.choice(("multipart/mixed; boundary=b",) * 4 + ("message/rfc822", "text/plain", "", "multipart/mixed"))
    fields = [*_HEAD[: source.randint(1, 5)], f"Content-Type: {kind}"] if kind else list(_HEAD[: source.randint(1, 5)])
    whole = _message(list(fields), body)
    return whole if source.random() < 0.8 else whole.partition(b"\r\n\r\n")[0] + b"\r\n"


def line_ends(source: random.Random) -> bytes:
    """A bare CR in fields and text, and CRs before CRLF."""
    ends = (b"\r\n", b"\r\n", b"\r\n", b"\r\r\n")
    out = b""
    for field in (*_HEAD, "Subject: one\rtwo", "Content-Type: multipart/mixed; boundary=b"):
        out += field.encode() + source.choice(ends)
    lines = (b"--b", b"", b"text", b"a\rb", b"\r", b"--b", b"Content-Type: text/plain", b"--b--")
    return out + b"\r\n" + b"".join(source.choice(lines) + source.choice(ends) for _ in range(8))


def huge(source: random.Random) -> bytes:
    """Long fields and many of them."""
    roll = source.randrange(6)
    fields = list(_HEAD)
    if roll == 0:
        fields.append("Subject: " + "word " * source.randint(500, 4000))
    elif roll == 1:
        fields.append("Cc: " + ",\r\n ".join(f"Name {n} <n{n}@x.test>" for n in range(source.randint(100, 800))))
    elif roll == 2:
        fields += [f"X-Field-{n}: {n}" for n in range(source.randint(100, 1000))]
    elif roll == 3:
        fields.append("References: " + "\r\n ".join(f"<{n}.{'x' * 30}@x.test>" for n in range(300)))
        fields.append("Subject: Re: references")
    elif roll == 4:
        fields.append("Subject:" + "\r\n folded" * source.randint(100, 900))
    else:
        fields.append("Content-Type: text/plain" + "".join(f"; p{n}=v{n}" for n in range(source.randint(20, 200))))
    return _message(list(fields))


def inside(source: random.Random) -> bytes:
    """Messages within messages, some of them without a header, with odd encodings, or cut."""
    out = source.choice(
        (b"Subject: core\r\nFrom: c@x.test\r\n\r\ncore\r\n", b"\r\nno header\r\n", b"Subject: cut\r\n", b"")
    )
    for level in range(source.randint(1, 5)):
        encoding = source.choice(("", "", "", "7bit", "8bit", "base64", "quoted-printable"))
        fields: list[str | bytes] = [f"Subject: level {level}", f"From: L{level} <l{level}@x.test>"]
        fields += [f"Content-Transfer-Encoding: {encoding}"] if encoding else []
        if source.random() < 0.4:
            fields.append(f"Content-Type: multipart/digest; boundary=d{level}")
            out = b"--d%d\r\n\r\n%b\r\n--d%d--\r\n" % (level, out, level)
        else:
            kind = source.choice(("rfc822", "RFC822", "rfc822; x=y", "global", "partial; id=x", "delivery-status"))
            fields.append(f"Content-Type: message/{kind}")
        out = _message(fields, out)
    return out


def doubled(source: random.Random) -> bytes:
    """Fields that may stand once, twice and with other values."""
    pool = [
        "Subject: first",
        "Subject: second",
        "From: one@x.test",
        "From: Two <two@x.test>",
        "To: a@x.test",
        "To: b@x.test, c@x.test",
        "Cc: d@x.test",
        "CC: e@x.test",
        "Date: Mon, 2 Mar 2026 10:00:00 +0000",
        "Date: Tue, 3 Mar 2026 10:00:00 +0000",
        "Message-ID: <1@x>",
        "Message-Id: <2@x>",
        "In-Reply-To: <3@x>",
        "In-Reply-To: <4@x> <5@x>",
        "Sender: s@x.test",
        "Reply-To: r@x.test",
        "Reply-To:",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Type: text/html",
        "Content-Transfer-Encoding: 7bit",
        "Content-Transfer-Encoding: base64",
        "Bcc: f@x.test",
    ]
    source.shuffle(pool)
    return _message(["MIME-Version: 1.0", *pool[: source.randint(6, 20)]], b"dGV4dA==\r\n")


def encoded_words(source: random.Random) -> bytes:
    """RFC 2047's words cut within characters, unfinished, in unknown charsets, within quotes and comments."""
    pool = (
        "=?utf-8?q?caf=C3=A9?=",
        "=?UTF-8?B?R3LDvMOfZQ==?=",
        "=?utf-8?B?R3LD?= =?utf-8?B?vMOfZQ==?=",
        "=?utf-8?q?=C3?=\r\n =?utf-8?q?=A9?=",
        "=?iso-8859-1?q?gr=FC=DFe?=",
        "=?x-unknown?q?abc?=",
        "=?utf-8?q?unfinished",
        "=?utf-8?x?abc?=",
        "=?utf-8?q?a b?=",
        "=?utf-8?q?a_b=20c?=",
        "=?utf-8?B?not base64?=",
        "=?utf-8?B?R3LDvMOfZQ?=",
        "=?utf-8*de?q?Gr=C3=BC=C3=9Fe?=",
        "=?utf-8?q??=",
        "=??q?x?=",
        "=?us-ascii?q?=41?==?us-ascii?q?=42?=",
        "plain",
        "[list]",
        "Re:",
        "(fwd)",
    )
    subject = " ".join(source.choice(pool) for _ in range(source.randint(1, 4)))
    name, comment = source.choice(pool), source.choice(pool)
    return _message(
        [
            f"Subject: {subject}",
            source.choice((f"From: {name} <a@x.test>", f'From: "{name}" <a@x.test>', f"From: a@x.test ({comment})")),
            f"To: {comment} <b@x.test>, c@x.test",
            "Date: Mon, 2 Mar 2026 10:00:00 +0000",
            f'Content-Type: text/plain; name="{name.replace(chr(13) + chr(10), "")}"',
        ]
    )


def dates(source: random.Random) -> bytes:
    """Dates as found in the wild: zones by name, two digits, comments, no seconds, no sense."""
    day, year = source.randint(1, 28), source.choice(("2026", "26", "1999", "99", "70", "2000", "1900", "10000"))
    month = source.choice(("Mar", "mar", "MAR", "Mär", "March", "13", "Feb"))
    time = source.choice(("10:00:00", "10:00", "1:2:3", "24:00:00", "23:59:60", "10.00.00", "10:00:00 PM", ""))
    zone = source.choice(("+0000", "-0000", "GMT", "EST", "PDT", "Z", "CET", "+9999", "-0530", "+530", "", "A", "UT"))
    week = source.choice(("Mon, ", "Mon,", "Monday, ", "", "mon, ", "Xyz, ", "Mon "))
    comment = source.choice(("", " (comment)", " (nested (one))", " (unclosed"))
    forms = (
        f"{week}{day} {month} {year} {time} {zone}{comment}",
        f"{week}{day:02} {month} {year}  {time}  {zone}{comment}",
        f"{week}{day}-{month}-{year} {time} {zone}",
        f"{week}\r\n {day} {month} {year} {time} {zone}",
        f"2026-03-{day:02}T{time or '10:00:00'}Z",
        f"Mon Mar {day:2} 10:00:00 2026",
        "",
        "garbage",
        f"{day}",
    )
    form = source.choice(forms[:4] * 3 + forms)
    return _message(["From: a@x.test", f"Date: {form}", f"Subject: date {form[:20].strip()}", "Message-ID: <d@x.test>"])


_ADDRESSES = (
    "undisclosed-recipients:;",
    "Team: a@x.test, B <b@x.test>;",
    "Empty:;",
    "<@r1.test,@r2.test:d@x.test>",
    '"quoted local"@x.test',
    '"with \\"quotes\\"" <e@x.test>',
    "f@x.test (Comment Name)",
    "(before) g@x.test",
    "First Last <h@x.test> (after)",
    "John Q. Public <i@x.test>",
    "j@[192.0.2.1]",
    "<k@x.test>",
    "<>",
    "nodomain",
    "@nolocal.test",
    "l@",
    "t @ x . test",
    "u..v@x.test",
    "Name, With Comma <w@x.test>",
    "=?utf-8?q?J=C3=BCrgen?= <y@x.test>",
    "MAILER-DAEMON",
    "Name\r\n <cc@x.test>",
    "<dd@x.test>",
)
_NO_ADDRESSES = (
    "Team: a@x.test",
    "Outer: Inner: a@x.test;;",
    "m@x.test,",
    ", n@x.test",
    ",,",
    '"unclosed <o@x.test>',
    "(unclosed p@x.test",
    "q@x.test <r@x.test>",
    "Name <s@x.test",
    "x@y@z.test",
    "z@x.test; aa@x.test",
    '"Name" bb@x.test',
    "a\\b@x.test",
)


def _addressed(source: random.Random, pool: tuple[str, ...]) -> bytes:
    fields = []
    for name in ("From", "Sender", "Reply-To", "To", "Cc", "Bcc"):
        if name == "From" or source.random() < 0.6:
            fields.append(f"{name}: {', '.join(source.choice(pool) for _ in range(source.randint(1, 3)))}")
    return _message([*fields, "Subject: addresses", "Date: Mon, 2 Mar 2026 10:00:00 +0000"])


def addresses(source: random.Random) -> bytes:
    """Groups, routes, quotes, comments, names with dots and commas, addresses without one side."""
    return _addressed(source, _ADDRESSES)


def no_addresses(source: random.Random) -> bytes:
    """Groups within groups, lists with holes, quotes and brackets that are not closed."""
    return _addressed(source, _ADDRESSES + _NO_ADDRESSES * 2)


def types(source: random.Random) -> bytes:
    """Content fields that are odd, empty or not of their grammar."""
    kinds = ("", "text", "/", "text/", "/plain", "text plain", "text/plain/x", "text/ plain", "text /plain", "a b/c")
    kinds += ("text/plain;", "multipart/mixed", "multipart/x; boundary=", "message/rfc822;", "(c)text/plain", "*/*")
    kinds += ("TEXT/PLAIN; CHARSET=US-ASCII", "text/plain charset=utf-8", '"text"/"plain"', "text/html;;;x=y")
    encodings = ("7BIT", "base64 ", "(c) base64", "quoted-printable; x", "x-uuencode", "", "8bit, 7bit", '"base64"')
    others = [
        "Content-ID: <id@x>",
        "Content-ID: id without brackets",
        "Content-ID:",
        "Content-Description: some text (c)",
        "Content-Description: =?utf-8?q?caf=C3=A9?=",
        "Content-Description:",
        "Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==",
        "Content-Language: en",
        "Content-Language: en, de, i-klingon",
        "Content-Language: en (English), ,de",
        "Content-Language:",
        "Content-Location: http://x.test/a b",
        "Content-Location:\r\n http://x.test/\r\n folded",
        "Content-Disposition:",
        "Content-Disposition: inline (c); filename=x",
        "Content-Disposition: ; filename=x",
    ]
    source.shuffle(others)
    fields = [f"Content-Type: {source.choice(kinds)}", f"Content-Transfer-Encoding: {source.choice(encodings)}"]
    return _message([*_HEAD, *fields[: source.randint(0, 2)], *others[: source.randint(0, 5)]])


def encodings(source: random.Random) -> bytes:
    """Bodies in base64 and quoted-printable, whole and damaged."""
    if source.random() < 0.5:
        raw = base64.encodebytes(source.randbytes(source.randint(0, 400))).replace(b"\n", b"\r\n")
        damage = (b"", b"", b"\r\n\r\n", b"====\r\n", b"   \r\n")
        return _message([*_HEAD, "Content-Transfer-Encoding: base64"], raw + source.choice(damage))
    pieces = (b"a=3D", b"=C3=A9", b"=c3=a9", b"=\r\n", b"= \r\n", b"=\t\r\n", b" \r\n", b"text", b"\r\n", b"=20\r\n")
    body = b"".join(source.choice(pieces) for _ in range(source.randint(1, 12))) + b"\r\n"
    return _message(
        [*_HEAD, "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: quoted-printable"], body
    )


def headers(source: random.Random) -> bytes:
    """Lines that are no fields, names with blanks, folds of nothing, no header, no body."""
    pool = [
        "Subject : blank before the colon",
        "Subject:no blank",
        "SUBJECT:\tupper case and a tab",
        "no colon here",
        ": no name",
        " a fold first",
        "X-Empty:",
        "X-Folded:\r\n\r\n"[:9],
        "Subject: folded\r\n  twice\r\n\tand again",
        "Subject:\r\n only a fold",
        "Sub ject: blank within",
        "From a@x.test Mon Mar  2 10:00:00 2026",
        ">From: quoted",
        "To: a@x.test\r\n ",
        "X: " + "y" * 998,
        "Subject:   many   blanks   ",
        "Subject: tab\tin it",
        "Subject: ends with a backslash\\",
        'Subject: "quotes" and \\ backslash',
    ]
    source.shuffle(pool)
    fields = [*_HEAD[: source.randint(0, 4)], *pool[: source.randint(1, 6)]]
    if source.random() < 0.5:
        source.shuffle(fields)
    whole = _message(list(fields), _text(source))
    return whole if source.random() < 0.85 else b"\r\n" + whole


KINDS: dict[str, Callable[[random.Random], bytes]] = {
    each.__name__: each
    for each in (
        nested,
        colliding,
        boundaries,
        eight_bit,
        parameters,
        empty,
        line_ends,
        huge,
        inside,
        doubled,
        encoded_words,
        dates,
        addresses,
        no_addresses,
        types,
        encodings,
        headers,
    )
}


def corpus(of_each: int) -> dict[str, bytes]:
    """So many messages of each kind, by name."""
    return {
        f"{name}-{seed}": make(random.Random(f"{name} {seed}"))
        for name, make in KINDS.items()
        for seed in range(of_each)
    }
