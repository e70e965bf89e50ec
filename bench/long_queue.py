"""What queue commands cost on a long queue: `python -m bench.long_queue --directory D --state deferred`.

Builds a queue of messages with a recipient and a body of their own each, through the store's API, in a directory that
is kept for a second run; then times each command, its start included. Domains, senders and replies are many,
so what is asked for is a thousandth or a five-hundredth of the queue. With --serve a server runs beside, and delivers
nothing: every next hop is suspended.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from fastmta.cli.main import main as fastmta
from fastmta.model.envelope import Envelope, RecipientState, RecipientTail
from fastmta.store import MailStore
from tests.support.server import Server

DOMAINS: Final = 1000
SENDERS: Final = 500
AT_ONCE: Final = 200
STATES: Final = {"active": RecipientState.ACTIVE, "deferred": RecipientState.DEFERRED, "held": RecipientState.HELD}
REPLIES: Final = 1000
COMMANDS: Final = (
    ("list", "--domain", "d7.test"),
    ("list", "--sender", "s7@example.test"),
    ("list", "--recipient", "u1007@d7.test"),
    ("list", "--hop", "smtp:d7.test"),
    ("list", "--error", "mailbox 7 of"),
    ("list", "--older", "1d", "--limit", "100"),
    ("list", "--state", "held", "--limit", "1000"),
    ("hold", "--domain", "d8.test"),
    ("list", "--state", "held"),
    ("release", "--domain", "d8.test"),
    ("hold", "--sender", "s9@example.test"),
    ("release", "--state", "held"),
    ("hold", "--hop", "smtp:d10.test"),
    ("requeue", "--hop", "smtp:d10.test"),
    ("stats",),
    ("shape",),
    ("shape", "--state", "deferred", "-s"),
    ("top",),
)
LAST: Final = (("delete", "--yes", "--domain", "d{}.test"), ("delete", "--yes", "--error", "mailbox 9{} of"))
_encode: Final = msgspec.msgpack.Encoder().encode


async def fill(
    directory: Path, count: int, states: list[RecipientState], hop_of: Callable[[int], bytes] | None = None
) -> None:
    """`hop_of`: the next hop of message n; None: that of the recipient's domain."""
    store = MailStore.open(directory, sync=False)
    store.attach(asyncio.get_running_loop())
    raw, now_ms = store.raw, int(time.time() * 1000)
    body = b"From: s@example.test\r\nSubject: queued\r\n\r\n" + b"text of a message\r\n" * 50
    for start in range(0, count, AT_ONCE):
        units = []
        for number in range(start, min(count, start + AT_ONCE)):
            domain = b"d%d.test" % (number % DOMAINS)
            envelope = Envelope(b"s%d@example.test" % (number % SENDERS), now_ms - number, len(body), 0)
            queue_id, blob, unit = raw.new_id(), raw.new_blob(), raw.new_unit()
            blob.feed(b"X-Number: %d\r\n" % number + body)
            unit.blob(blob)
            unit.enqueue(queue_id, blob.blob_id, _encode(envelope))
            state = states[number % len(states)]
            due_ms = now_ms + 3_600_000 if state == RecipientState.DEFERRED else envelope.received_at_ms
            hop = hop_of(number) if hop_of is not None else b"smtp:" + domain
            unit.recipient(queue_id, 0, hop, 0, int(state), due_ms, _encode(RecipientTail(b"u%d@" % number + domain)))
            if state == RecipientState.DEFERRED:
                reply = b"452 4.2.2 mailbox %d of ours is full" % (number % REPLIES)
                unit.move_recipient(queue_id, 0, 0, int(state), 1, due_ms, reply)
            units.append(store.commit(unit))
        await asyncio.gather(*units)
    # What was never tried is brought into the indexes as a server does.
    after = b""
    while True:
        pairs, after = store.queue.fresh(after=after)
        await store.queue.index(pairs)
        if not after:
            break
    store.detach()
    store.close()


class Measured(NamedTuple):
    """Seconds of a command: by the wall, and CPU of its whole process (start of Python included) and the server's."""

    wall: float
    own: float
    server: float
    said: str


def measured(config: Path, arguments: tuple[str, ...], pids: list[int], runs: int) -> Measured:
    """The best of some runs."""
    sys.stdout.flush()
    taken: list[Measured] = []
    command = [sys.executable, "-c", _PROGRAM, "-c", str(config), "queue", *arguments]
    for _ in range(runs):
        before, begun = cpu_s(pids), time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stderr is not None
            said, failed = process.stdout.read(), process.stderr.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"queue {' '.join(arguments)}: {failed}")
        own = used.ru_utime + used.ru_stime
        taken.append(Measured(time.perf_counter() - begun, own, cpu_s(pids) - before, said))
    return min(taken, key=lambda each: each.own + each.server)


def measure(config: Path, arguments: tuple[str, ...], pids: list[int], runs: int = 3) -> None:
    """Prints the best of some runs; acts that change something are done once."""
    best = measured(config, arguments, pids, runs)
    lines = best.said.splitlines()
    shown = lines[0] if len(lines) == 1 else f"{len(lines)} lines"
    wall, own, server = (each * 1000 for each in best[:3])
    beside = f" {server:6.0f} ms of the server's" if pids else ""
    print(f"queue {' '.join(arguments):45} {wall:8.0f} ms {own:6.0f} ms CPU{beside}  {shown}", flush=True)


def cpu_s(pids: list[int]) -> float:
    """What these processes have used until now, all of their threads."""
    spent = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # it has ended
                spent += int(thread.read_text().split()[0])
    return spent / 1e9


_PROGRAM: Final = "import sys; from fastmta.cli.program import main; sys.exit(main())"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--state", default="deferred", help="active, deferred, held, or several with commas")
    parser.add_argument("--one-hop", action="store_true", help="all by one relay")
    parser.add_argument("--serve", action="store_true", help="beside a server")
    parser.add_argument("--deleted", type=int, default=20, help="which domain and reply are deleted at last")
    arguments = parser.parse_args()
    directory: Path = arguments.directory
    config = directory / "fastmta.toml"
    if not config.exists():
        directory.mkdir(parents=True, exist_ok=True)
        begun = time.perf_counter()
        states: list[Any] = [STATES[name] for name in arguments.state.split(",")]
        hop_of = (lambda _: b"smtp:[192.0.2.1]") if arguments.one_hop else None
        asyncio.run(fill(directory / "data", arguments.messages, states, hop_of))
        config.write_text('myhostname = "mx.example.test"\ndata_directory = "data"\nmydestination = []\n')
        print(f"{arguments.messages} queued in {time.perf_counter() - begun:.0f} s", flush=True)
    if arguments.serve:
        assert fastmta(["-c", str(config), "queue", "suspend", "--all"]) == 0
    with Server(directory, services=()) if arguments.serve else contextlib.nullcontext() as server:
        pids = [] if server is None else server.pids()
        for command in COMMANDS:
            measure(config, command, pids, 3 if command[0] in ("list", "stats", "shape", "top") else 1)
        for command in LAST:
            measure(config, tuple(word.format(arguments.deleted) for word in command), pids, 1)


if __name__ == "__main__":
    main()
