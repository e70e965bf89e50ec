"""pipe: in a running server: the launcher starts commands as the user that the file names, and their end counts."""

import os
import pwd
import shutil
import signal
import smtplib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import children
from tests.support.server import Server
from tests.support.waiting import wait_for

USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that the commands' user may write to."""
    path = Path(tempfile.mkdtemp(prefix="fastmta-pipe-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def server(tmp_path: Path, **pipes: dict[str, object]) -> Server:
    """One whose domain NAME.test goes to the pipe NAME."""
    settings = {
        "transport": {f"{name}.test": f"pipe:{name}" for name in pipes},
        "recipient_delimiter": "+",
        "delivery": {"minimal_backoff_time": "1s", "maximal_backoff_time": "1s"},
    }
    made = Server(tmp_path / "server", services=("smtp",), settings=settings)
    tables = [
        f"\n[pipe.{name}]\nuser = '{USER}'\n" + "".join(f"{key} = {value!r}\n" for key, value in table.items())
        for name, table in pipes.items()
    ]
    made.config_path.write_text(made.config_path.read_text() + "".join(tables))
    return made


def send(running: Server, *to: str, sender: str = "s@example.test", text: str = "Subject: t\r\n\r\nx\r\n") -> None:
    with smtplib.SMTP(running.host, running.port("smtp"), timeout=30) as client:
        client.sendmail(sender, list(to), text)


def log(running: Server, word: str) -> list[str]:
    return [line for line in running.log_path.read_text().splitlines() if word in line]


def test_a_command_gets_the_mail_and_its_arguments_as_its_user(tmp_path: Path, open_directory: Path) -> None:
    script = f'cd {open_directory}; cat >mail; id -un >who; echo "$$@" >args'
    argv = ["/bin/sh", "-c", script, "$$0", "${sender}", "${recipient}", "${user}", "${extension}", "${nexthop}"]
    with server(tmp_path, out={"argv": argv, "flags": "DROhu"}) as running:
        send(running, "Ann+Tag@out.test")
        wait_for(lambda: log(running, "delivery.delivered"), running.log_tail, 30)
        mail = (open_directory / "mail").read_text()
        own = ["Return-Path: <s@example.test>", "X-Original-To: Ann+Tag@out.test", "Delivered-To: Ann+Tag@out.test"]
        assert mail.split("\n")[:3] == own
        assert mail.endswith("Subject: t\n\nx\n")
        assert (open_directory / "who").read_text().split() == [USER]
        assert (open_directory / "args").read_text().split() == [
            *("s@example.test", "ann+tag@out.test", "ann", "tag", "out.test"),
        ]
        (line,) = log(running, "delivery.delivered")
        assert "delivered via out service" in line and '"relay":"out"' in line
        assert running.metrics()['fastmta_deliveries_total{result="delivered",transport="pipe"}'] == 1


def test_nothing_is_left_to_a_shell(tmp_path: Path, open_directory: Path) -> None:
    argv = ["/usr/bin/touch", "--", f"{open_directory}/$mailbox"]
    with server(tmp_path, out={"argv": argv}) as running:
        send(running, '"a;id>b`id`$(id)${sender}"@out.test')
        wait_for(lambda: log(running, "delivery.delivered"), running.log_tail, 30)
        (made,) = os.listdir(open_directory)
        assert ";id>b`id`$(id)${sender}" in made


def test_what_a_command_says_decides(tmp_path: Path) -> None:
    ends = {
        "nouser": {"argv": ["/bin/sh", "-c", "echo nobody here; exit 67"]},
        "later": {"argv": ["/bin/sh", "-c", "exit 75"]},
        "killed": {"argv": ["/bin/sh", "-c", "kill -9 $$$$"]},
        "slow": {"argv": ["/bin/sh", "-c", "sleep 1000 & sleep 1000"], "time_limit": "1s"},
        "small": {"argv": ["/bin/cat"], "size": 100},
        "gone": {"argv": ["/bin/sh"], "directory": "/nowhere"},
        "loud": {"argv": ["/bin/sh", "-c", "yes | head -c 1000000; exit 64"]},
    }
    replies = {
        "nouser": "554 5.1.1 user unknown. Command output: nobody here",
        "later": "451 4.3.0 temporary failure",
        "killed": "451 4.3.0 Command died with signal 9",
        "slow": "554 5.3.0 Command time limit exceeded",
        "small": "554 5.2.3 message too large",
        "gone": "451 4.3.5 mail system configuration error",
        "loud": "554 5.3.0 command line usage error. Command output: y y y",
    }
    made = server(tmp_path, **ends)
    assert "pipe.gone.directory: there is no directory /nowhere" in made.cli("check", check=False).stderr
    made.config_path.write_text(made.config_path.read_text().replace("/nowhere", str(tmp_path / "gone")))
    (tmp_path / "gone").mkdir()
    with made as running:
        (tmp_path / "gone").rmdir()
        for name in ends:
            send(running, f"x@{name}.test")
        for name, reply in replies.items():
            wait_for(lambda: log(running, f'"x@{name}.test"') and log(running, reply), running.log_tail, 30)  # noqa: B023
        assert not [p for p in children(running.pid) if "sleep" in Path(f"/proc/{p}/cmdline").read_text()]


def test_an_address_that_looks_like_an_option_is_returned(tmp_path: Path, open_directory: Path) -> None:
    with server(tmp_path, out={"argv": ["/usr/bin/touch", "$mailbox"], "directory": str(open_directory)}) as running:
        send(running, "-d@out.test", sender="")
        wait_for(lambda: log(running, "begins with -"), running.log_tail, 30)
        assert os.listdir(open_directory) == []


def test_a_loop_is_found_by_delivered_to(tmp_path: Path) -> None:
    with server(tmp_path, out={"argv": ["/bin/cat"], "flags": "D"}) as running:
        send(running, "x@out.test", text="Delivered-To: X@OUT.test\r\n\r\nx\r\n")
        wait_for(lambda: log(running, "5.4.6 mail forwarding loop for x@out.test"), running.log_tail, 30)


def test_a_launcher_that_dies_is_replaced_and_a_reload_brings_new_pipes(tmp_path: Path, open_directory: Path) -> None:
    with server(tmp_path, out={"argv": ["/usr/bin/touch", f"{open_directory}/one"]}) as running:
        (launcher,) = [
            p for p in children(running.pid) if Path(f"/proc/{p}/comm").read_text().strip() == "fastmta-launch"
        ]
        os.kill(launcher, signal.SIGKILL)
        send(running, "x@out.test")
        wait_for((open_directory / "one").exists, running.log_tail, 30)
        running.config_path.write_text(running.config_path.read_text().replace("/one", "/two"))
        running.cli("reload")
        send(running, "x@out.test")
        wait_for((open_directory / "two").exists, running.log_tail, 30)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may choose")
def test_neither_root_nor_the_mail_systems_user_runs_commands(tmp_path: Path) -> None:
    made = server(tmp_path, out={"argv": ["/bin/cat"]})
    text = made.config_path.read_text()
    root = "has the rights of root"
    for user, problem in (("root", root), ("nobody:root", root), ("nobodyy", "no user")):
        made.config_path.write_text(text.replace(f"user = '{USER}'", f"user = '{user}'"))
        done = made.cli("check", check=False)
        assert done.returncode == 78
        assert "pipe.out.user" in done.stderr and problem in done.stderr
    own = text.replace("workers_may_be_root = true", 'default_user = "nobody"')
    made.config_path.write_text(own)
    assert "the mail system's own user" in made.cli("check", check=False).stderr
