"""No command of one user holds the loop that others wait for: the short form of `python -m bench.two_users`.

Each row of that table runs against a server until its worker has worked for a moment. What is measured is the processor
time of the longest pass of the worker's loop, inside the worker: a busy machine changes nothing about it. Whoever comes
meanwhile waits for a pass or two; that he is served first then, tests/runtime/test_turns.py says.
"""

import inspect
import multiprocessing
import re
import time
import urllib.request
from collections.abc import Iterator

import pytest

from bench import administration, busy, commands, two_users
from fastmta._parser import VERB_NUMBERS
from fastmta.cli.main import fastmta
from fastmta.imap.commands import COMMANDS
from fastmta.pop3.session import Verb
from fastmta.supervisor import build
from fastmta.supervisor.main import Supervisor
from tests.support.loop_probe import LoopProbe
from tests.support.server import Server

MESSAGES = 20_000
PASS_MS = 20.0  # half of it is usual; what is not cut takes some hundred
WORKED_MS = 60.0  # of the worker while a row runs, its connecting included
COMMAND_MS = 150.0  # the same for commands of the program, which have to start first
LONGEST_S = 10.0
TRIES = 4  # a pass is longer once where the kernel does something in it; a loop that is not cut is long every time
SMALL = {
    "HELD": 1000,
    "CROWDS": 2,
    "CROWD": 1000,
    "IMPORTED": 300,
    "FOLDERS": 2000,
    "ALIASES": 600,
    "VERIFIED": 2000,
    "SHAPED": 200,
    "REPORTED": 50,
    "LINES": 50_000,
}


# --- every command has a row ---


def known() -> Iterator[str]:
    """Every command that there is, by its protocol."""
    yield from (f"imap {name.decode()}" for name in COMMANDS)
    yield from (f"pop3 {verb.value.decode()}" for verb in Verb)
    yield from (f"smtp {name}" for name in VERB_NUMBERS if name)
    yield from (f"http {path}" for path in re.findall(r'"(/\w+)"', inspect.getsource(build)))
    cases = " ".join(re.findall(r"case (.*):", inspect.getsource(Supervisor._command)))
    yield from (f"control {name}" for name in re.findall(r'"(\w+)"', cases))
    yield from (f"fastmta {name}" for name in program(fastmta))


def program(group) -> Iterator[str]:
    import click

    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from (f"{name} {word}" for word in program(command))
        else:
            yield name


def test_every_command_of_every_protocol_has_a_row() -> None:
    found = set(known())
    assert {"imap FETCH", "pop3 RETR", "smtp MAIL", "http /metrics", "control act", "fastmta queue hold"} <= found
    assert [command for command in sorted(found) if commands.row_of(command) is None] == []


def test_no_row_stands_for_a_command_that_is_gone() -> None:
    found = set(known())
    named = {*commands.ROW_OF, *commands.WITHOUT}
    gone = [name for name in named if not any(f"{each} ".startswith(f"{name} ") for each in found)]
    assert gone == []
    assert set(commands.ROW_OF.values()) <= set(two_users.ROWS)


# --- no row holds the loop ---


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, LoopProbe]]:
    directory = tmp_path_factory.mktemp("two_users")
    probe = LoopProbe(directory / "probe")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(administration, name, value)
        patch.setattr(administration, "CROWDED", 3000)
        patch.setattr(busy, "MANY", MESSAGES - 1000)
        server = two_users.prepared(directory, MESSAGES, env=probe.environment)
        with server:
            for path in ("metrics", "healthz"):  # what is loaded at the first question
                with urllib.request.urlopen(f"http://127.0.0.1:{server.port('http')}/{path}", timeout=30) as answer:
                    answer.read()
            yield server, probe


def longest_pass(server: Server, probe: LoopProbe, name: str) -> float:
    """Milliseconds, while the row runs."""
    act = two_users.ROWS[name]
    process = multiprocessing.get_context("fork").Process(target=act, args=(server,), daemon=True)
    worked_ms = COMMAND_MS if name in administration.ROWS else WORKED_MS
    ends_at = time.monotonic() + LONGEST_S
    with probe.measuring():
        process.start()
        while probe.passes.worked_ms < worked_ms and process.is_alive() and time.monotonic() < ends_at:
            process.join(0.005)
    failed = process.exitcode not in (None, 0)
    process.kill()
    process.join()
    assert not failed, f"{name}: what the row does is refused"
    assert probe.passes.count, f"{name}: the worker's loop stands still"
    return probe.passes.most_ms


@pytest.mark.parametrize("name", sorted(two_users.ROWS))
def test_no_pass_of_the_loop_is_long(name: str, probed: tuple[Server, LoopProbe]) -> None:
    server, probe = probed
    measured: list[float] = []
    while not measured or (measured[-1] > PASS_MS and len(measured) < TRIES):
        measured.append(longest_pass(server, probe, name))
    assert measured[-1] <= PASS_MS, measured
