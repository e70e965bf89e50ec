"""Throws damaged files at the spool of `sendmail`, as a local user may put them there; see harness.py for options."""

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fastmta.config.load import load
from fastmta.pickup.letter import BadLetter, Letter
from fastmta.pickup.service import Pickup
from fastmta.pickup.spool import MAGIC, BadSpoolFile, open_maildrop, read_ticket
from tests.fuzz.harness import AsyncTarget, main
from tests.support.pickup import close_services, open_services, settled

CONFIG = """myhostname = "mx.example.test"
mydestination = ["example.test"]
data_directory = "data"
[transport]
"*" = "discard:"
"""
MAIL = b"From: a\r\nTo: b@example.test, (c) d, g: e@f;\r\nBcc: x\r\nSubject: s\r\n\r\nbody\r\n.\r\nlast"
TICKETS = (
    MAGIC + b"Sbill@example.test\nFBill\nEid\nTFULL\nRx@far.test\nN7\nOrfc822;a@b\nRy\n\n",
    MAGIC + b"S\nRbill\nV\n\n",
    MAGIC + b"Sa\nR\xff\xfe\nR" + b"l" * 300 + b"@x\n\n",
)


class Spool(AsyncTarget):
    corpus = (*(ticket + MAIL for ticket in TICKETS), TICKETS[0] + b"Resent-To: a\n" + MAIL.replace(b"\r\n", b"\n"))
    tokens = (
        *TICKETS,
        MAGIC,
        b"\nR",
        b"\nN9",
        b"\nO",
        b"\nS",
        b"To: ",
        b"Cc: ",
        b"\n\n",
        b"From x\n",
        b'"',
        b"<a@b>,",
        b"\r",
        b"()",
    )

    async def start(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        path = Path(self._directory.name) / "fastmta.toml"
        path.write_text(CONFIG)
        (path.parent / "data").mkdir()
        self.services = await open_services(load(path))
        self.pickup = Pickup(self.services)
        self.pickup.start()
        await settled(self.pickup)
        self.maildrop = open_maildrop(str(path.parent / "data"))
        self.number = 0

    async def hold(self, data: bytes) -> None:
        self._parse(data)
        self.number += 1
        if self.number % 8:
            return
        name = f"{1_800_000_000 + self.number}.M0P1Q{self.number}"
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700, dir_fd=self.maildrop)
        os.write(descriptor, data)
        os.close(descriptor)
        self.services.log.events.clear()
        self.pickup.tick()
        await settled(self.pickup)
        for level, event, fields in self.services.log.events:
            if level == "error":
                raise AssertionError(f"{event} {fields}")

    def _parse(self, data: bytes) -> None:
        file = io.BytesIO(data)
        try:
            ticket = read_ticket(file)
        except BadSpoolFile:
            file.seek(0)
        else:
            again = read_ticket(io.BytesIO(ticket.encode()))
            if again != ticket:
                raise AssertionError(f"{again} is not {ticket}")
        try:
            letter = Letter(self._lines(file))
            letter.recipients()
        except BadLetter:
            return
        whole = letter.header([(b"Date", b"d")], "example.test") + b"".join(letter.body())
        if b"\r" in whole.replace(b"\r\n", b"") or b"\n" in whole.replace(b"\r\n", b""):
            raise AssertionError("a bare CR or LF goes out")

    @staticmethod
    def _lines(file: io.BytesIO) -> Iterator[bytes]:
        while line := file.readline(8192):
            yield line

    async def stop(self) -> None:
        os.close(self.maildrop)
        await self.pickup.stop()
        await close_services(self.services)
        self._directory.cleanup()


if __name__ == "__main__":
    raise SystemExit(main(Spool, __doc__))
