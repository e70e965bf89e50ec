"""docs/operations.md, followed to the letter, gives a server that works under the unit's own restrictions."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCENE = Path(__file__).with_name("unit_scene.py")
NAMESPACES = (
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)
SYSTEM_PYTHON = "/usr/bin/python3"


def what_is_missing() -> str:
    if os.geteuid() != 0:
        return "only root makes namespaces of mounts"
    for program in ("unshare", "setpriv", "useradd", SYSTEM_PYTHON):
        if shutil.which(program) is None:
            return f"no {program}"
    version = "import sys; print(sys.version_info[:2], sys.implementation.name)"
    ours = subprocess.run([sys.executable, "-c", version], capture_output=True, check=True).stdout
    if subprocess.run([SYSTEM_PYTHON, "-c", version], capture_output=True, check=False).stdout != ours:
        return f"{SYSTEM_PYTHON} is another version than the one that the extensions are compiled for"
    probe = subprocess.run([*NAMESPACES, "mount", "-t", "tmpfs", "none", "/tmp"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else f"no namespaces here: {probe.stderr.decode()}"


def test_the_page_gives_a_server_that_works_under_the_unit() -> None:
    missing = what_is_missing()
    if missing:
        pytest.skip(missing)
    libraries = sysconfig.get_paths()["purelib"]
    command = [*NAMESPACES, SYSTEM_PYTHON, str(SCENE), str(REPOSITORY), libraries]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "bill@example.org read what was sent" in done.stdout


def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    text = (REPOSITORY / "deploy/systemd/fastmta.service").read_text()
    unit = tmp_path / "fastmta.service"
    unit.write_text(text.replace("/opt/fastmta/bin/fastmta", "/bin/true"))  # which need not be installed here
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "fastmta.service" in line]
    assert said == []
