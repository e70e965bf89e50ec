"""One-time codes: RFC 6238's own values, and which step a code is of."""

import pytest

from fastmta.auth.totp import code_at, matching_step, secret_text, uri

SECRET = b"12345678901234567890"


@pytest.mark.parametrize(
    ("at_s", "code"),
    [  # RFC 6238 appendix B, of which the last six digits
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_the_codes_of_the_rfc(at_s: int, code: str) -> None:
    assert code_at(SECRET, at_s // 30) == code
    assert matching_step(SECRET, code, at_s, 0) == at_s // 30


def test_a_step_that_was_used_or_one_before_it_matches_no_more() -> None:
    at_s = 1_800_000_000
    step = at_s // 30
    assert matching_step(SECRET, code_at(SECRET, step), at_s, step) is None
    assert matching_step(SECRET, code_at(SECRET, step - 1), at_s, step) is None
    assert matching_step(SECRET, code_at(SECRET, step + 1), at_s, step) == step + 1


@pytest.mark.parametrize("code", ["", "1", "12345\u0661", "1234567", "abcdef", "\ud800"])
def test_what_is_no_code_matches_nothing(code: str) -> None:
    assert matching_step(SECRET, code, 59, 0) is None


def test_what_an_authenticator_program_is_given() -> None:
    assert secret_text(SECRET) == "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    assert uri(SECRET, "bill@example.test", "example.test") == (
        "otpauth://totp/example.test%3Abill%40example.test?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=example.test"
    )
