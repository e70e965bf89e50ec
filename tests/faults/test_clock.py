"""The clock of the machine set forward by an hour and back, under a whole server: no retry is lost or an hour late."""

import os
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.mail import letter, send
from tests.support.ports import free_port
from tests.support.server import Server
from tests.support.waiting import wait_for

LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
)


def set_clock(file: Path, offset: str) -> None:
    """Replaces the file at once: the library may read it at any moment."""
    fresh = file.with_suffix(".new")
    fresh.write_text(offset + "\n")
    os.replace(fresh, file)


@pytest.mark.timeout(120)
def test_what_was_deferred_while_the_clock_was_fast_is_not_an_hour_late(tmp_path: Path) -> None:
    library = next((each for each in LIBRARIES if Path(each).exists()), None)
    if library is None:
        pytest.skip("libfaketime is not installed (tests/install_packages.sh)")
    clock = tmp_path / "clock"
    set_clock(clock, "+0")
    route = f"smtp:[127.0.0.1]:{free_port()}"
    server = Server(
        tmp_path / "server", services=("smtp",), workers=1, settings={"transport": {"remote.example": route}}
    )
    server.env = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with server:

        def due() -> list[float]:
            return sorted(
                datetime.fromisoformat(row["due_at"]).timestamp() - time.time()
                for row in server.queue()
                if row["state"] == "deferred"
            )

        send(server, "a@remote.example", letter("before"))
        wait_for(lambda: len(due()) == 1, "the first is deferred")
        set_clock(clock, "+3600")
        send(server, "b@remote.example", letter("while it is fast"))
        wait_for(lambda: len(due()) == 2 and due()[1] > 3500, "the second is deferred by the fast clock")
        set_clock(clock, "+0")
        wait_for(lambda: due()[-1] <= 340, server.log_tail)
        assert len(due()) == 2
