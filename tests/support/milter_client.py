"""The MTA's side of the milter protocol (version 6), as much as a test needs to show a message to a real filter."""

import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

ACTIONS = 0x1FF
LEADING_SPACE = 0x100000  # SMFIP_HDR_LEADSPC: values come and go with the white space behind the colon
_STEPS = {b"C": 0x1, b"H": 0x2, b"M": 0x4, b"R": 0x8, b"B": 0x10, b"L": 0x20, b"N": 0x40}  # SMFIP_NO...


class Milter:
    """One connection; `inserted` after `show` has what the filter added, newest first."""

    def __init__(self, path: Path | str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._send(b"O", struct.pack(">III", 6, ACTIONS, LEADING_SPACE))
        _, answer = self._receive()
        self._left_out = struct.unpack(">III", answer[:12])[2]
        self.inserted: list[tuple[bytes, bytes]] = []

    def __enter__(self) -> "Milter":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        with suppress(OSError):
            self._send(b"Q", b"")
        self._socket.close()

    def show(self, fields: list[tuple[bytes, bytes]], body: bytes, sender: bytes = b"ann@example.org") -> bytes:
        """Shows a message, values with their white space and folds as LF; gives the last reply's letter."""
        self.inserted = []
        steps = [
            (b"C", b"client\x004" + struct.pack(">H", 25) + b"127.0.0.1\0"),
            (b"H", b"client\0"),
            (b"M", b"<" + sender + b">\0"),
            (b"R", b"<bob@example.net>\0"),
            *[(b"L", name + b"\0" + value + b"\0") for name, value in fields],
            (b"N", b""),
            *[(b"B", body[at : at + 60_000]) for at in range(0, len(body), 60_000)],
        ]
        for letter, payload in steps:
            answer = self._step(letter, payload)
            if answer != b"c":
                return answer
        self._send(b"E", b"")
        while True:
            letter, payload = self._receive()
            if letter in b"hi":
                name, value, *_ = payload[4 if letter == b"i" else 0 :].split(b"\0")
                self.inserted.insert(0, (name, value))
            elif letter not in b"p":  # progress
                return letter

    def _step(self, letter: bytes, payload: bytes) -> bytes:
        if self._left_out & _STEPS[letter]:
            return b"c"
        self._send(letter, payload)
        return self._receive()[0]

    def _send(self, letter: bytes, payload: bytes) -> None:
        self._socket.sendall(struct.pack(">I", len(payload) + 1) + letter + payload)

    def _receive(self) -> tuple[bytes, bytes]:
        (size,) = struct.unpack(">I", self._exactly(4))
        packet = self._exactly(size)
        return packet[:1], packet[1:]

    def _exactly(self, size: int) -> bytes:
        out = b""
        while len(out) < size:
            piece = self._socket.recv(size - len(out))
            assert piece, "the filter closed the connection"
            out += piece
        return out
