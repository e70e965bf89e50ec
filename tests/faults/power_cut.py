"""The promise of the 250, when the power goes: a file system that stops in the middle, and is mounted again.

    python -m tests.faults.power_cut --rounds 20 --seed 7        (root)

The data directory is an ext4 image on a loop device. Under load the file system is shut down without flushing its log
(ioctl FS_IOC_SHUTDOWN), which loses whatever fsync has not made durable; the server is killed, the image mounted
anew, the store checked, and every message that was answered 250 before the cut must be in its mailbox, byte for byte.
A 250 that came after the cut is not judged: an fsync in flight may report success then with nothing written.
"""

import argparse
import fcntl
import imaplib
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.client import Client, Ledger
from tests.faults.ledger import PASSWORD, USERS
from tests.support.ledger_sink import ledger_entry
from tests.support.server import REPOSITORY, Server

FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
IMAGE_MB = 256
CLIENTS = 6
UNMOUNT_TIMEOUT_S = 20.0


def _command(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def missing() -> str:
    """Why no power can be cut here; empty if it can."""
    if os.geteuid() != 0:
        return "mounting an image needs root"
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with _disk(Path(scratch), megabytes=16):
                return ""
        except (OSError, subprocess.CalledProcessError) as failure:
            return f"no loop device can be mounted here: {failure}"


class Disk:
    """An ext4 image, mounted at `path`."""

    def __init__(self, directory: Path, megabytes: int) -> None:
        self._image = directory / "image"
        self.path = directory / "disk"
        self.path.mkdir()
        with self._image.open("wb") as file:
            file.truncate(megabytes << 20)
        _command("mkfs.ext4", "-q", "-F", str(self._image))
        self.mount()

    def mount(self) -> None:
        """On a loop device of its own each time: a mount namespace that was made meanwhile, by a test beside this one,
        may hold the former device, and its file system has stopped.
        """
        found = subprocess.run(["losetup", "--find", "--show", str(self._image)], check=True, capture_output=True)
        device = found.stdout.decode().strip()
        try:
            _command("mount", device, str(self.path))
        finally:
            _command("losetup", "--detach", device)  # as soon as nothing is mounted on it any more

    def unmount(self) -> None:
        """Must succeed: a second mount over a busy one would show what the cut has not taken."""
        deadline = time.monotonic() + UNMOUNT_TIMEOUT_S
        while os.path.ismount(self.path):
            done = subprocess.run(["umount", str(self.path)], check=False, capture_output=True, text=True)
            if done.returncode and time.monotonic() > deadline:
                raise RuntimeError(f"the disk is still in use: {done.stderr.strip()}")
            if done.returncode:
                time.sleep(0.02)

    def cut(self) -> float:
        """The power goes; gives the last instant before it, on the monotonic clock."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            before = time.monotonic()
            fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)
        return before


@contextmanager
def _disk(directory: Path, megabytes: int = IMAGE_MB) -> Iterator[Disk]:
    disk = Disk(directory, megabytes)
    try:
        yield disk
    finally:
        disk.unmount()


_WITHOUT_SYNC = """\
from fastmta.store import MailStore
kept = MailStore.open
MailStore.open = lambda *paths, **options: kept(*paths, **{**options, "sync": False})
"""


def _environment_without_sync(directory: Path) -> dict[str, str]:
    """Makes every Python process of the server commit without flushing, by the interpreter's own start-up hook."""
    hook = directory / "without-sync"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(_WITHOUT_SYNC)
    return {"PYTHONPATH": f"{hook}:{REPOSITORY}"}


def cut_once(seed: int, load_s: float = 1.0, *, sync: bool = True) -> tuple[int, list[str]]:
    """One cut on a disk of its own: how many promises were judged, and what is wrong.

    Without `sync` the server lies, and the test that does not find it out tests nothing.
    """
    chooser = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="fastmta-cut-", ignore_cleanup_errors=True) as scratch:
        directory = Path(scratch)
        with _disk(directory) as disk:
            server = Server(
                directory / "server",
                services=("smtp", "imap"),
                workers=2,
                settings={"data_directory": disk.path / "data"},
                env={} if sync else _environment_without_sync(directory),
            )
            ledger = Ledger(directory / "promised")
            try:
                return _cut_under_load(server, disk, ledger, chooser, seed, load_s)
            finally:
                server.kill()
                ledger.close()


def _cut_under_load(
    server: Server, disk: Disk, ledger: Ledger, chooser: random.Random, seed: int, load_s: float
) -> tuple[int, list[str]]:
    server.start()
    for user in USERS:
        server.add_user(user, PASSWORD)
    clients = [
        Client((server.host, server.port("smtp")), ledger, USERS, seed * 100 + index, pipelined=index % 2 == 0)
        for index in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    time.sleep(chooser.uniform(0.3, 1.0) * load_s)
    cut_at = disk.cut()
    for client in clients:
        client.stop()
    server.kill()
    for client in clients:
        client.join(30.0)
    disk.unmount()
    disk.mount()
    server.env = {}
    checked = server.cli("store", "check", check=False)
    problems = [f"store check: {checked.stdout}{checked.stderr}"] if checked.returncode else []
    try:
        server.start()
        found = read_mailboxes(server)
    except (RuntimeError, TimeoutError, imaplib.IMAP4.error) as failure:  # not even the accounts are there
        return len(ledger.promised), [*problems, f"{type(failure).__name__}: {failure}"]
    judged = [entry for entry, at in zip(ledger.promised, ledger.promised_at, strict=True) if at < cut_at]
    lost = [
        f"{identifier} for {user}" for identifier, user, digest in judged if (identifier, user, digest) not in found
    ]
    if lost:
        problems.append(f"{len(lost)} of {len(judged)} lost: {', '.join(lost[:5])}")
    damaged = [identifier for identifier, _, digest in found if ledger.sent.get(identifier) != digest]
    if damaged:
        problems.append(f"{len(damaged)} damaged or unknown: {', '.join(damaged[:5])}")
    doubled = [identifier for (identifier, _, _), count in found.items() if count > 1]
    if doubled:
        problems.append(f"{len(doubled)} doubled: {', '.join(doubled[:5])}")
    return len(judged), problems


def read_mailboxes(server: Server) -> Counter[tuple[str, str, str]]:
    """What is in the ledger's mailboxes: (id, user, digest)."""
    found: Counter[tuple[str, str, str]] = Counter()
    for user in USERS:
        with imaplib.IMAP4(server.host, server.port("imap"), timeout=60) as client:
            client.login(user, PASSWORD)
            client.select("INBOX", readonly=True)
            _, parts = client.uid("FETCH", "1:*", "(BODY.PEEK[])")
            for part in parts:
                if isinstance(part, tuple):
                    identifier, digest = ledger_entry(part[1]) or ("not the ledger's", "")
                    found[identifier, user, digest] += 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    options = parser.parse_args()
    reason = missing()
    if reason:
        print(f"power_cut: skipped: {reason}")
        return 0
    print(f"power_cut: seed {options.seed}, {options.rounds} rounds", flush=True)
    for number in range(options.rounds):
        judged, problems = cut_once(options.seed + number)
        print(f"  round {number + 1}: {judged} promises judged", flush=True)
        if problems:
            print("\n".join([f"seed {options.seed + number}", *problems]), file=sys.stderr)
            return 1
    print("power_cut: nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
