"""What the supervisor gives its workers: copies of the key files that only root may read."""

import errno
import os
from pathlib import Path

import pytest

from fastmta.supervisor.process import KEY_FILE_LIMIT, sealed_copy


def test_a_key_file_is_copied_whole(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(b"k" * KEY_FILE_LIMIT)
    fd = sealed_copy(str(key))
    try:
        assert os.pread(fd, KEY_FILE_LIMIT + 1, 0) == key.read_bytes()
    finally:
        os.close(fd)


def test_an_endless_key_file_is_refused_before_it_fills_memory() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="File too large") as refused:
        sealed_copy("/dev/zero")
    assert refused.value.errno == errno.EFBIG
    assert len(os.listdir("/proc/self/fd")) == len(before)
