"""The locust users work as written beside the demo's server: no step of any protocol fails."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import REPOSITORY, Server, environment

# Only looked for: importing locust would patch threads and sockets of the whole test process for gevent.
pytestmark = pytest.mark.skipif(importlib.util.find_spec("locust") is None, reason="no locust")
SERVICES = ("smtp", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s")


def test_every_step_of_every_user_is_answered_as_expected(tmp_path: Path) -> None:
    with Server(tmp_path / "server") as server:
        server.add_user("alice@example.test", "demo")
        places = {f"FASTMTA_{name.upper()}": f"127.0.0.1:{server.port(name)}" for name in SERVICES}
        done = subprocess.run(
            [
                *[
                    sys.executable,
                    "-m",
                    "locust",
                    "-f",
                    "bench/locustfile.py",
                    "--headless",
                    "--json",
                    "--only-summary",
                ],
                *["-u", "8", "-r", "8", "-t", "4s", "--stop-timeout", "20"],
            ],
            cwd=REPOSITORY,
            env=environment(places),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    rows = json.loads(done.stdout)
    failed = {f"{row['method']} {row['name']}": row["num_failures"] for row in rows if row["num_failures"]}
    assert not failed, done.stderr[-2000:]
    assert {row["method"] for row in rows} >= {"SMTP", "SUBMISSION", "SUBMISSIONS", "LMTP", "IMAP", "IMAPS", "POP3"}
    assert any(row["name"] == "FETCH body" for row in rows)
