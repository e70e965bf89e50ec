"""A message's texts as SEARCH reads them (imap/search_text.py), put down for the index instead of looked through."""

from collections.abc import Awaitable, Callable

from fastmta.imap.search_text import Message
from fastmta.model.limits import INDEX_TEXT_CHARS


class Texts:
    """A Reader that keeps what it is given, its case folded. It needs no more where there is too much."""

    def __init__(self) -> None:
        self.chars = 0
        self._done: list[str] = []
        self._pieces: list[str] = []

    def __bool__(self) -> bool:
        return not self.is_long

    @property
    def is_long(self) -> bool:
        """Whether there is more than is indexed: the message is looked through by each search."""
        return self.chars > INDEX_TEXT_CHARS

    def start(self) -> None:
        if self._pieces:
            self._done.append("".join(self._pieces))
            self._pieces.clear()

    async def look(self, text: str, /) -> None:
        folded = text.casefold()
        self.chars += len(folded)
        self._pieces.append(folded)

    def all(self) -> list[str]:
        """Every text that came, each whole."""
        self.start()
        return self._done


async def texts_of(
    message: Message, pause: Callable[[], Awaitable[None] | None]
) -> tuple[list[str], list[str], int] | None:
    """The texts of the header, those of everything behind it, and how many characters they have; None where they are
    too long. Vanished, StorageFailure.
    """
    header, behind = Texts(), Texts()
    await message.look_at_header([], {}, header, pause, goes_on=True)
    behind.chars = header.chars
    if behind:
        await message.look_at_body(behind, pause)
    if behind.is_long:
        return None
    return header.all(), behind.all(), behind.chars
