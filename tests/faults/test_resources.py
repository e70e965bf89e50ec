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
LEFT_BYTES = 1_000_000  # below queue_minfree, which is 1.5 times the largest message here
RESERVE_BYTES = 12_000_000  # queue_minfree where the disk fills by mail alone
MESSAGE_BYTES = 50_000
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


def _fill(disk: Path, left_bytes: int) -> Path:
    """A file that leaves `left_bytes` of the disk."""
    ballast = disk / "ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    try:
        state = os.fstatvfs(descriptor)
        os.posix_fallocate(descriptor, 0, state.f_bavail * state.f_frsize - left_bytes)
    finally:
        os.close(descriptor)
    return ballast


def _is_alive(server: Server) -> bool:
    """/healthz and /metrics answer; /readyz does not while nothing can be stored."""
    try:
        return bool(server.metrics())
    except OSError:
        return False


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

        ballast = _fill(small_disk, LEFT_BYTES)
        wait_for(lambda: not server.is_ready(), server.log_tail)
        assert {_try_to_send(server, number) for number in range(20, 40)} == {452}
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
        server.write_config({"queue_minfree": RESERVE_BYTES})
        server.cli("reload")
        server.add_user(USER, PASSWORD)
        before = server.workers()
        promised = 0
        for number in range(3 * DISK_BYTES // MESSAGE_BYTES):
            code = _try_to_send(server, number, MESSAGE_BYTES)
            if code != 250:
                assert code == 452
                break
            promised += 1
        else:
            pytest.fail("the disk never became full")
        state = os.statvfs(small_disk)
        assert state.f_bavail * state.f_frsize > RESERVE_BYTES - 3_000_000  # a megabyte and a batch, for each look
        assert len(messages(server, USER, PASSWORD)) == promised
        with imap(server, USER, PASSWORD) as client:
            for _ in range(50):  # what was refused has given its pages back: a few more may fit, and no others
                status, said = client.append("INBOX", None, None, b"Subject: x\r\n\r\n" + b"x" * MESSAGE_BYTES)
                if status != "OK":
                    break
                promised += 1
            assert status == "NO", said
            state = os.statvfs(small_disk)
            assert state.f_bavail * state.f_frsize > RESERVE_BYTES - 3_000_000
            assert int(client.select("INBOX")[1][0] or 0) == promised
            status, said = client.store("1:5", "+FLAGS.SILENT", r"(\Deleted)")
            assert status == "OK", said
            status, said = client.expunge()
            assert status == "OK", said
        assert server.workers() == before
        server.cli("mailbox", "purge", USER, "--yes")
        wait_for(lambda: _try_to_send(server, 1, MESSAGE_BYTES) == 250, server.log_tail, 50.0)  # no minute in the trash
        assert server.stop() == 0
        assert server.cli("store", "check", check=False).returncode == 0


def test_a_disk_without_a_byte_fails_writes_only(small_disk: Path, tmp_path: Path) -> None:
    with _on(small_disk, tmp_path) as server:
        server.add_user(USER, PASSWORD)
        kept = sum(_try_to_send(server, number) == 250 for number in range(30))
        before = server.workers()
        refused = 0
        with imap(server, USER, PASSWORD) as client:
            client.select("INBOX")
            for round_ in range(10):
                ballast = _fill(small_disk, 0)
                for number in range(300):  # until the free pages inside the file are used up
                    said = client.create(f"box-{round_}-{number}-{'x' * 380}")[0]
                    refused += said == "NO"
                status, parts = client.fetch("1:*", "(BODY[])")  # \Seen cannot be kept: that costs nobody the text
                assert status == "OK", parts
                assert sum(isinstance(part, tuple) for part in parts) == kept
                assert client.expunge()[0] in ("OK", "NO")
                assert client.noop()[0] == "OK"
                ballast.unlink()
                assert client.store("1", "-FLAGS", r"(\Flagged)")[0] == "OK"
                client.store("1:*", "-FLAGS.SILENT", r"(\Seen)")
        assert refused > 0
        assert server.workers() == before
        assert server.metrics()["fastmta_store_reopened_total"] > 0
        wait_for(lambda: _try_to_send(server, 100) == 250, server.log_tail)
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
            spent = []
            while not spent or (spent[-1] >= 0.3 and len(spent) < 20):  # while the crowd arrives, it has work
                before_s = processes.cpu_seconds(server.pid)
                time.sleep(1.0)
                spent.append(processes.cpu_seconds(server.pid) - before_s)
            assert spent[-1] < 0.3, f"{spent} s of CPU in each second of waiting"
        finally:
            for client in crowd:
                client.close()
        wait_for(lambda: _try_to_send(server, 1, 100) == 250, server.log_tail)
        assert len(messages(server, USER, PASSWORD)) == 1
        assert server.workers() == before
    finally:
        server.stop()
