"""Accounts as `fastmta user list` prints them; loads nothing that a small command does not need."""

from collections.abc import Iterable
from typing import Protocol

from fastmta.cli.output import print_table, size


class Listed(Protocol):
    address: str
    enabled: bool
    quota_bytes: int
    used_bytes: int
    messages: int
    created_at: str


def order(account: Listed) -> tuple[str, str]:
    """By domain, then by name."""
    return account.address.rpartition("@")[2], account.address


def listed(accounts: Iterable[Listed]) -> None:
    """Prints them as a table."""
    rows = [
        (
            each.address,
            each.messages,
            size(each.used_bytes),
            size(each.quota_bytes) if each.quota_bytes else "-",
            each.created_at,
            "" if each.enabled else "disabled",
        )
        for each in accounts
    ]
    print_table(("ADDRESS", "MESSAGES", "USED", "QUOTA", "CREATED", "STATE"), rows, right=(1, 2, 3))
