"""CPU of a message that is authenticated on its way in, or signed on its way out, beside one that is only accepted.

    python -m bench.authenticated [--rounds 3] [--messages 2000] [--peers fastmta,postfix] [--json]

Each server takes the same message of 4 KB over a few connections and keeps it on hold: `bare` with no check to ask,
`verify` from a stranger (SPF, a DKIM signature and an ARC chain of RSA, DMARC), `sign` from mynetworks with one key of
RSA. Postfix has Debian's opendkim, opendmarc and policyd-spf do it; none of them looks at ARC. All keys have 2,048
bits. CPU is user and system time of all processes of a server, its filters among them; those of the generator and of
the name server, which is this program, are not in it. The DNS is warm: FastMTA's cache has what it needs, opendkim
reads its keys from a file (its libunbound does not ask loopback), the others ask the name server for each message.

The public-key operations of a message are counted by verifying it here once, and the CPU of one is measured in every
round with the library that FastMTA uses; "less" is what is left without them. Postfix and its filters run in a mount
namespace whose /etc/resolv.conf names our name server.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench import native, trees
from bench.peers import HOLD_DOMAIN, settle
from fastmta.authentication.arc import collect_sets
from fastmta.authentication.bodies import Bodies, forms_needed
from fastmta.authentication.keys import parse_key
from fastmta.authentication.message import parse_fields, split_message
from fastmta.authentication.signature import hold
from fastmta.authentication.signing import DkimTags, Signer, body_digest_of, names_to_sign, seal_arc, sign_dkim
from fastmta.authentication.verifying import Client, verify_message
from tests.authentication.zone import Zone
from tests.support import postfix, processes
from tests.support.dns_thread import dns_stub
from tests.support.keys import rsa_key
from tests.support.server import Server
from tests.support.waiting import wait_for

AUTHOR_DOMAIN: Final = "author.example"
SEALER_DOMAIN: Final = "sealer.example"
SELECTOR: Final = "bench"
SENDER: Final = f"ann@{AUTHOR_DOMAIN}"
RECIPIENT: Final = f"h@{HOLD_DOMAIN}"
SESSIONS: Final = 10  # /proc counts in hundredths of a second a process: few processes, each with many messages
OCTETS: Final = 4096
POSTFIX_SHARE: Final = 4  # Postfix gets a fourth of the messages: its figure needs no more, and takes ten times as long
OPERATIONS: Final = 400  # public-key operations of one measure
NOBODY: Final = "192.0.2.0/24"  # mynetworks of a server to which loopback is a stranger
FILTERS: Final = ("opendkim", "opendmarc", "policyd-spf")
KINDS: Final = ("bare", "verify", "sign")
AUTHOR: Final = Signer(AUTHOR_DOMAIN, SELECTOR, rsa_key(1))
SEALER: Final = Signer(SEALER_DOMAIN, SELECTOR, rsa_key(2))
ZONES: Final[dict[str, Any]] = {
    AUTHOR_DOMAIN: {"TXT": ["v=spf1 ip4:127.0.0.1 -all"], "A": ["127.0.0.1"], "MX": [(10, AUTHOR_DOMAIN)]},
    f"_dmarc.{AUTHOR_DOMAIN}": {"TXT": ["v=DMARC1; p=reject"]},
    f"{SELECTOR}._domainkey.{AUTHOR_DOMAIN}": {"TXT": [AUTHOR.public_record()]},
    f"{SELECTOR}._domainkey.{SEALER_DOMAIN}": {"TXT": [SEALER.public_record()]},
    "load.bench.example": {"A": ["127.0.0.1"]},
}


def plain_message() -> bytes:
    """What is to be signed: OCTETS of it, its lines below 80."""
    head = (
        f"From: Ann <{SENDER}>\r\nTo: <{RECIPIENT}>\r\nSubject: a letter of the bench\r\n"
        f"Date: Mon, 02 Nov 2026 10:00:00 +0000\r\nMessage-ID: <one@{AUTHOR_DOMAIN}>\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    ).encode()
    line = b"some words of a letter that goes from one to another, and says little\r\n"
    return head + (line * (OCTETS // len(line) + 1))[: OCTETS - len(head) - 2] + b"\r\n"


def signed_message() -> bytes:
    """The same with its author's signature and a sealer's ARC set."""
    raw = plain_message()
    _, body = split_message(raw)
    now = int(time.time()) - 5
    for seals in (False, True):
        head, _ = split_message(raw)
        fields = parse_fields(head)
        digest = body_digest_of(body, "relaxed")
        tags = DkimTags(names_to_sign(fields, arc=seals), signed_at=now)
        if seals:
            results = f"mx.{SEALER_DOMAIN}; dkim=pass header.d={AUTHOR_DOMAIN}"
            raw = seal_arc(SEALER, fields, collect_sets(fields), "none", results, digest, tags) + raw
        else:
            raw = sign_dkim(AUTHOR, fields, digest, tags) + raw
    return raw


def verifications(raw: bytes) -> int:
    """How many public-key operations the message takes; raises SystemExit unless it passes everything."""
    count = 0

    async def counted(operation: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal count
        if operation is hold:
            count += sum(len(each) for each in arguments)
        return operation(*arguments)

    head, body = split_message(raw)
    fields = parse_fields(head)
    bodies = Bodies(forms_needed(fields))
    bodies.update(body)
    client = Client("127.0.0.1", "load.bench.example", SENDER)
    found = asyncio.run(verify_message(fields, bodies, client, Zone(ZONES), counted, time.time()))
    spf = found.spf.result if found.spf is not None else "none"
    said = {spf, *(one.result for one in found.dkim), found.arc.result, found.dmarc.result}
    if said != {"pass"}:
        raise SystemExit(f"bench: the message of the row is not good: {found}")
    return count


def operation_cpu_s() -> tuple[float, float]:
    """CPU seconds of one RSA verification and of one signature, as FastMTA's library does them."""
    digest = bytes(range(32))
    signature = AUTHOR.sign(digest)
    key = parse_key(AUTHOR.public_record().encode())
    begin = time.process_time()
    for _ in range(OPERATIONS):
        key.verify(digest, signature)
    middle = time.process_time()
    for _ in range(OPERATIONS):
        AUTHOR.sign(digest)
    return (middle - begin) / OPERATIONS, (time.process_time() - middle) / OPERATIONS


class OurSide:
    """A FastMTA that does one of KINDS."""

    def __init__(
        self,
        directory: Path,
        kind: str,
        nameserver: str,
        *,
        env: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        tree: Path | None = None,
        wait_s: float = 30.0,
    ) -> None:
        """`env`, `wrapper`: of the server's process; `tree`: another one whose server it is; `wait_s`: until ready."""
        self.name = f"fastmta-{kind}"
        self.kind = kind
        self._server = Server(
            directory / self.name,
            services=("smtp",),
            settings={
                "transport": {HOLD_DOMAIN: "hold:"},
                "relay_domains": [HOLD_DOMAIN],
                "mynetworks": [NOBODY if kind == "verify" else "127.0.0.0/8"],
                "smtpd_client_event_limit_exceptions": ["127.0.0.0/8"],
                "dns": {"nameservers": [nameserver]},
            },
            env=env,
            wrapper=wrapper,
        )
        if tree is not None:
            trees.fit(self._server, tree)
        if kind == "sign":
            key = directory / "author.pem"
            key.write_bytes(pem_of(AUTHOR))
            self._server.cli("dkim", "add", AUTHOR_DOMAIN, "--selector", SELECTOR, "--key", str(key))
        self._server.start(wait=False)
        self._server.wait_ready(wait_s)

    def port(self) -> int:
        return self._server.port("smtp")

    def worker(self) -> int:
        return self._server.workers()[0]

    def cpu_seconds(self) -> float:
        return processes.cpu_seconds(self._server.pid)

    def require_done(self) -> None:
        """Raises unless the last messages have been through what the row is about."""
        log = self._server.log_path.read_text(errors="replace")
        lines = [line for line in log.splitlines() if "policy.verdict" in line]
        wanted = {"verify": (f"spf=pass dkim=pass:{AUTHOR_DOMAIN} arc=pass dmarc=pass",), "sign": ("signed for",)}
        for words in wanted.get(self.kind, ()):
            if not lines or words not in lines[-1]:
                raise RuntimeError(f"{self.name}: {words!r} is not in the last verdict: {lines[-1:]}")
        if self.kind == "bare" and lines:
            raise RuntimeError(f"{self.name} has asked a check: {lines[-1]}")

    def reset(self) -> None:
        self._server.cli("queue", "delete", "--all", check=False)

    def stop(self) -> None:
        self._server.stop()


class PostfixSide:
    """A Postfix that has Debian's filters do one of KINDS."""

    def __init__(self, directory: Path, kind: str, nameserver: str) -> None:
        self.name = f"postfix-{kind}"
        self.kind = kind
        self._home = directory / self.name
        self._home.mkdir()
        self._home.chmod(0o755)
        resolver = self._home / "resolv.conf"
        address = nameserver.rpartition(":")[0]
        resolver.write_text(f"nameserver {address}\n")
        script = f'mount --bind {resolver} /etc/resolv.conf && exec "$@"'
        self._inside = ["unshare", "--mount", "sh", "-c", script, "sh"]
        self._filters: list[subprocess.Popen[bytes]] = []
        milters, checks = [], ""
        if kind == "verify":
            keys = self._home / "keys"
            keys.write_text("".join(f"{name} {ZONES[name]['TXT'][0]}\n" for name in ZONES if "_domainkey" in name))
            (self._home / "ignored").write_text("192.0.2.1\n")  # else loopback is not looked at
            milters = [
                self._filter("opendkim", "-x", f"Mode v\nAlwaysAddARHeader yes\nTestPublicKeys {keys}\n"),
                self._filter(
                    "opendmarc",
                    "-c",
                    f"TrustedAuthservIDs od.test\nIgnoreHosts {self._home}/ignored\nRejectFailures no\n",
                ),
            ]
            checks = "check_policy_service unix:private/policyd-spf,"
        elif kind == "sign":
            key = self._home / "author.pem"
            key.write_bytes(pem_of(AUTHOR))
            lines = f"Mode s\nDomain {AUTHOR_DOMAIN}\nSelector {SELECTOR}\nKeyFile {key}\nInternalHosts 127.0.0.1\n"
            milters = [
                self._filter("opendkim", "-x", lines + "Canonicalization relaxed/relaxed\nOversignHeaders From\n")
            ]
        self._server = postfix.Postfix(
            {
                "in_flow_delay": "0",
                "default_process_limit": "1000",
                "smtpd_client_connection_count_limit": "0",
                "smtpd_client_connection_rate_limit": "0",
                "smtpd_recipient_restrictions": f"{checks} check_recipient_access inline:{{{{{HOLD_DOMAIN}=HOLD}}}},"
                f"permit_mynetworks,reject",
                "smtpd_milters": ", ".join(milters),
                "policyd-spf_time_limit": "3600",
            },
            smtpd_limit=1000,
            prefix=self._inside,
        )
        if kind == "verify":
            settings = self._home / "policyd-spf.conf"
            settings.write_text(
                "debugLevel = 0\nHELO_reject = Fail\nMail_From_reject = Fail\nskip_addresses = 192.0.2.1\n"
            )
            with (self._server.config / "master.cf").open("a") as file:
                command = f"spawn user=nobody argv={shutil.which('policyd-spf')} {settings}"
                file.write(f"policyd-spf unix - n n - 0 {command}\n")
        self._server.start()

    def _filter(self, name: str, option: str, lines: str) -> str:
        socket, config = self._home / f"{name}.sock", self._home / f"{name}.conf"
        common = "Syslog no\nBackground no\nAuthservID od.test\n" + (
            "RequireSafeKeys no\n" if name == "opendkim" else ""
        )
        config.write_text(f"Socket local:{socket}\nUMask 000\n{common}{lines}")
        program = shutil.which(name, path=postfix.search_path()) or name
        command = [*self._inside, program, "-f", option, str(config), "-P", str(self._home / f"{name}.pid")]
        self._filters.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
        wait_for(socket.exists, f"{name} does not listen")
        return f"unix:{socket}"

    def port(self) -> int:
        return self._server.port

    def cpu_seconds(self) -> float:
        return self._server.cpu_seconds() + sum(processes.cpu_seconds(one.pid) for one in self._filters)

    def require_done(self) -> None:
        held = next((self._server.queue / "hold").iterdir()).read_bytes()
        wanted = {"verify": (b"dkim=pass", b"dmarc=pass", b"Received-SPF: Pass"), "sign": (b"DKIM-Signature:",)}
        for words in wanted.get(self.kind, ()):
            if words not in held:
                raise RuntimeError(f"{self.name}: {words!r} is not in a held message: {held[:3000]!r}")

    def reset(self) -> None:
        for path in (self._server.queue / "hold").iterdir():
            path.unlink()

    def stop(self) -> None:
        self._server.stop()
        for one in self._filters:
            one.kill()  # opendkim takes seconds to end by itself
            one.wait()


Side = OurSide | PostfixSide


def pem_of(signer: Signer) -> bytes:
    return signer.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


class Taken(NamedTuple):
    """One sample: CPU seconds a message, and messages a second."""

    cpu_s: float
    per_second: float


def sample(side: Side, messages: int, raw: Path) -> Taken:
    """Loads the server once untimed, so that its processes and caches are there, then once more."""

    def load(count: int) -> float:
        return native.smtp_load(
            side.port(), sessions=SESSIONS, messages=count, size=0, to=RECIPIENT, sender=SENDER, message=raw
        ).elapsed_s

    load(SESSIONS * 5)
    settle(side)
    before = side.cpu_seconds()
    elapsed = load(messages)
    settle(side)
    spent = side.cpu_seconds() - before
    side.require_done()
    side.reset()
    return Taken(spent / messages, messages / elapsed)


def operations_of(side: str, ours: int) -> tuple[int, int]:
    """Verifications and signatures that a message costs a server; opendkim leaves the two of the ARC set alone."""
    who, _, kind = side.partition("-")
    if kind == "verify":
        return (ours if who == "fastmta" else 1), 0
    return 0, int(kind == "sign")


def measure(directory: Path, peers: list[str], rounds: int, messages: int) -> dict[str, Any]:
    """Median CPU microseconds of a message, whole and without its public-key operations, for each server."""
    raw = {kind: directory / f"{kind}.eml" for kind in KINDS}
    for kind, path in raw.items():
        path.write_bytes(signed_message() if kind == "verify" else plain_message())
    ours = verifications(raw["verify"].read_bytes())
    rows: dict[str, dict[str, list[float]]] = {}
    operations: list[tuple[float, float]] = []
    with ExitStack() as stack:
        place = (f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() % 250 + 1}", 53)
        stub = stack.enter_context(dns_stub(ZONES, place if "postfix" in peers else ("127.0.0.1", 0)))
        sides: list[Side] = []
        for kind in KINDS:
            for maker in [OurSide] * ("fastmta" in peers) + [PostfixSide] * ("postfix" in peers):
                side: Side = maker(directory, kind, stub.address)
                stack.callback(side.stop)
                sides.append(side)
        for turn in range(rounds):
            verify_s, sign_s = operation_cpu_s()
            operations.append((verify_s, sign_s))
            at = turn % len(sides)
            for side in sides[at:] + sides[:at]:
                count = messages // (POSTFIX_SHARE if isinstance(side, PostfixSide) else 1)
                taken = sample(side, count, raw[side.kind])
                verified, signed = operations_of(side.name, ours)
                row = rows.setdefault(side.name, {"whole_us": [], "less_us": [], "per_second": []})
                row["whole_us"].append(taken.cpu_s * 1e6)
                row["less_us"].append((taken.cpu_s - verified * verify_s - signed * sign_s) * 1e6)
                row["per_second"].append(taken.per_second)
                print(f"  {turn + 1}/{rounds} {side.name}: {taken.cpu_s * 1e6:,.0f} us", file=sys.stderr, flush=True)
    return {
        "rows": {
            name: {
                **{
                    key: {"median": statistics.median(each), "low": min(each), "high": max(each)}
                    for key, each in row.items()
                },
                "operations": sum(operations_of(name, ours)),
            }
            for name, row in rows.items()
        },
        "ratios": ratios(rows),
        "verify_us": statistics.median(one for one, _ in operations) * 1e6,
        "sign_us": statistics.median(one for _, one in operations) * 1e6,
    }


def ratios(rows: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Medians of the rounds' own ratios: beside our bare accept without public-key operations, beside Postfix whole."""
    out = {}
    for kind in ("verify", "sign"):
        pairs = {
            f"{kind}, less, to the bare accept": (f"fastmta-{kind}", "less_us", "fastmta-bare"),
            f"{kind}, whole, to Postfix": (f"fastmta-{kind}", "whole_us", f"postfix-{kind}"),
            f"{kind}, less, to Postfix": (f"fastmta-{kind}", "less_us", f"postfix-{kind}"),
        }
        for name, (mine, key, other) in pairs.items():
            if mine in rows and other in rows:
                out[name] = statistics.median(a / b for a, b in zip(rows[mine][key], rows[other][key], strict=True))
    return out


def print_report(report: dict[str, Any]) -> None:
    print(f"a verification {report['verify_us']:.0f} us, a signature {report['sign_us']:.0f} us")
    for name, row in report["rows"].items():
        whole, less = row["whole_us"], row["less_us"]
        print(
            f"{name:16} {whole['median']:>8,.0f} us whole [{whole['low']:,.0f} to {whole['high']:,.0f}],"
            f" {less['median']:>8,.0f} us less {row['operations']} operations"
            f" [{less['low']:,.0f} to {less['high']:,.0f}], {row['per_second']['median']:,.0f} msg/s"
        )
    for name, ratio in report["ratios"].items():
        print(f"{name}: {ratio:.3f}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.authenticated",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=2000, help="a sample; Postfix gets a fourth of it")
    parser.add_argument("--peers", default="fastmta,postfix")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    peers = given.peers.split(",")
    if "postfix" in peers:
        reason = postfix.missing()
        absent = [name for name in FILTERS if not shutil.which(name, path=postfix.search_path())]
        if reason or absent:
            raise SystemExit(f"bench: {reason or 'not installed: ' + ', '.join(absent)}")
    directory = Path(tempfile.mkdtemp(prefix="fastmta-authenticated-"))
    directory.chmod(0o755)
    try:
        report = measure(directory, peers, given.rounds, given.messages)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if given.json:
        print(json.dumps(report, indent=1))
    else:
        print_report(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
