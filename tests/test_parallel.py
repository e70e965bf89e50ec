"""The processes that run this suite (tests/support/parallel.py): what becomes of tests, and of a process that ends."""

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
TESTS = """
import os

import pytest


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    path = tmp_path_factory.mktemp("shared") / "seen"
    path.touch()
    yield path
    print("gone after", path.read_text())


def test_passes(shared):
    shared.write_text("a")


def test_fails(shared):
    assert shared.read_text() == "b"


def test_is_left_out():
    pytest.skip("no reason")


{ends}


def test_comes_after(shared):
    shared.write_text(shared.read_text() + "c")
"""
ENDS = """
def test_ends_its_process():
    os._exit({code})
"""


def run(directory: Path, *options: str) -> str:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.support.parallel",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        *options,
    ]
    done = subprocess.run(
        [*command, "--rootdir", str(directory), "-rfs", "--import-mode=importlib", str(directory)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def test_what_became_of_each_test_is_told_and_the_rest_of_a_process_that_ends_is_run(tmp_path: Path) -> None:
    for name, ends in (("one", ""), ("two", ENDS.format(code=3)), ("three", ""), ("four", ENDS.format(code=0))):
        (tmp_path / f"test_{name}.py").write_text(TESTS.format(ends=ends))
    said = run(tmp_path, "--processes", "2")
    assert re.search(r"\b6 failed, 8 passed, 4 skipped\b", said), said
    assert "it has ended its process: 3" in said and "it has ended its process: 0" in said
    assert sorted(re.findall(r"FAILED \S*test_(\w+)\.py::test_(\w+)", said)) == [
        ("four", "ends_its_process"),
        ("four", "fails"),
        ("one", "fails"),
        ("three", "fails"),
        ("two", "ends_its_process"),
        ("two", "fails"),
    ]
    assert said.count("no reason") == 4 or "SKIPPED [4]" in said
    assert "AssertionError: assert 'a' == 'b'" in said


def test_one_failure_may_end_it_all(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(TESTS.format(ends=""))
    said = run(tmp_path, "--processes", "2", "-x")
    assert re.search(r"\b1 failed, 1 passed\b", said), said
