import os
from pathlib import Path

import pytest

from fastmta.runtime.lock import DirectoryBusy, lock_directory


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    fd = lock_directory(tmp_path)
    waiting: list[str] = []
    with pytest.raises(DirectoryBusy, match=str(os.getpid())):
        lock_directory(tmp_path, wait_s=0.06, waiting=waiting.append)
    assert waiting == [str(os.getpid())]
    os.close(fd)
    os.close(lock_directory(tmp_path))


def test_a_duplicate_in_another_process_keeps_it(tmp_path: Path) -> None:
    fd = lock_directory(tmp_path)
    copy = os.dup(fd)
    os.close(fd)
    with pytest.raises(DirectoryBusy):
        lock_directory(tmp_path)
    os.close(copy)
    os.close(lock_directory(tmp_path))
