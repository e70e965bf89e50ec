"""How `fastmta serve` becomes the supervisor: by exec(2), the same process without the command line's modules.

Nothing here reaches up into supervisor/, and nothing heavy is loaded: each start, and each restart by a service
manager, waits for it.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from fastmta.config.location import default_path

SUPERVISOR: Final = "fastmta.supervisor.main"


def plain_serve(arguments: Sequence[str]) -> None:
    """Becomes the supervisor where `arguments` are `serve`, alone or with `-c FILE`; returns for all others."""
    if arguments[:1] != ["serve"]:
        return
    if len(arguments) == 1:
        become_supervisor(None)
    if len(arguments) == 3 and arguments[1] in ("-c", "--config") and not arguments[2].startswith("-"):
        become_supervisor(arguments[2])


def become_supervisor(config_path: str | None) -> NoReturn:
    """`config_path`: None for the default one."""
    sys.stdout.flush()
    os.execve(
        sys.executable, [sys.executable, "-m", SUPERVISOR, config_path or str(default_path())], supervisor_environment()
    )


def supervisor_environment() -> dict[str, str]:
    """Ours, so that the same package is found, and never one that lies in the working directory: root may start us
    anywhere.
    """
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    root = Path(__file__).absolute().parents[2]
    if root.name not in ("site-packages", "dist-packages"):
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{root}{os.pathsep}{known}" if known else str(root)
    return environment
