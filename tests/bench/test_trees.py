"""Another source tree, an older one too, is run by its own entry point."""

import os
import subprocess
from pathlib import Path

import pytest

from bench import trees
from tests.support import server


def _package(tree: Path) -> Path:
    """An empty fastmta.cli; with its __init__.py, or an installed one would come first."""
    package = tree / "fastmta/cli"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    return package


def _run(tree: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **trees.environment(tree)}
    return subprocess.run(server.command("serve"), env=environment, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("modules", [("main",), ("main", "program")])
def test_a_tree_is_run_by_the_newest_entry_point_that_it_has(tmp_path: Path, modules: tuple[str, ...]) -> None:
    package = _package(tmp_path)
    for name in modules:
        (package / f"{name}.py").write_text(
            f"import sys\ndef main():\n    print({name!r}, sys.argv[1:])\n    return 3\n"
        )
    done = _run(tmp_path)
    assert (done.returncode, done.stdout) == (3, f"{modules[-1]} ['serve']\n"), done.stderr


def test_a_module_that_is_missing_elsewhere_is_not_passed_over(tmp_path: Path) -> None:
    package = _package(tmp_path)
    (package / "program.py").write_text("import fastmta.nowhere\n")
    (package / "main.py").write_text("def main():\n    return 0\n")
    done = _run(tmp_path)
    assert done.returncode == 1
    assert "fastmta.nowhere" in done.stderr
