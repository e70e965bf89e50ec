"""`fastmta init`: what it writes where, for whom, and what it says to do next."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from fastmta.auth.passwords import verify_password
from fastmta.cli import init as command
from fastmta.cli.failures import EX_CANTCREAT, EX_DATAERR
from fastmta.config.load import load
from fastmta.runtime.identity import WorkersUser
from fastmta.store import MailStore

REPOSITORY = Path(__file__).parents[2]


def accounts_and_aliases(directory):
    store = MailStore.open(Path(load(directory / "fastmta.toml").data_directory))
    try:
        return {a.address: a.password_hash for a in store.accounts.list()}, dict(store.aliases.list())
    finally:
        store.close()


def test_everything_lies_under_the_directory_and_nothing_is_replaced(cli, tmp_path):
    made = tmp_path / "new"
    cli.ok("init", str(made), "--domain", "other.test")
    assert sorted(path.name for path in made.iterdir()) == ["cert.pem", "data", "fastmta.toml", "key.pem"]
    assert (
        made / "data"
    ).stat().st_mode & 0o777 == 0o711  # others pass to the spool; what lies there is closed to them
    assert (made / "key.pem").stat().st_mode & 0o007 == 0
    config = load(made / "fastmta.toml")
    assert config.myhostname == "mx.other.test"
    assert config.mydestination == ("other.test", "mx.other.test", "localhost")
    assert config.data_directory == str(made / "data")
    before = (made / "fastmta.toml").read_bytes()
    assert cli("init", str(made)).code == EX_CANTCREAT
    assert (made / "fastmta.toml").read_bytes() == before


def test_mail_may_be_left_before_the_server_has_ever_run(cli, tmp_path):
    """Also by users who could not make the spool."""
    assert cli("init", str(tmp_path / "new"), "--domain", "example.test").code == 0
    spool = tmp_path / "new" / "data" / "public" / "maildrop"
    assert spool.stat().st_mode & 0o7777 == 0o1733


def test_the_data_directory_may_be_elsewhere(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.ok("init", "new", "--domain", "other.test", "--data-directory", "mail/store")
    assert load(tmp_path / "new/fastmta.toml").data_directory == str(tmp_path / "mail/store")
    assert not (tmp_path / "new/data").exists()


def test_the_first_account_is_made_with_its_password_shown_once(cli, tmp_path):
    done = cli.ok("init", str(tmp_path / "new"), "--domain", "other.test", "--user", "Bill")
    accounts, aliases = accounts_and_aliases(tmp_path / "new")
    (line,) = [line for line in done.out.splitlines() if line.startswith("account bill@other.test, password ")]
    assert verify_password(accounts["bill@other.test"], line.rpartition(" ")[2])
    assert aliases == {
        "abuse@other.test": ("bill@other.test",),
        "postmaster@other.test": ("bill@other.test",),
    }
    for record in ("other.test. MX 10 mx.other.test.", 'other.test. TXT "v=spf1 mx -all"', "_dmarc.other.test. TXT"):
        assert record in done.out
    assert "SRV 0 1 993 mx.other.test." in done.out
    assert f"fastmta serve -c {tmp_path}/new/fastmta.toml" in done.out


def test_the_first_account_may_be_the_postmaster_and_bring_its_password(cli, tmp_path):
    done = cli.ok(
        "init", str(tmp_path / "new"), "--user", "postmaster@other.test", "--password-stdin", stdin="secret\n"
    )
    accounts, aliases = accounts_and_aliases(tmp_path / "new")
    assert verify_password(accounts["postmaster@other.test"], "secret")
    assert aliases == {"abuse@other.test": ("postmaster@other.test",)}
    assert "secret" not in done.out


def test_an_account_of_another_domain_is_refused_before_anything_is_written(cli, tmp_path):
    done = cli("init", str(tmp_path / "new"), "--domain", "other.test", "--user", "bill@example.test")
    assert done.code == EX_DATAERR
    assert not (tmp_path / "new").exists()


def test_what_failed_half_way_can_be_run_again(cli, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(command.Made, "_first_account", lambda *_: (_ for _ in ()).throw(PermissionError(13, "no", "x")))
        assert cli("init", str(tmp_path / "new"), "--domain", "other.test", "--user", "bill").code
    cli.ok("init", str(tmp_path / "new"), "--domain", "other.test", "--user", "bill")
    assert "bill@other.test" in accounts_and_aliases(tmp_path / "new")[0]


def test_a_terminal_is_asked_for_account_and_password(tmp_path):
    main, terminal = pty.openpty()
    program = "import sys; from fastmta.cli.main import main; sys.exit(main())"
    arguments = ["init", str(tmp_path / "new"), "--domain", "other.test"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    os.close(terminal)
    said = b""

    def answer(question, line):
        nonlocal said
        while question not in said:
            said += os.read(main, 4096)
        said = said.partition(question)[2]
        os.write(main, line + b"\n")

    answer(b"First account", b"bill")
    answer(b"Password for bill@other.test", b"typed secret")
    answer(b"Repeat", b"typed secret")
    try:
        while part := os.read(main, 4096):
            said += part
    except OSError:
        pass  # the other end has closed
    os.close(main)
    assert process.wait(30) == 0, said
    assert b"typed secret" not in said
    assert verify_password(accounts_and_aliases(tmp_path / "new")[0]["bill@other.test"], "typed secret")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a system user and gives files away")
class TestAsRoot:
    @pytest.fixture
    def system(self, tmp_path, monkeypatch):
        """The places of the system's own configuration, and a useradd that only remembers."""
        calls = []
        users = {}

        def run(arguments, **_):
            calls.append(arguments)
            users[arguments[-1]] = WorkersUser(arguments[-1], 12_345, 12_346)
            return subprocess.CompletedProcess(arguments, 0, "", "")

        def workers_user(config):
            if config.default_user not in users:
                raise command.ConfigError("no such user")
            return users[config.default_user]

        monkeypatch.setattr(command, "SYSTEM_DIRECTORY", tmp_path / "etc")
        monkeypatch.setattr(command, "SYSTEM_DATA", str(tmp_path / "var"))
        monkeypatch.setattr(command.subprocess, "run", run)
        monkeypatch.setattr(command, "workers_user", workers_user)
        return calls

    def test_the_systems_own_configuration_gets_its_user_and_its_place(self, cli, tmp_path, system):
        done = cli.ok("init", str(tmp_path / "etc"), "--domain", "other.test")
        assert [call[0] for call in system] == ["useradd"]
        assert "made the system user fastmta" in done.out
        assert load(tmp_path / "etc/fastmta.toml").data_directory == str(tmp_path / "var")
        data, key = (tmp_path / "var").stat(), (tmp_path / "etc/key.pem").stat()
        assert (data.st_uid, data.st_gid, data.st_mode & 0o777) == (12_345, 12_346, 0o700)
        assert (key.st_uid, key.st_gid, key.st_mode & 0o777) == (0, 12_346, 0o640)

    def test_elsewhere_the_command_that_makes_the_user_is_said(self, cli, tmp_path, system):
        done = cli.ok("init", str(tmp_path / "elsewhere"), "--domain", "other.test")
        assert system == []
        assert "there is no user fastmta for the workers yet: `useradd --system " in done.out
        assert load(tmp_path / "elsewhere/fastmta.toml").data_directory == str(tmp_path / "elsewhere/data")

    def test_a_directory_of_somebody_else_is_not_taken_over(self, cli, tmp_path, system):
        (tmp_path / "var").mkdir()
        (tmp_path / "var/precious").write_text("x")
        assert cli("init", str(tmp_path / "etc"), "--domain", "other.test").code == EX_CANTCREAT
        assert (tmp_path / "var").stat().st_uid == 0

    def test_no_configuration_makes_workers_root_by_itself(self, cli, tmp_path, system):
        cli.ok("init", str(tmp_path / "elsewhere"), "--domain", "other.test")
        config = load(tmp_path / "elsewhere/fastmta.toml")
        assert (config.default_user, config.workers_may_be_root) == ("fastmta", False)
