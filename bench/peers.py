"""The servers of the benchmark, all private to a run: FastMTA, Postfix, Dovecot, and a sink in C as the bare ceiling.

Each gives its ports, the CPU seconds of its whole process tree, and what it still has to deliver.
"""

import mmap
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Protocol

from bench import native, trees
from fastmta.tls.certificate import write_self_signed
from tests.support import dovecot, postfix, processes
from tests.support.ports import free_port, wait_until_listening
from tests.support.server import REPOSITORY, Server

HOLD_DOMAIN = "hold.example"  # accepted durably, never delivered
RELAY_DOMAIN = "relay.example"  # relayed to the sink
MANY_DOMAIN = "many.example"  # what is below it, to the sink by an address of loopback for each domain
DESTINATIONS = 5_000  # of those
LOCAL_DOMAIN = "example.test"
LOCAL_USER = "user@example.test"
PASSWORD = "bench-secret"
ACCESS_USERS = tuple(f"access{number}@{LOCAL_DOMAIN}" for number in range(10))


class Spender(Protocol):
    def cpu_seconds(self) -> float: ...


class Peer(Protocol):
    name: str

    def port(self, service: str) -> int: ...
    def cpu_seconds(self) -> float: ...
    def pending(self) -> int: ...  # messages accepted and not yet where they belong, those on hold apart

    def reset(self) -> None: ...  # empties the queue and the mailbox of LOCAL_USER; untimed

    def stop(self) -> None: ...


class Sink:
    """Our cheap sink, which parses, counts and throws away: alone it is the ceiling, behind a relay the next hop.

    It listens on every address of the loopback interface; `options` are its own (bench/native/smtp_sink.c).
    """

    name = "sink"

    def __init__(self, directory: Path, *options: str, tls: bool = False) -> None:
        self._port = free_port()
        directory.mkdir(exist_ok=True)
        counter = directory / "taken"
        counter.touch()
        if tls:
            names = directory / "cert.pem", directory / "key.pem"
            write_self_signed(*names, ["sink.bench.example"])
            options = (*options, "-t", str(names[0]), "-k", str(names[1]))
        program = native.tls_sink() if tls else native.tool("smtp_sink")
        self._process = subprocess.Popen(
            [str(program), *options, "0.0.0.0", str(self._port), str(counter)], stdin=subprocess.DEVNULL
        )
        wait_until_listening("127.0.0.1", self._port)
        with counter.open("rb") as file:
            self._taken = mmap.mmap(file.fileno(), 16, prot=mmap.PROT_READ)

    def port(self, service: str) -> int:
        return self._port

    def received(self) -> int:
        """Messages so far."""
        return int.from_bytes(self._taken[:8], sys.byteorder)

    def refused(self) -> int:
        """Recipients so far that were told to wait."""
        return int.from_bytes(self._taken[8:16], sys.byteorder)

    def cpu_seconds(self) -> float:
        return processes.cpu_seconds(self._process.pid)

    def pending(self) -> int:
        return 0

    def reset(self) -> None:
        return

    def stop(self) -> None:
        processes.stop(self._process)
        self._taken.close()


class NextHops:
    """The sinks behind both relays by the domain that is routed to them, and the map of those routes."""

    #: Domains with a sink of their own, its options, and whether it offers TLS.
    KINDS: Final = {
        RELAY_DOMAIN: ((), False),
        "deferring.example": (("-d", "10"), False),
        "one-each.example": (("-o",), False),
        "tls.example": ((), True),
        "tls-one-each.example": (("-o",), True),
    }

    def __init__(self, directory: Path) -> None:
        self._sinks = {}
        for domain, (options, tls) in self.KINDS.items():
            self._sinks[domain] = Sink(directory / domain, *options, tls=tls)
        self._sinks[MANY_DOMAIN] = self._sinks[RELAY_DOMAIN]
        self.map_path = directory / "transport"
        routes = [f"{domain} smtp:[127.0.0.1]:{sink.port('smtp')}" for domain, sink in self._sinks.items()]
        port = self._sinks[MANY_DOMAIN].port("smtp")
        for number in range(DESTINATIONS):
            address = f"127.1.{number // 250}.{number % 250 + 1}"
            routes.append(f"d{number}.{MANY_DOMAIN} smtp:[{address}]:{port}")
        self.map_path.write_text("\n".join(routes) + "\n")
        self.map_path.chmod(0o644)

    def of(self, domain: str) -> Sink:
        return self._sinks[domain]

    def stop(self) -> None:
        for domain in self.KINDS:
            self._sinks[domain].stop()


class PostfixPeer:
    name = "postfix"

    def __init__(self, hops: NextHops) -> None:
        reason = postfix.missing()
        if reason:
            raise SystemExit(f"bench: {reason}")
        self._server = postfix.Postfix(
            {
                "in_flow_delay": "0",
                "default_process_limit": "1000",
                "smtpd_client_connection_count_limit": "0",
                "smtpd_client_connection_rate_limit": "0",
                "smtpd_recipient_restrictions": f"check_recipient_access inline:{{{{{HOLD_DOMAIN}=HOLD}}}},"
                f"permit_mynetworks,reject",
                "transport_maps": f"texthash:{hops.map_path}",
                "smtp_tls_security_level": "may",
                "smtp_tls_connection_reuse": "yes",
                "smtp_tls_session_cache_database": "btree:$data_directory/smtp_scache",
                "virtual_mailbox_domains": LOCAL_DOMAIN,
                "virtual_mailbox_maps": "static:all/",
                "virtual_mailbox_base": "$queue_directory/mail",
                "virtual_uid_maps": "static:65534",
                "virtual_gid_maps": "static:65534",
                "virtual_minimum_uid": "1000",
                "virtual_mailbox_limit": "0",
            },
            smtpd_limit=1000,
        )
        self._spool = self._server.queue / "mail"
        self._spool.mkdir()
        shutil.chown(self._spool, "nobody")
        self._server.start()

    def port(self, service: str) -> int:
        return self._server.port

    def cpu_seconds(self) -> float:
        return self._server.cpu_seconds()

    def pending(self) -> int:
        return self._server.queued()

    def reset(self) -> None:
        for path in (self._server.queue / "hold").iterdir():
            path.unlink()
        self._server.delete("deferred")
        shutil.rmtree(self._spool / "all", ignore_errors=True)

    def stop(self) -> None:
        self._server.stop()


class FastMTAPeer:
    """FastMTA with its default settings: log, metrics, Received header, durable commits; one worker unless told."""

    def __init__(
        self,
        directory: Path,
        hops: NextHops,
        workers: int = 1,
        name: str = "fastmta",
        tree: Path = REPOSITORY,
        **settings: object,
    ) -> None:
        self.name = name
        relay_port = hops.of(RELAY_DOMAIN).port("smtp")
        self.server = Server(
            directory / name,
            domains=[LOCAL_DOMAIN],
            workers=workers,
            settings={
                "transport": {HOLD_DOMAIN: "hold:", RELAY_DOMAIN: f"smtp:[127.0.0.1]:{relay_port}"},
                "transport_maps": [f"texthash:{hops.map_path}"],
                **settings,
            },
            env=trees.environment(tree),
        )
        trees.fit(self.server, tree)
        self.server.start()
        for address in (LOCAL_USER, *ACCESS_USERS):
            self.server.add_user(address, PASSWORD)

    def port(self, service: str) -> int:
        return self.server.port(service)

    def cpu_seconds(self) -> float:
        return processes.cpu_seconds(self.server.pid)

    def pending(self) -> int:
        metrics = self.server.metrics()
        return int(
            sum(
                value
                for name, value in metrics.items()
                if name.startswith("fastmta_queue_messages{") and "held" not in name
            )
        )

    def reset(self) -> None:
        """Waits, too, until the store has cleared what it deletes in the background."""
        self.server.cli("queue", "delete", "--all", check=False)
        self.server.cli("mailbox", "purge", LOCAL_USER, check=False)
        settle(self)

    def stop(self) -> None:
        self.server.stop()


class DovecotPeer:
    name = "dovecot"

    def __init__(self) -> None:
        reason = dovecot.missing()
        if reason:
            raise SystemExit(f"bench: {reason}")
        self._server = dovecot.Dovecot(dict.fromkeys((LOCAL_USER, *ACCESS_USERS), PASSWORD))
        self._server.start()

    def port(self, service: str) -> int:
        return self._server.port(service)

    def cpu_seconds(self) -> float:
        return self._server.cpu_seconds()

    def pending(self) -> int:
        return 0

    def reset(self) -> None:
        return

    def stop(self) -> None:
        self._server.stop()


def settle(peer: Spender, quiet_s: float = 0.2, timeout_s: float = 10.0) -> None:
    """Waits until `peer` has spent next to no CPU for `quiet_s`: one sample's aftermath is not the next one's."""
    deadline = time.monotonic() + timeout_s
    before = peer.cpu_seconds()
    while time.monotonic() < deadline:
        time.sleep(quiet_s)
        now = peer.cpu_seconds()
        if now - before <= 0.02 * quiet_s + 0.01:
            return
        before = now
