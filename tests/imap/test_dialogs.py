"""tests/dialogs/*.imap: what clients and the server say, line by line.

    C: a1 NOOP            a client sends a line (C2: the second connection)
    S: a1 OK ...          the next line that this connection gets; "..." stands for anything at its end
    # text                a comment

Connections are made when they are first named; the greeting is not part of the dialog. Before a client sends, and at
the end, nothing may be left unread on its connection.
"""

import re
from pathlib import Path

import pytest

from tests.imap.harness import Client, World

DIALOGS = sorted((Path(__file__).parent.parent / "dialogs").glob("*.imap"))
_LINE = re.compile(r"([CS])(\d*): ?(.*)")


class Speaker:
    """One connection of a dialog, with the lines it has not been asked for yet."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.lines: list[bytes] = []

    async def listen(self) -> None:
        await self.client.settle()
        self.lines += self.client.take().split(b"\r\n")[:-1]


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
async def test_dialog(world: World, path: Path) -> None:
    speakers: dict[str, Speaker] = {}
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        assert match, f"{path.name}:{number}: neither C:, S: nor a comment"
        side, name, text = match.groups()
        if name not in speakers:
            speakers[name] = Speaker(world.connect())
            await speakers[name].listen()
            speakers[name].lines.clear()
        speaker = speakers[name]
        await speaker.listen()
        where = f"{path.name}:{number}"
        if side == "C":
            assert not speaker.lines, f"{where}: not in the dialog: {speaker.lines}"
            speaker.client.protocol.data_received(text.encode() + b"\r\n")
            continue
        assert speaker.lines, f"{where}: silence instead of {text!r}"
        got = speaker.lines.pop(0).decode("utf-8", "backslashreplace")
        good = got.startswith(text[:-3]) if text.endswith("...") else got == text
        assert good, f"{where}: wanted {text!r}, got {got!r}"
    for name, speaker in speakers.items():
        await speaker.listen()
        assert not speaker.lines, f"{path.name}: not in the dialog, connection {name}: {speaker.lines}"
