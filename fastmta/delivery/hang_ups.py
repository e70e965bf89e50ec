"""After how many messages the servers of a hop end a connection, as far as they show it.

Some hang up behind each message, some say 421 to the one after the tenth. A message that is begun all the same goes
again over another connection, at once and in vain. What was seen twice in a row is believed for a while.
"""

from typing import Final

BELIEVED: Final = 20  # connections; the next one tries for more
SEEN: Final = 2


class HangUps:
    """One hop's."""

    __slots__ = ("_after", "_believed", "_seen")

    def __init__(self) -> None:
        self._after = self._seen = self._believed = 0

    def saw(self, messages: int) -> None:
        """A connection that was never at rest has ended behind so many, when another was begun."""
        self._seen = self._seen + 1 if messages == self._after else 1
        self._after, self._believed = messages, 0

    def limit(self, most: int) -> int:
        """How many messages a new connection is to carry, of `most`."""
        if self._seen < SEEN:
            return most
        self._believed += 1
        if self._believed > BELIEVED:
            self._seen = 1  # once more will do to believe it again
            return most
        return min(most, self._after)
