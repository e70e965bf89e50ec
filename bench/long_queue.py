"""What queue commands cost on a long queue: `python -m bench.long_queue --messages 1000000 --state deferred`.

Builds a queue of messages with a recipient and a body of their own each, through the store's API, in a directory that
is kept for a second run; then times each command, the start of Python left out. Domains and senders are many, so what
is asked for is a thousandth or a five-hundredth of the queue.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from fastmta.model.envelope import Envelope, RecipientState, RecipientTail
from fastmta.store import MailStore

DOMAINS: Final = 1000
SENDERS: Final = 500
AT_ONCE: Final = 200
STATES: Final = {"active": RecipientState.ACTIVE, "deferred": RecipientState.DEFERRED, "held": RecipientState.HELD}
COMMANDS: Final = (
    ("queue list --domain d7.test", ("list", "--domain", "d7.test")),
    ("queue list --sender s7@example.test", ("list", "--sender", "s7@example.test")),
    ("queue list --recipient u1007@d7.test", ("list", "--recipient", "u1007@d7.test")),
    ("queue list --older 1d --limit 100", ("list", "--older", "1d", "--limit", "100")),
    ("queue stats", ("stats",)),
)
_encode: Final = msgspec.msgpack.Encoder().encode


async def fill(directory: Path, count: int, states: list[RecipientState], one_hop: bool) -> None:
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
            hop = b"smtp:[192.0.2.1]" if one_hop else b"smtp:" + domain
            unit.recipient(queue_id, 0, hop, 0, int(state), due_ms, _encode(RecipientTail(b"u%d@" % number + domain)))
            units.append(store.commit(unit))
        await asyncio.gather(*units)
    store.detach()
    store.close()


def measure(config: Path, name: str, arguments: tuple[str, ...]) -> None:
    sys.stdout.flush()
    best: list[float] = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", _TIMED, str(config), *arguments], capture_output=True, text=True, check=True
        )
        best.append(float(done.stderr.split()[-1]))
    print(f"{name:45} {min(best) * 1000:8.0f} ms  {done.stdout.count(chr(10)):6} lines", flush=True)


_TIMED: Final = """
import sys, time
import fastmta.cli.queue, fastmta.cli.queue_stats, fastmta.store, fastmta.cli.main
begun = time.perf_counter()
code = fastmta.cli.main.main(["-c", sys.argv[1], "queue", *sys.argv[2:]])
print(time.perf_counter() - begun, file=sys.stderr)
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--state", default="deferred", help="active, deferred, held, or several with commas")
    parser.add_argument("--one-hop", action="store_true", help="all by one relay")
    arguments = parser.parse_args()
    directory: Path = arguments.directory
    config = directory / "fastmta.toml"
    if not config.exists():
        directory.mkdir(parents=True, exist_ok=True)
        begun = time.perf_counter()
        states: list[Any] = [STATES[name] for name in arguments.state.split(",")]
        asyncio.run(fill(directory / "data", arguments.messages, states, arguments.one_hop))
        config.write_text('myhostname = "mx.example.test"\ndata_directory = "data"\nmydestination = []\n')
        print(f"{arguments.messages} queued in {time.perf_counter() - begun:.0f} s", flush=True)
    for name, command in COMMANDS:
        measure(config, name, command)


if __name__ == "__main__":
    main()
