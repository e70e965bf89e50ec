"""Every action that Postfix's manuals of access(5) and header_checks(5) name is done here, or refused by name."""

import gzip
import re
from pathlib import Path

import pytest

from fastmta.config.load import parse
from fastmta.policy.checks.access import AccessTables
from fastmta.policy.contents import Kind, parse_action, parse_outgoing, problem_of
from fastmta.runtime.clock import ManualClock

MANUALS = Path("/usr/share/man/man5")
ACCESS = {
    "OK": "OK",
    "all-numerical": "12345",
    "4NN": "450 4.2.0 later",
    "5NN": "550 no",
    "REJECT": "REJECT go away",
    "DEFER": "DEFER",
    "DEFER_IF_REJECT": "DEFER_IF_REJECT wait",
    "DEFER_IF_PERMIT": "DEFER_IF_PERMIT",
    "restriction...": "reject_unauth_destination",
    "BCC": "BCC a@example.test",
    "DISCARD": "DISCARD quietly",
    "DUNNO": "DUNNO",
    "FILTER": "FILTER smtp:[127.0.0.1]:10025",
    "HOLD": "HOLD look",
    "PREPEND": "PREPEND X-Seen: yes",
    "REDIRECT": "REDIRECT a@example.test",
    "INFO": "INFO seen",
    "WARN": "WARN careful",
}
CONTENTS = {
    "BCC": "BCC a@example.test",
    "DISCARD": "DISCARD quietly",
    "DUNNO": "DUNNO",
    "FILTER": "FILTER smtp:[127.0.0.1]:10025",
    "HOLD": "HOLD look",
    "IGNORE": "IGNORE",
    "INFO": "INFO seen",
    "PASS": "PASS good",
    "PREPEND": "PREPEND X-Seen: yes",
    "REDIRECT": "REDIRECT a@example.test",
    "REPLACE": "REPLACE X-Seen: yes",
    "REJECT": "REJECT no",
    "STRIP": "STRIP it went",
    "WARN": "WARN careful",
}
LEAVING = ("DUNNO", "IGNORE", "INFO", "PREPEND", "REPLACE", "STRIP", "WARN")  # "supported with smtp header/body checks"


def tables() -> AccessTables:
    return AccessTables(parse('myhostname = "mx.example.test"\n'), ManualClock())


@pytest.mark.parametrize("value", ACCESS.values())
def test_an_action_of_access_5_is_done(value: str) -> None:
    assert tables().problem(value) == ""


@pytest.mark.parametrize("value", ["DELAY 1h", "ACCEPT", "REDIRECT nobody", "PREPEND no field", "FILTER x", "EXPLODE"])
def test_what_is_none_is_named(value: str) -> None:
    assert tables().problem(value).startswith(value)


@pytest.mark.parametrize("word", CONTENTS)
def test_an_action_of_header_checks_5_is_done_or_refused_for_mail_that_leaves(word: str) -> None:
    value = CONTENTS[word]
    assert parse_action(value).word == word
    assert problem_of(Kind.HEADER, value) == ""
    if word in LEAVING:
        assert parse_outgoing(Kind.HEADER, value).word == parse_outgoing(Kind.BODY, value).word == word
    else:
        with pytest.raises(ValueError, match=f"{word}: mail that leaves"):
            parse_outgoing(Kind.HEADER, value)


@pytest.mark.parametrize(
    ("name", "known", "first", "last"),
    [
        ("access", ACCESS, "ACCEPT ACTIONS", "ENHANCED STATUS CODES"),
        ("header_checks", CONTENTS, "ACTIONS", "BUGS"),
    ],
)
def test_the_manual_names_no_other(name: str, known: dict[str, str], first: str, last: str) -> None:
    path = MANUALS / f"{name}.5.gz"
    if not path.exists():
        pytest.skip(f"no manual of {name}(5) (tests/install_packages.sh)")
    text = gzip.decompress(path.read_bytes()).decode()
    part = text[text.rindex(f'.SH "{first}"') : text.rindex(f'"{last}"' if f'"{last}"' in text else last)]
    found = {line.split('"')[1] if '"' in line else line.split()[1] for line in re.findall(r"^\.IP .*$", part, re.M)}
    words = {re.sub(r"\\f[A-Z]|\\", "", each).split()[0] for each in found if each and not each.startswith("\\(bu")}
    assert words - {"421", "521"} <= set(known)
    assert words
