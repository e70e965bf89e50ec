"""What the SMTP services count: connections, and refusals by their reason."""

from typing import Final

import msgspec

from fastmta.model.services import speaking
from fastmta.runtime.metrics import METRICS

SERVICES: Final = speaking("smtp", "lmtp")


class Counters(msgspec.Struct, frozen=True):
    """Where the fast path counts: places in the worker's cells."""

    connections_total: dict[str, int]
    connections: dict[str, int]


COUNTERS: Final = Counters(
    connections_total={name: METRICS.connections_total[name] for name in SERVICES},
    connections={name: METRICS.connections[name] for name in SERVICES},
)
# messages_rejected_total{reason} by enhanced code; a code without a line counts as "syntax" (5.5.x) or "other".
REASONS: Final = {
    "5.1.1": "unknown_user",
    "5.1.7": "syntax",
    "5.1.3": "syntax",
    "5.6.7": "syntax",
    "5.6.11": "bare_newline",
    "5.3.4": "size",
    "4.5.3": "recipients",
    "4.2.2": "quota",
    "5.2.2": "quota",
    "4.3.1": "storage",
    "5.4.6": "loop",
}
