"""Out of disk and out of file descriptors: a clear answer, nothing promised that is not kept, and recovery unaided."""

import os
import resource
import smtplib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.mail import imap, letter, messages, send
from tests.support.server import Server
from tests.support.waiting import wait_for

USER, PASSWORD = "user@example.test", "secret"
DISK_BYTES = 48 << 20
DESCRIPTORS = 64
CLIENTS = 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 48 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(where)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def _fill(disk: Path) -> Path:
    """A file that leaves next to nothing."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        chunk = b"\0" * 65536
        try:
            while True:
                file.write(chunk)
                file.flush()
        except OSError:
            pass
    return ballast


def _try_to_send(server: Server, number: int, size: int = 20_000) -> int:
    """The code that a message gets: 250, or that of the first refusal."""
    try:
        send(server, USER, letter(f"message {number}", body="x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * (size // 72)))
    except smtplib.SMTPResponseException as refusal:
        return refusal.smtp_code
    except smtplib.SMTPRecipientsRefused as refusals:
        return max(code for code, _ in refusals.recipients.values())
    except smtplib.SMTPServerDisconnected:
        return 421
    return 250


def _on(disk: Path, directory: Path) -> Server:
    """A server whose data alone is on the small disk."""
    settings = {"message_size_limit": 1_000_000, "data_directory": disk / "data"}
    return Server(directory / "server", settings=settings, workers=1)


def test_a_full_disk_is_452_and_reading_and_deleting_go_on(small_disk: Path, tmp_path: Path) -> None:
    with _on(small_disk, tmp_path) as server:
        server.add_user(USER, PASSWORD)
        kept = sum(_try_to_send(server, number) == 250 for number in range(20))
        assert kept == 20

        ballast = _fill(small_disk)
        codes = [_try_to_send(server, number) for number in range(20, 40)]
        assert set(codes) <= {250, 452, 421}
        assert 452 in codes
        kept += codes.count(250)
        assert len(messages(server, USER, PASSWORD)) == kept

        with imap(server, USER, PASSWORD) as client:
            client.select("INBOX")
            status, said = client.store("1:5", "+FLAGS.SILENT", r"(\Deleted)")
            assert status == "OK", said
            status, said = client.expunge()
            assert status == "OK", said
        kept -= 5

        ballast.unlink()
        wait_for(lambda: _try_to_send(server, 100) == 250, server.log_tail)
        kept += 1
        assert len(messages(server, USER, PASSWORD)) == kept
        assert server.is_ready()


def test_a_disk_that_fills_under_load_keeps_what_was_promised(small_disk: Path, tmp_path: Path) -> None:
    with _on(small_disk, tmp_path) as server:
        server.add_user(USER, PASSWORD)
        promised = 0
        for number in range(3 * DISK_BYTES // 200_000):
            code = _try_to_send(server, number, 200_000)
            if code != 250:
                assert code in (452, 421)
                break
            promised += 1
        else:
            pytest.fail("the disk never became full")
        wait_for(server.is_ready, server.log_tail)
        assert len(messages(server, USER, PASSWORD)) == promised
        server.cli("mailbox", "purge", USER)
        wait_for(lambda: _try_to_send(server, 1, 200_000) == 250, server.log_tail)
        assert server.stop() == 0
        assert server.cli("store", "check", check=False).returncode == 0


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


def test_out_of_descriptors_neither_spins_nor_dies(tmp_path: Path) -> None:
    server = Server(tmp_path, services=("smtp", "pop3"), workers=1)
    server.start(preexec=_limited)
    try:
        server.add_user(USER, PASSWORD)
        before = server.workers()
        crowd = []
        try:
            for _ in range(CLIENTS):
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex((server.host, server.port("smtp")))
                crowd.append(client)
            time.sleep(0.5)  # the crowd arrives
            spent = processes.cpu_seconds(server.pid)
            time.sleep(1.0)
            spent = processes.cpu_seconds(server.pid) - spent
            assert spent < 0.3, f"{spent:.2f} s of CPU in one second of waiting"
        finally:
            for client in crowd:
                client.close()
        wait_for(lambda: _try_to_send(server, 1, 100) == 250, server.log_tail)
        assert len(messages(server, USER, PASSWORD)) == 1
        assert server.workers() == before
    finally:
        server.stop()
