"""MTA-STS (RFC 8461): the policy of a domain about TLS to its exchangers, found, fetched, and kept until it expires.

A policy lives in a file of its own below the data directory, so that it outlives restarts and serves every worker. One
that was fetched counts for its max_age whatever happens to the domain's DNS and web server meanwhile (§5.1, §10.2):
that is what it is for. Each look asks DNS for the policy's id, and fetches anew where it has changed.
"""

import asyncio
import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from fastmta.dns.mx import is_internal
from fastmta.dns.resolver import LookupTrouble, NotFound
from fastmta.model.limits import MTA_STS_FETCH_S, MTA_STS_KEPT, MTA_STS_POLICY_BYTES
from fastmta.runtime.log import Log
from fastmta.tls.https import HttpsError, Url, fetch

MAX_AGE_S: Final = 31_557_600  # §3.2
RETRY_S: Final = 300.0  # between two fetches that fail (§3.3)
FOLDER: Final = "mta-sts"
_DOMAIN: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})+")
_ID: Final = re.compile(r"[A-Za-z0-9]{1,32}")


class Policy(msgspec.Struct, frozen=True):
    """A domain's policy. `mode`: enforce, testing or none; `until`: by the wall clock."""

    id: str
    mode: str
    mx: tuple[str, ...]
    until: float
    max_age: int = 0  # as published; 0: fetched by a program that did not keep it

    @property
    def strings(self) -> tuple[str, ...]:
        """The policy's lines, as TLS reports quote them (RFC 8460 §4.4)."""
        age = (f"max_age: {self.max_age}",) if self.max_age else ()
        return ("version: STSv1", f"mode: {self.mode}", *(f"mx: {each}" for each in self.mx), *age)

    def admits(self, host: str) -> bool:
        """Whether a host is among the domain's exchangers (§4.1): "*." stands for one label."""
        name = host.lower().rstrip(".")
        return any(name == each or (each.startswith("*.") and name.partition(".")[2] == each[2:]) for each in self.mx)


class Names(Protocol):
    async def txt(self, name: str) -> tuple[bytes, ...]: ...
    async def addresses(self, name: str) -> tuple[str, ...]: ...


class MtaSts:
    """The policies that a worker knows."""

    def __init__(
        self,
        directory: Path,
        names: Names,
        context: Callable[[], ssl.SSLContext],
        now: Callable[[], float],
        log: Log,
        port: int = 443,
        may_be_private: bool = True,
    ) -> None:
        """`directory`: the data directory; `context` verifies policy hosts; `now`: the wall clock. `may_be_private`:
        policy hosts may have addresses that are not of the internet, where a domain's DNS could lead us to a neighbour.
        """
        self._may_be_private = may_be_private
        self._directory = directory / FOLDER
        self._names = names
        self._context = context
        self._now = now
        self._log = log
        self._port = port
        self._known: dict[str, Policy | None] = {}  # None: no file either
        self._not_before: dict[str, float] = {}
        self._problems: dict[str, str] = {}
        self._asking: dict[str, asyncio.Task[Policy | None]] = {}

    async def policy(self, domain: str) -> Policy | None:
        """The policy in force for mail to a domain; None: there is none."""
        task = self._asking.get(domain)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._policy(domain), name=f"MTA-STS of {domain}")
            self._asking[domain] = task
            task.add_done_callback(lambda _: self._asking.pop(domain, None))
        return await asyncio.shield(task)

    def problem(self, domain: str) -> str:
        """Why the policy that a domain says it has could not be had when it was last fetched; "": it could.

        One of RFC 8460 §4.3.2.2's result types.
        """
        return self._problems.get(domain, "")

    async def close(self) -> None:
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _policy(self, domain: str) -> Policy | None:
        if not _DOMAIN.fullmatch(domain):
            return None
        if domain not in self._known:
            while len(self._known) >= MTA_STS_KEPT:
                del self._known[next(iter(self._known))]
            self._known[domain] = await asyncio.to_thread(self._load, domain)
        kept = self._known[domain]
        if kept is not None and kept.until <= self._now():
            kept = None
        current = await self._id(domain)
        if current is None or (kept is not None and kept.id == current):
            return kept
        if self._now() < self._not_before.get(domain, 0.0):
            return kept
        try:
            found = await self._fetch(domain, current)
        except (HttpsError, ValueError) as error:
            while len(self._not_before) >= MTA_STS_KEPT:
                del self._not_before[next(iter(self._not_before))]
            self._not_before[domain] = self._now() + RETRY_S
            while len(self._problems) >= MTA_STS_KEPT:
                del self._problems[next(iter(self._problems))]
            self._problems[domain] = _result_type(error)
            self._log.info("mta_sts.not_fetched", domain=domain, cause=str(error), kept=kept is not None)
            return kept
        self._known[domain] = found
        self._problems.pop(domain, None)
        self._log.info("mta_sts.fetched", domain=domain, mode=found.mode, mx=",".join(found.mx)[:500])
        await asyncio.to_thread(self._save, domain, found)
        return found

    async def _id(self, domain: str) -> str | None:
        """The id in the domain's TXT record; None: there is no policy, or nobody can say (§3.1)."""
        try:
            records = await self._names.txt(f"_mta-sts.{domain}")
        except (NotFound, LookupTrouble):
            return None
        ours = [record for record in records if re.match(rb"v=STSv1\s*;", record)]
        if len(ours) != 1:
            return None
        for field in ours[0].decode("ascii", "replace").split(";"):
            name, _, value = field.strip().partition("=")
            if name == "id":
                return value if _ID.fullmatch(value) else None
        return None

    async def _fetch(self, domain: str, policy_id: str) -> Policy:
        host = f"mta-sts.{domain}"
        try:
            addresses = await self._names.addresses(host)
        except (NotFound, LookupTrouble) as error:
            raise HttpsError(str(error)) from error
        if not self._may_be_private:
            addresses = tuple(each for each in addresses if not is_internal(each))
            if not addresses:
                raise HttpsError(f"{host} has no address but private ones (mta_sts_allow_private_hosts)")
        response = await fetch(
            Url(host, self._port, "/.well-known/mta-sts.txt"),
            addresses,
            self._context(),
            limit_bytes=MTA_STS_POLICY_BYTES,
            timeout_s=MTA_STS_FETCH_S,
        )
        if response.status != 200:  # redirects are not followed (§3.3)
            raise HttpsError(f"{host} answers {response.status}")
        if response.headers.get("content-type", "").partition(";")[0].strip().lower() != "text/plain":
            raise HttpsError(f"{host}: the policy is not text/plain")
        return parse_policy(response.body, policy_id, self._now())

    # --- files ---

    def _load(self, domain: str) -> Policy | None:
        try:
            return msgspec.json.decode((self._directory / f"{domain}.json").read_bytes(), type=Policy)
        except (OSError, msgspec.MsgspecError):
            return None

    def _save(self, domain: str, policy: Policy) -> None:
        temporary = self._directory / f".{domain}.{os.getpid()}"
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            self._prune()
            temporary.write_bytes(msgspec.json.encode(policy))
            temporary.replace(self._directory / f"{domain}.json")
        except OSError as error:
            self._log.warning("mta_sts.not_kept", domain=domain, cause=str(error))

    def _prune(self) -> None:
        """Keeps the number of files within the bound: the oldest go."""
        files = list(self._directory.glob("*.json"))
        if len(files) >= MTA_STS_KEPT:
            for path in sorted(files, key=lambda each: each.stat().st_mtime)[: len(files) // 10 + 1]:
                path.unlink(missing_ok=True)


def _result_type(error: Exception) -> str:
    if not isinstance(error, HttpsError):
        return "sts-policy-invalid"
    is_certificate = isinstance(error.__cause__, ssl.SSLCertVerificationError) or "certificate" in str(error)
    return "sts-webpki-invalid" if is_certificate else "sts-policy-fetch-error"


def parse_policy(raw: bytes, policy_id: str, now: float) -> Policy:
    """A policy's text (§3.2). ValueError says what is wrong with it."""
    fields: dict[str, str] = {}
    mx: list[str] = []
    for line in raw.decode("utf-8").split("\n"):
        name, colon, value = line.strip().partition(":")
        if not colon:
            if line.strip():
                raise ValueError("a line of the policy has no colon")
            continue
        name, value = name.strip(), value.strip()
        if name == "mx":
            pattern = value.lower().rstrip(".")
            if not _DOMAIN.fullmatch(pattern.removeprefix("*.")):
                raise ValueError("an mx of the policy is not a host")
            mx.append(pattern)
        else:
            fields.setdefault(name, value)  # of a field given twice the first counts
    if fields.get("version") != "STSv1":
        raise ValueError("the policy's version is not STSv1")
    mode, age = fields.get("mode", ""), fields.get("max_age", "")
    if mode not in ("enforce", "testing", "none"):
        raise ValueError("the policy's mode is none of enforce, testing, none")
    if not age.isascii() or not age.isdigit() or len(age) > 10 or int(age) > MAX_AGE_S:
        raise ValueError("the policy's max_age is not a number up to 31557600")
    if mode != "none" and not mx:
        raise ValueError("the policy names no mx")
    return Policy(policy_id, mode, tuple(mx), now + int(age), int(age))
