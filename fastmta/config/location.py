"""Where the configuration is, for whoever is not told by `-c`."""

import os
from typing import Final

DEFAULT_FILE: Final = "/etc/fastmta/fastmta.toml"
FILE_BYTES: Final = 4 * 2**20  # a configuration, not a data file


def default_path() -> str:
    """The file that commands read without `-c`: FASTMTA_CONFIG, else fastmta.toml here, else /etc/fastmta's."""
    named = os.environ.get("FASTMTA_CONFIG")
    if named:
        return named
    return "fastmta.toml" if os.path.isfile("fastmta.toml") else DEFAULT_FILE
