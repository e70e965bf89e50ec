"""`fastmta index`: how far the indexes are, and made anew, by a worker or without one."""

import imaplib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server
from tests.support.waiting import wait_for

BILL, ANN = "bill@example.test", "ann@example.test"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, services=("imap",), workers=2) as made:
        for user in (BILL, ANN):
            made.add_user(user, "secret")
        yield made


_clients: list[imaplib.IMAP4] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _clients:
        _clients.pop().shutdown()


def box_of(server: Server, user: str = BILL, count: int = 0) -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", server.port("imap"))
    _clients.append(client)
    client.login(user, "secret")
    client.select()
    for n in range(count):
        client.append("INBOX", "", "", b"Subject: n\r\n\r\nthe word w%d. and more\r\n" % n)
    client.noop()
    return client


def numbers(client: imaplib.IMAP4, word: str) -> list[int]:
    return [int(each) for each in client.search(None, "TEXT", f'"{word}"')[1][0].split()]


def told(server: Server, *arguments: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(server.cli("index", *arguments, "--json").stdout)
    return found


def files(server: Server) -> list[Path]:
    return sorted((server.directory / "data" / "index").glob("*.fts"))


def test_an_index_comes_with_the_first_search_and_goes_with_the_account(server: Server) -> None:
    client = box_of(server, count=100)
    assert files(server) == []
    assert numbers(client, "word w42. and") == [43]
    wait_for(lambda: told(server, "status", BILL)[0]["indexed"] == 100, "not indexed")
    assert len(files(server)) == 1
    assert files(server)[0].stat().st_mode & 0o777 == 0o600
    assert numbers(client, "word w42. and") == [43]
    assert {each["address"]: each["percent"] for each in told(server, "status")} == {ANN: 100, BILL: 100}
    server.cli("user", "rename", BILL, "new@example.test")
    assert told(server, "status", "new@example.test")[0]["indexed"] == 100
    server.cli("user", "delete", "new@example.test", "--yes")
    assert files(server) == []


def test_a_purge_takes_the_index_along(server: Server) -> None:
    box_of(server, count=3)
    server.cli("index", "rebuild", BILL)
    assert told(server, "status", BILL)[0]["indexed"] == 3
    server.cli("mailbox", "purge", BILL, "--yes")
    assert files(server) == []
    assert told(server, "status", BILL) == [
        {"address": BILL, "messages": 0, "indexed": 0, "percent": 100, "size_bytes": 0}
    ]


def test_all_indexes_are_made_anew_with_and_without_a_server(server: Server) -> None:
    box_of(server, count=70)
    box_of(server, ANN, count=2)
    (server.directory / "data" / "index" / "abc.fts").write_bytes(b"of an account that is gone")
    done = json.loads(server.cli("index", "rebuild", "--json").stdout)
    assert done == {"accounts": 2, "messages": 72}
    assert len(files(server)) == 2
    path = files(server)[0]
    data = bytearray(path.read_bytes())
    data[80] ^= 1
    path.write_bytes(data)
    server.stop()
    assert "72 messages of 2 accounts" in server.cli("index", "rebuild").stdout
    assert server.cli("index", "status", ANN).stdout.split()[-3:-1] == ["100", "%"]
    refused = server.cli("index", "rebuild", "nobody@example.test", check=False)
    assert (refused.returncode, refused.stdout) == (67, "")


def test_without_indexes_there_is_nothing_to_rebuild(server: Server) -> None:
    server.write_config({"fts": ""})
    server.cli("reload")
    wait_for(lambda: server.cli("index", "rebuild", check=False).returncode == 78, "still indexed")
    client = box_of(server, count=70)
    assert numbers(client, "word w42. and") == [43]
    assert files(server) == []


def test_an_index_that_is_asked_for_comes_with_the_mail(server: Server) -> None:
    server.write_config({"fts_autoindex": True, "fts_autoindex_exclude": ["\\Junk"]})
    server.cli("reload")
    client = box_of(server, count=70)

    def has_come() -> bool:  # the reload may come after the mail that would have been indexed
        client.append("INBOX", "", "", b"Subject: n\r\n\r\none more\r\n")
        return told(server, "status", BILL)[0]["indexed"] != 0

    wait_for(has_come, "nothing was indexed")
    assert len(files(server)) == 1


def test_a_store_that_went_back_takes_no_index_of_later(server: Server) -> None:
    client = box_of(server, count=70)
    backup = server.directory / "backup"
    server.cli("store", "backup", str(backup))
    for n in range(70, 140):
        client.append("INBOX", "", "", b"Subject: n\r\n\r\nthe word w%d. and more\r\n" % n)
    server.cli("index", "rebuild")
    server.stop()
    store = next(server.directory.joinpath("data").rglob("data.mdb"))
    store.write_bytes((backup / "data.mdb").read_bytes())
    server.start()
    assert files(server) == []
    client = box_of(server)
    for n in range(70):
        client.append("INBOX", "", "", b"Subject: n\r\n\r\nanother word v%d. and more\r\n" % n)
    client.noop()
    assert numbers(client, "word v7. and") == [78]


def test_workers_that_are_killed_leave_an_index_that_is_right(server: Server) -> None:
    client = box_of(server, count=300)
    for n in range(3):
        numbers(client, f"word w{n}. and")
        server.kill()
        server.start()
        client = box_of(server, count=70)
        assert numbers(client, "word w42. and")[0] == 43
        assert numbers(client, "w300") == []
    wait_for(lambda: numbers(client, "word w42. and") and told(server, "status", BILL)[0]["indexed"], server.log_tail)
    assert numbers(client, "word w42. and") == [43, 343, 413, 483]


def test_what_is_no_index_is_in_nobodys_way(server: Server) -> None:
    client = box_of(server, count=70)
    server.cli("index", "rebuild")
    (path,) = files(server)
    for odd in ("-5.fts", "1_0.fts", "0x1.fts", "f" * 20 + ".fts"):
        path.with_name(odd).write_bytes(b"x")
    server.cli("index", "rebuild")
    path.unlink()
    path.mkdir()
    found = {str(each["address"]): (each["messages"], each["indexed"]) for each in told(server, "status")}
    assert found == {BILL: (70, 0), ANN: (0, 0)}
    assert numbers(client, "word w42. and") == [43]
