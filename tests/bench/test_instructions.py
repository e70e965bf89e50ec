"""Counting instructions: what is counted is the work, and the same each time; where nothing can be, that is said."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import callgrind, instructions

# Echoes lines, and works for each: valgrind without Python, so that it is up in a second.
_PROGRAM = """
#include <stdio.h>
int main(void) {
    static char line[256];
    while (fgets(line, sizeof line, stdin)) {
        volatile int work = 0;
        for (int i = 0; i < 10000; i++) work += i;
        fputs(line, stdout);
        fflush(stdout);
    }
    return 0;
}
"""
WORK = 10_000


@pytest.mark.skipif(callgrind.missing() != "" or shutil.which("cc") is None, reason="needs valgrind and a C compiler")
def test_an_operation_costs_what_it_executes_without_start_up(tmp_path: Path) -> None:
    (tmp_path / "echo.c").write_text(_PROGRAM)
    subprocess.run(["cc", "-O1", "-o", tmp_path / "echo", tmp_path / "echo.c"], check=True)
    with subprocess.Popen(
        [*callgrind.command(tmp_path), tmp_path / "echo"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **callgrind.environment(tmp_path)},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def work(n: int) -> None:
            for _ in range(n):
                process.stdin.write(b"x\n")
                process.stdin.flush()
                assert process.stdout.readline() == b"x\n"

        work(1)
        counted = callgrind.Counted(process.pid, tmp_path)
        cost = counted.cost(work, 20, 2)
        process.stdin.close()
    assert 3 * WORK < cost.instructions < 8 * WORK
    assert cost.spread < 0.005


def test_without_valgrind_a_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert instructions.main([]) == 0
    assert "valgrind is not installed" in capsys.readouterr().out


def test_an_unknown_row_is_an_error_that_names_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    if callgrind.missing():
        pytest.skip(callgrind.missing())
    with pytest.raises(SystemExit):
        instructions.main(["nonsense"])
    assert "smtp-noop" in capsys.readouterr().err


def test_the_clock_of_the_main_thread_goes_slowly_once_it_is_told(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "real, slow = time.time(), time.monotonic()\n"
        "while time.time() - real < 0.2: pass\n"
        "print((time.monotonic() - slow) / (time.time() - real))\n"
    )
    environment = callgrind.environment(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program, environment["SLOW_CLOCK"]],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0.01 < float(done.stdout) < 0.5
