"""The promise of the 250, under kill -9.

    python -m tests.faults.ledger --rounds 50 --seed 7

Each round: clients send to local mailboxes and through a relay to a sink that remembers; in the middle something is
killed (a worker, the supervisor alone, everything, or a worker at a named point of its own code); the server comes back
by itself or is started again; when its queue is empty, all that was promised must be in a mailbox or at the sink, byte
for byte, and nothing else may be there. Then the store is checked. The seed is printed; with it the faults and the
messages come again, their timing does not.

    python -m tests.faults.ledger --rounds 20 --relayed --rate 100 --only worker --workers 1
    python -m tests.faults.ledger --rounds 20 --peer postfix --rate 100

compare what comes twice with a real Postfix, whose smtp and qmgr processes are killed (tests/faults/peer.py). Both end
with what was doubled a kill, apart for those whose answer had left the next hop before the kill, which an MTA could
have known, and those that were on their way, which nobody can; and with the rate at which the next hop answered before
the kills, since what is on its way grows with it.
"""

import argparse
import imaplib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.faults.client import Client, Ledger
from tests.faults.one_owner import OneOwner
from tests.support import processes
from tests.support.ledger_sink import ledger_entry
from tests.support.ports import free_port, wait_until_listening
from tests.support.server import REPOSITORY, Server, environment

USERS = ("anna@example.test", "bill@example.test", "carl@example.test")
REMOTES = ("x@remote.example", "y@remote.example", "z@other.example")
PASSWORD = "ledger-secret"
CRASH_POINTS = ("append", "commit", "before_250", "after_250", "after_remote_250", "before_done")
CLIENTS = 6
DRAIN_TIMEOUT_S = 60.0
RATE_OVER_S = 0.2  # before a kill, in which the rate is measured: less than a round's load before it
# A killed worker may have had this many deliveries between the next hop's 250 and its own commit.
DUPLICATES_A_KILL = 64


Entry = tuple[str, str, str]  # id, recipient, digest


class Fault(NamedTuple):
    kind: str  # "worker", "supervisor", "all" or "crash"
    point: str = ""  # FASTMTA_CRASH_AT of "crash"

    def __str__(self) -> str:
        return f"crash at {self.point}" if self.point else f"kill {self.kind}"


class Verdict(NamedTuple):
    promised: int
    in_mailboxes: int
    at_sink: int
    lost: list[str]
    corrupt: list[str]
    unknown: list[str]
    doubled_in_mailboxes: list[str]
    doubled_at_sink: int
    doubled_after_answer: int = 0  # of these: the answer to the first copy had left the sink before the kill

    def problems(self, duplicates_allowed: int) -> list[str]:
        out = []
        for name in ("lost", "corrupt", "unknown", "doubled_in_mailboxes"):
            found = getattr(self, name)
            if found:
                out.append(f"{len(found)} {name.replace('_', ' ')}: {', '.join(found[:5])}")
        if self.doubled_at_sink > duplicates_allowed:
            out.append(f"{self.doubled_at_sink} doubled at the sink, {duplicates_allowed} allowed")
        return out


def choose_faults(rounds: int, chooser: random.Random) -> list[Fault]:
    """Every kind within the first rounds, in an order of the seed's choosing, then as it falls."""
    kinds = [Fault("worker"), Fault("supervisor"), Fault("all")]
    kinds += [Fault("crash", point) for point in CRASH_POINTS]
    out: list[Fault] = []
    while len(out) < rounds:
        turn = kinds[:]
        chooser.shuffle(turn)
        if not out:  # a short run must not be all crash points, nor none
            turn.sort(key=lambda fault: kinds[:3].index(fault) if fault in kinds[:3] else 3)
        out.extend(turn)
    passage = (f"{fault.point}:{chooser.randint(1, 200)}" if fault.point else "" for fault in out)
    return [Fault(fault.kind, point) for fault, point in zip(out[:rounds], passage, strict=False)]


def start_sink(path: Path) -> tuple[int, "subprocess.Popen[bytes]"]:
    """A next hop that writes into `path`, and its port."""
    path.touch()
    port = free_port()
    command = [sys.executable, "-m", "tests.support.ledger_sink", str(port), str(path)]
    return port, subprocess.Popen(command, env=environment(), cwd=REPOSITORY)


def start_clients(
    address: tuple[str, int], ledger: Ledger, recipients: Sequence[str], seed: int, number: int, rate: float
) -> list[Client]:
    """The clients of round `number`; `rate` is that of all together."""
    clients = [
        Client(
            address,
            ledger,
            recipients,
            seed * 100_000 + number * 100 + index,
            pipelined=index % 2 == 0,
            rate=rate / CLIENTS,
        )
        for index in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    return clients


def stop_clients(clients: Sequence[Client]) -> None:
    for client in clients:
        client.stop()
    for client in clients:
        client.join(30.0)


def entries_at(sink_file: Path) -> Counter[Entry]:
    """What the sink took, and how often."""
    found: Counter[Entry] = Counter()
    for line in sink_file.read_text().splitlines():
        identifier, recipient, digest = line.split(" ")
        found[identifier, recipient, digest] += 1
    return found


class LedgerTest:
    """One server, one sink, one ledger over all rounds."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        *,
        workers: int = 2,
        load_s: float = 1.0,
        rate: float = 0.0,
        recipients: Sequence[str] = USERS + REMOTES,
    ) -> None:
        """`rate`: messages a second of all clients together; 0: as fast as the server answers."""
        self.rate = rate
        self.recipients = recipients
        self.directory = directory
        self.random = random.Random(seed)
        self.seed = seed
        self.load_s = load_s
        self.kills = 0
        self.struck: list[float] = []  # time.monotonic() of each kill that we made
        self.ledger = Ledger(directory / "promised")
        self.sink_file = directory / "at-sink"
        self.sink_port, self.sink = start_sink(self.sink_file)
        route = f"smtp:[127.0.0.1]:{self.sink_port}"
        self.server = Server(
            directory / "server",
            services=("smtp", "imap"),
            workers=workers,
            settings={"transport": {"remote.example": route, "other.example": route}},
        )
        self.found: Counter[Entry] = Counter()  # in mailboxes: (id, user, digest)
        self.read_up_to: dict[str, tuple[str, int]] = {}  # user -> (UIDVALIDITY, highest UID read)

    def close(self) -> None:
        self.server.stop()
        processes.stop(self.sink)
        self.ledger.close()

    def prepare(self) -> None:
        wait_until_listening("127.0.0.1", self.sink_port)
        with self.server as server:
            for user in USERS:
                server.add_user(user, PASSWORD)

    def round(self, number: int, fault: Fault) -> list[str]:
        """One round; gives what is wrong, in words."""
        self.server.env = {"FASTMTA_CRASH_AT": fault.point} if fault.point else {}
        self.server.start()
        clients = start_clients(
            (self.server.host, self.server.port("smtp")), self.ledger, self.recipients, self.seed, number, self.rate
        )
        try:
            with OneOwner(self.sink_port) as watch:
                time.sleep(self.random.uniform(0.2, 0.7) * self.load_s)
                self._strike(fault)
                time.sleep(0.5 * self.load_s)
        finally:
            stop_clients(clients)
        if fault.point:
            self.server.stop()
            self.server.env = {}
            self.server.start()
        self.server.wait_ready()
        return watch.twice[:3] + self._settle_and_check()

    def _strike(self, fault: Fault) -> None:
        self.kills += 1
        if fault.kind != "crash":  # a worker that kills itself does so at a moment that only it knows
            self.struck.append(time.monotonic())
        if fault.kind == "worker":
            victim = self.random.choice(self.server.workers())
            os.kill(victim, signal.SIGKILL)
        elif fault.kind == "supervisor":
            self.server.kill_supervisor()
            self.server.start()
        elif fault.kind == "all":
            self.server.kill()
            self.server.start()
        else:
            time.sleep(0.7 * self.load_s)  # the workers die by themselves, and again after each restart
            self.kills += 5

    def _settle_and_check(self) -> list[str]:
        problems = []
        if not self._drained():
            problems.append(f"the queue is not empty: {self.server.cli('queue', 'list').stdout[:2000]}")
        self._read_mailboxes()
        code = self.server.stop()
        if code:
            problems.append(f"the server ended with {code}")
        checked = self.server.cli("store", "check", check=False)
        if checked.returncode:
            problems.append(f"store check: {checked.returncode}: {checked.stdout}{checked.stderr}")
        return problems + self.verdict().problems(self.kills * DUPLICATES_A_KILL)

    def _drained(self) -> bool:
        """Waits for an empty queue; what a lost next hop deferred is tried again at once."""
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        flushed = False
        while time.monotonic() < deadline:
            states = {
                name: value
                for name, value in self.server.metrics().items()
                if name.startswith("fastmta_queue_messages{")
            }
            if not any(states.values()):
                return True
            if not flushed and any(value for name, value in states.items() if "deferred" in name):
                self.server.cli("queue", "flush", check=False)
                flushed = True
            time.sleep(0.05)
        return False

    def _read_mailboxes(self) -> None:
        for user in USERS:
            with imaplib.IMAP4(self.server.host, self.server.port("imap"), timeout=60) as imap:
                imap.login(user, PASSWORD)
                imap.select("INBOX", readonly=True)
                validity = (imap.response("UIDVALIDITY")[1][0] or b"").decode()
                before, highest = self.read_up_to.get(user, (validity, 0))
                if before != validity:
                    raise RuntimeError(f"UIDVALIDITY of {user} has changed from {before} to {validity}")
                _, answer = imap.uid("FETCH", f"{highest + 1}:*", "(BODY.PEEK[])")
                for part in answer:
                    if not isinstance(part, tuple):
                        continue
                    uid = int(re.search(rb"UID (\d+)", part[0] + b" ").group(1))  # type: ignore[union-attr]
                    if uid <= highest:
                        continue
                    entry = ledger_entry(part[1]) or ("not the ledger's", "")
                    self.found[entry[0], user, entry[1]] += 1
                    self.read_up_to[user] = (validity, max(uid, self.read_up_to.get(user, ("", 0))[1]))

    def verdict(self) -> Verdict:
        at_sink = entries_at(self.sink_file)
        verdict = judge(self.ledger.sent, self.ledger.promised, self.found, at_sink)
        return verdict._replace(doubled_after_answer=doubled_after_answer(answers_of(self.sink_file), self.struck))


def answers_of(sink_file: Path) -> dict[tuple[str, str], list[float]]:
    """When the sink answered for each (id, recipient), in order."""
    answered: dict[tuple[str, str], list[float]] = {}
    answers = Path(f"{sink_file}.answered")
    for line in answers.read_text().splitlines() if answers.exists() else ():
        identifier, recipient, at = line.split(" ")
        answered.setdefault((identifier, recipient), []).append(float(at))
    return answered


def doubled_after_answer(answered: Mapping[tuple[str, str], Sequence[float]], struck: Sequence[float]) -> int:
    """How many recipients got a message twice although it had been answered before the kill in between.

    The others were on their way at the kill: nobody can know whether their server took them.
    """
    return sum(any(times[0] < at <= times[-1] for at in struck) for times in answered.values() if len(times) > 1)


def summary(sink_file: Path, at_sink: Counter[Entry], struck: Sequence[float]) -> str:
    """What was doubled a kill, and how fast the sink answered in the stretch before the kills, in a line."""
    answered = answers_of(sink_file)
    kills = max(1, len(struck))
    known = doubled_after_answer(answered, struck)
    on_the_way = sum(count - 1 for count in at_sink.values()) - known
    before = sum(kill - RATE_OVER_S <= times[0] < kill for times in answered.values() for kill in struck)
    return (
        f"{len(struck)} kills, {before / RATE_OVER_S / kills:.0f} recipients a second before them: doubled after their"
        f" answer {known} ({known / kills:.2f} a kill), on their way {on_the_way} ({on_the_way / kills:.2f} a kill)"
    )


def judge(
    sent: Mapping[str, str], promised: Sequence[Entry], in_mailboxes: Counter[Entry], at_sink: Counter[Entry]
) -> Verdict:
    """Holds what was found against what was promised, and against what was sent at all (id -> digest)."""
    everywhere = in_mailboxes + at_sink
    return Verdict(
        promised=len(promised),
        in_mailboxes=in_mailboxes.total(),
        at_sink=at_sink.total(),
        lost=[f"{entry[0]} for {entry[1]}" for entry in promised if entry not in everywhere],
        corrupt=[f"{i} for {to}" for i, to, digest in everywhere if i in sent and sent[i] != digest],
        unknown=[f"{i} for {to}" for i, to, _ in everywhere if i not in sent],
        doubled_in_mailboxes=[f"{i} for {to}" for (i, to, _), count in in_mailboxes.items() if count > 1],
        doubled_at_sink=sum(count - 1 for count in at_sink.values()),
    )


def run(
    rounds: int,
    seed: int,
    *,
    workers: int = 2,
    load_s: float = 1.0,
    only: str = "",
    rate: float = 0.0,
    recipients: Sequence[str] = USERS + REMOTES,
) -> list[str]:
    """All rounds; gives the problems of the first round that has any. Keeps the data of a failed run."""
    print(f"ledger: seed {seed}, {rounds} rounds", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="fastmta-ledger-"))
    test = LedgerTest(directory, seed, workers=workers, load_s=load_s, rate=rate, recipients=recipients)
    problems: list[str] = []
    try:
        test.prepare()
        faults = choose_faults(rounds, test.random)
        if only:
            point = f"{only}:50" if only in CRASH_POINTS else ""
            faults = [Fault("crash" if point else only, point)] * rounds
        for number, fault in enumerate(faults):
            started = time.monotonic()
            try:
                problems = test.round(number, fault)
            except (RuntimeError, TimeoutError, OSError, imaplib.IMAP4.error) as failure:
                problems = [f"{type(failure).__name__}: {failure}", test.server.log_tail()]
            verdict = test.verdict()
            print(
                f"  round {number + 1}: {fault}: so far {verdict.promised} promised, {verdict.in_mailboxes} in boxes,"
                f" {verdict.at_sink} at the sink, {verdict.doubled_at_sink} doubled there"
                f" ({verdict.doubled_after_answer} after their answer),"
                f" {len(test.ledger.refused)} refused; {time.monotonic() - started:.1f} s",
                flush=True,
            )
            if problems:
                problems = [f"seed {seed}, round {number + 1}, {fault}", *problems, f"kept: {directory}"]
                break
        print(f"ledger: {summary(test.sink_file, entries_at(test.sink_file), test.struck)}", flush=True)
    finally:
        test.close()
        if not problems:
            shutil.rmtree(directory, ignore_errors=True)
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--load", type=float, default=1.0, help="scales the seconds of load a round")
    parser.add_argument("--only", default="", help="one fault: worker, supervisor, all, or a crash point")
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second at most")
    parser.add_argument("--relayed", action="store_true", help="only mail for the next hop")
    parser.add_argument("--peer", choices=("postfix",), help="kill a real Postfix instead, with mail for the next hop")
    options = parser.parse_args()
    if options.peer:
        from tests.faults import peer

        problems = peer.run(options.rounds, options.seed, load_s=options.load, rate=options.rate)
    else:
        problems = run(
            options.rounds,
            options.seed,
            workers=options.workers,
            load_s=options.load,
            only=options.only,
            rate=options.rate,
            recipients=REMOTES if options.relayed else USERS + REMOTES,
        )
    for problem in problems:
        print(problem, file=sys.stderr)
    print("ledger: FAILED" if problems else "ledger: nothing lost", flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
