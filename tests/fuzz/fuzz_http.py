"""Throws damaged requests at the HTTP listener; see harness.py for options."""

import asyncio
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fastmta.runtime.metrics import METRICS
from tests.admin.test_http import Client, Wire
from tests.fuzz.harness import AsyncTarget, main

REQUESTS = [
    b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"HEAD /healthz HTTP/1.0\r\n\r\n",
    b"GET /healthz?x=1 HTTP/1.1\r\nHost: mx.example.test:8025\r\nOrigin: http://evil.test\r\n\r\n",
    b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"GET /broken HTTP/1.1\r\nHost: [::1]\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET http://a/healthz HTTP/1.1\r\nConnection: close\r\nSec-Fetch-Site: cross-site\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n\r\n",
]


class Http(AsyncTarget):
    corpus = tuple(REQUESTS)
    tokens = (
        *REQUESTS,
        b"Host: ",
        b"Content-Length: 99999999999999999999\r\n",
        b"Content-Length: -1\r\n",
        b"HTTP/9.9",
        b"\r\n ",
        b"%00",
    )

    async def start(self) -> None:
        self.client = Client()
        self.client.protocol.connection_lost(None)

    async def hold(self, data: bytes) -> None:
        client = self.client
        client.protocol, client.wire = client.server.factory(), Wire()
        client.protocol.connection_made(client.wire)
        for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
            if not client.wire.closed:
                client.protocol.data_received(piece)
            while client.turns.waiting:  # noqa: ASYNC110
                await asyncio.sleep(0)
        answers = re.findall(rb"HTTP/1\.1 (\d\d\d) ", client.wire.sent)
        if client.wire.sent and not client.wire.sent.startswith(b"HTTP/1.1 "):
            raise AssertionError(f"not an answer: {client.wire.sent[:100]!r}")
        for code in answers:
            if code == b"500" and b"/broken" not in data:
                raise AssertionError("an unexpected error")
        client.protocol.connection_lost(None)
        if client.cells[METRICS.connections["http"]]:
            raise AssertionError("a connection is left in the counts")


if __name__ == "__main__":
    raise SystemExit(main(Http, __doc__))
