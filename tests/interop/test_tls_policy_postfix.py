"""DANE and smtp_tls_policy_maps beside Debian's Postfix: the same zones and servers, and the same verdict in each case.

Postfix asks the resolver of its machine, so it runs in a mount namespace of its own, where /etc/resolv.conf names the
stub of this test, which says by the AD bit what a validating resolver would.
"""

import asyncio
import re
import smtplib
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from fastmta.model.envelope import RecipientState
from tests.delivery.conftest import make_rig  # noqa: F401 - a fixture
from tests.support import postfix
from tests.support.authority import issue
from tests.support.dns_stub import SERVFAIL, DnsStub
from tests.support.ports import free_port, own_address
from tests.support.smtp_sink import SmtpSink

UNUSABLE = "0 0 1 " + "ab" * 32
EE, EE_WHOLE, TA = "3 1 1", "3 0 2", "2 0 1"
MX, HOST, RECORD = "{domain}", "mx.{domain}", "_tcp.mx.{domain}"

# (level or entry, TLSA records, names that are not signed, whose certificate the server has, aliased to)
CASES = [
    ("dane", [EE], [], "leaf", ""),
    ("dane", [EE_WHOLE], [], "leaf", ""),
    ("dane", [EE], [], "other", ""),
    ("dane", [EE], [], "", ""),
    ("dane-only", [EE], [], "leaf", ""),
    ("dane-only", [EE], [], "other", ""),
    ("dane", [TA], [], "leaf", ""),
    ("dane", [TA], [], "other", ""),
    ("dane-only", [TA], [], "leaf", ""),
    ("dane", [UNUSABLE, EE], [], "leaf", ""),
    ("dane", [UNUSABLE, EE], [], "other", ""),
    ("dane", [UNUSABLE], [], "leaf", ""),
    ("dane", [UNUSABLE], [], "", ""),
    ("dane-only", [UNUSABLE], [], "leaf", ""),
    ("dane", [], [], "leaf", ""),
    ("dane", [], [], "", ""),
    ("dane-only", [], [], "leaf", ""),
    ("dane", [EE], [RECORD], "other", ""),
    ("dane-only", [EE], [RECORD], "leaf", ""),
    ("dane", [EE], [HOST], "other", ""),
    ("dane-only", [EE], [HOST], "leaf", ""),
    ("dane", [EE], [MX], "other", ""),
    ("dane", SERVFAIL, [], "leaf", ""),
    ("dane-only", SERVFAIL, [], "leaf", ""),
    ("dane", [EE, TA], [], "other", ""),
    ("dane", ["3 1 1 " + "00" * 32, EE], [], "leaf", ""),
    ("none", [EE], [], "leaf", ""),
    ("may", [EE], [], "leaf", ""),
    ("may", [EE], [], "", ""),
    ("encrypt", [EE], [], "other", ""),
    ("encrypt", [], [], "", ""),
    ("fingerprint match={fingerprint}", [], [], "leaf", ""),
    ("fingerprint match={fingerprint}", [], [], "other", ""),
    ("fingerprint match=00:11|{key}", [], [], "leaf", ""),
    ("fingerprint match=00:11", [], [], "leaf", ""),
    ("verify match=hostname", [], [], "leaf", ""),
    ("verify match=hostname", [], [], "other", ""),
    ("verify match=nexthop", [], [], "leaf", ""),
    ("secure", [], [], "leaf", ""),
    ("secure match=nexthop", [], [], "leaf", ""),
    ("secure match=.{domain}", [], [], "leaf", ""),
    ("secure match=mx.{domain}", [], [], "leaf", ""),
    ("secure match=elsewhere.test:mx.{domain}", [], [], "leaf", ""),
    ("secure", [], [], "", ""),
    ("encrypt protocols=TLSv1.3", [], [], "leaf", ""),
    ("encrypt ciphers=high", [], [], "leaf", ""),
    ("nonsense", [], [], "leaf", ""),
    ("encrypt match=x", [], [], "leaf", ""),
    ("none ciphers=high", [], [], "leaf", ""),
]


class Case:
    """One line of the table, with its names, certificate and server."""

    def __init__(self, number: int, root: Any, port: int) -> None:
        self.entry, self.records, self.insecure, self.holder, _ = CASES[number]
        self.domain = f"b{number}.test"
        self.address = f"127.0.2.{number + 1}"
        leaf, other = issue([f"mx.{self.domain}"], root), issue([f"mx.{self.domain}"])
        self.certificate = {"leaf": leaf, "other": other}.get(self.holder)
        self.entry = self.entry.format(
            domain=self.domain, fingerprint=leaf.fingerprint(), key=leaf.fingerprint(key=True)
        )
        texts = {EE: leaf.tlsa(3, 1, 1), EE_WHOLE: leaf.tlsa(3, 0, 2), TA: root.tlsa(2, 0, 1)}
        self.zones: dict[str, Any] = {
            self.domain: {"MX": [(10, f"mx.{self.domain}")]},
            f"mx.{self.domain}": {"A": [self.address]},
        }
        if self.records:
            found = self.records if isinstance(self.records, str) else None
            self.zones[f"_{port}._tcp.mx.{self.domain}"] = found or {"TLSA": [texts.get(r, r) for r in self.records]}
        self.unsigned = [each.format(domain=self.domain) for each in self.insecure]


def _verdict_of_postfix(log: str, domain: str) -> str:
    """verified, unverified, plain or deferred."""
    status = re.search(rf"to=<r@{domain}>.* status=(\w+)", log)
    assert status is not None, domain
    if status[1] != "sent":
        return status[1]
    session = re.search(rf"(\w+) TLS connection established to mx\.{domain}\[", log)
    if session is None:
        return "plain"
    return "verified" if session[1] == "Verified" else "unverified"


def _run_postfix(parameters: dict[str, str], resolv: Path) -> str:
    """Sends one letter to each domain, and gives the log once every one has its verdict."""
    relay = postfix.Postfix(parameters, prefix=_in_namespace(resolv))
    with relay:
        with smtplib.SMTP(relay.host, relay.port, timeout=60) as client:
            for number in range(len(CASES)):
                client.sendmail("s@a.test", [f"r@b{number}.test"], b"Subject: x\r\n\r\nx\r\n")
        for _ in range(300):
            log = relay.log_tail(10_000)
            if len(set(re.findall(r"to=<r@(b\d+)\.test>.* status=", log))) == len(CASES):
                return log
            subprocess.run(["sleep", "0.1"], check=True)
    pytest.fail(log)


def _in_namespace(resolv: Path) -> list[str]:
    script = f'mount --bind {resolv} /etc/resolv.conf && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


@pytest.fixture
def _namespace() -> None:
    reason = postfix.missing()
    if not reason and subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        reason = "no mount namespaces"
    if reason:
        pytest.skip(f"{reason} (tests/install_packages.sh)")


async def test_the_table(_namespace: None, make_rig: Any, tmp_path: Path) -> None:  # noqa: F811
    root = issue(["Root of Tests"], ca=True)
    authority = root.write(tmp_path, "ca")
    port = free_port("127.0.2.1")
    cases = [Case(number, root, port) for number in range(len(CASES))]
    (tmp_path / "policy").write_text("".join(f"{case.domain} {case.entry}\n" for case in cases))
    server = own_address()
    resolv = tmp_path / "resolv.conf"
    (tmp_path / "resolv.conf").write_text(f"nameserver {server}\noptions edns0 trust-ad timeout:2 attempts:1\n")
    zones = {name: records for case in cases for name, records in case.zones.items()}
    unsigned = [name for case in cases for name in case.unsigned]
    parameters = {
        "smtp_dns_support_level": "dnssec",
        "smtp_host_lookup": "dns",
        "smtp_tcp_port": str(port),
        "smtp_tls_security_level": "dane",
        "smtp_tls_loglevel": "1",
        "smtp_tls_CAfile": str(authority),
        "smtp_tls_policy_maps": f"texthash:{tmp_path / 'policy'}",
        "default_process_limit": "20",
    }
    async with AsyncExitStack() as stack:
        for number, case in enumerate(cases):
            context = case.certificate and case.certificate.context(tmp_path, f"server{number}")
            await stack.enter_async_context(SmtpSink(tls=context, host=case.address, port=port))
        dns = await stack.enter_async_context(DnsStub(zones, insecure=unsigned, place=(server, 53)))
        log = await asyncio.to_thread(_run_postfix, parameters, resolv)
        theirs = {case.domain: _verdict_of_postfix(log, case.domain) for case in cases}
        rig = make_rig(
            nameservers=(dns.address,),
            allow_loopback_mx=True,
            smtp_tcp_port=port,
            smtp_tls_security_level="dane",
            smtp_tls_policy_maps=(f"texthash:{tmp_path / 'policy'}",),
            authorities=authority,
        )
        ids = {c.domain: await rig.queue(b"smtp:" + c.domain.encode(), b"r@" + c.domain.encode()) for c in cases}
        await rig.until(
            lambda: all(row.state == RecipientState.DEFERRED for queue_id in ids.values() for row in rig.rows(queue_id))
        )
        await rig.settled()
        sessions = {line["next_hop"]: line for line in rig.log() if line["event"] == "delivery.tls"}
    ours = {}
    for domain, queue_id in ids.items():
        line = sessions.get(f"smtp:{domain}")
        if rig.store.queue.message(queue_id) is not None:
            ours[domain] = "deferred"
        elif line is None:
            ours[domain] = "plain"
        else:
            ours[domain] = "unverified" if line["verified"] == "none" else "verified"
    differences = {d: (cases[n], theirs[d], ours[d]) for n, d in enumerate(theirs) if theirs[d] != ours[d]}
    assert {d: (c.entry, c.records, c.insecure, c.holder, t, o) for d, (c, t, o) in differences.items()} == {}
