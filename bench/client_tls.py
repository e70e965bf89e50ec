"""What a TLS handshake of ours with a next hop costs our side: CPU µs, whole and resumed.

    python -m bench.client_tls [--handshakes 400]

Rows are interleaved. The server is a process of its own; each handshake is STARTTLS's part alone (`start_tls` over a
connection that is there, one octet each way behind it), on uvloop as in a worker. The context's share is the same done
by blocking sockets of the standard library: what lies between the two is the loop's and ours.
"""

import argparse
import asyncio
import multiprocessing
import socket
import ssl
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvloop

from fastmta.tls.certificate import write_self_signed
from fastmta.tls.contexts import client_context, server_context
from fastmta.tls.sessions import TlsSessions
from fastmta.tls.upgrade import start_tls

ROUNDS = 8


def serve(directory: str, ready: Any) -> None:
    """Answers handshakes, and one octet behind each, until it is ended."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"2")
            await writer.start_tls(context)
            await reader.read(1)
            writer.write(b"2")
            await reader.read(1)
        except OSError:
            pass
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        ready.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    names = {"cert_file": f"{directory}/c.pem", "key_file": f"{directory}/k.pem", "ssl_min_protocol": "TLSv1.2"}
    names["smtpd_tls_eccert_file"] = ""
    context = server_context(SimpleNamespace(**names))  # type: ignore[arg-type]
    asyncio.run(main())


class Peer(asyncio.Protocol):
    """The inner protocol: waits for the octet behind the handshake."""

    def __init__(self) -> None:
        self.came = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.came.set()


async def ours(port: int, count: int, sessions: TlsSessions, context: ssl.SSLContext) -> list[float]:
    """CPU seconds of each handshake, all of it: ours, the loop's and the library's."""
    loop = asyncio.get_running_loop()
    spent = []
    for _ in range(count):
        peer = Peer()
        plain, _ = await loop.create_connection(lambda peer=peer: peer, "127.0.0.1", port)
        await peer.came.wait()
        peer.came.clear()
        began = time.process_time()
        kept = sessions.find("b", context)
        session = kept.session if kept is not None else None
        upgraded = await start_tls(
            loop, plain, peer, context, server_side=False, server_hostname="mx.b.test", session=session
        )
        upgraded.write(b"1")
        await peer.came.wait()
        sessions.keep("b", upgraded.get_extra_info("ssl_object"), None)
        spent.append(time.process_time() - began)
        upgraded.close()
    return spent


def bare(port: int, count: int, context: ssl.SSLContext, *, resumes: bool) -> list[float]:
    """CPU seconds of each handshake by blocking sockets."""
    session = None
    spent = []
    for _ in range(count):
        plain = socket.create_connection(("127.0.0.1", port))
        plain.recv(1)
        began = time.process_time()
        with context.wrap_socket(plain, server_hostname="mx.b.test", session=session) as upgraded:
            upgraded.send(b"1")
            upgraded.recv(1)
            session = upgraded.session if resumes else None
            spent.append(time.process_time() - began)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--handshakes", type=int, default=400)
    count = parser.parse_args().handshakes // ROUNDS
    with tempfile.TemporaryDirectory() as directory:
        write_self_signed(Path(directory, "c.pem"), Path(directory, "k.pem"), ["mx.b.test"])
        ready: Any = multiprocessing.Queue()
        server = multiprocessing.Process(target=serve, args=(directory, ready), daemon=True)
        server.start()
        port = ready.get()
        context = client_context("may")
        whole, kept = TlsSessions(0, time.monotonic), TlsSessions(3600, time.monotonic)
        found: dict[str, list[float]] = {}
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for number in range(ROUNDS + 1):
                for name, measured in (
                    ("ours, whole", lambda: runner.run(ours(port, count, whole, context))),
                    ("ours, resumed", lambda: runner.run(ours(port, count, kept, context))),
                    ("blocking, whole", lambda: bare(port, count, context, resumes=False)),
                    ("blocking, resumed", lambda: bare(port, count, context, resumes=True)),
                ):
                    seconds = measured()
                    if number:  # the first round warms up
                        found.setdefault(name, []).extend(each * 1e6 for each in seconds)
        server.terminate()
    for name, each in found.items():
        tenth = statistics.quantiles(each, n=10)[0]
        print(f"{name:18} {statistics.median(each):6.0f} µs, the fastest tenth under {tenth:.0f}")


if __name__ == "__main__":
    main()
