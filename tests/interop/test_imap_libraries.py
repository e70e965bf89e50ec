"""Programs' own IMAP clients: Python's imaplib, IMAPClient, aioimaplib, and imapflow (Node), over TLS that they verify.

The last three are no packages of the distribution: `make interop` puts them into build/clients, and without them their
tests skip.
"""

import asyncio
import datetime
import imaplib
import importlib
import json
import os
import ssl
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.interop.conftest import Account
from tests.support.mail import letter, needs, run, send
from tests.support.server import REPOSITORY, Server

_LIBRARIES = REPOSITORY / "build" / "clients"
_WAIT_S = 60.0


def _library(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if not (_LIBRARIES / name).exists():
        pytest.skip(f"{name} is not in {_LIBRARIES} (make interop)")
    monkeypatch.setattr(sys, "path", [*sys.path, str(_LIBRARIES)])
    return importlib.import_module(name)


def _context(server: Server) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(server.directory / "ca.pem"))


@pytest.mark.parametrize("service", ["imap", "imaps"])
def test_imaplib(server: Server, account: Account, service: str) -> None:
    context, port = _context(server), server.port(service)
    client: imaplib.IMAP4
    if service == "imaps":
        client = imaplib.IMAP4_SSL("localhost", port, ssl_context=context, timeout=_WAIT_S)
    else:
        client = imaplib.IMAP4("localhost", port, timeout=_WAIT_S)
        client.starttls(context)
    with client:
        client.authenticate("PLAIN", lambda _: b"\0%b\0%b" % (account.user.encode(), account.password.encode()))
        assert {"IDLE", "ENABLE"} < set(client.capabilities)  # it never asks again
        folder = '"Gr&APYA3w-e"'
        client.create(folder)
        message = letter("Größe")
        when = imaplib.Time2Internaldate(datetime.datetime(2026, 2, 1, 10, tzinfo=datetime.UTC))
        assert client.append(folder, r"(\Flagged custom)", when, message)[0] == "OK"
        client.enable("UTF8=ACCEPT")  # not before APPEND: imaplib would put the syntax for it into the message
        assert client.select('"Größe"')[1] == [b"1"]
        assert client.sort("(REVERSE DATE)", "UTF-8", "ALL")[1] == [b"1"]
        assert client.thread("REFERENCES", "UTF-8", "ALL")[1] == [b"(1)"]
        assert client.uid("SEARCH", "SUBJECT", '"Größe"')[1] == [b"1"]
        assert client.getquotaroot("INBOX")[0] == "OK"
        ((about, raw), rest) = client.fetch("1", "(UID FLAGS INTERNALDATE BODY.PEEK[])")[1]
        assert raw == message and b"custom" in about + rest
        assert imaplib.Internaldate2tuple(about + rest) == imaplib.Internaldate2tuple(f"INTERNALDATE {when}".encode())
        assert client.store("1", "+FLAGS", r"(\Deleted)")[0] == "OK"
        assert client.expunge()[1] == [b"1"]
        assert client.unselect()[0] == "OK" and client.delete('"Größe"')[0] == "OK"


def test_imapclient(server: Server, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    imapclient = _library("imapclient", monkeypatch)
    options: dict[str, Any] = {"port": server.port("imaps"), "ssl_context": _context(server), "timeout": _WAIT_S}
    with imapclient.IMAPClient("localhost", **options) as client:
        client.login(*account)
        client.enable("CONDSTORE", "QRESYNC")
        folders = {name: flags for flags, _, name in client.list_folders()}
        assert b"\\Drafts" in folders["Drafts"] and client.find_special_folder(b"\\Trash") == "Trash"
        client.create_folder("Tägliches/Neu")
        client.subscribe_folder("Tägliches/Neu")
        assert "Tägliches/Neu" in {name for _, _, name in client.list_sub_folders()}
        when = datetime.datetime(2026, 2, 1, 10, 0, 0)
        client.append("INBOX", letter("eins"), (imapclient.FLAGGED, b"custom"), when)
        client.multiappend("INBOX", [letter("zwei"), letter("drei")])
        assert client.select_folder("INBOX")[b"EXISTS"] == 3
        assert client.search(["SUBJECT", "zwei"]) == [2]
        assert client.search(["TEXT", "Köln"], charset="UTF-8") == [1, 2, 3]
        assert client.sort("REVERSE ARRIVAL")[-1] == 1 and client.thread("REFERENCES") == ((1,), (2,), (3,))
        found = client.fetch([1, 2], ["FLAGS", "ENVELOPE", "BODYSTRUCTURE", "INTERNALDATE", "MODSEQ", "RFC822"])
        assert found[1][b"ENVELOPE"].subject == b"eins" and found[1][b"RFC822"] != found[2][b"RFC822"]
        assert found[1][b"INTERNALDATE"] == when and set(found[1][b"FLAGS"]) > {b"\\Flagged", b"custom"}
        assert found[2][b"BODYSTRUCTURE"][:2] == (b"text", b"plain")
        assert imapclient.SEEN in client.add_flags([2], [imapclient.SEEN])[2]
        client.copy([1, 2], "Tägliches/Neu")
        client.move([3], "Archive")
        client.idle()
        send(server, account.user, letter("vier"))
        assert (3, b"EXISTS") in client.idle_check(timeout=_WAIT_S)
        client.idle_done()
        client.uid_expunge([1]) if client.delete_messages([1]) else None
        assert client.folder_status("INBOX", ["MESSAGES", "UIDNEXT"]) == {b"MESSAGES": 2, b"UIDNEXT": 5}
        assert client.get_quota_root("INBOX")[0].mailbox == "INBOX"
        assert b"FastMTA" in client.id_({"name": "IMAPClient"})[0]
        client.rename_folder("Tägliches/Neu", "Tägliches/Alt")
        client.delete_folder("Tägliches/Alt")


async def test_aioimaplib(server: Server, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    aioimaplib = _library("aioimaplib", monkeypatch)
    client = aioimaplib.IMAP4_SSL("localhost", server.port("imaps"), timeout=_WAIT_S, ssl_context=_context(server))
    await client.wait_hello_from_server()
    await client.login(*account)
    message = letter("eins")
    for _ in range(3):
        assert (await client.append(message, flags=r"\Flagged", date=datetime.datetime.now(datetime.UTC)))[0] == "OK"
    await client.select("INBOX")
    _, lines = await client.uid("fetch", "1:3", "(FLAGS BODY.PEEK[])")
    assert [line for line in lines if isinstance(line, bytearray)] == [message] * 3
    assert (await client.search("FLAGGED", "SUBJECT", "eins")).lines[0] == b"1 2 3"
    assert (await client.uid("move", "2", "Archive"))[0] == "OK"
    idle = await client.idle_start(_WAIT_S)
    await asyncio.to_thread(send, server, account.user, letter("zwei"))
    pushed: list[bytes] = []
    while b"3 EXISTS" not in pushed:
        pushed += await client.wait_server_push(_WAIT_S)
    client.idle_done()
    await asyncio.wait_for(idle, _WAIT_S)
    assert (await client.uid("store", "1", "+FLAGS", r"(\Deleted)"))[0] == "OK"
    assert b"1 EXPUNGE" in (await client.expunge()).lines
    assert (await client.logout())[0] == "OK"


def test_imapflow(server: Server, account: Account, tmp_path: Path) -> None:
    node = needs("node")
    if not (_LIBRARIES / "node_modules" / "imapflow").exists():
        pytest.skip(f"imapflow is not in {_LIBRARIES} (make interop)")
    program = Path(__file__).with_name("imapflow.js")
    environment = {**os.environ, "NODE_PATH": str(_LIBRARIES / "node_modules"), "HOME": str(tmp_path)}
    done = run(
        *[node, str(program), str(server.port("imaps")), str(server.directory / "ca.pem"), *account], env=environment
    )
    told = json.loads(done.stdout)
    assert {"CONDSTORE", "QRESYNC", "UTF8=ACCEPT"} <= set(told["enabled"])
    assert ["Trash", "\\Trash"] in told["folders"] and ["INBOX", "\\Inbox"] in told["folders"]
    types = ["text/plain", "application/octet-stream"]
    assert [each[:6] for each in told["messages"]] == [
        [n, n, ["\\Seen"] if n % 2 else [], f"flow {n}", f"2026-02-0{n}T00:00:00.000Z", types] for n in (1, 2, 3, 4)
    ]
    assert told["unseen"] == [2, 4] and told["text"] == [1, 2, 3, 4] and told["part"] == ["x.bin", True]
    assert told["copied"] == [[1, 1], [2, 2]] and told["moved"] == [[3, 1]]
    assert told["made"] == "Täglich/sub"
    assert told["status"] == {"path": "INBOX", "messages": 3, "uidNext": 5, "unseen": 2}
    assert told["events"] == [["flags", 1], ["flags", 2], ["expunge", 2], ["exists", 3]]
