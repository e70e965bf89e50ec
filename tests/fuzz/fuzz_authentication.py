"""Throws damaged messages, records and keys at DKIM, ARC, SPF, DMARC and Authentication-Results; see harness.py.

An input is a message, then lines of DNS: `name TXT value`, behind a line of "%%". What is asked for in DNS and is not
listed there gets the input's own TXT lines too, so that records of every kind are read damaged.
"""

import asyncio
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from fastmta._canonical import BodyForm, TagError, canonical_field, parse_tags, unsigned_form
from fastmta.authentication.bodies import Bodies, forms_needed
from fastmta.authentication.keys import BadKey, parse_key
from fastmta.authentication.message import Field, HeaderTooLong, parse_fields, split_message
from fastmta.authentication.results import authentication_results, consolidated, is_forged, is_ours
from fastmta.authentication.spf_record import RecordError, check_macros
from fastmta.authentication.spf_record import parse_record as parse_spf
from fastmta.authentication.verifying import Client, verify_message
from tests.authentication import slow_forms
from tests.authentication.zone import Zone
from tests.fuzz.harness import AsyncTarget, main

DKIM = (
    b"DKIM-Signature: v=1; a=rsa-sha256; d=example.test; s=s; c=relaxed/simple; h=from:to:subject; l=10; t=1; x=99;\r\n"
    b" bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
)
ARC = (
    b"ARC-Seal: i=1; a=ed25519-sha256; cv=none; d=a.test; s=s; b=AAAA\r\n"
    b"ARC-Message-Signature: i=1; a=rsa-sha256; d=a.test; s=s; h=from; bh=AAAA; b=AAAA\r\n"
    b"ARC-Authentication-Results: i=1; mx.test; spf=pass smtp.mailfrom=a@b\r\n"
)
BODY = b"From: A <a@example.test>, b@example.test\r\nTo: x\r\nSubject: s\r\n\r\nbody \t x\r\n\r\n\r\n"
RESULTS = b'Authentication-Results: mx.test 1; dkim=pass (a (b) \\) "c") header.d="x;y"; spf=fail reason="q\\"q"\r\n'
KEY = b"v=DKIM1; k=rsa; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK; t=y:s; h=sha256; s=email"
SPF = b"v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 a:%{d2}.x mx/24//64 ptr include:b.test exists:%{i}._x.%{o} ?all"
DMARC = b"v=DMARC1; p=reject; sp=quarantine; np=none; adkim=s; aspf=r; rua=mailto:a@b!10m; t=y; psd=n"
RECORDS = (
    KEY,
    SPF,
    DMARC,
    b"v=spf1 redirect=a.test exp=b.test",
    b"v=spf1 include:example.test include:example.test -all",
)


class AnyZone(Zone):
    """Answers every name: TXT of the input, and addresses."""

    def __init__(self, texts: tuple[bytes, ...]) -> None:
        super().__init__()
        self._texts = texts

    async def txt(self, name: str) -> tuple[bytes, ...]:
        self.asked.append((name, "TXT"))
        return self._texts

    async def a(self, name: str) -> tuple[str, ...]:
        self.asked.append((name, "A"))
        return ("192.0.2.1",)

    async def mx(self, domain: str) -> tuple[tuple[int, str], ...]:
        self.asked.append((domain, "MX"))
        return tuple((n, f"mx{n}.test") for n in range(12))


async def offload(work: Any, *arguments: Any) -> Any:
    return work(*arguments)


def tags_or_none(parse: Callable[[bytes], dict[str, bytes]], value: bytes) -> dict[str, bytes] | None:
    try:
        return parse(value)
    except TagError:
        return None


class Authentication(AsyncTarget):
    corpus = (
        *(DKIM + ARC + RESULTS + BODY + b"%%\r\n" + record for record in RECORDS),
        RESULTS * 3 + BODY,
        DKIM * 12 + BODY + b"%%\r\n" + KEY,
        b"From: =?utf-8?q?a?= <@x:y@[1.2.3.4]> (c (d)), g: h@i;\r\n\r\n%%\r\n" + DMARC,
    )
    tokens = (
        *RECORDS,
        DKIM,
        ARC,
        RESULTS,
        b"include:",
        b"%{",
        b"}",
        b"; ",
        b"b=",
        b"h=from:",
        b"i=2",
        b"(",
        b"\\",
        b"/0",
        b"%%\r\n",
    )

    def compare(self, fields: tuple[Field, ...], halves: tuple[bytes, bytes]) -> None:
        """What is compiled with what is slow."""
        header, body = halves
        if [(field.name, field.raw) for field in fields] != slow_forms.fields(header):
            raise AssertionError(f"other fields in {header!r}")
        for form in ("simple", "relaxed"):
            for field in fields:
                if canonical_field(field, form) != slow_forms.field(field, form):  # type: ignore[arg-type]
                    raise AssertionError(f"another {form} form of {field!r}")
                if b":" in field.raw and unsigned_form(field, form) != slow_forms.unsigned(field, form):  # type: ignore[arg-type]
                    raise AssertionError(f"another {form} form of the signature {field!r}")
            pieces: list[bytes] = []
            walk = BodyForm(form, pieces.append)  # type: ignore[arg-type]
            for at in range(0, len(body), 7):
                walk.update(body[at : at + 7])
            walk.finish()
            if b"".join(pieces) != slow_forms.body(body, form):
                raise AssertionError(f"another {form} form of the body {body!r}")
        for value in (header, *(field.value for field in fields)):
            if tags_or_none(parse_tags, value) != tags_or_none(slow_forms.tags, value):
                raise AssertionError(f"other tags in {value!r}")

    async def hold(self, data: bytes) -> None:
        message, _, dns = data.partition(b"%%\r\n")
        texts = tuple(line for line in dns.split(b"\r\n") if line)[:4]
        try:
            fields = parse_fields(split_message(message)[0])
        except HeaderTooLong:
            return
        self.compare(fields, split_message(message))
        bodies = Bodies(forms_needed(fields))
        bodies.update(split_message(message)[1])
        zone = AnyZone(texts or RECORDS[:1])
        async with asyncio.timeout(60):
            verdicts = await verify_message(
                fields, bodies, Client("192.0.2.9", "h.test", "a@example.test"), zone, offload, 1_800_000_000.0
            )
        if len(zone.asked) > 400:
            raise AssertionError(f"{len(zone.asked)} questions to DNS")
        written = authentication_results("mx.test", verdicts.parts("a@example.test"))
        header = written if written.endswith(b"\r\n") else written + b"\r\n"
        if re.search(rb"\r(?!\n)|(?<!\r)\n|\r\n[^ \t]|[\x00-\x08\x0e-\x1f\x7f]", header[:-2]):
            raise AssertionError(f"the field that we write is no field: {written!r}")
        for field in fields:
            is_ours(field, "mx.test"), is_forged(field, "mx.test")
        consolidated(fields, "mx.test")
        for text in texts:
            for parse in (parse_spf, parse_key):
                try:
                    parse(text)
                except (RecordError, BadKey):
                    continue
            try:
                check_macros(text.decode("latin-1"))
            except RecordError:
                continue


if __name__ == "__main__":
    raise SystemExit(main(Authentication, __doc__))
