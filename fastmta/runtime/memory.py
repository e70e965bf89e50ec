"""Large blocks of memory go back to the system as soon as they are freed.

glibc takes the first large block that is freed for a sign that more will be wanted, and keeps those up to 32 MB in the
arena of the thread that freed them. A password hash needs 19 MB for 30 ms, on one of several threads: each kept 19 MB
for ever. With a threshold that is set, it stays.
"""

import ctypes
from typing import Final

LARGE_BYTES: Final = 1 << 20
_M_MMAP_THRESHOLD: Final = -3  # mallopt(3)


def return_large_blocks() -> None:
    """For the whole process; a C library that has no mallopt does as it likes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
