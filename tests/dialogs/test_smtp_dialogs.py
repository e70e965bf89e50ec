"""Runs each tests/dialogs/*.smtp: what client and server say, line by line, against the server without sockets.

    # a comment            service submission     one of the four; default smtp
    peer 198.51.100.1      the client's address; default 127.0.0.1
    tls                    the connection is under TLS
    mailbox bill@example.test [quota BYTES]       made before the first line
    C: EHLO client.test    a line that the client sends, with CRLF; consecutive ones go in one segment
    S: 250 2.1.0 Ok        a line that the server must say next; "..." stands for any text
    S: (nothing)           the server says nothing
    S: (closes)            the server has ended the session
    later 301              so many seconds pass

In a C: line \\r, \\n, \\0 and \\xNN stand for those octets; a final "\\" leaves the CRLF out.
"""

import re
from pathlib import Path

import pytest

from tests.support.smtp_rig import Client, SmtpRig

DIALOGS = sorted(Path(__file__).parent.glob("*.smtp"))
_ESCAPE = re.compile(rb"\\(r|n|0|x[0-9a-f]{2}|\\)")
_NAMED = {b"r": b"\r", b"n": b"\n", b"0": b"\0", b"\\": b"\\"}


def octets(text: str) -> bytes:
    raw = text.encode()
    end = b"\r\n"
    if raw.endswith(b"\\") and not raw.endswith(b"\\\\"):
        raw, end = raw[:-1], b""
    return _ESCAPE.sub(lambda m: _NAMED.get(m[1]) or bytes([int(m[1][1:], 16)]), raw) + end


def matches(expected: str, line: bytes) -> bool:
    parts = [re.escape(part) for part in expected.split("...")]
    return re.fullmatch(".*".join(parts).encode(), line) is not None


class Dialog:
    def __init__(self, rig: SmtpRig) -> None:
        self.rig = rig
        self.client: Client | None = None
        self.service, self.peer, self.tls = "smtp", "127.0.0.1", False
        self.pending: list[bytes] = []
        self.said: list[bytes] = []

    def connected(self) -> Client:
        if self.client is None:
            self.client = self.rig.connect_silently(self.service, self.peer, tls=self.tls)
        return self.client

    def read(self) -> None:
        client = self.connected()
        if self.pending:
            data, self.pending = b"".join(self.pending), []
            client.feed(data)
            self.rig.settle()
        self.said += client.take().split(b"\r\n")[:-1]

    def run(self, line: str) -> None:
        match line.split(" ", 1):
            case ["service", name]:
                self.service = name
            case ["peer", address]:
                self.peer = address
            case ["tls"]:
                self.tls = True
            case ["mailbox", rest]:
                address, _, quota = rest.partition(" quota ")
                self.rig.add_mailbox(address.encode(), quota_bytes=int(quota or 0))
            case ["later", seconds]:
                self.read()
                self.rig.pass_seconds(int(seconds))
            case ["C:", *texts]:
                if self.said:
                    raise AssertionError(f"the server also said {self.said!r}")
                self.pending.append(octets(texts[0] if texts else ""))
            case ["S:", "(nothing)"]:
                self.read()
                assert self.said == []
            case ["S:", "(closes)"]:
                self.read()
                assert self.said == [] and self.connected().ended
            case ["S:", expected]:
                self.read()
                assert self.said, f"the server says nothing, expected {expected!r}"
                assert matches(expected, self.said[0]), f"the server says {self.said[0]!r}"
                self.said.pop(0)
            case _:
                raise AssertionError("not a line of a dialog")


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
def test_dialog(path: Path, tmp_path: Path) -> None:
    rig = SmtpRig(tmp_path)
    dialog = Dialog(rig)
    try:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                try:
                    dialog.run(line.rstrip())
                except AssertionError as error:
                    raise AssertionError(f"{path.name}:{number}: {line}\n{error}") from None
        dialog.read()
        assert dialog.said == [], "the server said more than the dialog has"
    finally:
        rig.close()
