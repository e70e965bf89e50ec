"""`make run`: a server with a demo domain and two accounts on loopback, made on first start, served until Ctrl-C.

    python -m fastmta.supervisor.demo [DIRECTORY]        DIRECTORY is ./data by default

What exists is kept: the configuration may be edited, and mail stays between runs.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

from fastmta.auth.passwords import hash_password
from fastmta.cli.init import initialise
from fastmta.config.default import DEMO_DOMAIN, DEMO_PORTS
from fastmta.config.load import load
from fastmta.config.schema import Config
from fastmta.model.errors import FastMTAError
from fastmta.model.services import NAMES
from fastmta.runtime.lock import lock_directory
from fastmta.store import MailStore
from fastmta.supervisor.main import serve

ACCOUNTS: Final = ("alice", "bob")
ROLES: Final = ("postmaster", "abuse")  # whose mail goes to the first account: they always have a home
PASSWORD: Final = "demo"
LOCK_WAIT_S: Final = 30.0


def prepare(directory: Path) -> Config:
    """Writes what is missing under `directory`, adds the accounts, and returns the configuration."""
    file = directory / "fastmta.toml"
    if not file.exists():
        initialise(directory, domain=DEMO_DOMAIN, ports=DEMO_PORTS, workers_may_be_root=os.geteuid() == 0)
    config = load(file)
    add_accounts(Path(config.data_directory))
    return config


def add_accounts(data_directory: Path) -> None:
    """Adds the demo's accounts where they are missing. Waits for a server that is just leaving."""
    data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock_fd = lock_directory(
        data_directory,
        wait_s=LOCK_WAIT_S,
        waiting=lambda holder: print(f"waiting for process {holder}, which has {data_directory}", file=sys.stderr),
    )
    try:

        async def add() -> None:
            store = MailStore.open(data_directory)
            store.attach(asyncio.get_running_loop())
            try:
                for name in ACCOUNTS:
                    address = f"{name}@{DEMO_DOMAIN}"
                    if store.accounts.lookup(address) is None:
                        await store.accounts.add(address, hash_password(PASSWORD))
                for role in ROLES:
                    address = f"{role}@{DEMO_DOMAIN}"
                    if store.aliases.lookup(address) is None and store.accounts.lookup(address) is None:
                        await store.aliases.add(address, (f"{ACCOUNTS[0]}@{DEMO_DOMAIN}",))
            finally:
                store.detach()
                store.close()

        asyncio.run(add())
    finally:
        os.close(lock_fd)


def describe(config: Config) -> str:
    """What somebody who has just started it wants to know."""
    listening = {name: config.listen.of(name) for name in NAMES}
    lines = [f"FastMTA, configured by {config.config_file}", "Listening on:"]
    lines += [f"  {name:<12} {' '.join(where)}" for name, where in listening.items() if where]
    lines += ["Accounts:", *(f"  {name}@{DEMO_DOMAIN}, password {PASSWORD}" for name in ACCOUNTS), "Try:"]
    for endpoint in config.listen.of("smtp")[:1]:
        lines.append(f"  swaks --server {endpoint} --from bob@{DEMO_DOMAIN} --to alice@{DEMO_DOMAIN}")
    for endpoint in config.listen.of("imap")[:1]:
        url = f"imap://{endpoint}/INBOX"
        lines.append(f"  curl --user alice@{DEMO_DOMAIN}:{PASSWORD} '{url};UID=1'")
    return "\n".join((*lines, "Ctrl-C stops it."))


def main(arguments: list[str]) -> int:
    """Prepares, tells, serves; the exit code."""
    directory = Path(arguments[0] if arguments else "data").absolute()
    try:
        config = prepare(directory)
    except FastMTAError as error:
        print(f"fastmta: {error}", file=sys.stderr)
        return 75
    print(describe(config), flush=True)
    return serve(directory / "fastmta.toml")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
