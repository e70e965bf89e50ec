"""Builds the server inside a worker, from the store up, and is what the worker's life then drives."""

import asyncio
import contextlib
import importlib
import os
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastmta.admin import client_setup
from fastmta.admin.health import Readiness, healthz
from fastmta.admin.http import Answer, HttpServer, Request
from fastmta.admin.origin import AllowedHosts
from fastmta.admin.sts_page import PATH as STS_PATH
from fastmta.admin.sts_page import policy_hosts, policy_page
from fastmta.auth.alias_logins import AliasLogins
from fastmta.auth.authenticator import AccountLookup, Authenticator
from fastmta.auth.bearer import Bearers
from fastmta.auth.passwords import PasswordChecker
from fastmta.auth.scram import derive_all
from fastmta.config.schema import Config
from fastmta.delivery.answers import Answers
from fastmta.delivery.routing import Router
from fastmta.delivery.service import DeliveryService
from fastmta.directory.named import contents_named
from fastmta.directory.recipients import Directory
from fastmta.directory.srs import make_secrets
from fastmta.dns.resolver import Resolver
from fastmta.imap.server import ImapServer
from fastmta.index.files import FOLDER as INDEX_FOLDER
from fastmta.index.marker import turned_off
from fastmta.index.service import Indexing
from fastmta.model.errors import Refused, StorageFailure
from fastmta.model.events import Actor
from fastmta.model.limits import REPORT_FLUSH_S
from fastmta.model.services import BY_NAME, Login
from fastmta.operations.explaining import Delivering
from fastmta.operations.public import PublicSocket
from fastmta.operations.serving import Serving
from fastmta.pickup.service import Pickup
from fastmta.policy.bans import Bans
from fastmta.policy.limits import Limits
from fastmta.policy.networks import Networks
from fastmta.policy.site import SitePolicy
from fastmta.policy.verification import Verifier
from fastmta.pop3.server import Pop3Server
from fastmta.queue.ownership import slot_of
from fastmta.runtime.aside import Aside
from fastmta.runtime.board import Board
from fastmta.runtime.bus import Bus, MailboxNotifier
from fastmta.runtime.clock import SystemClock
from fastmta.runtime.metrics import METRICS
from fastmta.runtime.process import ProcessFigures
from fastmta.runtime.tasks import Sweep, Tasks
from fastmta.runtime.turns import Turns
from fastmta.smtp.server import SmtpServer
from fastmta.store import MailStore
from fastmta.store.accounts import Account
from fastmta.store.marks import Mark
from fastmta.supervisor.acceptor import Factory
from fastmta.supervisor.bad_end import BadEndCheck
from fastmta.supervisor.closed import ClosedAccounts
from fastmta.supervisor.daily import Daily
from fastmta.supervisor.damage import DamageWatch
from fastmta.supervisor.hourly import Hourly
from fastmta.supervisor.services import Services
from fastmta.supervisor.sessions import Sessions
from fastmta.supervisor.storage import StorageWatch
from fastmta.supervisor.worker import Place
from fastmta.tls.contexts import Contexts
from fastmta.trace.writer import Trace

if TYPE_CHECKING:
    from fastmta.admin.collector import StoreFigures

PASSWORD_THREADS: Final = 2  # argon2 takes 19 MiB each; more would only queue for the same cores
TOKEN_THREADS: Final = 2  # fetching keys and verifying bearer tokens
_STORE_FAILED: Final = int(Board.STORE_FAILED)  # asked for each message: cheaper than an attribute of an enum


class MailServer:
    """Every part of a worker, and what happens to all of them together. The worker's `Program`."""

    def __init__(self, place: Place) -> None:
        config = place.config
        self._place = place
        self._store = MailStore.open(Path(config.data_directory), slot=place.slot)
        self._trace = Trace(Path(config.data_directory), place.log, place.cells, loop=place.loop)
        self._trace.configure(config.trace_retention, config.trace_size_limit)
        self._store.on_damage(DamageWatch(place.cells, place.board, place.log))
        self._maps = contents_named(config)  # read by whoever asks first, and kept for all
        for each in self._maps:
            each.look()
        try:
            self._store.configure(config)
            self._note_quota_rules(config)
            self._services = services = self._wire(config)
            self._bans = Bans(
                self._store.bans,
                place.limits,
                config,
                place.log,
                services.clock,
                services.tasks.spawn,
                forgets=place.slot == 0,
            )
            services.limits.bans = self._bans
            self._indexing: Indexing | None = None
            self._index_as_configured()
            self._look_at_bans()
            self._flushed_at = 0.0
            self._noting: asyncio.Task[None] | None = None
            self._daily = Daily(services.tasks.spawn) if place.slot == 0 else None
            self._hourly = Hourly(services.tasks.spawn, services.clock.monotonic()) if place.slot == 0 else None
            self._smtp = SmtpServer(services)
            self._imap = ImapServer(services)
            self._pop3 = Pop3Server(services)
            self._delivery = DeliveryService(services, Answers(Path(config.data_directory)), lambda: place.limits)
            assert place.ask is not None
            self._acts = Serving(services, place.ask, Delivering(services, self._delivery))
            self._pickup = Pickup(services, PublicSocket(services, self._acts))
        except BaseException:
            self._store.close()
            raise
        self._open_sessions = Sessions(
            self._store,
            services.clock.now,
            [self._smtp.open_sessions, self._imap.open_sessions, self._pop3.open_sessions],
            services.slots,
        )
        self._closed = ClosedAccounts(
            self._store,
            place.loop,
            lambda: [*self._imap.logged_in(), *self._pop3.logged_in(), *self._smtp.logged_in()],
            lambda: services.config.auth.auth_master_users,
        )
        self._process = ProcessFigures(place.cells)
        self._delivering = False
        self._loaded = False  # what the start can do without
        self._reopened = place.cells[METRICS.store_reopened_total]  # by processes that had this range before
        services.bus.on_hops(self._hops_changed)
        services.bus.own(False)
        self._store.attach(place.loop)
        services.bus.start(self._store)
        hosts = _allowed_hosts(config)
        self._setup = client_setup.pages(lambda: services.config)
        self._http = HttpServer(
            self._pages(), place.cells, place.log, services.turns, services.limits, hosts, forms=self._setup[1]
        )
        self._bad_end = BadEndCheck(Path(config.data_directory), self._store, place.loop, place.log)
        self._mark: Mark | None = None
        try:
            self._mark = Mark(Path(config.data_directory), f"{place.slot}-{os.getpid()}")
        except OSError as error:  # on a full disk mail can still be read and deleted
            place.log.warning("store.no_mark", error=error.strerror, effect="no check after a bad end")

    def _note_quota_rules(self, config: Config) -> None:
        rules = self._store.changed_quota_rules(config)
        try:
            if rules is not None:
                self._store.commit_sync(rules)
        except (StorageFailure, Refused) as error:  # mail can be read all the same
            self._place.log.error("store.quota_rules", error=error, effect="quotas are as they were")

    def _wire(self, config: Config) -> Services:
        place, store = self._place, self._store
        store.set_metrics(place.cells, METRICS.commit_seconds.index, METRICS.commit_messages.index)
        self._watch = StorageWatch(
            config,
            place.log,
            self._reusable_bytes,
            store.set_reserve,
            store.reap_soon,
        )
        self._pool = ThreadPoolExecutor(PASSWORD_THREADS, thread_name_prefix="password")
        self._tokens = ThreadPoolExecutor(TOKEN_THREADS, thread_name_prefix="token")
        passwords = PasswordChecker(self._pool, ttl_s=config.auth.cache_ttl, at_once=PASSWORD_THREADS)
        contexts = Contexts(config.tls)
        contexts.smtpd_context()  # a certificate that cannot be used is found now and not by the first client
        contexts.server_context()
        notifier = MailboxNotifier(place.loop, store.mailboxes.mark)
        bus = Bus(
            Path(config.data_directory) / "bus",
            place.slot,
            lambda hop: slot_of(hop, place.slots),
            notifier,
            loop=place.loop,
            log=place.log,
            cells=place.cells,
        )
        self._site_policy = SitePolicy(place.log, time.monotonic)
        self._site_policy.configure(config.policy_module, config.policy_timeout)
        router = Router(config)
        limits = Limits(place.limits, config, place.cells)
        resolver = Resolver(config.dns.nameservers, monotonic=time.monotonic)
        tasks = Tasks(place.log, place.cells)
        return Services(
            config=config,
            store=store,
            directory=self._directory(config, router),
            router=router,
            authenticator=self._authenticator(config, passwords, limits, contexts, resolver, tasks),
            passwords=passwords,
            contexts=contexts,
            networks=Networks(config.mynetworks),
            limits=limits,
            notifier=notifier,
            bus=bus,
            cells=place.cells,
            log=place.log,
            clock=SystemClock(),
            slot=place.slot,
            slots=place.slots,
            loop=place.loop,
            tasks=tasks,
            sweep=Sweep(place.loop),
            turns=Turns(place.loop),
            storage_ok=self._storage_ok,
            resolver=resolver,
            aside=Aside(place.loop),
            launcher=place.launcher,
            site_policy=self._site_policy,
            index=None,
            verifier=Verifier(
                config,
                store.verified,
                lambda sender, address: self._delivery.probe(sender, address),
                SystemClock(),
                place.log,
                tasks.spawn,
            ),
        )

    def _index_as_configured(self) -> None:
        """An index that is turned off is left as it is, and may be turned on again as long as this worker lives."""
        services = self._services
        if services.config.fts and self._indexing is None:
            try:
                self._indexing = Indexing(services)
            except OSError as error:
                self._place.log.warning("index.unusable", error=str(error), effect="searches look through messages")
        services.index = self._indexing if services.config.fts else None
        if self._indexing is None:
            turned_off(Path(services.config.data_directory) / INDEX_FOLDER)
        told = services.index is not None and services.config.fts_autoindex
        services.bus.on_mailboxes(self._indexing.came if told and self._indexing is not None else None)

    def _directory(self, config: Config, router: Router) -> Directory:
        log = self._place.log
        make_secrets(config)
        return Directory(
            config,
            self._store,
            router,
            log_problem=lambda text: log.error("map.unreadable", problem=text),
            log_homeless=lambda address, account: log.warning(
                "postmaster.homeless",
                address=address,
                goes_to=account or None,
                remedy=f"fastmta alias add {address} ADDRESS" if account else "fastmta user add NAME",
            ),
        )

    def _authenticator(
        self,
        config: Config,
        passwords: PasswordChecker,
        limits: Limits,
        contexts: Contexts,
        resolver: Resolver,
        tasks: Tasks,
    ) -> Authenticator[Account]:
        store, place = self._store, self._place

        async def keep_keys(account: Account, password: str) -> None:
            keys = await place.loop.run_in_executor(self._pool, derive_all, password)
            await store.credentials.keep_scram_keys(account.id, account.password_hash, keys)

        accounts: AccountLookup[Account] = store.accounts
        if config.auth.alias_logins:
            accounts = AliasLogins(store.accounts, store.aliases, config.myorigin)
        return Authenticator(
            config,
            accounts,
            passwords,
            limits,
            cells=place.cells,
            log=place.log,
            credentials=store.credentials,
            tokens=Bearers(
                config.auth,
                context=contexts.https_context,
                addresses=resolver.addresses,
                pool=self._tokens,
                monotonic=time.monotonic,
                now=time.time,
            ),
            learn=lambda account, password: tasks.spawn(f"auth.keys.{account.id}", keep_keys(account, password)),
        )

    def _pages(self) -> dict[str, Any]:
        place = self._place
        readiness = Readiness(place.board, lambda: place.accepting(), self._trouble)
        pages: dict[str, Any] = {"/healthz": healthz, "/readyz": readiness.readyz}
        if place.shared is not None:
            pages["/metrics"] = self._metrics
        pages[STS_PATH] = lambda _: policy_page(self._services.config)
        return pages | self._setup[0]

    def _metrics(self, _: Request) -> Answer:
        from fastmta.admin.collector import CONTENT_TYPE, Collector  # a tenth of the start; `tick` has loaded it

        shared = self._place.shared
        assert shared is not None
        return Answer(200, b"", CONTENT_TYPE, Collector(shared, self._figures).pieces())

    # --- the store's state ---

    def _reusable_bytes(self) -> int:
        try:
            return int(self._store.stats().get("free_bytes", 0))
        except StorageFailure:
            return 0

    def _storage_ok(self) -> bool:
        return self._watch.ok() and not self._place.board[_STORE_FAILED] and not self._store.failed

    def _trouble(self) -> str:
        return self.failure or self._watch.trouble

    @property
    def failure(self) -> str:
        return "the store failed to commit" if self._store.failed else ""

    def _oldest_age_s(self) -> float:
        oldest = self._store.queue.oldest_waiting_ms()
        return 0.0 if oldest is None else max(0.0, self._services.clock.now() - oldest / 1000)

    def _figures(self) -> "StoreFigures | None":
        try:
            return self._read_figures()
        except StorageFailure:
            return None

    def _read_figures(self) -> "StoreFigures | None":
        from fastmta.admin.collector import StoreFigures

        if self._store.failed:
            return None
        return StoreFigures(self._store.queue.counts(), self._oldest_age_s(), self._store.stats(), self._host_figures())

    def _host_figures(self) -> dict[str, float]:
        out: dict[str, float] = {"disk_reserve_bytes": self._watch.minfree_bytes}
        try:
            disk = os.statvfs(self._services.config.data_directory)
            out["disk_free_bytes"] = disk.f_bavail * disk.f_frsize
            out["disk_size_bytes"] = disk.f_blocks * disk.f_frsize
        except OSError:
            pass  # /readyz has that
        expires_at = self._services.contexts.expires_at()
        if expires_at is not None:
            out["tls_certificate_expiry_timestamp_seconds"] = expires_at
        return out

    def status(self) -> dict[str, Any]:
        delivery = self._delivery.status() if self._delivering else {}
        queue: dict[str, int] = {}
        stats: dict[str, float] = {}
        trouble = self._trouble() or self._store.damage
        try:
            queue = {**self._store.queue.counts(), "oldest_s": round(self._oldest_age_s())}
            stats = self._store.stats()
        except StorageFailure as error:
            trouble = trouble or str(error)
        return {"queue": queue, "store": stats, "delivery": delivery, "trouble": trouble}

    def withdraw(self, keys: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return self._delivery.withdraw(keys)

    def open_sessions(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        return self._open_sessions.find(wanted)

    def hops(self, wanted: list[str]) -> list[dict[str, object]]:
        return self._delivery.hops([hop.encode("utf-8", "surrogateescape") for hop in wanted])

    def act(self, fd: int, actor: Actor, name: str, request: dict[str, Any]) -> None:
        self._acts.take(fd, actor, name, request)

    async def flush_trace(self) -> None:
        await self._trace.flushed()

    # --- a worker's life ---

    @property
    def sessions(self) -> int:
        return self._smtp.sessions + self._imap.sessions + self._pop3.sessions + len(self._acts)

    def factory(self, service: str) -> Factory:
        match BY_NAME[service].protocol:
            case "smtp" | "lmtp":
                return self._smtp.factory(service)
            case "imap":
                return self._imap.factory(service)
            case "pop3":
                return self._pop3.factory(service)
            case _:
                return self._http.factory

    def server_context(self, service: str) -> ssl.SSLContext | None:
        contexts = self._services.contexts
        spoken = BY_NAME[service]
        if spoken.protocol not in ("smtp", "lmtp"):
            return contexts.server_context()
        return contexts.smtpd_context(logs_in=spoken.login is Login.REQUIRED)

    def _hops_changed(self, hops: list[bytes] | None) -> None:
        if self._delivering:
            self._delivery.hops_changed(hops)

    def own(self) -> None:
        if not self._delivering:
            self._delivering = True
            self._services.bus.own(True)
            self._delivery.start()
            self._pickup.start()

    async def release(self, timeout_s: float) -> None:
        self._services.bus.own(False)
        if self._delivering:
            await self._pickup.stop()
            await self._delivery.stop(timeout_s)
            self._delivering = False

    async def reload(self, config: Config) -> None:
        """Everything that can be refused is made first; the certificates, changed in place, are the last of it."""
        services = self._services
        maps = contents_named(config)
        for each in maps:
            await asyncio.to_thread(each.read_ahead)
        router = Router(config)
        directory = self._directory(config, router)
        networks = Networks(config.mynetworks)
        authenticator = self._authenticator(
            config, services.passwords, services.limits, services.contexts, services.resolver, services.tasks
        )
        services.contexts.reload(config.tls)
        services.limits.configure(config)
        self._bans.configure(config)
        self._site_policy.configure(config.policy_module, config.policy_timeout)
        services.verifier.configure(config)
        self._http.hosts = _allowed_hosts(config)
        if config.dns != services.config.dns:
            services.resolver.configure(config.dns.nameservers)
        services.store.configure(config)
        rules = services.store.changed_quota_rules(config)
        if rules is not None:
            await services.store.commit(rules)
        services.config = config
        services.router = router
        services.directory = directory
        services.networks = networks
        services.authenticator = authenticator
        self._maps = maps
        self._trace.configure(config.trace_retention, config.trace_size_limit)  # before those who tell are made anew
        self._watch.configure(config)
        self._index_as_configured()
        for server in (self._smtp, self._imap, self._pop3):
            server.reload(services)
        self._delivery.reload()
        self._pickup.reload(services)
        self._acts.reload()
        self._closed.reload()

    def tick(self) -> None:
        self._place.cells[METRICS.store_reopened_total] = self._reopened + self._store.heals
        if not self._loaded:  # on a thread of its own, so that neither the start nor the first reader waits
            self._loaded = True
            self._place.loop.run_in_executor(None, importlib.import_module, "fastmta.admin.collector")
            self._place.loop.run_in_executor(None, importlib.import_module, "dns.resolver")
            self._place.loop.run_in_executor(None, importlib.import_module, "cryptography.x509")
        self._watch.look()
        self._trace.reserve_bytes = 2 * self._watch.minfree_bytes
        self._process.look()
        self._pickup.tick()
        self._closed.look()
        self._look_at_bans()
        if self._daily is not None and self._delivering:
            self._daily.tick(self._services)
        if self._hourly is not None and self._delivering:
            self._hourly.tick(self._services)
        self._flush_counts()
        if self._store.last_logins.has_fresh and (self._noting is None or self._noting.done()):
            self._noting = self._services.tasks.spawn("logins.note", self._note_logins())
        if self._services.index is not None:
            self._services.index.tick()
        self._site_policy.tick()

    async def _note_logins(self) -> None:
        with contextlib.suppress(StorageFailure, Refused):  # the store says so itself, and a later login comes
            await self._store.last_logins.flush()

    def _flush_counts(self) -> None:
        now = self._services.clock.monotonic()
        if now - self._flushed_at >= REPORT_FLUSH_S:
            self._flushed_at = now
            if self._services.config.dmarc_reports:
                self._services.tasks.spawn("dmarc.flush", self._store.dmarc_rows.flush())
            if self._services.config.delivery.smtp_tlsrpt_enable:
                self._services.tasks.spawn("tlsrpt.flush", self._store.tls_rows.flush())

    def _look_at_bans(self) -> None:
        try:
            self._bans.look()
        except StorageFailure:
            pass  # those that are known stay; what cannot be read is told by who needs it

    def drain(self) -> None:
        for server in (self._smtp, self._imap, self._pop3):
            server.drain()

    def close_all(self, reason: str) -> None:
        for server in (self._smtp, self._imap, self._pop3):
            server.close_all(reason)
        self._acts.interrupt(f"the server is {reason}")
        self._http.close_all()

    async def close(self) -> None:
        services = self._services
        self._site_policy.close()
        await services.tasks.close()
        if self._indexing is not None:
            self._indexing.close()
        services.sweep.close()
        services.bus.close()
        await services.resolver.close()
        services.launcher.close()
        services.aside.close()
        for pool in (self._pool, self._tokens):
            pool.shutdown(wait=False, cancel_futures=True)
        await self._trace.flushed()
        self._place.log.trace = None
        self._trace.close()
        self._bad_end.stop()
        with contextlib.suppress(StorageFailure, Refused):
            await self._store.last_logins.flush(all_of_them=True)
        self._store.detach()
        failed = bool(self.failure)
        self._store.close()
        if self._mark is not None and not failed:
            self._mark.remove()


def _allowed_hosts(config: Config) -> AllowedHosts:
    return AllowedHosts(
        (config.myhostname, *config.http_allowed_hosts, *policy_hosts(config), *client_setup.hosts(config))
    )


def build(place: Place) -> MailServer:
    """The whole mail server for a worker."""
    os.umask(0o077)
    return MailServer(place)
