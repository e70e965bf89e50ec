"""Whether a flood from very many addresses is felt by a healthy client, or by memory: `python -m bench.flood`.

Every connection of the flood comes from an address of its own, which a PROXY header names: half of them IPv4 addresses,
half networks of IPv6. In turn each leaves behind the greeting, says EHLO and QUIT, offers mail that is greylisted, or
offers mail to strangers until it is ended and banned for it. Limits by address, greylisting, bans and (with
--names) the search for client names are on. Beside it a healthy client, as strange, sends 4 KB messages one at a time
over a connection of its own.

Printed are the delay of its 250 before, meanwhile and after, what the worker worked in it, and what the memory grew by:
the worker's own (RssAnon), and the shared tables. It fails where memory has grown beyond MEMORY_BYTES, or
the p99 beyond twice the usual one; on a machine that others use, look at the delay before and after first.
"""

import argparse
import asyncio
import contextlib
import ipaddress
import json
import multiprocessing
import socket
import struct
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.busy import PASSWORD, QUIET, smtp
from bench.two_users import Figures, Work, anonymous_peak, at_once, go_first, memory_mb
from fastmta._limits import HOLDINGS_BYTES, TABLE_BYTES
from fastmta.model.limits import BANS
from tests.support.dns_thread import dns_stub
from tests.support.server import Server

ADDRESSES: Final = 100_000
AT_ONCE: Final = 10  # connections of the flood
PAUSE_S: Final = 0.005  # of the healthy client between two messages
PROXIES: Final = "127.0.1.0/24"  # the flood's real addresses: one has too few ports
TABLES: Final = 2  # of limits, and of greylisting
#: What a worker may grow by: the tables as it sees them, what is kept of clients' names and of the DNS (10 and
#: 2 MB), 1,000 octets a ban, and 8 MB for connections and what the allocator keeps.
MEMORY_BYTES: Final = TABLES * (TABLE_BYTES + HOLDINGS_BYTES) + (12 << 20) + 1000 * BANS + (8 << 20)

SETTINGS: Final[dict[str, Any]] = {
    "log_level": "warning",
    "mynetworks": ["192.0.2.0/24"],  # so the healthy client is a stranger too
    "greylist_whitelist_clients": ["127.0.0.1"],
    "haproxy_trusted_networks": [PROXIES],
    "smtpd_client_connection_rate_limit": 100_000,
    "smtpd_client_message_rate_limit": 100_000,
    "smtpd_client_recipient_rate_limit": 100_000,
    "smtpd_authentication": False,
    "greylisting": True,
    "ban_maxretry": 1,
    "smtpd_hard_error_limit": 2,
    "smtpd_error_sleep_time": 0,
}


def address(n: int) -> str:
    """The address of the n-th connection: of 10/8, or in a /64 of its own."""
    if n % 2:
        return str(ipaddress.IPv6Address((0x20010DB8 << 96) + (n << 64) + 1))
    return str(ipaddress.IPv4Address((10 << 24) + n))


def proxy_header(ip: str) -> bytes:
    """Version 1 of the PROXY protocol."""
    family, us = ("TCP6", "::1") if ":" in ip else ("TCP4", "127.0.0.1")
    return f"PROXY {family} {ip} {us} 40000 25\r\n".encode()


class Flood:
    """So many connections, each from another address."""

    def __init__(self, server: Server, numbers: range, at_once: int = AT_ONCE) -> None:
        self._port = server.port("smtp")
        self._numbers = iter(numbers)
        self._at_once = at_once
        self.replies: Counter[str] = Counter()

    def run(self) -> "Flood":
        asyncio.run(self._all())
        return self

    async def _all(self) -> None:
        await asyncio.gather(*(self._one_by_one(place) for place in range(self._at_once)))

    async def _one_by_one(self, place: int) -> None:
        source = f"127.0.1.{1 + place % 250}"
        for n in self._numbers:
            try:
                await self._session(n, source)
            except OSError:
                self.replies["lost"] += 1

    async def _session(self, n: int, source: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(source, 0))
        try:
            writer.write(proxy_header(address(n)))
            kind = n // 2 % 4
            if kind == 0:
                await self._reply(reader)
                return
            if not (await self._reply(reader)).startswith("220"):
                return
            writer.write(b"EHLO flood.test\r\n")
            await self._reply(reader)
            if kind == 1:
                writer.write(b"QUIT\r\n")
            elif kind == 2:
                writer.write(b"MAIL FROM:<a%d@flood.test>\r\nRCPT TO:<%b>\r\nQUIT\r\n" % (n, QUIET.encode()))
            else:
                writer.write(b"MAIL FROM:<a@flood.test>\r\n" + b"RCPT TO:<n%d@example.test>\r\n" % n * 3)
            while await self._reply(reader):
                pass
        finally:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()

    async def _reply(self, reader: asyncio.StreamReader) -> str:
        """A whole reply, "" at the end."""
        while line := (await reader.readline()).decode():
            if line[3:4] != "-":
                self.replies[line[:9] if line[3:4] == " " and line[0] in "45" else line[:3]] += 1
                return line
        return ""


class Delays(NamedTuple):
    """Milliseconds from the last dot to the 250, message after message; and what the worker worked in each."""

    passed: list[float]
    worked: list[float]


def healthy(server: Server, seconds: float, stop: Any = None) -> Delays:
    """The healthy client, for so long or until it is told to stop."""
    work = Work(server.workers()[0])
    peer = smtp(server)
    letter = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 57 + b".\r\n"
    delays = Delays([], [])
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and (stop is None or not stop.is_set()):
        peer.ask(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<%b>\r\nDATA\r\n" % QUIET.encode(), b"354")
        started, worked = time.perf_counter(), work.now()
        peer.ask(letter, b"250")
        delays.passed.append((time.perf_counter() - started) * 1000)
        delays.worked.append(work.now() - worked)
        time.sleep(PAUSE_S)
    peer.close()
    return delays


class Measured(NamedTuple):
    """What a run has shown: delays, and memory of the worker in octets."""

    before: Delays
    meanwhile: Delays
    after: Delays
    replies: Counter[str]
    seconds: float
    worked: float  # milliseconds of the worker's processor, the healthy client's included
    own: int  # the most that its anonymous memory grew by
    shared: int  # and what it has touched of shared tables
    bans: int


def prepared(directory: Path, nameserver: str) -> Server:
    """A server with the healthy client's mailbox; not started yet. Without a name server no names are looked up."""
    dns = {"dns": {"nameservers": [nameserver]}} if nameserver else {"smtpd_peername_lookup": False}
    settings = {**SETTINGS, **dns}
    server = Server(directory, services=("smtp",), settings=settings, with_tls=False)
    server.add_user(QUIET, PASSWORD)
    return server


def tables_mb(pid: int, directory: Path) -> float:
    """What a process has in memory of the tables that it shares: those of limits, and those in mapped files."""
    total, wanted = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if "-" in name.split()[0]:
            wanted = "fastmta-limits" in line or (str(directory) in line and line.endswith(".table"))
        elif name == "Rss" and wanted:
            total += int(value.split()[0])
    return total / 1024


def measure(server: Server, addresses: int, seconds: float, *, first: bool = False) -> Measured:
    """The healthy client alone, beside the flood, and alone again. The server runs, with one worker."""
    pid = server.workers()[0]
    context = multiprocessing.get_context("fork")
    stop, peak = context.Event(), context.Value("d", 0.0)
    queue = context.SimpleQueue()

    def client(seconds: float, until: Any) -> None:
        with at_once(first):
            queue.put(healthy(server, seconds, until))

    def alone() -> Delays:
        process = context.Process(target=client, args=(seconds, None), daemon=True)
        process.start()
        delays: Delays = queue.get()
        process.join()
        return delays

    before = alone()
    own, shared = memory_mb(pid, "RssAnon"), tables_mb(pid, server.data_directory)
    watcher = context.Process(target=anonymous_peak, args=(pid, stop, peak), daemon=True)
    beside = context.Process(target=client, args=(3600.0, stop), daemon=True)
    for each in (watcher, beside):
        each.start()
    started = time.monotonic()
    work = Work(pid)
    worked = work.now()
    flood = Flood(server, range(addresses)).run()
    took, worked = time.monotonic() - started, work.now() - worked
    stop.set()
    meanwhile = queue.get()
    for each in (watcher, beside):
        each.join()
    after = alone()
    bans = len(json.loads(server.cli("ban", "list", "--json").stdout))
    grown = int((peak.value - own) * 2**20), int((tables_mb(pid, server.data_directory) - shared) * 2**20)
    return Measured(before, meanwhile, after, flood.replies, took, worked, *grown, bans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--addresses", type=int, default=ADDRESSES)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the healthy client alone, before and after")
    parser.add_argument("--first", action="store_true", help="the server and the healthy client go ahead of all others")
    parser.add_argument("--names", action="store_true", help="with client names, asked of a slow server here")
    arguments = parser.parse_args()
    names = dns_stub({}) if arguments.names else contextlib.nullcontext()
    with tempfile.TemporaryDirectory(prefix="flood-") as directory, names as dns:
        server = prepared(Path(directory), dns.address if dns is not None else "")
        with server:
            if arguments.first:
                go_first(server)
            seen = measure(server, arguments.addresses, arguments.seconds, first=arguments.first)
    for name in ("before", "meanwhile", "after"):
        passed, worked = getattr(seen, name)
        print(
            f"{name:10} {len(passed):7} messages: median {Figures.place(passed, 0.5):6.2f} ms,"
            f" p99 {Figures.place(passed, 0.99):6.2f}, most {max(passed):6.2f};"
            f" of the worker's CPU median {Figures.place(worked, 0.5):5.2f}, p99 {Figures.place(worked, 0.99):5.2f}"
        )
    each_ms = seen.worked / arguments.addresses
    print(
        f"{arguments.addresses} addresses in {seen.seconds:.0f} s, {each_ms:.2f} ms of the worker's CPU each;"
        f" {seen.bans} bans; {dict(seen.replies)}"
    )
    print(
        f"memory: {seen.own / 2**20:.1f} MB of the worker's own and {seen.shared / 2**20:.1f} MB of shared tables more;"
        f" the bound is {MEMORY_BYTES / 2**20:.1f} MB"
    )
    usual = max(Figures.place(seen.before.passed, 0.99), Figures.place(seen.after.passed, 0.99))
    if seen.own + seen.shared > MEMORY_BYTES:
        raise SystemExit("memory has grown beyond the bound")
    if Figures.place(seen.meanwhile.passed, 0.99) > 2 * usual:
        raise SystemExit("p99 is beyond twice the usual")


if __name__ == "__main__":
    main()
