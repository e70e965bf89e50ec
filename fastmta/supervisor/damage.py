"""What a worker makes of damage that a read or a commit met: a line for each place, a count, and /readyz red.

Other mail is served on, since one page must not take everybody down; so /readyz stays red until the server is started
again, after `fastmta store check` and, where need be, `fastmta store salvage`.
"""

from fastmta.model.errors import StoreDamaged
from fastmta.model.limits import DAMAGED_PLACES
from fastmta.runtime.board import Board
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import METRICS, Cells


class DamageWatch:
    """Called with each StoreDamaged before it is raised; it must not raise itself."""

    def __init__(self, cells: Cells, board: Cells, log: Log) -> None:
        self._cells = cells
        self._board = board
        self._log = log
        self._told: set[tuple[str, bytes]] = set()

    def __call__(self, error: StoreDamaged) -> None:
        self._cells[METRICS.store_damaged_total[error.table]] += 1
        self._board[Board.STORE_DAMAGED] = 1
        place = (error.table, error.key)
        if place in self._told or len(self._told) >= DAMAGED_PLACES:
            return  # a peer may ask for the same again and again
        self._told.add(place)
        self._log.error(
            "store.damaged",
            table=error.table,
            key=error.key.hex(),
            reason=error.reason,
            remedy="fastmta store check; fastmta store salvage",
        )
        if len(self._told) == DAMAGED_PLACES:
            self._log.error("store.damaged_everywhere", places=DAMAGED_PLACES, effect="further places are only counted")
