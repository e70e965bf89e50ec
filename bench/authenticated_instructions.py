"""Instructions that FastMTA executes for a message that is verified or signed, without its public-key operations.

    python -m bench.authenticated_instructions [--against TREE]

The messages and configurations of `bench.authenticated`, each under callgrind as in `bench.instructions`; ten sessions
send theirs together. The operations themselves are put out of action (every signature holds, and ours is a constant),
since what they cost is not ours to change and valgrind has them take other ways; the trip to their thread is counted.
Counts repeat within some percent: how many messages share a commit or a trip is chance.
"""

import argparse
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench import callgrind
from bench.authenticated import KINDS, RECIPIENT, SENDER, SESSIONS, ZONES, OurSide, plain_message, signed_message
from bench.instructions import SITE, WAIT_S, Line
from tests.support.dns_thread import dns_stub
from tests.support.server import REPOSITORY

MESSAGES: Final = 20 * SESSIONS
_SITE: Final = (
    SITE
    + """
import fastmta.authentication.keys, fastmta.authentication.signing
fastmta.authentication.keys.PublicKey.verify = lambda self, digest, signature: True
fastmta.authentication.signing.Signer.sign = lambda self, digest: bytes(256)
"""
)


class Sender:
    """Ten sessions that each send a message, then wait for their answers."""

    def __init__(self, port: int, message: bytes, closing: ExitStack) -> None:
        self._message = message
        self._lines = [Line(port) for _ in range(SESSIONS)]
        for line in self._lines:
            closing.callback(line.close)
            line.reply(b"220")
            line.ask(b"EHLO load.bench.example")

    def work(self, n: int) -> None:
        for _ in range(n // SESSIONS):
            for command, code in (
                (f"MAIL FROM:<{SENDER}>", b"250"),
                (f"RCPT TO:<{RECIPIENT}>", b"250"),
                ("DATA", b"354"),
            ):
                for line in self._lines:
                    line.send(command.encode() + b"\r\n")
                for line in self._lines:
                    line.reply(code)
            for line in self._lines:
                line.send(self._message + b".\r\n")
            for line in self._lines:
                line.reply(b"250")


def measure(tree: Path, kinds: list[str], samples: int) -> dict[str, callgrind.Cost]:
    """What a message of each kind costs in the server of `tree`."""
    memory = Path("/dev/shm")
    found: dict[str, callgrind.Cost] = {}
    directory = Path(
        tempfile.mkdtemp(prefix="fastmta-authenticated-", dir=memory if os.access(memory, os.W_OK) else None)
    )
    directory.chmod(0o755)
    try:
        with dns_stub(ZONES, ("127.0.0.1", 0)) as stub:
            for kind in kinds:
                place = directory / kind
                site = place / "site"
                site.mkdir(parents=True)
                (site / "sitecustomize.py").write_text(_SITE)
                message = signed_message() if kind == "verify" else plain_message()
                with ExitStack() as closing:
                    side = OurSide(
                        place,
                        kind,
                        stub.address,
                        env={**callgrind.environment(place), "PYTHONPATH": f"{site}:{tree}"},
                        wrapper=callgrind.command(place),
                        tree=tree,
                        wait_s=WAIT_S,
                    )
                    closing.callback(side.stop)
                    sender = Sender(side.port(), message, closing)
                    counted = callgrind.Counted(side.worker(), place)
                    found[kind] = counted.cost(sender.work, MESSAGES, samples)
                    side.require_done()
                print(
                    f"{kind:8} {found[kind].instructions:12,.0f} {found[kind].spread:7.2%}", file=sys.stderr, flush=True
                )
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.authenticated_instructions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kinds", nargs="*", help=f"default: all of {', '.join(KINDS)}")
    parser.add_argument("--against", type=Path, metavar="TREE", help="another source tree, built in place")
    parser.add_argument("--samples", type=int, default=2)
    given = parser.parse_args(arguments)
    reason = callgrind.missing()
    if reason:
        print(f"bench: nothing was counted: {reason}")
        return 0
    kinds = [kind for kind in KINDS if not given.kinds or kind in given.kinds]
    ours = measure(REPOSITORY, kinds, given.samples)
    theirs = measure(given.against.resolve(), kinds, given.samples) if given.against else {}
    for kind in kinds:
        line = f"{kind:8} {ours[kind].instructions:10,.0f} {ours[kind].spread:7.2%}"
        if "bare" in ours:
            line += f"  {ours[kind].instructions / ours['bare'].instructions:6.2f} times bare"
        if kind in theirs:
            other = theirs[kind].instructions
            line += f"  against {other:10,.0f}: {ours[kind].instructions / other:.3f}"
        print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
