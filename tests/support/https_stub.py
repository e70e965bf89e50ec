"""An HTTPS server for tests: `answers` maps a path to (status, content type, body), or to bytes sent as they are."""

import asyncio
import ssl
from typing import Any


class HttpsStub:
    """An async context manager; `requests` has (host header, request line, body) of each request."""

    def __init__(self, context: ssl.SSLContext, answers: dict[str, Any] | None = None) -> None:
        self.answers: dict[str, Any] = answers if answers is not None else {}
        self.requests: list[tuple[str, str, bytes]] = []
        self.port = 0
        self.cut = False  # ends the connection behind the answer
        self._context = context

    async def __aenter__(self) -> "HttpsStub":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            self.requests.append((fields["host"], head[0], body))
            answer = self.answers.get(head[0].split(" ")[1], (404, "text/plain", b"no such page"))
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                status, kind, text = answer
                lines = (f"HTTP/1.1 {status} OK", f"Content-Type: {kind}", f"Content-Length: {len(text)}", "", "")
                writer.write("\r\n".join(lines).encode() + text)
            await writer.drain()
            if not self.cut:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()
