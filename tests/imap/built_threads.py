"""Threads as THREAD REFERENCES builds them, from messages that a test names."""

from collections.abc import Iterator

from fastmta.imap import threads


class Built:
    """Messages that name each other; what THREAD REFERENCES says of them."""

    def __init__(self, messages: int) -> None:
        self.threads = threads.Threads(messages)
        self._references: list[tuple[int, list[str]]] = []

    def add(self, at: int, name: str, references: list[str], subject: str = "", date: int | None = None) -> None:
        self.threads.add(at, name.encode(), None, at if date is None else date, subject, False)
        self._references.append((at, references))

    def steps(self, *, by_subject: bool = True) -> Iterator[None]:
        for at, references in self._references:
            yield from self.threads.refer(at, [each.encode() for each in references])
        order = sorted((at for at, _ in self._references), key=self.threads.dates.__getitem__)
        yield from self.threads.link(order, by_subject=by_subject)

    def text(self) -> bytes:
        for _ in self.steps():
            pass
        return b"".join(self.threads.forest.lines(range(1, len(self._references) + 1)))
