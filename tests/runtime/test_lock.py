import os
from pathlib import Path

import pytest

from fastmta.runtime import lock
from fastmta.runtime.lock import DirectoryBusy, lock_directory, tell_leaving


def test_the_second_is_told_who_holds_it_and_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "STEADY_S", 0.06)
    fd = lock_directory(tmp_path)
    waiting: list[str] = []
    with pytest.raises(DirectoryBusy, match=f"in use by fastmta pid {os.getpid()}"):
        lock_directory(tmp_path, wait_s=600, waiting=waiting.append)
    assert waiting == []
    os.close(fd)
    os.close(lock_directory(tmp_path))


def test_who_says_that_it_leaves_is_waited_for(tmp_path: Path) -> None:
    fd = lock_directory(tmp_path)
    tell_leaving(fd)

    def leave(holder: str) -> None:
        assert holder == str(os.getpid())
        os.close(fd)

    os.close(lock_directory(tmp_path, wait_s=600, waiting=leave))


def test_a_duplicate_in_another_process_keeps_it(tmp_path: Path) -> None:
    fd = lock_directory(tmp_path)
    copy = os.dup(fd)
    os.close(fd)
    with pytest.raises(DirectoryBusy):
        lock_directory(tmp_path)
    os.close(copy)
    os.close(lock_directory(tmp_path))
