"""What a small command spares of libraries that it cannot do without."""

import sys


def msgspec_alone() -> None:
    """Loads msgspec without typing_extensions. Where that is installed, msgspec takes names from it that `typing` has
    too, and `inspect`, `ast` and `dis` come along: a sixth of what such a command costs. Who imports it later gets it.
    """
    if "msgspec" not in sys.modules and "typing_extensions" not in sys.modules:
        sys.modules["typing_extensions"] = None  # type: ignore[assignment]  # an import of it fails
        try:
            import msgspec  # noqa: F401
        finally:
            del sys.modules["typing_extensions"]
