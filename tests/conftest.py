"""What holds for the whole suite: bytecode is kept, and what takes long begins first.

The tests start hundreds of interpreters. Where PYTHONDONTWRITEBYTECODE is set, as in many images, each of them would
compile the package anew, which takes longer than what it was started for.
"""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long it takes to make an input says how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# Rooms whose tests wait for a compiler or for servers: they begin first, so that no worker ends alone with one of them.
LONG = ("packages", "interop", "faults", "e2e", "supervisor", "cli", "pickup", "deploy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        room = item.path.relative_to(tests).parts[0]
        return LONG.index(room) if room in LONG else len(LONG)

    items.sort(key=place)
