"""SRS beside postsrsd: with the same secret, each reads what the other makes."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmta.directory import addresses
from fastmta.directory.srs import Srs
from tests.support import processes
from tests.support.ports import free_ports, wait_until_listening

SENDERS = (
    "ann@author.example",
    "Ann.B+x@Author.example",
    "SRS0=abcd=AA=first.example=eve@other.example",
    "a@b.example",
)


class PostSrsd:
    def __init__(self, make: int, read: int) -> None:
        self._ports = {"make": make, "read": read}

    def ask(self, what: str, address: str) -> str:
        with socket.create_connection(("127.0.0.1", self._ports[what]), 60.0) as link:
            link.sendall(f"get {address}\n".encode())
            code, _, text = link.makefile().readline().strip().partition(" ")
        assert code == "200", (what, address, code, text)
        return text


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostSrsd]:
    program = shutil.which("postsrsd", path="/usr/sbin:/usr/bin:/sbin")
    if program is None:
        pytest.skip("postsrsd is not installed (tests/install_packages.sh)")
    secret: Path = tmp_path_factory.mktemp("postsrsd") / "secret"
    secret.write_text("shared-by-both\n")
    make, read = free_ports(2)
    arguments = ["-4", "-f", str(make), "-r", str(read), "-d", "srs.test", "-s", str(secret), "-l", "127.0.0.1"]
    running = subprocess.Popen([program, *arguments], stderr=subprocess.PIPE)
    try:
        for port in (make, read):
            wait_until_listening("127.0.0.1", port)
        yield PostSrsd(make, read)
    finally:
        family = processes.tree(running.pid)
        running.terminate()
        running.communicate(timeout=60)
        processes.wait_gone(family)


@pytest.mark.parametrize("sender", SENDERS)
def test_each_reads_what_the_other_makes(peer: PostSrsd, sender: str) -> None:
    ours = Srs("srs.test", (b"shared-by-both",), (), 21 * 86_400, time.time)
    made = ours.forward(addresses.parse(sender))
    assert made is not None
    theirs = peer.ask("make", sender)
    # Postfix folds domains and leaves local parts; so does each of us, and hashes are over lower case.
    assert made.decode().lower() == theirs.lower()
    assert ours.reverse(addresses.parse(theirs).local_part) == addresses.parse(peer.ask("read", made.decode()))
