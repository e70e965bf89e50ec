"""Workers are never root unless the file says so, whatever default_user says or lacks."""

import os
import pwd
from types import SimpleNamespace

import pytest

from fastmta.model.errors import ConfigError
from fastmta.runtime.identity import WorkersUser, workers_user


def settings(user="fastmta", may_be_root=False):
    return SimpleNamespace(default_user=user, workers_may_be_root=may_be_root)


@pytest.fixture
def root(monkeypatch):
    """As if root ran it, on a machine with a few users."""
    users = {"fastmta": (990, 989), "root": (0, 0), "toor": (0, 5), "operator": (11, 0)}

    def getpwnam(name):
        uid, gid = users[name]
        return SimpleNamespace(pw_uid=uid, pw_gid=gid)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", getpwnam)


def test_root_hands_over_to_default_user(root):
    assert workers_user(settings()) == WorkersUser("fastmta", 990, 989)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent", "there is no user absent on this machine; make it with `useradd --system "),
        ("root", "the user id of root"),
        ("toor", "the user id of root"),
        ("operator", "the group id of root"),
    ],
)
def test_workers_are_root_only_where_the_file_says_so(root, name, says):
    with pytest.raises(ConfigError, match=says):
        workers_user(settings(name))
    assert workers_user(settings(name, may_be_root=True)) is None


def test_who_is_not_root_stays_who_they_are(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert workers_user(settings("absent")) is None
