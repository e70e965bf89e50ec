"""What is suspended by command is kept, and its number is bounded."""

import asyncio

import pytest

from fastmta.model.errors import Refused
from fastmta.model.limits import SUSPENDED_HOPS
from fastmta.store import MailStore


def opened(tmp_path):
    return MailStore.open(tmp_path, sync=False, map_size_bytes=1 << 28)


def test_suspensions_outlive_the_process_and_change_the_version(tmp_path):
    store = opened(tmp_path)
    before = store.suspensions.version
    assert asyncio.run(store.suspensions.add([b"smtp:a.test", b"smtp:b.test"], "a.test", "root")) == [
        b"smtp:a.test",
        b"smtp:b.test",
    ]
    assert asyncio.run(store.suspensions.add([b"smtp:a.test"], "a.test", "bill")) == []
    store.close()
    store = opened(tmp_path)
    assert [(each.hop, each.name, each.by) for each in store.suspensions.all()] == [
        (b"smtp:a.test", "a.test", "root"),
        (b"smtp:b.test", "a.test", "root"),
    ]
    version = store.suspensions.version
    assert version > before
    asyncio.run(store.suspensions.remove([b"smtp:a.test", b"smtp:absent.test"]))
    assert [each.hop for each in store.suspensions.all()] == [b"smtp:b.test"]
    assert store.suspensions.version > version
    store.close()


def test_the_number_is_bounded(tmp_path):
    store = opened(tmp_path)
    hops = [b"smtp:d%d.test" % n for n in range(SUSPENDED_HOPS)]
    asyncio.run(store.suspensions.add(hops[:-1], "many", "root"))
    with pytest.raises(Refused):
        asyncio.run(store.suspensions.add([b"smtp:x.test", b"smtp:y.test"], "two", "root"))
    assert len(asyncio.run(store.suspensions.add(hops[-1:], "last", "root"))) == 1
    assert asyncio.run(store.suspensions.add(hops[-1:], "last", "root")) == []
    with pytest.raises(Refused):
        asyncio.run(store.suspensions.add([b"smtp:x.test"], "one", "root"))
    assert len(store.suspensions.all()) == SUSPENDED_HOPS
    store.close()
