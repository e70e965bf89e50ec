"""A server whose workers speak a toy protocol, so that the supervisor can be tested without mail.

    python stub_server.py CONFIG

A line in, a line out: PING, COUNT (a received message), DIE (SIGKILL), HOLD and DONE (begin and end a transaction),
FAIL (the store), OWN (does this worker walk its hops?), NAME (myhostname, to see a reload), KEEP and LET (hold on to
the hops when asked for them, and let go).
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from fastmta.config.schema import Config
from fastmta.model.errors import ConfigError
from fastmta.runtime.metrics import METRICS
from fastmta.supervisor.main import serve
from fastmta.supervisor.worker import Place


def spin() -> None:
    """Holds the loop for ever."""
    while True:
        pass


class Session(asyncio.Protocol):
    def __init__(self, program: "StubProgram", service: str) -> None:
        self.program = program
        self.service = service
        self.held = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.program.open.add(self)
        self.program.place.cells[METRICS.connections_total[self.service]] += 1
        self.program.place.cells[METRICS.connections[self.service]] += 1
        transport.write(f"220 {self.program.place.slot} {os.getpid()} {self.service}\r\n".encode())

    def data_received(self, data: bytes) -> None:
        program = self.program
        for word in data.split():
            answer = b"OK"
            if word == b"COUNT":
                program.place.cells[METRICS.messages_received_total] += 1
            elif word == b"DIE":
                os.kill(os.getpid(), signal.SIGKILL)
            elif word == b"HOLD":
                self.held = True
            elif word == b"DONE":
                self.held = False
            elif word == b"FAIL":
                program.failure = "commit: no space left on device"
            elif word == b"OWN":
                answer = b"yes" if program.owns else b"no"
            elif word == b"KEEP":
                program.let_go.clear()
            elif word == b"LET":
                program.let_go.set()
            elif word == b"NAME":
                answer = program.config.myhostname.encode()
            elif word == b"SPIN":
                spin()
            elif word == b"CRASH_AT":
                answer = os.environ.get("FASTMTA_CRASH_AT", "nothing").encode()
            elif word == b"PRIVATE":
                answer = program.key
            self.transport.write(answer + b"\r\n")
        if program.draining and not self.held:
            self.bye()

    def bye(self) -> None:
        self.transport.write(b"421 bye\r\n")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.program.open.discard(self)
        self.program.place.cells[METRICS.connections[self.service]] -= 1


class StubProgram:
    def __init__(self, place: Place) -> None:
        self.place = place
        self.config = place.config
        self.key = self.read_key(place.config)
        self.open: set[Session] = set()
        self.failure = ""
        self.owns = False
        self.let_go = asyncio.Event()
        self.let_go.set()
        self.draining = False
        if place.config.myhostname.startswith("broken"):
            raise ConfigError("this configuration cannot be used")

    @property
    def sessions(self) -> int:
        return len(self.open)

    def factory(self, service: str) -> Any:
        return lambda: Session(self, service)

    def server_context(self, service: str) -> None:
        return None

    def own(self) -> None:
        self.owns = True

    async def release(self, timeout_s: float) -> None:
        await self.let_go.wait()
        self.owns = False

    async def reload(self, config: Config) -> None:
        if config.myhostname.startswith("broken"):
            raise ConfigError("this configuration cannot be used")
        self.config = config
        self.key = self.read_key(config)

    def read_key(self, config: Config) -> bytes:
        return Path(config.tls.key_file).read_bytes() if config.tls.key_file else b""

    def drain(self) -> None:
        self.draining = True
        for session in list(self.open):
            if not session.held:
                session.bye()

    def close_all(self, reason: str) -> None:
        for session in list(self.open):
            session.bye()

    def withdraw(self, keys: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return keys[:1]

    def open_sessions(self, wanted: dict[str, object]) -> list[dict[str, object]]:
        return []

    def hops(self, wanted: list[str]) -> list[dict[str, object]]:
        return [{"next_hop": hop} for hop in wanted or ["smtp:busy.test"]]

    def tick(self) -> None: ...

    def status(self) -> dict[str, Any]:
        return {"queue": {"active": 3, "deferred": 0, "held": 0}}

    async def close(self) -> None: ...


if __name__ == "__main__":
    raise SystemExit(serve(sys.argv[1], build=StubProgram))
