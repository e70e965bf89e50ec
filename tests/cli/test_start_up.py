"""The small programs stay small: scripts call them for every mail, monitoring every few seconds."""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmta.store import MailStore
from fastmta.store.mailstore import PARTS
from tests.support.server import Server

REPOSITORY = Path(__file__).parents[2]
# What costs more to load than all of our own modules together, or has no business in them.
HEAVY = {
    "asyncio",
    "argon2",
    "click",
    "cryptography",
    "dns",
    "fastmta._parser",
    "fastmta._store",
    "fastmta.config.load",
    "fastmta.config.schema",
    "fastmta.runtime.log",
    "fastmta.store",
    "idna",
    "inspect",
    "msgspec",
    "rich",
    "ssl",
    "subprocess",
    "uvloop",
}
# What not even reading the store needs, though its libraries would take it.
NEVER_NEEDED = {"pathlib", "socket", "typing_extensions"}
CPU_S = 0.2  # of the best of some runs, on a machine of any age and load; 0.05 where this was written
RUNS = 5
_PROGRAM = """
import sys
from fastmta.cli.{module} import main
code = main(sys.argv[2:])
found = set(sys.argv[1].split()) & set(sys.modules)
assert not found, found
sys.exit(code)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), services=()) as made:
        yield made


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("sendmail", ["-f", "me@example.test", "you@parked.test"]),
        ("sendmail", ["-t"]),
        ("sendmail", ["-bp"]),
        ("sendmail", ["-q"]),
        ("mailq", []),
        ("mailq", ["--json"]),
        ("postmap", ["MAP"]),
        ("postmap", ["-q", "key", "MAP"]),
        ("program", ["queue", "list"]),
        ("program", ["user", "list"]),
        ("program", ["user", "list", "--json"]),
        ("program", ["alias", "list"]),
        ("program", ["queue", "list", "--json", "--domain", "parked.test"]),
        ("program", ["queue", "stats"]),
        ("program", ["queue", "shape", "-s"]),
        ("program", ["queue", "top", "--json"]),
        ("program", ["queue", "flush"]),
        ("program", ["queue", "hold", "--domain", "nosuch.test"]),
        ("program", ["queue", "release", "--sender=nosuch@x.test", "--json"]),
        ("program", ["queue", "requeue", "--hop", "smtp:nosuch.test"]),
        ("program", ["queue", "delete", "--yes", "--older", "9d"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_small_program_loads_nothing_heavy(server: Server, tmp_path: Path, module: str, arguments: list[str]) -> None:
    (tmp_path / "map").write_text("key value\n")
    arguments = [str(tmp_path / "map") if each == "MAP" else each for each in arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "FASTMTA_CONFIG": str(server.config_path)}
    used = []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM.format(module=module), " ".join(HEAVY), *arguments],
            input=b"To: you@parked.test\n\nhello\n",
            capture_output=True,
            env=environment,
            timeout=60,
            check=False,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(used) < CPU_S


@pytest.mark.parametrize("arguments", [["serve"], ["serve", "-c", "x.toml"], ["serve", "--config", "x.toml"]], ids=str)
def test_a_plain_serve_becomes_the_supervisor_with_nothing_heavy_loaded_and_as_any_other_form(
    arguments: list[str],
) -> None:
    program = """
import os, sys
class Became(BaseException): pass
def execve(path, argv, environment):
    raise Became(path, argv, environment)
os.execve = execve
from fastmta.cli.program import main
def became(arguments):
    try:
        main(arguments)
    except Became as all_of_it:
        return all_of_it.args
plain = became(sys.argv[2:])
found = set(sys.argv[1].split()) & set(sys.modules)
assert not found, found
assert plain[1][:3] == [sys.executable, "-m", "fastmta.supervisor.main"], plain
assert plain[2]["PYTHONSAFEPATH"] == "1"
assert plain == became(sys.argv[3:] + sys.argv[2:3])  # `-c FILE` before the command
"""
    done = subprocess.run(
        [sys.executable, "-c", program, " ".join(HEAVY), *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "parts", "said"),
    [
        (["mailq"], {"queue", "suspensions"}, b"Mail queue is empty\n"),
        (["program", "queue", "list", "--json"], {"queue", "suspensions"}, b"[]\n"),
        (["program", "queue", "stats"], {"queue"}, b"messages 0, 0\nrecipients active 0, deferred 0, held 0\n"),
        (["program", "queue", "top", "--json"], {"queue", "suspensions"}, b"[]\n"),
        (["program", "queue", "shape", "-b", "2"], {"queue"}, b"       T  5  5+\nTOTAL  0  0   0\n"),
        (["program", "alias", "list", "--json"], {"accounts", "aliases"}, b"[]\n"),
        (["program", "user", "list", "--json"], {"accounts"}, b"[]\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_listing_without_a_server_loads_the_store_and_little_else(
    tmp_path: Path, words: list[str], parts: set[str], said: bytes
) -> None:
    MailStore.open(tmp_path / "data").close()
    (tmp_path / "fastmta.toml").write_text('myhostname = "mx.example.test"\ndata_directory = "data"\n')
    needed = {"fastmta._store", "fastmta.store", "msgspec"}
    if "--json" in words:
        needed.add("json")
    unwanted = ((HEAVY | {"json"}) - needed) | NEVER_NEEDED | {f"fastmta.store.{part}" for part in set(PARTS) - parts}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(module=words[0]), " ".join(unwanted), *words[1:]],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "FASTMTA_CONFIG": str(tmp_path / "fastmta.toml")},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == said


def test_every_part_of_the_store_is_in_the_list_that_a_server_loads_beforehand() -> None:
    """A worker is a fork: what it loads later is loaded by each, on its loop."""
    program = """
import sys
from fastmta.store import MailStore
MailStore.load()
before = set(sys.modules)
store = MailStore.open(sys.argv[1])
made = [name for name in dir(MailStore) if type(vars(MailStore).get(name)).__name__ == "cached_property"]
for name in made:
    getattr(store, name)
assert len(made) > 10, made
assert set(sys.modules) == before, set(sys.modules) - before
"""
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [sys.executable, "-c", program, directory],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
