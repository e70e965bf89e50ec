"""Run as root in namespaces of its own (mounts, network, processes): docs/operations.md, then the unit, to the letter.

    python3 unit_scene.py REPOSITORY LIBRARIES

/opt/fastmta gets the package in place of pip's two lines; every other command of the first block of the page is run as
it stands there, but for systemctl, whose part is played here: `check` and ExecStart with the unit's capabilities,
umask, no_new_privs, read-only file systems and private /tmp. Not played: its filters of system calls and of address
families.
"""

import fcntl
import imaplib
import os
import re
import shlex
import shutil
import signal
import smtplib
import socket
import ssl
import struct
import subprocess
import sys
from pathlib import Path

DEADLINE_S = 60
REPOSITORY, LIBRARIES = Path(sys.argv[1]), Path(sys.argv[2])
NOTIFY = "/run/fastmta-test-notify"


def sh(command: str, **options: object) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(["bash", "-euc", command], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stdout}{done.stderr}")
    return done


def prepare() -> None:
    """A machine whose /etc, /opt, /run, /var/lib and home directories are this scene's alone."""
    sh("mount -t tmpfs none /mnt && mkdir /mnt/etc /mnt/package /mnt/libraries && cp -a /etc/. /mnt/etc")
    sh(f"mount --bind {shlex.quote(str(REPOSITORY))} /mnt/package")
    sh(f"mount --bind {shlex.quote(str(LIBRARIES))} /mnt/libraries")
    sh("rm -rf /mnt/etc/fastmta && mount --bind /mnt/etc /etc")
    sh("for d in /opt /run /tmp /var/lib /usr/local/bin; do mount -t tmpfs -o mode=755 none $d; done")
    sh("mkdir -p /opt/fastmta/bin /opt/fastmta/lib/site-packages/fastmta /opt/fastmta/lib/libraries")
    sh("mkdir -p /etc/systemd/system")
    sh("mount --bind /mnt/package/fastmta /opt/fastmta/lib/site-packages/fastmta")
    sh("mount --bind /mnt/libraries /opt/fastmta/lib/libraries")
    program = Path("/opt/fastmta/bin/fastmta")
    program.write_text("#!/usr/bin/python3\nimport sys\nfrom fastmta.cli.main import main\nsys.exit(main())\n")
    program.chmod(0o755)
    os.environ.update(
        PYTHONPATH="/opt/fastmta/lib/site-packages:/opt/fastmta/lib/libraries", PYTHONDONTWRITEBYTECODE="1"
    )
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:  # ip link set lo up
        request = struct.pack("16sh", b"lo", 0x1 | 0x40)
        fcntl.ioctl(sock, 0x8914, request)


def follow_the_page() -> str:
    """Runs the page's first block; gives the password that init has made."""
    page = (Path("/mnt/package") / "docs/operations.md").read_text()
    block = page.partition("```sh\n")[2].partition("```")[0]
    lines = [line.partition("  #")[0].strip() for line in block.splitlines() if line.strip()]
    ours = [line for line in lines if "-m venv" not in line and "/pip " not in line and "systemctl" not in line]
    assert len(lines) - len(ours) == 4, lines
    said = "".join(sh(line, cwd="/mnt/package").stdout for line in ours)
    print(said)
    return re.search(r"account bill@example.org, password (\S+)", said)[1]


def unit() -> dict[str, str]:
    """The [Service] section; no key that counts here is given twice."""
    text = Path("/etc/systemd/system/fastmta.service").read_text()
    section = text.partition("[Service]")[2].partition("[Install]")[0]
    return dict(line.split("=", 1) for line in section.splitlines() if "=" in line and not line.startswith("#"))


def restricted(settings: dict[str, str], command: str) -> list[str]:
    """`command` with the unit's rights."""
    assert settings["NoNewPrivileges"] == "yes"
    caps = ",".join("+" + name.removeprefix("CAP_").lower() for name in settings["CapabilityBoundingSet"].split())
    return ["setpriv", "--no-new-privs", f"--bounding-set=-all,{caps}", *shlex.split(command)]


def restrict_files(settings: dict[str, str]) -> None:
    """ProtectSystem=strict, ProtectHome, PrivateTmp, ReadWritePaths and StateDirectory."""
    assert (settings["ProtectSystem"], settings["ProtectHome"], settings["PrivateTmp"]) == ("strict", "yes", "yes")
    state = Path("/var/lib") / settings["StateDirectory"]
    assert settings["ReadWritePaths"] == str(state)
    mode = settings["StateDirectoryMode"]
    sh(
        f"mkdir -p {state} && chown -R root:root {state} && chmod {mode} {state}"
    )  # as systemd does where no User= is set
    sh(f"mount --bind {state} {state} && mount -o remount,bind,ro /var/lib")
    sh("mount --bind / / && mount -o remount,bind,ro /")
    sh("for d in /etc /opt /usr/local/bin; do mount -o remount,bind,ro $d; done")
    sh("for d in /root /home; do [ ! -d $d ] || mount -t tmpfs -o mode=000,ro none $d; done")
    os.chdir("/")
    sh("mount -t tmpfs none /tmp")


def main() -> None:
    prepare()
    password = follow_the_page()
    settings = unit()
    restrict_files(settings)
    options = {"umask": int(settings["UMask"], 8), "cwd": "/"}
    checked = subprocess.run(
        restricted(settings, settings["ExecStart"].replace(" serve ", " check ")),
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert checked.returncode == 0, checked.stderr
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(NOTIFY)
        notified.settimeout(DEADLINE_S)
        environment = {**os.environ, "NOTIFY_SOCKET": NOTIFY, **dict([settings["Environment"].split("=", 1)])}
        server = subprocess.Popen(restricted(settings, settings["ExecStart"]), env=environment, **options)
        try:
            while b"READY=1" not in notified.recv(4096):
                assert server.poll() is None, server.returncode
            speak(password)
            look(server.pid)
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(DEADLINE_S)
    assert code == 0, code
    print("bill@example.org read what was sent")


def speak(password: str) -> None:
    with smtplib.SMTP("127.0.0.1", 25, timeout=DEADLINE_S) as client:
        client.sendmail("x@elsewhere.test", ["postmaster@example.org"], "Subject: to the postmaster\r\n\r\nhello\r\n")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with imaplib.IMAP4_SSL("127.0.0.1", 993, ssl_context=context, timeout=DEADLINE_S) as reader:
        reader.login("bill@example.org", password)
        assert reader.select("INBOX")[1] == [b"1"]


def look(supervisor: int) -> None:
    """Nothing but the supervisor is root."""
    import pwd

    wanted = pwd.getpwnam("fastmta").pw_uid
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    assert children
    assert {os.stat(f"/proc/{pid}").st_uid for pid in children} == {wanted}
    assert shutil.which("fastmta") == "/usr/local/bin/fastmta"


if __name__ == "__main__":
    main()
