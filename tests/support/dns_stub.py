"""A name server of our own for tests: zones from a dict, and every way in which a real one misbehaves.

    zones = {
        "example.test": {"MX": [(10, "mx.example.test")], "TXT": ["v=spf1 -all"]},
        "mx.example.test": {"A": ["127.0.0.1"], "AAAA": ["::1"]},
        "null.test": {"MX": [(0, ".")]},
        "alias.test": {"CNAME": "example.test"},
        "broken.test": SERVFAIL,          # or REFUSED, TIMEOUT (no answer at all)
    }
    async with DnsStub(zones) as stub:
        config.dns.nameservers = [stub.address]      # "127.0.0.1:port", UDP and TCP

`insecure` names the owners whose answers are not signed; of all others an answer has the AD bit where the question asks
for DNSSEC, as a validating resolver does it.

A name that is not there is NXDOMAIN; one that is there without the type is an empty answer. A UDP answer longer than
the client takes is truncated and comes whole over TCP. `zones` may be changed while it runs; `queries` counts.
"""

import asyncio
import struct
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

SERVFAIL = "SERVFAIL"
REFUSED = "REFUSED"
TIMEOUT = "TIMEOUT"
TTL = 300


class DnsStub(asyncio.DatagramProtocol):
    """An async context manager; `ttl` is of every record."""

    def __init__(
        self,
        zones: Mapping[str, Any] | None = None,
        *,
        ttl: int = TTL,
        insecure: Collection[str] = (),
        place: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.insecure = set(insecure)
        self._place = place
        self.zones: dict[str, Any] = {name.lower().rstrip("."): records for name, records in (zones or {}).items()}
        self.ttl = ttl
        self.queries: Counter[tuple[str, str]] = Counter()
        self.tcp_queries = 0
        self.address = ""

    async def __aenter__(self) -> "DnsStub":
        loop = asyncio.get_running_loop()
        for _ in range(20):
            self._udp, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=self._place)
            port = self._udp.get_extra_info("sockname")[1]
            try:
                self._tcp = await asyncio.start_server(self._serve_tcp, self._place[0], port)
            except OSError:  # the TCP port of that number is taken
                self._udp.close()
                continue
            self.address = f"{self._place[0]}:{port}"
            return self
        raise RuntimeError("no port is free for both UDP and TCP")

    async def __aexit__(self, *exc_info: object) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()
        await asyncio.sleep(0)

    def connection_made(self, transport: Any) -> None:
        self._sender = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        response = self.answer(query)
        if response is None:
            return
        limit = query.payload or 512
        wire = response.to_wire(max_size=65535)
        if len(wire) > limit:
            response = dns.message.make_response(query)
            response.flags |= dns.flags.TC | dns.flags.RA
            wire = response.to_wire()
        self._sender.sendto(wire, addr)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                query = dns.message.from_wire(await reader.readexactly(length))
                self.tcp_queries += 1
                response = self.answer(query)
                if response is not None:
                    wire = response.to_wire(max_size=65535)
                    writer.write(struct.pack(">H", len(wire)) + wire)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def answer(self, query: dns.message.Message) -> dns.message.Message | None:
        """The response to a query, or None for silence."""
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        name = question.name.to_text().lower().rstrip(".")
        self.queries[name, kind] += 1
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if query.flags & dns.flags.AD or query.ednsflags & dns.flags.DO:
            response.flags |= dns.flags.AD
        owner: dns.name.Name = question.name
        for _ in range(20):  # a loop of aliases is sent as far as this, which is a loop to any client
            records = self.zones.get(name)
            if any(name == each or name.endswith("." + each) for each in self.insecure):
                response.flags &= ~dns.flags.AD
            if records is None:
                if not response.answer:
                    response.set_rcode(dns.rcode.NXDOMAIN)
                return response
            if records == TIMEOUT:
                return None
            if isinstance(records, str):
                response.set_rcode(dns.rcode.from_text(records))
                return response
            if "CNAME" in records and kind != "CNAME":
                target = records["CNAME"].rstrip(".") + "."
                response.answer.append(dns.rrset.from_text(owner, self.ttl, "IN", "CNAME", target))
                owner, name = dns.name.from_text(target), target.lower().rstrip(".")
                continue
            found = records.get(kind)
            if found == TIMEOUT:
                return None
            if isinstance(found, str) and found in (SERVFAIL, REFUSED):
                response.set_rcode(dns.rcode.from_text(found))
            elif found:
                texts = [_text(kind, record) for record in ([found] if isinstance(found, str) else found)]
                response.answer.append(dns.rrset.from_text_list(owner, self.ttl, "IN", kind, texts))
            return response
        return response


def _text(kind: str, record: Any) -> str:
    if kind == "MX":
        return f"{record[0]} {record[1].rstrip('.')}."
    if kind in ("PTR", "NS", "CNAME"):
        return f"{record.rstrip('.')}."
    if kind == "TXT":
        raw = record if isinstance(record, str) else record.decode("latin-1")
        pieces = [raw[i : i + 255] for i in range(0, len(raw), 255)] or [""]
        return " ".join('"' + piece.replace("\\", "\\\\").replace('"', '\\"') + '"' for piece in pieces)
    return str(record)
