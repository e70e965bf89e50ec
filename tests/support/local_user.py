"""The classic programs run as root, or as a user without rights, over a server's configuration."""

import os
import pwd
import resource
import subprocess
import sys
from pathlib import Path

from tests.support.server import environment

# What the programs load late is loaded here, before the rights are gone: the interpreter may lie in root's home.
_PROGRAM = """
import base64, encodings.idna, json, os, sys
import fastmta.config.load, fastmta.smtp.server, fastmta.runtime.identity
from fastmta.cli import mailq, postmap, queue_listing, sendmail, sendmail_session
uid, gid, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if uid != os.geteuid():
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
sys.exit({"sendmail": sendmail, "mailq": mailq, "postmap": postmap}[name].main(sys.argv[4:]))
"""


def run_as(
    user: str, config_path: Path, program: str, *arguments: str, stdin: str = "", file_size: int = 0
) -> "subprocess.CompletedProcess[str]":
    """Runs `program` as `user` ("": as we are); no file may become larger than `file_size` octets, 0: no bound."""

    def bound() -> None:
        if file_size:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.geteuid())
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(entry.pw_uid), str(entry.pw_gid), program, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={**environment({"FASTMTA_CONFIG": str(config_path)}), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=60,
        check=False,
        preexec_fn=bound,
    )
