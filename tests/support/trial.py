"""A trial addition: a process in which one module of fastmta has one line more, and a room some files more.

    env = trial(tmp_path, routes, '    Transport("error"', LINE, {"delivery/to_file.py": TEXT})
    Server(tmp_path / "server", env=env)

What an addition costs is what stands in the call: the line, and the files.
"""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from tests.support.server import REPOSITORY

_SITE = """\
import importlib, importlib.util, pathlib, sys
package, _, name = {module!r}.rpartition(".")
for room in {rooms!r}:
    importlib.import_module("fastmta." + room.replace("/", ".")).__path__.append({site!r} + "/" + room)
text = pathlib.Path({path!r}).read_text()
assert text.count({before!r}) == 1, "the line would stand in several places"
spec = importlib.util.spec_from_file_location({module!r}, {path!r})
module = importlib.util.module_from_spec(spec)
sys.modules[{module!r}] = module
exec(compile(text.replace({before!r}, {line!r} + {before!r}), {path!r}, "exec"), module.__dict__)
setattr(importlib.import_module(package), name, module)
"""


def trial(
    directory: Path, module: ModuleType, before: str, line: str, files: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment for such a process. `line` goes before the one place of `module` that reads `before`."""
    site = directory / "site"
    for name, text in (files or {}).items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    site.mkdir(exist_ok=True)
    rooms = sorted({name.rpartition("/")[0] for name in files or {}})
    code = _SITE.format(
        module=module.__name__, path=module.__file__, before=before, line=line, rooms=rooms, site=str(site)
    )
    (site / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": f"{site}:{REPOSITORY}"}
