"""Whom a domain's reports go to: addresses and sizes in rua=, and the consent of other organizations."""

import pytest

from fastmta.authentication.dmarc_record import parse_record
from fastmta.pickup.aggregate import Target, may_report_to, targets_of
from tests.authentication.zone import TROUBLE, Zone


@pytest.mark.parametrize(
    ("rua", "wanted"),
    [
        ("mailto:a@b.test", [("a@b.test", 0)]),
        ("mailto:a@b.test!10m, mailto:c@D.test!512", [("a@b.test", 10 << 20), ("c@d.test", 512)]),
        ("MAILTO:a@b.test", [("a@b.test", 0)]),
        ("https://b.test/x, mailto:, mailto:nobody, mailto:a@", []),
        ("mailto:a%40x@b.test?subject=hi", [("a@x@b.test", 0)]),
        ("mailto:a%0d%0aBcc:x@b.test, mailto:a b@c.test, mailto:<a@b.test>", []),
        (",".join(f"mailto:u{n}@b.test" for n in range(50)), [(f"u{n}@b.test", 0) for n in range(5)]),
    ],
)
def test_targets(rua: str, wanted: list[tuple[str, int]]) -> None:
    record = parse_record(f"v=DMARC1; p=none; rua={rua}".encode())
    assert record is not None
    if "%40" in rua:
        wanted = [(each[0], each[1]) for each in wanted]
    assert [tuple(each) for each in targets_of(record)] == wanted


@pytest.mark.parametrize(
    ("host", "may"),
    [
        ("own.test", True),
        ("mail.own.test", True),
        ("other.test", False),
        ("consents.test", True),
        ("nonsense.test", False),
        ("down.test", False),
    ],
)
async def test_another_organization_has_to_consent(host: str, may: bool) -> None:
    zone = Zone(
        {
            "_dmarc.own.test": {"TXT": [b"v=DMARC1; p=none"]},
            "own.test._report._dmarc.consents.test": {"TXT": [b"v=DMARC1;"]},
            "own.test._report._dmarc.nonsense.test": {"TXT": [b"hello"]},
            "own.test._report._dmarc.down.test": TROUBLE,
        }
    )
    assert await may_report_to(zone, "own.test", Target(f"x@{host}", 0)) is may  # type: ignore[arg-type]
