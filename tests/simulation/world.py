"""One seed of the Internet in a box: a network of servers with habits, a configuration, a day of mail, and troubles.

Everything is drawn from the seed. The program under test is the real one (fastmta/simulation); what must be true of it
in the end, invariants.py says.
"""

import asyncio
import os
import random
import tempfile
from functools import partial
from pathlib import Path

import msgspec

from fastmta._intake import Recipient
from fastmta.config.schema import Config
from fastmta.config.shaping import ShapingConfig
from fastmta.config.tables import PipeConfig
from fastmta.model.envelope import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    Envelope,
    RecipientState,
)
from fastmta.simulation.arrivals import arrive
from fastmta.simulation.loop import VirtualLoop
from fastmta.simulation.names import Zone
from fastmta.simulation.network import Network
from fastmta.simulation.parts import Parts, VirtualClock, seeded
from fastmta.store.virtual import VirtualStore
from tests.simulation.ledger import Ledger
from tests.simulation.places import ENDS, Place, Program, Programs

HOME = "home.test"
BEGAN = 1_800_000_000.0
_LMTP_TOO = (
    "destination_concurrency_limit",
    "initial_destination_concurrency",
    "destination_concurrency_failed_cohort_limit",
    "destination_recipient_limit",
    "destination_rate_delay",
)


class Domain:
    """A domain of the network: its name, what its mail exchangers are, and what becomes of its mail by rights."""

    def __init__(self, name):
        self.name = name
        self.transport = "smtp"
        self.places = []
        self.program = None  # of a pipe
        self.needs_tls = False
        self.trouble = ""  # of its DNS: "none", "null", "servfail", "later"
        self.most_open = 0
        self.addresses = 0

    def counted(self):
        """A connection more, of those that both ends still have."""
        now = sum(session.link is None or session.link.hears for place in self.places for session in place.open)
        self.most_open = max(self.most_open, now)

    @property
    def hop(self):
        if self.transport == "pipe":
            return f"pipe:prog:{self.name}"
        return f"smtp:{self.name}" if self.transport == "smtp" else f"lmtp:[{self.ip}]:24"

    @property
    def is_healthy(self):
        """Nothing of it is ever in the way of mail."""
        if self.trouble or (self.program is not None and self.program.habits):
            return False
        if self.needs_tls and not all("starttls" in place.habits for place in self.places):
            return False
        return all(not place.habits.keys() - {"chunking", "starttls", "forgets sessions"} for place in self.places)


class World:
    def __init__(self, seed, size=1.0):
        self.seed = seed
        self.chance = chance = seeded(seed)
        self.network = Network()
        self.events = []  # (at, coroutine function): what has not happened yet
        self._new_loop(1000.0, BEGAN)
        self.zone = Zone()
        self.ledger = Ledger()
        self.lines = []
        self.unhandled = []
        self.sent = {}  # recipient -> (reverse path, accepted at, notify)
        self.disturbed = []  # what an administrator, or a kill, has done: (at, what, subject)
        self.more = random.Random(seed ^ 0x7175)  # for what came later: worlds without it stay the same
        self.has_tls = self.more.random() < 0.5
        self.chosen = chance.choice([2, 3, 5, 8])
        self.domains = [self._domain(n) for n in range(self.chosen)]
        self.config = self._config()
        self.messages = int(chance.choice([3, 10, 25, 60]) * size) or 1
        if self.config.delivery.maximal_queue_lifetime > 4 * 3600:  # whoever waits for days does little else
            self.messages = min(self.messages, 3)
        self.spread_s = chance.choice([5.0, 600.0, 7200.0])
        self.parts = None
        self.buried = []  # what a killed process had: its coroutines end with the test

    # --- what is drawn ---

    def _domain(self, n):
        chance = self.chance
        domain = Domain(f"d{n}.test")
        habits = {"chunking": True} if n == 0 else self._habits()  # one is always well
        if n and chance.random() < 0.1:
            domain.trouble = chance.choice(["none", "null", "servfail", "later"])
        hosts = chance.choice([1, 1, 2, 3])
        records = []
        for host in range(hosts):
            name = f"mx{host}.d{n}.test"
            ips = [f"203.0.{n}.{10 * host + k + 1}" for k in range(chance.choice([1, 1, 2]))]
            own = habits if host == 0 or chance.random() < 0.6 else self._habits()
            link = {"latency_s": chance.choice([0.005, 0.05, 0.4]), "speed": chance.choice([0, 0, 20_000])}
            place = Place(name, self.ledger, chance, self.time, own, **link)
            place.domain = domain
            own.update(self._tls_habits() if n else {"starttls": True} if self.has_tls else {})
            domain.places.append(place)
            domain.addresses += len(ips)
            for ip in ips:
                self.network.listen(ip, 25, place)
            self.zone.put(name, "A", *ips)
            records.append((chance.choice([10, 10, 20]), name))
        if domain.trouble == "null":
            records = [(0, "")]
        if domain.trouble in ("servfail", "later"):
            self.zone.troubled[domain.name] = None
        if domain.trouble == "later":
            self.at(chance.uniform(10, 10_000), partial(self._mended, domain.name))
        if domain.trouble != "none":
            self.zone.put(domain.name, "MX", *records)
        domain.needs_tls = self.has_tls and self.more.random() < 0.3
        if n and self.more.random() < 0.15:
            self._by_lmtp(domain, ips[0])
        elif n and self.more.random() < 0.1:
            self._by_pipe(domain)
        return domain

    def _by_lmtp(self, domain, ip):
        """A route of the administrator's leads to one host, which has another name and speaks LMTP."""
        old = domain.places[-1]
        link = {"latency_s": old.latency_s, "speed": old.speed}
        place = Place(f"lmtp.{domain.name}", self.ledger, self.chance, self.time, old.habits, speaks_lmtp=True, **link)
        place.domain, domain.places = domain, [place]
        domain.transport, domain.ip, domain.addresses = "lmtp", ip, 1
        domain.trouble, domain.needs_tls = "", False
        self.network.listen(ip, 24, place)

    def _by_pipe(self, domain):
        more = self.more
        drawn = {
            "slow": lambda: more.choice([1.0, 30.0]),
            "lingers": lambda: more.choice([0.5, 5.0]),
            **dict.fromkeys(ENDS, lambda: more.choice([0.1, 0.4])),
        }
        habits = {name: drawn[name]() for name in more.sample(list(drawn), more.choice([0, 1, 2]))}
        domain.program = Program(self.ledger, more, habits)
        domain.transport, domain.places, domain.addresses = "pipe", [], 0
        domain.trouble, domain.needs_tls = "", False

    def _tls_habits(self):
        """STARTTLS at most servers of a world that has it, and at some of those what may go wrong with it."""
        more = self.more
        if not self.has_tls or more.random() < 0.2:
            return {}

        def times():
            begin = 1000.0 + more.uniform(0, 3000) * more.choice([0, 1])
            return [(begin, begin + more.uniform(10, 7200))]

        drawn = {
            "stripped": times,
            "tls fails": times,
            "tls stalls": times,
            "tls drops": lambda: 0.3,
            "refuses tls": lambda: 0.3,
            "forgets sessions": lambda: more.choice([0.3, 1.0]),
        }
        names = more.sample(list(drawn), more.choice([0, 0, 1, 2]))
        return {"starttls": True, **{name: drawn[name]() for name in names}}

    def _habits(self):
        """A few habits, most servers have one or two."""
        chance = self.chance

        def times(most_s=7200.0):
            begin = 1000.0 + chance.uniform(0, 3000) * chance.choice([0, 1])
            return [(begin, begin + chance.uniform(10, most_s))]

        drawn = {
            "slow": lambda: chance.choice([0.5, 5.0, 20.0]),
            "refuses": times,
            "silent": times,
            "mute": lambda: times(2000.0),
            "greets with 4": times,
            "greets with 5": times,
            "most": lambda: chance.choice([1, 2, 5]),
            "greylist": lambda: chance.choice(
                [(300, ""), (300, ", try again in 300 seconds"), (60, ", try again in 1 minute"), (1800, "")]
            ),
            "storm": times,
            "drops at greeting": lambda: 0.3,
            "no pipelining": lambda: True,
            "dsn": lambda: True,
            "chunking": lambda: True,
            "messages a connection": lambda: chance.choice([1, 3]),
            "messages a minute": lambda: chance.choice([2, 10, 60]),
            "recipients": lambda: chance.choice([1, 5]),
            "dead addresses": lambda: chance.choice([10, 50, 100]),
            "421 at rcpt": lambda: 0.1,
            "refuses data": lambda: 0.2,
            "reset in data": lambda: 0.2,
            "defers the dot": lambda: 0.3,
            "refuses the dot": lambda: 0.3,
            "drops after the dot": lambda: 0.2,
            "loses at the dot": lambda: 0.2,
            "sleeps after the dot": lambda: 0.1,
        }
        names = chance.sample(list(drawn), chance.choice([0, 1, 1, 2, 3]))
        habits = {name: drawn[name]() for name in names}
        if "storm" in habits:
            habits["storm of"] = chance.choice([0.3, 1.0])
        if chance.random() < 0.3:
            habits["chunking"] = True
        return habits

    def _config(self):
        chance = self.chance
        delivery = {
            "smtp_tls_security_level": "none",
            "minimal_backoff_time": chance.choice([300.0, 300.0, 60.0]),
            "maximal_backoff_time": chance.choice([4000.0, 4000.0, 900.0]),
            "maximal_queue_lifetime": chance.choice([4 * 3600.0] * 6 + [86_400.0, 5 * 86_400.0]),
            "bounce_queue_lifetime": chance.choice([3600.0, 86_400.0]),
            "delay_warning_time": chance.choice([0.0, 0.0, 3600.0]),
            "smtp_destination_concurrency_limit": chance.choice([1, 2, 5, 20, 20]),
            "smtp_initial_destination_concurrency": chance.choice([1, 5, 5]),
            "smtp_destination_concurrency_failed_cohort_limit": chance.choice([1, 1, 1, 3, 0]),
            "smtp_destination_recipient_limit": chance.choice([1, 2, 50, 50]),
            "smtp_destination_rate_delay": chance.choice([0.0] * 7 + [2.0]),
            "smtp_mx_session_limit": chance.choice([1, 2, 2, 5]),
            "smtp_mx_address_limit": chance.choice([1, 5, 5]),
            "destination_rate_tuning": chance.random() < 0.8,
        }
        transport = {domain.name: domain.hop for domain in self.domains if domain.transport == "lmtp"}
        transport.update({domain.name: "pipe:prog" for domain in self.domains if domain.transport == "pipe"})
        lacking = [domain.name for domain in self.domains if domain.needs_tls]
        if self.has_tls:
            delivery["smtp_tls_security_level"] = self.more.choice(["may", "may", "encrypt", "none"])
            delivery["smtp_tls_session_cache_timeout"] = self.more.choice([0.0, 3600.0, 3600.0])
            delivery["smtp_starttls_timeout"] = self.more.choice([30.0, 300.0])
            entries = "".join(f"{{ {name} = encrypt }}, " for name in lacking)
            delivery["smtp_tls_policy_maps"] = (f"inline:{{ {entries.rstrip(', ')} }}",) if lacking else ()
            for domain in self.domains:
                domain.needs_tls |= domain.transport == "smtp" and delivery["smtp_tls_security_level"] == "encrypt"
        for name in _LMTP_TOO:
            delivery[f"lmtp_{name}"] = delivery[f"smtp_{name}"]
        program = PipeConfig(argv=("/bin/prog", "${recipient}"), user="nobody", destination_concurrency_limit=3)
        config = Config(
            transport=transport,
            pipe={"prog": program},
            myhostname="mx." + HOME,
            mydomain=HOME,
            myorigin=HOME,
            mydestination=(HOME,),
            recipient_delimiter="+",
            notify_classes=chance.choice([("resource", "software"), ("bounce", "delay", "2bounce")]),
            alias_maps=(),
        )
        shaping = ()
        if chance.random() < 0.3:
            names = tuple(domain.name for domain in chance.sample(self.domains, chance.choice([1, 2])))
            by_host = chance.random() < 0.3
            shaping = (
                ShapingConfig(
                    name="rule",
                    domain=() if by_host else names,
                    mx=tuple("." + name for name in names) if by_host else (),
                    per=chance.choice(["rule", "domain"]),
                    concurrency=chance.choice([0, 1, 3]),
                    messages_per_second=chance.choice([0, 1, 5]),
                    messages_per_hour=chance.choice([0, 0, 60, 500]),
                    messages_per_connection=chance.choice([0, 1, 4]),
                    recipients_per_message=chance.choice([0, 1, 3]),
                ),
            )
        return msgspec.structs.replace(
            config, delivery=msgspec.structs.replace(config.delivery, **delivery), shaping=shaping
        )

    # --- what happens ---

    def _new_loop(self, at, now):
        self.loop = VirtualLoop(at)
        self.loop.set_exception_handler(lambda loop, context: self.unhandled.append(str(context)))
        self.loop.network = self.network
        self.clock = VirtualClock(self.loop, now)

    def time(self):
        return self.loop.time()

    def at(self, seconds, happens):
        """Has `happens` called so long after the beginning, in whichever life of the process that is."""
        self.events.append((1000.0 + seconds, happens))

    def later(self, seconds, happens):
        """The same, so long after this instant."""
        at = self.time() + seconds
        self.events.append((at, happens))
        self.loop.call_at(at, self._happen, at, happens)

    def run(self):
        """All lives of the process, one after the other, until no mail is left."""
        self._plan()
        with tempfile.TemporaryDirectory(prefix="simulation.") as directory:
            self.directory = Path(directory)
            self.config = msgspec.structs.replace(self.config, data_directory=directory)
            commit_s = self.chance.choice([0.001, 0.02, 0.5])
            self.store = VirtualStore.made(self.directory / "store", self.loop, self.clock, commit_s)
            try:
                kills = iter(sorted(self.kills_at))
                while not self.loop.run_until_complete(self._life(next(kills, None))):
                    self._die()
                self.read_mail()
            finally:
                self.store.close()
                self.loop.close()
        return self

    async def _life(self, killed_at):
        """Whether all is done; else it has come to `killed_at`."""
        answers = self.directory if self.kills_at else None
        parts = self.parts = Parts(
            self.config, self.store, self.loop, self.clock, self.zone, self.lines.append, answers
        )
        parts.launcher = Programs(self.domains)
        if self.store.accounts.lookup(f"ann@{HOME}") is None:
            await self.store.accounts.add(f"ann@{HOME}", "x")
        parts.start()
        for at, happens in self.events:
            self.loop.call_at(at, self._happen, at, happens)
        while self.time() < self.horizon:
            await asyncio.sleep(min(600.0, max(0.0, (killed_at or 1e12) - self.time())))
            if killed_at is not None and self.time() >= killed_at:
                return False
            if killed_at is None and self.time() > self.last_at and self._is_empty():
                break
        self.ended_at = self.time()
        self.left = self.store.queue.walk()[0]
        await parts.stop()
        return True

    def _happen(self, at, happens):
        self.events.remove((at, happens))
        self.loop.create_task(happens(), name="event")

    def _is_empty(self):
        return not any(self.store.queue.counts().values()) and self._is_quiet()

    def _die(self):
        """The process is killed at this instant; another one begins some seconds later."""
        self._note("kill")
        old, loop, now = self.parts, self.loop, self.clock.now()
        store = self.store
        old.service._running = False
        after_s = self.chance.uniform(0, 30)
        self._new_loop(loop.time() + after_s, now + after_s)
        self.store = store.survivor(self.loop, self.clock)
        for domain in self.domains:
            for place in domain.places:
                for session in list(place.open):
                    session.lost()
        answers = old.service.answers
        if answers is not None and answers._fd >= 0:
            os.close(answers._fd)
            answers._fd = -1
        self.buried.append((loop, old))
        for timer in loop.timers():  # what has yet to happen does so in the next life
            timer.cancel()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.ahead = None
        lines, old.log._take = self.lines, lambda line: None
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        assert self.lines is lines
        loop.close()

    def _plan(self):
        """Sets the times of all that will happen."""
        chance = self.chance
        for n in range(self.messages):
            self.at(chance.uniform(0, self.spread_s), partial(self._message, n))
        troubles = [self._flush, self._hold, self._suspend, self._reload, self._set_clock, self._move]
        for _ in range(chance.choice([0, 0, 1, 3])):
            self.at(chance.uniform(1, self.spread_s + 6000), chance.choice(troubles))
        self.kills_at = []
        if chance.random() < 0.15:
            self.kills_at = [1000.0 + chance.uniform(0, self.spread_s + 600) for _ in range(chance.choice([1, 3]))]
        self.last_at = max(at for at, _ in self.events) + 8000
        delivery = self.config.delivery
        lifetime_s = delivery.maximal_queue_lifetime + delivery.bounce_queue_lifetime * 2
        self.horizon = self.last_at + 12_000 + lifetime_s + 8 * delivery.maximal_backoff_time + 3 * 7200

    def _is_quiet(self):
        service = self.parts.service
        return not service.unrecorded and not service.connections and not service.status()["in_flight"]

    async def _message(self, n):
        chance = self.chance
        sender = chance.choice([f"ann+{n}@{HOME}", f"ann+{n}@{HOME}", f"bill.{n}@{self.domains[0].name}", ""])
        if chance.random() < 0.1:
            sender = f"carl.{n}@{chance.choice(self.domains).name}"
        count = chance.choice([1, 1, 1, 2, 7, 60 if n % 7 == 0 else 2])
        domains = chance.sample(self.domains, min(len(self.domains), chance.choice([1, 1, 3])))
        recipients = []
        notify = chance.choice([0] * 6 + [NOTIFY_NEVER, NOTIFY_SUCCESS, NOTIFY_FAILURE, NOTIFY_FAILURE | NOTIFY_DELAY])
        for k in range(count):
            path = f"r{k}.{n}@{chance.choice(domains).name}".encode()
            resolution = self.parts.directory.resolve(path, may_relay=True)
            recipients.append(Recipient(path, resolution, notify if sender else 0))
        size = chance.choice([100, 3000, 3000, 200_000])
        body = f"Subject: message {n}\r\n\r\n".encode() + b"some text of a line\r\n" * (size // 21)
        now = self.clock.now()
        envelope = Envelope(sender.encode(), int(now * 1000), 0, 0, ret=chance.choice(["", "HDRS"]))
        await arrive(self.parts, envelope, recipients, body)
        accepted = self.loop.time()
        for each in recipients:
            self.sent[each.forward_path] = (sender, now, notify if sender else 0, accepted)

    # --- disturbances ---

    def _note(self, what, subject=""):
        self.disturbed.append((self.loop.time(), what, subject))

    async def _flush(self):
        """Everything that waits is made due."""
        self._note("flush")
        waits = [row for _, row in self.store.queue.walk()[0] if row.state == RecipientState.DEFERRED]
        for queue_id in dict.fromkeys(row.queue_id for row in waits):
            await self.store.queue.flush(queue_id, due_ms=int(self.clock.now() * 1000))

    async def _hold(self):
        self._note("hold")
        held = []
        by_message = {}
        for _, row in self.store.queue.walk()[0][:20]:
            by_message.setdefault(row.queue_id, []).append(row.n)
        for queue_id, numbers in by_message.items():
            busy = {n for _, n in self.parts.service.withdraw([(queue_id, n) for n in numbers])}
            free = [n for n in numbers if n not in busy]
            if free:
                held.append((queue_id, free))
                await self.store.queue.hold(queue_id, free)
        self.later(self.chance.uniform(1, 4000), partial(self._release, held))

    async def _release(self, held):
        self._note("release")
        for queue_id, numbers in held:
            await self.store.queue.release(queue_id, numbers, due_ms=int(self.clock.now() * 1000))

    async def _suspend(self):
        domain = self.chance.choice(self.domains)
        self._note("suspend", domain.hop)
        hop = domain.hop.encode()
        await self.store.suspensions.add([hop], domain.name, "root")
        self.parts.service.hops([hop])
        self.later(self.chance.uniform(1, 4000), partial(self._resume, domain))

    async def _resume(self, domain):
        self._note("resume", domain.hop)
        await self.store.suspensions.remove([domain.hop.encode()])
        self.parts.service.hops([domain.hop.encode()])

    async def _reload(self):
        self._note("reload")
        delivery = msgspec.structs.replace(
            self.config.delivery, smtp_destination_concurrency_limit=self.chance.choice([1, 5, 20])
        )
        self.config = self.parts.config = msgspec.structs.replace(self.config, delivery=delivery)
        self.parts.service.reload()

    async def _set_clock(self):
        seconds = self.chance.choice([-3600.0, -10.0, 10.0, 3600.0])
        self._note("clock", seconds)
        self.clock.step(seconds)

    async def _move(self):
        """A domain gets other mail exchangers; the old ones are turned off."""
        domain = self.chance.choice(self.domains[1:] or self.domains)
        if domain.transport != "smtp":
            return
        self._note("move", domain.hop)
        name = f"new{len(domain.places)}.{domain.name}"
        place = Place(name, self.ledger, self.chance, self.time, {"starttls": True} if domain.needs_tls else {})
        place.domain = domain
        ip = f"203.0.{100 + self.domains.index(domain)}.{len(domain.places)}"
        self.network.listen(ip, 25, place)
        self.zone.put(name, "A", ip)
        if not domain.trouble:
            self.zone.put(domain.name, "MX", (10, name))
        for old in domain.places:
            old.habits = {**old.habits, "refuses": [(self.loop.time(), 1e12)]}
        domain.places.append(place)
        domain.addresses += 1

    async def _mended(self, name):
        self.zone.troubled.pop(name, None)

    def read_mail(self):
        """The reports that have come into the sender's own mailbox."""
        account = self.store.accounts.lookup(f"ann@{HOME}")
        boxes = self.store.mailboxes
        self.mailbox = []
        for uid in boxes.uids(account.inbox_id):
            self.mailbox.append(boxes.read(account.inbox_id, uid, 0, 1 << 20))
