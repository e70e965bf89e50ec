"""Limits of a process of its own, for rigs without a supervisor."""

import msgspec

from fastmta.config.schema import Config
from fastmta.policy.limits import Limits, local_table
from fastmta.runtime.metrics import Cells, local_cells


def local_limits(config: Config | None = None, cells: Cells | None = None, **keys: object) -> Limits:
    """As the configuration and `keys` say, shared with nobody."""
    wanted = msgspec.structs.replace(config or Config(), **keys)
    return Limits(local_table(), wanted, cells if cells is not None else local_cells())
