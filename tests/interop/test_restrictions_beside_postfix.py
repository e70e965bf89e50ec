"""Restriction lists and access tables beside Debian's Postfix: generated dialogs get the same codes at the same stages.

FASTMTA_DIALOGS=1000 in the environment makes the run long. What differs, and why, stands in docs/restrictions.md.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.interop.dialogs import MAPS, ZONES, Dialog, Scenario, dialogs, held, scenario
from tests.support import postfix
from tests.support.dns_thread import dns_stub
from tests.support.ports import own_address
from tests.support.server import Server

COUNT = int(os.environ.get("FASTMTA_DIALOGS", "60"))
EACH = 20  # dialogs of a scenario
OURS = {"smtpd_authorized_xclient_hosts": "127.0.0.0/8", "smtpd_error_sleep_time": "0s", "smtpd_hard_error_limit": 100}


def parameters(made: Scenario, config: Path) -> dict[str, str]:
    """The keys of a scenario, whose tables are written."""

    def placed(text: str) -> str:
        for name in MAPS:
            text = text.replace(f"access {name}", f"access texthash:{config}/{name}")
        return text

    for name, lines in made.tables.items():
        (config / name).write_text("\n".join(lines) + "\n")
    keys = dict(made.settings)
    keys |= {f"smtpd_{name}_restrictions": placed(", ".join(words)) for name, words in made.lists.items()}
    return keys | {name: placed(words) for name, words in made.classes.items()}


@pytest.fixture(scope="module", autouse=True)
def _postfix_is_there() -> None:
    reason = postfix.missing()
    if reason:
        pytest.skip(f"{reason} (tests/install_packages.sh)")


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[str]]:
    """A name server at the one port that Postfix's resolver asks, and the program that runs Postfix with it."""
    nameserver = own_address()
    with dns_stub(ZONES, (nameserver, 53)):
        resolv = tmp_path_factory.mktemp("dns") / "resolv.conf"
        resolv.write_text(f"nameserver {nameserver}\noptions timeout:2 attempts:1\n")
        yield ("unshare", "-m", "sh", "-c", f'mount --bind {resolv} /etc/resolv.conf && exec "$@"', "sh")


@pytest.mark.parametrize("seed", range((COUNT + EACH - 1) // EACH))
def test_the_same_codes_at_the_same_stages(seed: int, tmp_path: Path, resolver: Sequence[str]) -> None:
    made = scenario(seed)
    found = list(differences(made, list(dialogs(seed, EACH)), tmp_path, resolver))
    assert not found, "\n\n".join(found)


def differences(made: Scenario, said: list[Dialog], tmp_path: Path, prefix: Sequence[str]) -> Iterator[str]:
    base = {
        "smtpd_restriction_classes": "one, two",
        "virtual_mailbox_domains": "example.test",
        "virtual_mailbox_maps": "inline:{bill@example.test=x, postmaster@example.test=x}",
        "recipient_delimiter": "+",
        "virtual_transport": "discard",
        "default_transport": "discard",
        "relay_transport": "discard",
        "relay_domains": "relay.test",
        "myorigin": "example.test",
        "append_dot_mydomain": "no",
        "inet_protocols": "all",
        "allow_percent_hack": "no",
        "swap_bangpath": "no",
        "mynetworks": "127.0.0.0/8, 10.0.0.0/8",
        "smtpd_error_sleep_time": "0s",
        "smtpd_hard_error_limit": "100",
        "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
        "smtpd_client_connection_count_limit": "0",
    }
    theirs = postfix.Postfix(base, prefix=prefix)
    with (theirs.config / "main.cf").open("a") as file:
        file.writelines(f"{key} = {value}\n" for key, value in parameters(made, theirs.config).items())
    tables = tmp_path / "tables"
    tables.mkdir()
    keys: dict[str, object] = dict(parameters(made, tables))
    keys["smtpd_restriction_classes"] = {name: keys.pop(name) for name in made.classes}
    settings = {
        **OURS,
        **keys,
        "mydestination": [],
        "virtual_mailbox_domains": ["example.test"],
        "relay_domains": ["relay.test"],
        "myorigin": "example.test",
        "mynetworks": ["127.0.0.0/8", "10.0.0.0/8"],
        "recipient_delimiter": "+",
        "smtpd_client_connection_count_limit": 0,
        "dns": {"nameservers": [f"{own_address()}:53"]},
        "transport": {
            "backup.test": "discard:",
            "best.test": "discard:",
            "relay.test": "discard:",
            "elsewhere.test": "discard:",
            "localonly": "discard:",
        },
    }
    ours = Server(tmp_path / "ours", domains=(), services=("smtp",), settings=settings, with_tls=False)
    for address in ("bill@example.test", "postmaster@example.test"):
        ours.add_user(address, "x")
    with theirs, ours:
        for number, dialog in enumerate(said):
            answers = [held(theirs.host, theirs.port, dialog), held(ours.host, ours.port("smtp"), dialog)]
            for (line, their, their_text), (_, our, our_text) in zip(*answers, strict=False):
                if their != our:
                    yield f"{number}, client {dialog.client}: {line}\n  Postfix {their_text}\n  FastMTA {our_text}"
                    break
                if their[:3] in ("421", "521") or (line == "message" and their[0] != "2"):
                    break  # Postfix closes one command later, and has its transaction still
