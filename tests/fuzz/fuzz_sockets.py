"""Throws damaged requests at the control socket and at the queue's socket; see harness.py for options."""

import asyncio
import os
import selectors
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import msgspec

from fastmta.config.load import load
from fastmta.operations.public import PublicSocket
from fastmta.operations.serving import Serving
from fastmta.supervisor.control import ControlSocket
from tests.fuzz.fuzz_spool import CONFIG
from tests.fuzz.harness import AsyncTarget, main
from tests.support.pickup import close_services, open_services


class Sockets(AsyncTarget):
    corpus = (
        b'{"do":"ping"}\n',
        b'{"do":"status"}\n',
        b'{"do":"withdraw","recipients":[[1,2],[3,4]]}\n',
        b'{"do":"reload"}\n',
        b'{"do":"act","act":"queue.list","request":{}}\n',
        b'{"act":"queue.list","request":{"limit":5,"state":"deferred","sender":"a"}}\n',
        b'{"act":"queue.list","request":{"recipient":"\xc3\xa9","older":"1e308s"}}\n',
        b'{"do":"act","act":"queue.flush","request":{}}\n',
        b"[]\n",
        b"null\n",
        b'{"do":' + b"[" * 400 + b"]" * 400 + b"}\n",
    )
    tokens = (
        b'{"do":',
        b'{"act":"queue.list","request":{',
        b'"limit":',
        b"-1",
        b"1e999",
        b"9" * 40,
        b"\\u0000",
        b"\\ud800",
        b"null",
        b"[[",
        b"true",
        b"\n",
    )

    async def start(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.root = Path(self._directory.name)
        (self.root / "fastmta.toml").write_text(CONFIG)
        (self.root / "data").mkdir()
        self.services = await open_services(load(self.root / "fastmta.toml"))
        self.selector = selectors.DefaultSelector()
        self.asked: list[Any] = []
        self.control = ControlSocket(self.root, self.selector, self.handle)
        self.public = os.open(self.root / "data", os.O_RDONLY)
        self.queue = PublicSocket(self.services, Serving(self.services, self.ask, None))
        self.queue.open(self.public)

    def handle(self, client: Any, request: dict[str, Any]) -> None:
        if not isinstance(request, dict):
            raise AssertionError(f"{request!r} is no request")
        client.answer(ok=False, error=f"unknown command {request.get('do')!r}")

    async def ask(self, question: str, **given: Any) -> dict[str, Any]:
        raise AssertionError(f"nobody may ask {question} here")

    async def hold(self, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.root / "control.sock"))
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while ready := self.selector.select(0):
                for key, _ in ready:
                    key.data()
            self.control.expire(float("inf"))
            sock.settimeout(5)
            try:
                answer = sock.recv(1 << 20)
            except ConnectionResetError:
                answer = b""
        if answer and not isinstance(msgspec.json.decode(answer), dict):
            raise AssertionError(f"not an answer: {answer[:100]!r}")
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, str(self.root / "data" / "queue"))
            try:
                await loop.sock_sendall(sock, data)
                sock.shutdown(socket.SHUT_WR)
                async with asyncio.timeout(10):
                    while await loop.sock_recv(sock, 65536):
                        continue
            except ConnectionError:
                pass
        for level, event, fields in self.services.log.events:
            if level == "error":
                raise AssertionError(f"{event} {fields}")
        self.services.log.events.clear()

    async def stop(self) -> None:
        self.queue.close()
        self.control.close()
        os.close(self.public)
        await close_services(self.services)
        self._directory.cleanup()


if __name__ == "__main__":
    raise SystemExit(main(Sockets, __doc__))
