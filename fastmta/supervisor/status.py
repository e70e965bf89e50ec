"""The answer to `fastmta status`: processes, listeners, connections, totals, and the queue as one worker counted it."""

import os
import time
from typing import Any

from fastmta import __version__
from fastmta.runtime.board import Board
from fastmta.runtime.metrics import METRICS
from fastmta.supervisor.listeners import Listeners
from fastmta.supervisor.pool import Pool


def describe(pool: Pool, listeners: Listeners, config_path: str) -> dict[str, Any]:
    """A picture of the whole server, as JSON takes it."""
    ranges = [pool.shared.range(n) for n in range(1, pool.board[Board.RANGES_USED])]
    now = time.time()
    workers = []
    counted: dict[str, Any] = {}
    for worker in sorted(pool.workers, key=lambda w: (w.generation, w.slot)):
        cells = pool.shared.range(worker.range)
        counted = worker.status or counted
        workers.append(
            {
                "slot": worker.slot,
                "pid": worker.pid,
                "generation": worker.generation,
                "state": worker.state,
                "uptime_s": round(now - worker.started_at),
                "connections": sum(cells[i] for i in METRICS.connections.places.values()),
            }
        )

    def total(index: int) -> int:
        return sum(cells[index] for cells in ranges)

    return {
        "pid": os.getpid(),
        "version": __version__,
        "config": config_path,
        "uptime_s": round(now - pool.board[Board.STARTED_AT_S]),
        "ready": pool.all_ready and not pool.stopping,
        "restarts": pool.board[Board.RESTARTS],
        "workers": workers,
        "listeners": [{"service": e.address.service, "address": e.bound} for e in listeners.endpoints.values()],
        "connections": {key[0]: total(index) for key, index in METRICS.connections.places.items() if total(index)},
        "totals": {
            "messages_received": total(METRICS.messages_received_total),
            "received_bytes": total(METRICS.received_bytes_total),
            "messages_rejected": sum(total(i) for i in METRICS.messages_rejected_total.places.values()),
            **{
                result: sum(total(i) for key, i in METRICS.deliveries_total.places.items() if key[1] == result)
                for result in ("delivered", "deferred", "bounced")
            },
        },
        "queue": counted.get("queue"),
        "store": counted.get("store"),
    }
