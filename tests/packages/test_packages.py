"""The sdist is complete, and what is installed from it and from a wheel serves: a message goes in and is read.

The short form compiles one extension of the sdist, borrows the others from this tree, which has the same sources, and
the libraries from the environment that runs the tests. `make packages-test` is the long form: sdist and wheel, each as
released, in an environment of its own with the libraries of requirements.lock by their digests.
"""

import os
import subprocess
import sys
import tarfile
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ports import free_ports

REPOSITORY = Path(__file__).resolve().parents[2]
LONG = bool(os.environ.get("FASTMTA_LONG"))
COMPILED = "_turns"  # the extension of the short form
SCENE = Path(__file__).with_name("scene.py")
pytestmark = pytest.mark.timeout(1800 if LONG else 400)


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **environment},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def tracked(*under: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", *under], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    if listed.returncode or not listed.stdout:
        pytest.skip("not a git checkout: nothing says which files there should be")
    return listed.stdout.split()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no other test's build directory is touched."""
    directory = tmp_path_factory.mktemp("sdist")
    source = directory / "source"
    for name in tracked():
        if not name.startswith(("tests/", "bench/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    program = f"import os; os.chdir({str(source)!r}); from setuptools.build_meta import build_sdist; build_sdist('..')"
    run(sys.executable, "-c", program, FASTMTA_EXT="none")
    (found,) = directory.glob("fastmta-*.tar.gz")
    return found


def test_the_sdist_holds_every_source_and_nothing_that_was_compiled(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        *tracked("fastmta", "deploy"),
        *("setup.py", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md"),
        *("requirements.lock", "requirements-build.lock", "docs/operations.md"),
    }
    assert wanted - names == set()
    assert [name for name in names if name.endswith((".so", ".pyc", ".c"))] == []


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip makes of the sdist."""
    directory = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir")
    run(*pip, directory, sdist, **({} if LONG else {"FASTMTA_BUILD": "debug", "FASTMTA_EXT": COMPILED}))
    (found,) = directory.glob("fastmta-*.whl")
    return found


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Path]:
    """The python of a fresh environment that has the libraries and not our package."""
    venv.create(tmp_path / "venv", with_pip=LONG, symlinks=True)
    python = tmp_path / "venv/bin/python"
    if LONG:
        run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", REPOSITORY / "requirements.lock")
    else:
        borrowed = tmp_path / "libraries"
        borrowed.mkdir()
        for entry in Path(pytest.__file__).parents[1].iterdir():  # all but the package itself, which is under test
            if "fastmta" not in entry.name and entry.suffix != ".pth":
                (borrowed / entry.name).symlink_to(entry)
        (packages,) = (tmp_path / "venv/lib").glob("python3*/site-packages")
        (packages / "borrowed.pth").write_text(f"{borrowed}\n")
    yield python


def install(python: Path, package: Path) -> None:
    pip = (python, "-m", "pip") if LONG else (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--disable-pip-version-check", package)


def test_what_the_sdist_compiles_to_is_installed_and_serves(wheel: Path, environment: Path) -> None:
    install(environment, wheel)
    if not LONG:
        (package,) = environment.parents[1].glob("lib/python3*/site-packages/fastmta")
        (compiled,) = package.glob("*.so")
        assert compiled.name.startswith(f"{COMPILED}.")
        for extension in (REPOSITORY / "fastmta").glob("_*.so"):
            if extension.name != compiled.name:
                (package / extension.name).symlink_to(extension)
    assert "alice@example.test read what was sent" in run(environment, SCENE, *free_ports(16))


@pytest.mark.skipif(not LONG, reason="compiles everything once more: make packages-test")
def test_the_sdist_is_installed_by_pip_alone_and_serves(sdist: Path, environment: Path) -> None:
    install(environment, sdist)
    assert "alice@example.test read what was sent" in run(environment, SCENE, *free_ports(16))
