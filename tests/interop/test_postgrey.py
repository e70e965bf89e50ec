"""Debian's postgrey, asked by check_policy_service, defers the first try and lets the second pass."""

import os
import pwd
import smtplib
import subprocess
from pathlib import Path

from tests.support.mail import needs
from tests.support.ports import free_port, wait_until_listening
from tests.support.server import Server
from tests.support.waiting import wait_for

BOB = "bob@example.test"


def test_postgrey_defers_the_first_try_and_takes_the_next(tmp_path: Path) -> None:
    program = needs("postgrey")
    port = free_port()
    database = tmp_path / "grey"
    database.mkdir()
    user = pwd.getpwuid(os.getuid()).pw_name
    empty = tmp_path / "nobody"
    empty.touch()
    options = [f"--whitelist-{kind}={empty}" for kind in ("clients", "recipients")]
    options += [f"--user={user}", f"--group={user}", "--delay=1", f"--pidfile={tmp_path}/pid"]
    postgrey = subprocess.Popen(
        [program, f"--inet=127.0.0.1:{port}", f"--dbdir={database}", *options], stderr=subprocess.DEVNULL
    )
    settings = {
        "mynetworks": ["192.0.2.0/24"],
        "smtpd_authentication": False,
        "smtpd_recipient_restrictions": ["check_policy_service", f"inet:127.0.0.1:{port}"],
    }
    try:
        wait_until_listening("127.0.0.1", port)
        with Server(tmp_path / "server", settings=settings) as server:
            server.add_user(BOB, "secret")

            def reply() -> tuple[int, bytes]:
                with smtplib.SMTP("127.0.0.1", server.port("smtp")) as client:
                    client.ehlo()
                    client.mail("ann@sender.test")
                    return client.rcpt(BOB)

            code, text = reply()
            assert code == 450
            assert text.startswith(b"4.2.0 <bob@example.test>: Recipient address rejected: Greylisted")
            wait_for(lambda: reply()[0] == 250, "postgrey lets a later try pass")
    finally:
        postgrey.terminate()
        postgrey.wait(10)
