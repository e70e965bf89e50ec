"""Throws damaged input at _parser and at a whole session: `python tests/fuzz/fuzz_parser.py [--seconds 10] [--seed N]`.

The receivers must agree with the oracle of tests/parser and with themselves for any cut; a session must give the same
replies for any cut, and stay within its states. Guided by coverage where atheris is installed (the Python side of it:
oracle, rules and this file), else by a seeded mutation of tests/corpus/smtp. A failure prints its input.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fastmta._parser import DataReceiver, HeaderScan, ReplyParser, normalize, split_parameters, split_path, stuff
from fastmta.model.errors import ProtocolViolation
from tests.parser import data_oracle
from tests.support.smtp_rig import SmtpRig

CORPUS = Path(__file__).parents[1] / "corpus" / "smtp"
INPUT_BYTES = 4096
TOKENS = (
    *(bytes((c,)) for c in b'\r\n\0.<>@":;=, \t\xff'),
    *(b"\r\n", b"\r\n.\r\n", b"\r\n..", b"\n.\n", b"\r.\r", b"BDAT 3 LAST\r\n", b"DATA\r\n", b"RSET\r\n", b"x" * 999),
    b"MAIL FROM:<a@b>\r\nRCPT TO:<x@relay.test>\r\n",
    b"250-a\r\n250 5.1.1 b\r\n",
)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def receive(pieces: list[bytes], mode: str) -> tuple[bytes, int, bool, int]:
    receiver = DataReceiver(normalize=mode == "normalize", dots=mode != "chunk")
    out, taken = b"", 0
    for piece in pieces:
        message, n, done = receiver.feed(piece)
        out += message
        taken += n
        if done:
            return out, taken, True, receiver.bits
    return out, taken, False, receiver.bits


def parsers(data: bytes, size: int) -> None:
    expected = data_oracle.receive(data)
    for pieces in ([data], cut(data, size)):
        if receive(pieces, "data") != expected:
            raise AssertionError(f"DATA: {receive(pieces, 'data')!r} is not {expected!r}")
    for mode in ("normalize", "chunk"):
        if receive([data], mode) != receive(cut(data, size), mode):
            raise AssertionError(f"{mode} depends on cuts of {size}")
    clean = normalize(data, False)[0]
    if b"\r" in clean.replace(b"\r\n", b"") or b"\n" in clean.replace(b"\r\n", b""):
        raise AssertionError("normalize leaves a bare newline")
    if receive([stuff(clean + b"\r\n", True)[0] + b".\r\n"], "data")[0] != clean + b"\r\n":
        raise AssertionError("what was stuffed is not what is received")
    scans = []
    for pieces in ([data], cut(data, size)):
        scan = HeaderScan()
        for piece in pieces:
            scan.feed(piece)
        scans.append((scan.lines, scan.received, scan.has_date, scan.is_done, scan.delivered_to_addresses()))
    if scans[0] != scans[1]:
        raise AssertionError(f"the header scan depends on cuts of {size}: {scans}")
    for line in data.split(b"\r\n"):
        for forward in (False, True):
            for text in (line, line.partition(b":")[2]):
                try:
                    split_parameters(split_path(text, forward=forward)[1])
                except ValueError:
                    continue
    replies = ReplyParser()
    try:
        for piece in cut(data, size):
            replies.feed(piece)
    except ProtocolViolation:
        return


def session(rig: SmtpRig, data: bytes, size: int) -> None:
    said = []
    for pieces in ([data], cut(data, size)):
        client = rig.connect()
        for piece in pieces:
            if client.ended or not client.transport.reading:
                break
            client.feed(piece)
            rig.settle()
        if not 0 <= client.session.state <= 6:
            raise AssertionError(f"state {client.session.state}")
        text = client.take()
        said.append([line for line in text.split(b"\r\n") if b"queued as" not in line])
        client.lose()
        for work in rig.tasks.spawned:
            work.close()
        rig.tasks.spawned.clear()
    # The octets behind a refused DATA or STARTTLS are judged by their segment, so there the whole may say less.
    if said[0] != said[1] and b"DATA" not in data.upper() and b"STARTTLS" not in data.upper():
        raise AssertionError(f"cuts of {size} change the replies: {said}")


def one(rig: SmtpRig, data: bytes) -> None:
    data = data[:INPUT_BYTES]
    size = 1 + len(data) % 7
    parsers(data, size)
    session(rig, data, size)


def mutate(source: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(source.randrange(1, 6)):
        at = source.randrange(len(out) + 1)
        match source.randrange(4):
            case 0:
                del out[at : at + source.randrange(12)]
            case 1:
                out[at:at] = source.choice(TOKENS)
            case 2:
                out[at : at + 1] = bytes((source.randrange(256),))
            case _:
                start = source.randrange(len(out) + 1)
                out[at:at] = out[start : start + source.randrange(60)]
    return bytes(out)


def by_mutation(rig: SmtpRig, seconds: float, seed: int) -> None:
    source = random.Random(seed)
    corpus = [path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))]
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        data = mutate(source, source.choice(corpus))
        try:
            one(rig, data)
        except Exception:
            print(f"seed {seed}, input {count}:\n{data!r}", file=sys.stderr)
            raise
        count += 1
        if len(data) < 2000 and source.randrange(10) == 0:
            corpus[source.randrange(len(corpus))] = data
    print(f"{count} inputs, seed {seed}")


def by_coverage(rig: SmtpRig, seconds: float, seed: int, directory: str) -> None:
    import atheris

    atheris.instrument_all()
    for path in CORPUS.glob("*.bin"):
        shutil.copy(path, directory)
    options = [f"-max_total_time={max(1, int(seconds))}", f"-seed={seed}", f"-max_len={INPUT_BYTES}", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, directory], lambda data: one(rig, data))
    atheris.Fuzz()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--seed", type=int, default=random.randrange(1, 1 << 31))
    options.add_argument("--mutate", action="store_true", help="without atheris, even where it is installed")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        rig = SmtpRig(Path(directory))
        (Path(directory) / "corpus").mkdir()
        try:
            import atheris  # noqa: F401
        except ImportError:
            arguments.mutate = True
        if arguments.mutate:
            by_mutation(rig, arguments.seconds, arguments.seed)
        else:
            by_coverage(rig, arguments.seconds, arguments.seed, str(Path(directory) / "corpus"))
        rig.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
