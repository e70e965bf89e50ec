"""The table of acts, and acts carried out in this process."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from fastmta.cli.main import COMMANDS
from fastmta.operations.acts import FAMILIES, Rows, every, find, in_family
from fastmta.runtime.metrics import METRICS
from tests.test_layers import modules

#: What a command may load for the types of an act, where a worker does it.
HEAVY = {"asyncio", "click", "idna", "fastmta._store", "fastmta.store", "fastmta.config.schema", "uvloop"}


def test_every_act_stands_once_and_leads_back_to_itself() -> None:
    acts = every()
    assert len({each.name for each in acts}) == len(acts) > 5
    for each in acts:
        assert find(each.name) is each
        assert each.__doc__, each.name
        assert issubclass(each.request, msgspec.Struct)
        assert each.request.__struct_config__.forbid_unknown_fields, each.name
        assert not (each.changes and isinstance(each, Rows)), each.name
        if each.changes:
            METRICS.admin_acts_total[each.name.partition(".")[0]]
    assert find("user.nothing") is None
    assert find("nothing") is None
    assert find("") is None


def test_every_family_is_a_command_and_has_a_label_of_its_own() -> None:
    named_alone = {"mail", "server"}  # `fastmta explain`, `fastmta reload`
    assert set(FAMILIES) - named_alone <= set(COMMANDS)
    assert {each.name.partition(".")[2] for family in named_alone for each in in_family(family)} <= set(COMMANDS)
    assert {(family,) for family in FAMILIES.keys() - named_alone} <= set(METRICS.admin_acts_total.places)


@pytest.mark.parametrize("module", sorted({module for modules in FAMILIES.values() for module in modules}))
def test_the_types_of_acts_load_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; found = {HEAVY!r} & set(sys.modules); assert not found, found"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_only_the_faces_import_operations() -> None:
    others = [
        name
        for name, path in modules()
        if not name.startswith(("operations", "cli", "admin", "supervisor"))
        and "fastmta.operations" in Path(path).read_text()
    ]
    assert others == []
