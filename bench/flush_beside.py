"""Whether accepting goes on while a very long queue is flushed: `python -m bench.flush_beside --directory D`.

Builds a queue of deferred recipients with a body of their own each (bench/long_queue.py) and flushes it while a cheap
client sends messages, which are held. No recipient of the queue is ever delivered or bounced, so every one of them is
there for the next flush. Its destinations:

    dead      one relay on whose port nobody listens: one revival, then suspended again with all the rest
    refusing  250 addresses that answer 451 to every recipient
    many      both, and a third that `retry:` defers without asking anybody

Prints the messages accepted a second before, meanwhile and after, each the median of its runs with their range, and how
many recipients were tried in each time. It fails where a recipient has left the queue. A worker that waits for a core
for longer than it runs has neighbours: such a run says nothing about accepting.
"""

import argparse
import asyncio
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench import native
from bench.long_queue import STATES, fill
from bench.two_users import go_first
from tests.support.server import Server, command, environment

ADDRESSES: Final = 250  # of the refusing destinations
HELD_DOMAIN: Final = "hold.example"
DEAD: Final = b"smtp:[127.0.0.1]:9"
RETRY: Final = b"retry:4.0.0 try again later"
SESSIONS: Final = 20
REVIVED_S: Final = 5.0  # after a flush: what it has made due is tried


class Refusing(threading.Thread):
    """An SMTP server on every address of 127/8 that defers each recipient."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.refused = 0

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._session, "0.0.0.0", self.port, backlog=1000)
        await server.serve_forever()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 refusing ESMTP\r\n")
        try:
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    writer.write(b"250-refusing\r\n250 PIPELINING\r\n")
                elif verb == b"RCPT":
                    self.refused += 1
                    writer.write(b"451 4.2.1 mailbox is busy\r\n")
                elif verb == b"DATA":
                    writer.write(b"503 5.5.1 no recipients\r\n")
                else:
                    writer.write(b"250 2.0.0 ok\r\n")
                if verb == b"QUIT":
                    break
        except ConnectionError:
            pass
        finally:
            writer.close()


def hops(destinations: str, port: int) -> Callable[[int], bytes]:
    """The next hop of message n."""

    def refusing(n: int) -> bytes:
        return b"smtp:[127.0.%d.%d]:%d" % (1 + n % ADDRESSES // 250, 1 + n % ADDRESSES % 250, port)

    def many(n: int) -> bytes:
        return (DEAD, RETRY, refusing(n // 3))[n % 3]

    return {"dead": lambda n: DEAD, "refusing": refusing, "many": many}[destinations]


def accepted(server: Server, messages: int) -> float:
    """Messages a second."""
    load = native.smtp_load(server.port("smtp"), sessions=SESSIONS, messages=messages, size=4096, to=f"h@{HELD_DOMAIN}")
    return load.messages / load.elapsed_s


def deferred(server: Server) -> int:
    return int(server.metrics().get('fastmta_queue_messages{state="deferred"}', -1))


def tried(server: Server) -> int:
    return int(sum(value for name, value in server.metrics().items() if name.startswith("fastmta_deliveries_total")))


def core_s(server: Server) -> tuple[float, float]:
    """For how long the worker's threads have run, and waited for a core while they could have."""
    ran = waited = 0
    for thread in Path(f"/proc/{server.workers()[0]}/task").glob("*/schedstat"):
        one, other, _ = thread.read_text().split()
        ran, waited = ran + int(one), waited + int(other)
    return ran / 1e9, waited / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--directory", type=Path, required=True, help="kept for a second run")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--destinations", choices=("dead", "refusing", "many"), default="many")
    parser.add_argument("--port", type=int, default=0, help="of the refusing destinations; as when it was filled")
    parser.add_argument("--accepted", type=int, default=2000, help="messages of one run of the client")
    parser.add_argument("--first", action="store_true", help="the server goes ahead of all others")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    directory: Path = arguments.directory
    noted = directory / "port"
    if noted.exists():
        port = int(noted.read_text())
    else:
        with socket.create_server(("127.0.0.1", arguments.port)) as free:
            port = free.getsockname()[1]
    settings: dict[str, Any] = {
        "log_level": "warning",
        "smtpd_client_connection_count_limit": 0,
        "transport": {HELD_DOMAIN: "hold:"},
        "delivery": {"smtp_connect_timeout": "5s"},
    }
    server = Server(directory, workers=1, services=("smtp", "http"), settings=settings)
    if not noted.exists():
        started = time.monotonic()
        hop_of = hops(arguments.destinations, port)
        asyncio.run(fill(server.data_directory, arguments.messages, [STATES["deferred"]], hop_of))
        noted.write_text(str(port))
        print(f"{arguments.messages} queued in {time.monotonic() - started:.0f} s", flush=True)
    sink = Refusing(port)
    sink.start()
    with server:
        if arguments.first:
            go_first(server)
        accepted(server, arguments.accepted)
        waiting = deferred(server)
        print(f"{waiting} are deferred", flush=True)
        for name in ("before", "meanwhile", "after"):
            flush = None
            if name == "meanwhile":
                called = command("-c", str(server.config_path), "queue", "flush")
                flush = subprocess.Popen(called, env=environment())
                time.sleep(1.0)  # it has begun, program's start included
            began, tries, core = time.monotonic(), tried(server), core_s(server)
            rates = [accepted(server, arguments.accepted) for _ in range(arguments.runs)]
            seconds = time.monotonic() - began
            ran, waited = (after - before for before, after in zip(core, core_s(server), strict=True))
            print(
                f"{name:10} {statistics.median(rates):7.0f} ({min(rates):.0f} to {max(rates):.0f}) accepted a second,"
                f" {(tried(server) - tries) / seconds:7.0f} recipients tried;"
                f" the worker ran {ran / seconds:.2f} s a second and waited {waited / seconds:.2f} for a core",
                flush=True,
            )
            if flush is not None:
                if flush.poll():
                    raise SystemExit("the flush was refused: this run says nothing")
                print(f"{'':10} the command {'goes on' if flush.poll() is None else 'had ended'}", flush=True)
                flush.kill()
                flush.wait()
                time.sleep(REVIVED_S)
        states = {
            name: int(value) for name, value in server.metrics().items() if name.startswith("fastmta_queue_messages")
        }
        left = waiting - sum(value for name, value in states.items() if "held" not in name)
        print(f"{left} of {waiting} have left the queue; refused by the sink: {sink.refused}", flush=True)
        if left > 0:
            raise SystemExit("a destination did not only defer: this run says nothing")


if __name__ == "__main__":
    main()
