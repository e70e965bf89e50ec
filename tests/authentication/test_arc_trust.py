"""Whose seals vouch: trusted ones from the newest back, for the domain in From, over a chain that holds."""

import pytest

from fastmta.authentication.arc import ArcVerdict
from fastmta.authentication.arc_trust import vouching_sealer
from fastmta.authentication.message import parse_fields

RESULTS = "spf=fail (x; dmarc=pass header.from=author.test) smtp.mailfrom=a.test"


def chain(*results: str) -> tuple:
    header = ""
    for number, text in enumerate(results, 1):
        header = (
            f"ARC-Seal: i={number}; a=rsa-sha256; cv=pass; d=d{number}.test; s=s; b=AA\r\n"
            f"ARC-Message-Signature: i={number}; a=rsa-sha256; d=d{number}.test; s=s; h=from; bh=AA; b=AA\r\n"
            f"ARC-Authentication-Results: i={number}; mx.test; {text}\r\n" + header
        )
    sealers = tuple(f"d{number}.test" for number in range(1, len(results) + 1))
    return parse_fields(header.encode()), ArcVerdict("pass", len(results), "", sealers=sealers)


PASS = "spf=none;\r\n\tdmarc=pass (p=reject) header.from=author.test"


@pytest.mark.parametrize(
    ("results", "trusted", "sealer"),
    [
        ((PASS,), {"d1.test"}, "d1.test"),
        ((PASS,), {"d2.test"}, ""),
        ((PASS,), set(), ""),
        ((PASS, "dmarc=fail header.from=author.test"), {"d1.test", "d2.test"}, "d1.test"),
        ((PASS, "dmarc=fail header.from=author.test"), {"d1.test"}, ""),
        ((PASS, PASS), {"d2.test"}, "d2.test"),
        (("dmarc=fail header.from=author.test", "none"), {"d1.test", "d2.test"}, ""),
        (("dmarc=pass header.from=other.test",), {"d1.test"}, ""),
        ((RESULTS,), {"d1.test"}, ""),
        (("x=y (dmarc=pass header.from=author.test)",), {"d1.test"}, ""),
        (('x="; dmarc=pass header.from=author.test"',), {"d1.test"}, ""),
    ],
)
def test_who_vouches(results: tuple[str, ...], trusted: set[str], sealer: str) -> None:
    fields, verdict = chain(*results)
    assert vouching_sealer(fields, verdict, trusted, "author.test") == sealer


def test_a_chain_that_fails_vouches_for_nobody() -> None:
    fields, verdict = chain(PASS)
    assert vouching_sealer(fields, verdict._replace(result="fail"), {"d1.test"}, "author.test") == ""
