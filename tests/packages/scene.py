"""Run by the python of an environment that has the package: init, serve, a message in over SMTP, read over IMAP.

    scene.py PORT...

The ports are free ones on the loopback, one for each listener of the configuration that `init` writes, or more. Uses
the installed commands and the standard library alone, from an empty directory.
"""

import imaplib
import os
import re
import smtplib
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

DEADLINE_S = 60.0
PASSWORD = "secret"
ALICE = "alice@example.test"


def main() -> None:
    import fastmta

    assert Path(sys.prefix) in Path(fastmta.__file__).parents, f"not the installed package: {fastmta.__file__}"
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        commands = Path(sys.executable).parent
        fastmta_command = str(commands / "fastmta")
        subprocess.run(
            [fastmta_command, "init", "mail", "--domain", "example.test", "--user", "alice", "--password-stdin"],
            input=f"{PASSWORD}\n".encode(),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        config = Path("mail/fastmta.toml")
        ports = configure(config)
        subprocess.run([fastmta_command, "check", "-c", str(config)], check=True, stdout=subprocess.DEVNULL)
        for command in ("sendmail", "mailq", "newaliases", "postmap"):
            assert (commands / command).is_file(), f"{command} is not installed"
        with open("log", "wb") as log:
            server = subprocess.Popen([fastmta_command, "serve", "-c", str(config)], stderr=log)
        try:
            wait_ready(server, ports["http"])
            with smtplib.SMTP("127.0.0.1", ports["smtp"], timeout=30) as client:
                client.sendmail("bob@example.test", [ALICE], "Subject: over SMTP\r\n\r\nhello\r\n")
            subprocess.run(
                [str(commands / "sendmail"), "-C", str(config.absolute()), ALICE],
                input=b"Subject: by sendmail\n\nhello\n",
                check=True,
            )
            read(ports["imap"])
        finally:
            server.terminate()
            server.wait(DEADLINE_S)
    print(f"{ALICE} read what was sent")


def configure(config: Path) -> dict[str, int]:
    """Moves the listeners to the ports that we were given."""
    ports = {}
    given = [int(port) for port in sys.argv[1:]]
    text = config.read_text()
    for service in re.findall(r"^(\w+) = \[.*:\d+\"\]", text, re.MULTILINE):
        ports[service] = given.pop()
        text = re.sub(rf"^{service} = .*$", f'{service} = ["127.0.0.1:{ports[service]}"]', text, flags=re.MULTILINE)
    config.write_text("workers_may_be_root = true\n" + text)
    return ports


def wait_ready(server: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        if server.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"the server is not ready:\n{Path('log').read_text()}")
        time.sleep(0.05)


def read(port: int) -> None:
    """Waits for both messages."""
    end = time.monotonic() + DEADLINE_S
    with imaplib.IMAP4("127.0.0.1", port, timeout=30) as client:
        client.login(ALICE, PASSWORD)
        while int(client.select("INBOX")[1][0] or 0) < 2:
            if time.monotonic() > end:
                raise SystemExit("the messages did not arrive")
            time.sleep(0.05)
        subjects = {client.fetch(n, "(BODY[HEADER.FIELDS (SUBJECT)])")[1][0][1].strip() for n in ("1", "2")}
    assert subjects == {b"Subject: over SMTP", b"Subject: by sendmail"}, subjects


if __name__ == "__main__":
    main()
