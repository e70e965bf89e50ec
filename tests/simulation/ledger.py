"""What servers of a simulated network have been given, and have said: the other side of what the queue believes."""

from collections import defaultdict
from typing import NamedTuple


class Taken(NamedTuple):
    """One time that a server took a message for a recipient; `heard` fills with whether its answer came."""

    at: float
    site: str
    heard: list[bool]
    secure: bool = False


class Ledger:
    """By recipient, whose address is unique to its message."""

    def __init__(self):
        self.taken = defaultdict(list)
        self.refused = defaultdict(list)  # 5yz, with the text
        self.asked = defaultdict(list)  # instants of RCPT
        self.transactions = defaultdict(list)  # site -> [at, number of its session, recipients, dots]
        self.bodies = []
