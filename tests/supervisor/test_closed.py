"""Sessions end when what opened them is taken away."""

from types import SimpleNamespace

import pytest

from fastmta.store.record_keys import id_key
from fastmta.supervisor.closed import LOOKS_S, ClosedAccounts

OWN, OTHER, MASTER = 1, 2, 3


class World:
    """Three accounts, the third a master user; sessions are a name, whose mail they read, and what opened them."""

    def __init__(self):
        accounts = {n: SimpleNamespace(address=f"{n}@example.test", enabled=True) for n in (OWN, OTHER, MASTER)}
        self.accounts = accounts
        self.revoked = set()
        self.store = SimpleNamespace(
            directory_version=1,
            accounts=SimpleNamespace(by_id=accounts.get),
            credentials=SimpleNamespace(
                still_opens=lambda mark: mark not in self.revoked,
                account_of=lambda mark: int.from_bytes(mark[:8], "big"),
            ),
        )
        self.masters = ["3@example.test"]
        self.sessions = {}
        self.ended = []
        loop = SimpleNamespace(call_soon=lambda act, *arguments: act(*arguments))
        self.closed = ClosedAccounts(self.store, loop, self.open_ones, lambda: self.masters)

    def open_ones(self):
        return [(who, mark, lambda name=name: self.end(name)) for name, (who, mark) in self.sessions.items()]

    def end(self, name):
        self.ended.append(name)

    def look(self):
        self.closed.look()
        for name in self.ended:
            self.sessions.pop(name, None)
        ended, self.ended = self.ended, []
        return ended


@pytest.fixture
def world():
    found = World()
    found.sessions = {
        "own": (OWN, b""),
        "phone": (OWN, id_key(OWN) + b"phone"),
        "opened": (OWN, id_key(MASTER)),
        "opened by phone": (OTHER, id_key(MASTER) + b"phone"),
        "master's own": (MASTER, b""),
    }
    assert found.look() == []
    return found


def test_who_is_no_master_any_more_loses_what_he_has_opened(world):
    world.masters = []
    assert world.look() == [], "nothing has said so"
    world.closed.reload()
    assert world.look() == ["opened", "opened by phone"]


def test_a_reload_that_changes_nothing_ends_nothing(world):
    world.closed.reload()
    assert world.look() == []


def test_an_account_that_is_disabled_loses_its_own_and_what_it_has_opened(world):
    world.accounts[MASTER].enabled = False
    world.store.directory_version += 1
    assert world.look() == ["opened", "opened by phone", "master's own"]


@pytest.mark.parametrize("later_s", LOOKS_S[1:])
def test_who_was_logging_in_meanwhile_is_found_later(world, later_s):
    world.revoked.add(id_key(OWN) + b"phone")
    world.store.directory_version += 1
    assert world.look() == ["phone"]
    for _ in range(later_s - 1):
        assert world.look() == []
    world.sessions["late"] = (OWN, id_key(OWN) + b"phone")
    assert world.look() == ["late"]


def test_nothing_is_looked_at_while_nothing_changes(world):
    for _ in range(LOOKS_S[-1] + 1):
        world.look()
    world.revoked.add(id_key(OWN) + b"phone")
    assert [world.look() for _ in range(20)] == [[]] * 20
