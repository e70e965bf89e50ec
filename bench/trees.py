"""Servers of another source tree, built in place: what a change costs is measured beside the tree without it."""

from collections.abc import Mapping
from pathlib import Path

from tests.support.server import Server


def environment(tree: Path) -> dict[str, str]:
    """What has `Server` run the program of `tree`, whatever lies in the present directory."""
    return {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}


def fit(server: Server, tree: Path) -> None:
    """Leaves out of the configuration what an older tree does not know, and would refuse: keys that lift a limit."""
    schema = "".join(path.read_text() for path in (tree / "fastmta/config").glob("*schema*.py"))
    server.settings = {
        key: value for key, value in server.settings.items() if isinstance(value, Mapping) or f"    {key}: " in schema
    }
    server.write_config()
