"""Commands run in this process, each on its own configuration and store."""

import io
import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from fastmta.auth import passwords
from fastmta.cli import mailq, postmap, sendmail
from fastmta.cli import main as program
from fastmta.cli.init import initialise
from fastmta.model.errors import StorageFailure
from tests.support.keys import rsa_key
from tests.support.pickup import pick_up


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


class Cli:
    def __init__(self, directory: Path, monkeypatch, capsys) -> None:
        self.config = directory / "fastmta.toml"
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def _run(self, entry, arguments, stdin):
        raw = stdin if isinstance(stdin, bytes) else stdin.encode()
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        self._capsys.readouterr()
        code = entry(list(arguments))
        captured = self._capsys.readouterr()
        assert "Traceback" not in captured.err, captured.err
        if code:
            assert captured.err.count("\n") <= 1 or "fastmta: " in captured.err
        return Done(code, captured.out, captured.err)

    def __call__(self, *arguments, stdin=""):
        return self._run(program.main, arguments, stdin)

    def ok(self, *arguments, stdin=""):
        done = self(*arguments, stdin=stdin)
        assert done.code == 0, done.err
        return done

    def leave(self, *arguments, stdin="Subject: x\n\nbody\n"):
        """The program alone, as while the server is down."""
        return self._run(sendmail.main, arguments, stdin)

    def sendmail(self, *arguments, stdin="Subject: x\n\nbody\n"):
        """The program, and what a server then makes of the spool."""
        done = self.leave(*arguments, stdin=stdin)
        with suppress(StorageFailure):
            self.log = pick_up(self.config)
        return done

    def mailq(self, *arguments):
        return self._run(mailq.main, arguments, "")

    def postmap(self, *arguments, stdin=""):
        return self._run(postmap.main, arguments, stdin)

    def newaliases(self, *arguments):
        return self._run(postmap.newaliases, arguments, "")

    def user(self, address="bill@example.test"):
        self.ok("user", "add", address, "--password-stdin", stdin="secret\n")

    def change(self, old, new):
        """Edits the configuration."""
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def mail(self, address="bill@example.test", mailbox="INBOX"):
        """The messages of a mailbox, whole."""
        from fastmta.config.load import load
        from fastmta.store import MailStore

        store = MailStore.open(Path(load(self.config).data_directory))
        try:
            account = store.accounts.lookup(address)
            box = store.mailboxes.get(account.id, mailbox)
            return [store.mailboxes.read(box.id, uid, 0, 262_144) for uid in store.mailboxes.uids(box.id)]
        finally:
            store.close()


@pytest.fixture
def keys_made_once(monkeypatch):
    """The n-th RSA key that a test has made is the n-th of every other test."""
    number = count()
    monkeypatch.setattr(rsa, "generate_private_key", lambda exponent, bits: rsa_key(next(number), bits))


@pytest.fixture
def cheap_passwords(monkeypatch):
    """What a hash costs is no matter here."""
    monkeypatch.setattr(passwords, "MEMORY_KIB", 8)
    monkeypatch.setattr(passwords, "PASSES", 1)


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys, keys_made_once, cheap_passwords):
    initialise(tmp_path, domain="example.test", workers_may_be_root=True)
    monkeypatch.setenv("FASTMTA_CONFIG", str(tmp_path / "fastmta.toml"))
    return Cli(tmp_path, monkeypatch, capsys)
