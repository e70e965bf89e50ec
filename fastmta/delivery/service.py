"""Delivery of one worker: owns the hops of its slot, and gives each due recipient to the owner of its hop.

It is told of new work by the store's observer and by the bus (`hops_changed`), and looks once a second for what has
become due; what is due stands in the store, so nothing is lost with this process, and a backlog costs no memory.

Bounds: connections of the worker; results that wait for their commit, so that after a crash no more than one batch is
delivered twice; hops that wait for a connection, in a ring.
"""

import asyncio
import os
import resource
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastmta._limits import Table
from fastmta.auth.relay_logins import RelayLogins
from fastmta.auth.tokens import Tokens
from fastmta.delivery.answers import Answers
from fastmta.delivery.destination import Limits
from fastmta.delivery.forwarding import Forwarding
from fastmta.delivery.ignored_words import IgnoredWords
from fastmta.delivery.indexing import Indexing
from fastmta.delivery.outgoing_checks import checks_of
from fastmta.delivery.paces import Paces
from fastmta.delivery.probing import probe
from fastmta.delivery.recorder import Recorder
from fastmta.delivery.redating import Redating
from fastmta.delivery.routing import Router, next_hop_of
from fastmta.delivery.seams import Services
from fastmta.delivery.shaping import Shaping
from fastmta.delivery.suspended import SuspendedHops
from fastmta.delivery.tls_policies import TlsPolicies
from fastmta.delivery.tls_reporting import TlsReporting
from fastmta.dns.mx import MxLookup, ourselves
from fastmta.dns.resolver import Resolver
from fastmta.model.errors import StorageFailure
from fastmta.model.limits import HOPS_TOLD, PACE_KEPT_S
from fastmta.model.reply import Reply
from fastmta.model.routes import ALIASES, BY_NAME, Transport
from fastmta.policy.limits import local_table
from fastmta.queue.ownership import partition_of, partitions_of
from fastmta.queue.replies import ReplyClasses
from fastmta.runtime.metrics import METRICS
from fastmta.runtime.turns import Pace
from fastmta.tls.mta_sts import MtaSts
from fastmta.tls.sessions import TlsSessions

if TYPE_CHECKING:
    from fastmta.config.schema import Config
    from fastmta.delivery.job import Job
    from fastmta.delivery.owner import HopOwner
    from fastmta.smtp.client_connection import Connection

CONNECTIONS: Final = 1000  # of one worker; less where descriptors are few
UNRECORDED: Final = (
    256  # recipients whose results are on their way into the store: what a crash at this instant would deliver twice
)
HOPS_A_LOOK: Final = 1000  # hops that one look at the store begins with; the next look finds the others
TICK_S: Final = 1.0
STS_PORT: Final = 443  # of hosts that publish MTA-STS policies
WITHHELD: Final = 20_000  # recipients; who asks decides about each few hundred before he asks for more
WITHHELD_S: Final = 10.0  # from `withdraw` until who asked must have decided in the store


@cache
def kind_of(transport: Transport) -> "type[HopOwner]":
    """The class that delivers for a transport."""
    module, _, name = transport.owner.partition(":")
    kind: type[HopOwner] = getattr(import_module(f"fastmta.delivery.{module}"), name)
    return kind


class DeliveryService:
    """The deliveries of one slot. `start` once nobody else owns the slot's hops; `stop` before somebody else may."""

    def __init__(
        self,
        services: Services,
        answers: Answers | None = None,
        shared: Callable[[], Table] = local_table,
        *,
        resolver: Callable[[], Resolver] | None = None,
        now_ns: Callable[[], int] | None = None,
    ) -> None:
        """`answers`: where a next hop's 250 is noted until it is committed; None: nowhere.

        `shared`: gives the table of limits that all workers have.
        `resolver`: gives whom the DNS is asked of; None: the configured name servers.
        `now_ns`: the clock by which a pass of the loop is long; None: the machine's.
        """
        self.services = services
        self._make_resolver = resolver or self._configured_resolver
        self._shared = cache(shared)
        self.config: Config = services.config
        self.loop = services.loop
        self.queue = services.store.queue
        self.log = services.log
        self.clock = services.clock
        self.cells = services.cells
        self.recorder = Recorder(services, self)
        self.latest_s = 0.0
        self._redating = Redating(self)
        self._indexing = Indexing(self)
        self.answers = answers
        self.connections = 0
        self.unrecorded = 0
        self.pace = Pace(services.loop, self._next_pass, now_ns)
        self.unwritten: list[Job] = []
        self._owners: dict[bytes, HopOwner] = {}
        self._partitions: frozenset[int] = frozenset()
        self._suspended = SuspendedHops(services.store.suspensions)
        self._stalled: dict[HopOwner, None] = {}
        self._stalled_retries: dict[HopOwner, None] = {}
        self._looking: Iterator[bytes] | None = None  # hops with work that were found and not kicked yet
        self._look_again = False
        self._ticking: Iterator[bytes] | None = None  # hops whose owners have yet to hear that a second is over
        self._waiting: dict[HopOwner, None] = {}
        self.resting: dict[HopOwner, None] = {}  # with a connection at rest, in that order; and some without
        self.withheld: dict[tuple[int, int], float] = {}  # recipients about whom somebody is to decide, until when
        self._timer: asyncio.TimerHandle | None = None
        self._quiet: asyncio.Event | None = None  # while `stop` waits
        self._running = False
        self._starting: asyncio.Task[Any] | None = None
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._connection_limit = max(1, min(CONNECTIONS, descriptors // 4))
        self.tls_reporting: TlsReporting | None = None
        self.paces = Paces(Path(self.config.data_directory), services.slot, self.clock, PACE_KEPT_S, self._not_kept)
        self._configure()

    # --- what the worker calls ---

    def start(self) -> None:
        """Begins with what is due, once the answers that a dead process had are recorded."""
        if self.answers is None:
            self._begin()
        else:
            self._starting = self.services.tasks.spawn("delivery begins", self._take_answers(self.answers))

    def _begin(self) -> None:
        self._running = True
        self._partitions = partitions_of(self.services.slot, self.services.slots)
        self._redating.begin(self._partitions)
        self._indexing.begin(self._partitions)
        self._suspended.refresh()
        self._tick()

    def hops_changed(self, hops: Iterable[bytes] | None) -> None:
        """These hops may have new work; None: any may."""
        if not self._running:
            return
        if hops is None:
            self._look()
            return
        for hop in hops:
            owner = self._owners.get(hop)
            if owner is None:
                if partition_of(hop) not in self._partitions:
                    continue
                owner = self._own(hop)
            owner.kick()

    async def probe(self, sender: bytes, address: bytes) -> Reply:
        """What the next hop of an address says of it, or 250 where mail for it ends here."""
        return await probe(self, sender, address)

    def withdraw(self, keys: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Before somebody deletes or holds recipients (queue id, n): those that are being delivered now, which he must
        leave alone. The others are not begun for WITHHELD_S, also where they waited for a connection.
        """
        until = self.clock.monotonic() + WITHHELD_S
        self.withheld.update((key, until) for key in keys)
        while len(self.withheld) > WITHHELD:
            del self.withheld[next(iter(self.withheld))]
        wanted = frozenset(keys)
        busy: set[tuple[int, int]] = set()
        for owner in self._owners.values():
            if not wanted.isdisjoint(owner.book.in_flight):
                owner.withdraw(wanted)
                busy |= wanted & owner.book.in_flight
        return sorted(busy)

    def defers(self, transport: str) -> bool:
        """Whether mail of a transport waits until somebody wants it tried (defer_transports)."""
        deferred = self.config.delivery.defer_transports
        return bool(deferred) and transport in (ALIASES.get(name, name) for name in deferred)

    @property
    def owners(self) -> "Collection[HopOwner]":
        """Of the hops that are known at the moment."""
        return self._owners.values()

    def hops(self, wanted: Sequence[bytes]) -> list[dict[str, object]]:
        """What is known of these hops of ours, or of the busiest where none is named; suspensions are read anew."""
        self._look_suspended()
        if wanted:
            owners = [self._owners[hop] for hop in wanted if hop in self._owners]
        else:
            owners = sorted(self._owners.values(), key=lambda owner: -len(owner.book.in_flight))
        return [owner.state() for owner in owners[:HOPS_TOLD]]

    def reload(self) -> None:
        """Takes over changed settings; deliveries under way end as they began."""
        self.config = self.services.config
        self.recorder.configure()
        old, tokens, sts = self._resolver, self._tokens, self._sts
        self._configure()
        self.services.tasks.spawn("delivery closes its old resolver", old.close())
        self.services.tasks.spawn("delivery closes its old tokens", tokens.close())
        if sts is not None:
            self.services.tasks.spawn("delivery closes its old policies", sts.close())
        for owner in list(self._owners.values()):
            owner.settings_changed()

    async def stop(self, timeout_s: float) -> None:
        """Begins nothing more; gives what is under way `timeout_s` to end, then lets go of everything."""
        self._running = False
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        owners = list(self._owners.values())
        for owner in owners:
            owner.close()
        await self._wait_until_quiet(timeout_s)
        for owner in owners:
            owner.abort()
        await self._wait_until_quiet(1.0)
        await self._tokens.close()
        if self._sts is not None:
            await self._sts.close()
        await self._resolver.close()
        if self.answers is not None and not self.unrecorded and not self.unwritten:
            self.answers.close()  # else the file stays for whoever comes next
        self.paces.close()
        self._owners.clear()
        self._looking = self._ticking = None
        self._stalled.clear()
        self._stalled_retries.clear()
        self._waiting.clear()

    async def _wait_until_quiet(self, timeout_s: float) -> None:
        """Until no connection is open and every result is committed; or the time is over."""
        self._quiet = asyncio.Event()
        self._look_quiet()
        try:
            async with asyncio.timeout(timeout_s):
                await self._quiet.wait()
        except TimeoutError:
            pass
        finally:
            self._quiet = None

    def _look_quiet(self) -> None:
        if self._quiet is not None and not self.connections and not self.unrecorded and not self.pace.is_waited_for:
            self._quiet.set()

    def status(self) -> dict[str, int]:
        """For `fastmta status`."""
        return {
            "hops": len(self._owners),
            "connections": self.connections,
            "in_flight": sum(len(owner.book.in_flight) for owner in self._owners.values()),
            "unrecorded": self.unrecorded,
        }

    # --- what owners call ---

    def limits_of(self, transport: str) -> Limits:
        """What destinations of a transport get."""
        limits = self._limits.get(transport)
        if limits is None:
            limits = self._limits[transport] = Limits.of(self.config.delivery, transport)
        return limits

    def now_ms(self) -> int:
        """The wall clock; `latest_s` is the latest that anybody here has been told."""
        now = self.clock.now()
        if now > self.latest_s:
            self.latest_s = now
        return int(now * 1000)

    def is_stalled(self, owner: "HopOwner") -> bool:
        """Whether too many results wait for their commit or this pass is over; the owner is pumped when it may.

        Or its hop is suspended by command: then it is pumped when it is resumed.
        """
        if self._has_room(owner.retries):
            return owner.is_suspended or not self._running
        (self._stalled_retries if owner.retries else self._stalled)[owner] = None
        return True

    def _has_room(self, retries: bool = False) -> bool:
        if self.unrecorded >= UNRECORDED or self.unwritten:
            return False
        return not (self.pace.is_over_for_retries if retries else self.pace.is_over)

    def submitted(self, results: int) -> None:
        """A unit with the results of so many recipients is on its way into the store."""
        self.unrecorded += results
        self.pace.decided(results)

    def _next_pass(self) -> None:
        if self._ticking is not None:
            self._tick_on()
        if self._looking is not None:
            self._look_on()
        if self._stalled or self._stalled_retries:
            self._pump_stalled()
        if self._quiet is not None:
            self._look_quiet()

    def _pump_stalled(self) -> None:
        """What was tried before comes first, and has its part of the pass; what is fresh has the rest."""
        for stalled, retries in ((self._stalled_retries, True), (self._stalled, False)):
            while stalled and self._has_room(retries):
                owner = next(iter(stalled))
                del stalled[owner]
                owner.pump()

    def after_commit(self) -> None:
        """A result has been committed, or not."""
        if (self._stalled or self._stalled_retries) and self.unrecorded <= UNRECORDED // 2:
            self._pump_stalled()
        if self._quiet is not None:
            self._look_quiet()

    def may_connect(self, owner: "HopOwner") -> bool:
        """Whether a further connection fits; if not, an idle one makes room, and the owner waits for it."""
        if self.connections < self._connection_limit:
            return True
        self._waiting[owner] = None
        while self.resting:
            other = next(iter(self.resting))
            del self.resting[other]
            if other.close_idle():  # it is at the end again if it has more
                break
        return False

    def connection_over(self, connection: "Connection | None") -> None:
        """A connection, or the attempt to make one, has ended."""
        self.connections -= 1
        if connection is not None:
            self.services.sweep.discard(connection)
        if self._waiting and self._running:
            owner = next(iter(self._waiting))
            del self._waiting[owner]
            self.loop.call_soon(owner.pump)
        if self._quiet is not None:
            self._look_quiet()

    # --- inside ---

    def _configure(self) -> None:
        config = self.config
        delivery = config.delivery
        self._limits: dict[str, Limits] = {}
        self.ignored = IgnoredWords(delivery)
        self.forwarding = Forwarding.of(self.services)
        self.outgoing_checks = checks_of(self.services)
        self.probe_router = Router.of_questions(config)
        self._resolver = self._make_resolver()
        self.mx = MxLookup(self._resolver, ourselves(config), delivery)
        relays = ",".join(delivery.smtp_fallback_relay)
        self.replies = self._reply_classes(delivery.reply_class_file)
        self.shaping = Shaping(config.shaping, self._shared, self.clock)
        self.fallback = next_hop_of(f"smtp:{relays}".encode(), delivery).hosts if relays else ()
        contexts = self.services.contexts
        self._tokens = Tokens(config.delivery, contexts.https_context, self._resolver.addresses, self.clock.monotonic)
        self._sts: MtaSts | None = None
        if delivery.mta_sts:
            directory = Path(config.data_directory)
            self._sts = MtaSts(
                directory,
                self._resolver,
                contexts.https_context,
                self.clock.now,
                self.log,
                STS_PORT,
                may_be_private=delivery.mta_sts_allow_private_hosts,
            )
        self.tls_sessions = TlsSessions(delivery.smtp_tls_session_cache_timeout, self.clock.monotonic)
        self.tls = TlsPolicies(delivery, self._resolver, self._sts, self.log, self.clock.monotonic)
        noted, self.tls_reporting = self.tls_reporting, None
        if delivery.smtp_tlsrpt_enable:
            self.tls_reporting = TlsReporting(
                delivery,
                self.services.store.tls_rows,
                self._resolver,
                self.clock,
                email=delivery.tlsrpt_report_email,
            )
            if noted is not None:
                self.tls_reporting.take_over(noted)
        self.logins = RelayLogins(config.delivery, self._tokens, config.recipient_delimiter)

    def _configured_resolver(self) -> Resolver:
        config = self.config
        return Resolver(
            config.dns.nameservers,
            monotonic=self.clock.monotonic,
            dnssec=config.delivery.may_need_dnssec,
            trust_ad=config.dns.trust_ad,
        )

    def _reply_classes(self, path: str) -> ReplyClasses:
        try:
            return ReplyClasses.of(path)
        except (OSError, ValueError) as error:
            self.log.warning("delivery.configuration_problem", setting="reply_class_file", cause=str(error))
            return ReplyClasses.of()

    def _not_kept(self, cause: str) -> None:
        self.log.warning("delivery.paces_not_kept", cause=cause)

    async def _take_answers(self, answers: Answers) -> None:
        """Records what next hops said to processes that were killed before their commit; then begins notes of ours."""
        try:
            await answers.take_left(self.recorder.recover)
            answers.begin(f"{self.services.slot}-{os.getpid()}")
        except (OSError, StorageFailure) as error:
            self.log.warning("delivery.answers_not_kept", cause=str(error))
        except Exception as error:  # deliveries begin all the same
            self.log.exception("delivery.failed", error)
            self.cells[METRICS.internal_errors_total["delivery"]] += 1
        self._begin()

    def _own(self, hop: bytes) -> "HopOwner":
        owner = self._owners[hop] = self._make(hop)
        owner.is_suspended = hop in self._suspended
        return owner

    def _make(self, hop: bytes) -> "HopOwner":
        transport = BY_NAME.get(hop.partition(b":")[0].decode("ascii", "replace"), BY_NAME["error"])
        return kind_of(transport)(self, hop, transport.name)

    def _tick(self) -> None:
        """Once a second: what has become due, what could not be written, who can be forgotten."""
        self._timer = self.loop.call_later(TICK_S, self._tick)
        unwritten, self.unwritten = self.unwritten, []
        for job in unwritten:
            self.recorder.submit(job)
        now = self.clock.monotonic()
        if self.logins.is_enabled:
            self.logins.refresh()
        self.tls.refresh()
        self.ignored.refresh()
        if self.tls_reporting is not None and self.tls_reporting.is_due:
            self.services.tasks.spawn("delivery counts TLS sessions", self.tls_reporting.flush())
        self._look_suspended()
        self.paces.look(self.services.tasks)
        set_back_s = self._redating.look(self._partitions)
        self._indexing.look()
        if self.withheld:
            self.withheld = {key: until for key, until in self.withheld.items() if until > now}
        if set_back_s:
            for owner in self._owners.values():
                owner.clock_set_back(set_back_s)
        if self._ticking is None:
            self._ticking = iter(list(self._owners))
            self._tick_on()
        self.shaping.tick()
        self._look()

    def _tick_on(self) -> None:
        """Tells owners that a second is over, in several passes if need be, and forgets those with nothing to do."""
        now = self.clock.monotonic()
        while self._ticking is not None and not self.pace.is_over:
            hop = next(self._ticking, None)
            if hop is None:
                self._ticking = None
            elif hop in self._owners:
                owner = self._owners[hop]
                owner.tick(now)
                if owner.is_idle:
                    owner.close()
                    del self._owners[hop]

    def _look(self) -> None:
        """Has every hop with work go on; where many have, in several passes of the loop."""
        if self._looking is not None:
            self._look_again = True
            return
        self._looking = (hop for _, hop in self._hops())
        self._look_on()

    def _look_on(self) -> None:
        while self._looking is not None and self._running and not self.pace.is_over:
            hop = next(self._looking, None)
            if hop is None:
                self._looking = None
                if self._look_again:
                    self._look_again = False
                    self._look()
            elif hop not in self._suspended:
                owner = self._owners.get(hop) or self._own(hop)
                owner.kick()

    def _look_suspended(self) -> None:
        """Stops and resumes the hops that an administrator has said so of."""
        if not self._suspended.refresh():
            return
        for hop, owner in list(self._owners.items()):
            before, owner.is_suspended = owner.is_suspended, hop in self._suspended
            if owner.is_suspended and not before:
                owner.let_go()
            elif before and not owner.is_suspended:
                owner.kick()

    def _hops(self) -> Sequence[tuple[int, bytes]]:
        """The hops with work; where the index is damaged, those of the partitions that can be read."""
        try:
            return self.queue.hops(self._partitions, self.now_ms(), HOPS_A_LOOK + len(self._suspended))
        except StorageFailure:
            hops: list[tuple[int, bytes]] = []
            for partition in self._partitions:
                try:
                    hops += self.queue.hops((partition,), self.now_ms(), HOPS_A_LOOK + len(self._suspended))
                except StorageFailure:
                    continue
            return hops
