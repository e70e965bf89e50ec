"""What destroys is confirmed at a terminal, refused without one, and done at once with --yes."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from fastmta.cli.failures import EX_USAGE

REPOSITORY = Path(__file__).parents[2]
DESTROYING = ("user delete bill", "alias delete sales", "mailbox purge bill", "queue delete --all")


@pytest.fixture
def filled(cli):
    cli.user()
    cli.ok("alias", "add", "sales", "bill")
    cli.sendmail("bill", "far@away.test")
    return cli


def what_is_there(cli):
    return (
        [each["address"] for each in cli.ok("user", "list", "--json").json],
        cli.ok("alias", "list", "--json").json,
        sum(each["messages"] for each in cli.ok("user", "list", "--json").json),
        len(cli.ok("queue", "list", "--json").json),
    )


@pytest.mark.parametrize("command", DESTROYING)
@pytest.mark.parametrize("stdin", ["", "n\n", "y\n", "yes\n"])
def test_without_a_terminal_it_is_refused(filled, command, stdin):
    before = what_is_there(filled)
    done = filled(*command.split(), stdin=stdin)
    assert done.code == EX_USAGE
    assert "--yes" in done.err
    assert what_is_there(filled) == before


@pytest.mark.parametrize("command", DESTROYING)
def test_yes_does_it(filled, command):
    before = what_is_there(filled)
    filled.ok(*command.split(), "--yes")
    assert what_is_there(filled) != before


@pytest.mark.parametrize("command", DESTROYING)
@pytest.mark.parametrize(("answer", "is_done"), [(b"n", False), (b"", False), (b"y", True)])
def test_a_terminal_is_asked(filled, command, answer, is_done):
    before = what_is_there(filled)
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from fastmta.cli.main import main; sys.exit(main())", *command.split()],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "FASTMTA_CONFIG": str(filled.config)},
    )
    os.close(terminal)
    said = b""
    while b"[y/N]" not in said:
        said += os.read(main, 4096)
    os.write(main, answer + b"\n")
    try:
        while os.read(main, 4096):
            pass
    except OSError:
        pass  # the other end has closed
    os.close(main)
    assert (process.wait(30) == 0) is is_done
    assert (what_is_there(filled) != before) is is_done
