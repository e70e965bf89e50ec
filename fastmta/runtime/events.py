"""Where the tellers of events count: places in a worker's cells."""

from collections.abc import Mapping
from typing import Final

import msgspec

from fastmta._intake import Teller
from fastmta.runtime.clock import Clock
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import ADMIN_RESULTS, DELIVERY_RESULTS, METRICS, TRANSPORT_LABELS, Cells


class Places(msgspec.Struct, frozen=True):
    """Places of counters; `delivery_seconds` is a histogram's and its bounds."""

    messages_received: int
    received_bytes: int
    deliveries: Mapping[tuple[str, str], int]
    delivery_seconds: tuple[int, tuple[int, ...]]
    admin_recipients: Mapping[str, int]


PLACES: Final = Places(
    messages_received=METRICS.messages_received_total,
    received_bytes=METRICS.received_bytes_total,
    deliveries={
        (transport, result): METRICS.deliveries_total[transport, result]
        for transport in TRANSPORT_LABELS
        for result in DELIVERY_RESULTS
    },
    admin_recipients={result: METRICS.admin_recipients_total[result] for result in ADMIN_RESULTS},
    delivery_seconds=(METRICS.delivery_seconds.index, METRICS.delivery_seconds.bounds),
)


def teller(log: Log, clock: Clock, cells: Cells) -> Teller:
    """A teller for one room. It takes the log's level as it is now: made anew by a reload."""
    return Teller(log, clock, cells, PLACES)
