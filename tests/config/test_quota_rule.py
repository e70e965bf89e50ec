"""Dovecot's quota rules; what the transaction makes of them: tests/store/test_store_quota.py."""

import pytest

from fastmta.config.consistency import inconsistencies
from fastmta.config.schema import Config
from fastmta.config.values import parse_quota_rules
from fastmta.model.quota import MailboxRule, QuotaRules


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
def test_limits_of_accounts_are_read(rule: str, limits: tuple[int, int]) -> None:
    assert parse_quota_rules([rule]) == QuotaRules(*limits)
    assert "quota_rule" not in dict(inconsistencies(Config(quota_rule=rule)))


@pytest.mark.parametrize(
    ("rule", "read"),
    [
        ("Trash:storage=+100M", MailboxRule("Trash", 100 << 20)),
        ("Trash:storage=100M:messages=-5", MailboxRule("Trash", 100 << 20, -5)),
        ("Archive/*:storage=+10%%:messages=20%", MailboxRule("Archive/*", 10, 20, True, True)),
        ("inbox:bytes=-1", MailboxRule("INBOX", -1)),
        ("Spam:ignore", MailboxRule("Spam", ignore=True)),
    ],
)
def test_rules_of_mailboxes_are_read(rule: str, read: MailboxRule) -> None:
    """Without a plus too they come on top of the account's limit: so has Debian's Dovecot 2.3.19."""
    assert parse_quota_rules(["*:storage=1M", "", rule]) == QuotaRules(1 << 20, 0, (read,))
    assert not {name for name, _ in inconsistencies(Config(quota_rule2=rule))} & {"quota_rule", "quota_rule2"}


@pytest.mark.parametrize(
    "rule",
    [
        "*",
        "Trash",
        "*:storage=10%",
        "*:storage=+1M",
        "*:messages=-1",
        "*:messages=4294967296",
        "*:ignore",
        "Spam/*:ignore",
        "1G",
        "Trash:storage=10K%",
        "Trash:size=1",
        ":storage=1",
    ],
)
def test_what_is_not_obeyed_is_refused(rule: str) -> None:
    assert "quota_rule" in dict(inconsistencies(Config(quota_rule=rule)))
