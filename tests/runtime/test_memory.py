"""What a password hash needs for a moment is not kept by the thread that made it."""

import subprocess
import sys

_PROGRAM = """
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from fastmta.auth.passwords import hash_password
from fastmta.runtime.memory import return_large_blocks

def anonymous_kb():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

return_large_blocks()
pools = [ThreadPoolExecutor(1) for _ in range(3)]
for pool in pools:
    pool.submit(sum, [1]).result()
import argon2
before = anonymous_kb()
for _ in range(2):
    for pool in pools:
        pool.submit(hash_password, "secret").result()
kept = anonymous_kb() - before
assert kept < 10_000, kept
"""


def test_a_hash_keeps_no_memory_whatever_thread_it_was_made_in() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
