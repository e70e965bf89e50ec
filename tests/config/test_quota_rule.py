"""Dovecot's quota rules of whole accounts."""

import pytest

from fastmta.config.consistency import inconsistencies
from fastmta.config.schema import Config
from fastmta.config.values import parse_quota_rule


@pytest.mark.parametrize(
    ("rule", "limits"),
    [
        ("", (0, 0)),
        ("*:storage=1G", (2**30, 0)),
        ("*:storage=512", (512 * 1024, 0)),
        ("*:bytes=512", (512, 0)),
        ("*:messages=1000", (0, 1000)),
        ("*:storage=1M:messages=7", (2**20, 7)),
    ],
)
def test_limits_are_read(rule: str, limits: tuple[int, int]) -> None:
    assert parse_quota_rule(rule) == limits
    assert "quota_rule" not in dict(inconsistencies(Config(quota_rule=rule)))


@pytest.mark.parametrize(
    "rule", ["*", "Trash:storage=+100M", "*:storage=10%", "*:messages=-1", "*:messages=4294967296", "*:ignore", "1G"]
)
def test_what_is_not_obeyed_is_refused(rule: str) -> None:
    assert "quota_rule" in dict(inconsistencies(Config(quota_rule=rule)))
