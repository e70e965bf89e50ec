"""What all processes of one server know of each other: the first range of the shared cells, written by the
supervisor.

`STORE_FAILED` is the exception: a worker whose commit failed sets it, so that no sibling accepts mail until all of them
have been replaced; and `STORE_DAMAGED`, which makes every worker tell what one has met.
"""

from enum import IntEnum


class Board(IntEnum):
    """The place of each figure in range 0."""

    LAYOUT = 0  # of the metrics, so that a worker of another version does not write into them
    STARTED_AT_S = 1
    SLOTS = 2  # workers that should be there
    READY = 3  # workers that are, and accept; one that is stuck does not
    RESTARTS = 4  # workers started again after a death
    STORE_FAILED = 5  # 1 while the workers that saw a failed store are being replaced
    RANGES_USED = 6  # ranges that some process has ever written, this one included
    STUCK = 7  # workers whose loop does not turn
    STORE_DAMAGED = 8  # 1 since a worker met a place of the store that cannot be read; only a restart resets it
