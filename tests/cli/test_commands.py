"""Accounts, aliases, init, check, and how every command fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastmta.auth.passwords import verify_password
from fastmta.cli.failures import EX_CANTCREAT, EX_CONFIG, EX_DATAERR, EX_NOINPUT, EX_NOUSER, EX_UNAVAILABLE, EX_USAGE
from fastmta.cli.main import COMMANDS
from fastmta.config.load import load
from fastmta.store import MailStore

REPOSITORY = Path(__file__).parents[2]


def test_help_imports_no_command_and_no_heavy_library():
    program = (
        "import sys\nfrom fastmta.cli.main import main\ncode = main(['--help'])\n"
        "heavy = {'aiohttp', 'cryptography', 'argon2', 'rich', 'asyncio', 'fastmta._store', 'fastmta.cli.user'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\nsys.exit(code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "Examples:" in done.stdout
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", [*COMMANDS, "user add", "alias add", "queue list", "mailbox export", "store check"])
def test_every_command_has_help(cli, name):
    done = cli.ok(*name.split(), "--help")
    assert "Usage:" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["bogus"], EX_USAGE, "no such command: bogus"),
        (["usr"], EX_USAGE, "did you mean user?"),
        (["user", "add"], EX_USAGE, "Missing argument 'ADDRESS'"),
        (["user", "list", "--jsn"], EX_USAGE, "--jsn"),
        (["-c", "/absent.toml", "user", "list"], EX_CONFIG, "cannot read the configuration"),
        (["user", "list", "-c", "/absent.toml"], EX_CONFIG, "/absent.toml: cannot read"),
        (["user", "delete", "nobody"], EX_NOUSER, "no such user: nobody@example.test"),
        (["user", "quota", "nobody", "1M"], EX_NOUSER, "no such user"),
        (["user", "quota", "nobody", "huge"], EX_USAGE, "expected a size"),
        (["user", "passwd", "nobody", "--password-stdin"], EX_DATAERR, "the password is empty"),
        (["user", "add", "a b@example.test", "--password-stdin"], EX_DATAERR, "not an address"),
        (["user", "add", "x@", "--password-stdin"], EX_DATAERR, "not an address"),
        (["user", "add", "|cmd@example.test\n", "--password-stdin"], EX_DATAERR, "not an address"),
        (["user", "add", "new"], EX_USAGE, "--password-stdin"),
        (["user", "add", "a\udcff@example.test", "--password-stdin"], EX_DATAERR, "not UTF-8"),
        (["mailbox", "list", "\udcff"], EX_DATAERR, "not UTF-8"),
        (["init", "new", "--domain", "example.org", "--user", "\udcff"], EX_DATAERR, "not UTF-8"),
        (["alias", "add", "a", ""], EX_DATAERR, "would stand for nobody"),
        (["alias", "add", "a", ",,"], EX_DATAERR, "would stand for nobody"),
        (["mailbox", "import", "ann", "absent"], EX_NOINPUT, "absent"),
        (["store", "salvage", "absent", "new"], EX_NOINPUT, "absent"),
        (["alias", "add", "a", "|cmd"], EX_DATAERR, "addresses only"),
        (["alias", "add", "a", "/etc/passwd"], EX_DATAERR, "addresses only"),
        (["alias", "add", "a", ":include:/x"], EX_DATAERR, "addresses only"),
        (["alias", "delete", "absent"], EX_NOUSER, "no such alias: absent@example.test"),
        (["mailbox", "list", "nobody"], EX_NOUSER, "no such user"),
        (["mailbox", "purge", "nobody"], EX_NOUSER, "no such user"),
        (["status"], EX_UNAVAILABLE, "no server is running"),
        (["reload"], EX_UNAVAILABLE, "no server is running"),
        (["stop"], EX_UNAVAILABLE, "no server is running"),
        (["queue", "show", "AEIOU"], EX_USAGE, "not a queue id"),
        (["queue", "show", "000000000001"], EX_DATAERR, "no message"),
        (["queue", "hold"], EX_USAGE, "which?"),
        (["queue", "delete"], EX_USAGE, "which?"),
        (["queue", "list", "--older", "soon"], EX_USAGE, "expected a time"),
        (["queue", "list", "--state", "lost"], EX_USAGE, "lost"),
        (["init", "."], None, ""),
    ],
)
def test_a_failure_is_one_line_and_a_code(cli, arguments, code, says, monkeypatch, tmp_path):
    if code is None:
        monkeypatch.chdir(tmp_path)
        code, says = EX_CANTCREAT, "fastmta.toml exists already"
    done = cli(*arguments)
    assert done.code == code, done.err
    assert says in done.err
    assert done.err.startswith("fastmta: ")
    assert done.err.count("\n") == 1
    assert done.out == ""


def test_an_account_is_added_listed_and_deleted(cli):
    cli.ok("user", "add", "Bill@Example.Test", "--password-stdin", "--quota", "2G", stdin="pass word\r\nmore\n")
    cli.user("ann")
    listed = cli.ok("user", "list", "--json").json
    assert [each["address"] for each in listed] == ["ann@example.test", "bill@example.test"]
    assert listed[1]["quota_bytes"] == 2 * 2**30
    assert "bill@example.test" in cli.ok("user", "list").out
    assert cli("user", "add", "bill", "--password-stdin", stdin="x\n").code == EX_DATAERR
    cli.ok("user", "delete", "ann", "--yes")
    assert len(cli.ok("user", "list", "--json").json) == 1


def test_passwords_are_hashed_and_changed(cli):
    def stored():
        store = MailStore.open(Path(load(cli.config).data_directory))
        try:
            return store.accounts.lookup("bill@example.test").password_hash
        finally:
            store.close()

    cli.ok("user", "add", "bill", "--password-stdin", stdin="p\u00e4ss word")
    assert verify_password(stored(), "p\u00e4ss word")
    cli.ok("user", "passwd", "bill", "--password-stdin", stdin="other\n")
    assert verify_password(stored(), "other")


@pytest.mark.parametrize("stdin", [b"", b"\n", b"\xff\n", b"a\0b\n", b"x" * 2000])
def test_a_bad_password_is_refused_and_no_account_made(cli, stdin):
    assert cli("user", "add", "bill", "--password-stdin", stdin=stdin).code == EX_DATAERR
    assert cli.ok("user", "list", "--json").json == []


def test_an_account_of_a_foreign_domain_is_noted(cli):
    done = cli.ok("user", "add", "x@elsewhere.test", "--password-stdin", stdin="x\n")
    assert "elsewhere.test is not in mydestination" in done.err


def test_quota_is_set_and_shown(cli):
    cli.user()
    cli.ok("user", "quota", "bill", "1536K")
    assert cli.ok("user", "quota", "bill").out == "0 of 1.5M\n"
    assert cli.ok("user", "quota", "bill", "--json").json["quota_bytes"] == 1536 * 1024
    cli.ok("user", "quota", "bill", "0")
    assert cli.ok("user", "quota", "bill").out == "0 of -\n"
    cli.ok("user", "quota", "bill", "--messages", "100")
    assert cli.ok("user", "quota", "bill").out == "0 of -, 0 of 100 messages\n"
    cli.ok("user", "quota", "bill", "1K")
    found = cli.ok("user", "quota", "bill", "--json").json
    assert (found["quota_bytes"], found["messages"], found["quota_messages"]) == (1024, 0, 100)
    cli.ok("user", "quota", "bill", "default")
    assert cli.ok("user", "quota", "bill").out == "0 of -\n"  # no server has written a quota_rule yet


def test_aliases_are_added_replaced_listed_and_deleted(cli):
    cli.ok("alias", "add", "sales", "bill,ann", "far@away.test")
    cli.ok("alias", "add", "@example.test", "bill")
    assert cli("alias", "add", "sales", "bill").code == EX_DATAERR
    cli.ok("alias", "add", "sales", "bill", "--replace")
    assert cli.ok("alias", "list", "--json").json == [
        {"address": "@example.test", "targets": ["bill@example.test"]},
        {"address": "sales@example.test", "targets": ["bill@example.test"]},
    ]
    cli.ok("alias", "delete", "sales", "--yes")
    assert "sales" not in cli.ok("alias", "list").out


def test_mailboxes_are_listed_and_purged(cli):
    cli.user()
    cli.sendmail("bill")
    listed = {each["name"]: each for each in cli.ok("mailbox", "list", "bill", "--json").json}
    assert listed["INBOX"]["messages"] == 1
    assert listed["Sent"]["special_use"] == "\\Sent"
    assert cli.ok("mailbox", "list", "bill").out.splitlines()[1].startswith("INBOX")
    cli.ok("mailbox", "purge", "bill", "--yes")
    assert sum(each["messages"] for each in cli.ok("mailbox", "list", "bill", "--json").json) == 0


def test_a_mailbox_name_that_is_not_utf_8_is_refused_in_one_line(cli, tmp_path):
    cli.user()
    (tmp_path / "letters.mbox").write_bytes(b"From ann Fri Jan  2 03:04:05 2026\nSubject: a\n\nb\n")
    done = cli("mailbox", "import", "bill", str(tmp_path / "letters.mbox"), "--mailbox", "\udcff")
    assert (done.code, done.err) == (EX_DATAERR, "fastmta: '\\udcff': not UTF-8\n")


def test_serve_with_a_wrong_configuration_is_a_configuration_error(cli, tmp_path):
    cli.change("workers = 0", 'workers = "x"')
    (tmp_path / "fastmta").mkdir()
    (tmp_path / "fastmta" / "__init__.py").write_text("raise SystemExit('taken from the working directory')\n")
    program = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\nfrom fastmta.cli.main import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, "serve"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == EX_CONFIG, done.stderr
    assert done.stderr.endswith('workers: "x": expected a whole number, from 0 to 1024\n')


def test_store_check_finds_nothing_wrong(cli):
    cli.user()
    cli.sendmail("bill", "far@away.test")
    assert cli.ok("store", "check").out == "no problem found\n"
    assert cli.ok("store", "check", "--json").json == {"ok": True, "problems": []}
