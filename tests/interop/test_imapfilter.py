"""imapfilter: a user's rules in Lua, over TLS that it verifies: search, flag, copy, move, and delete."""

import os
from pathlib import Path

from tests.interop.conftest import Account
from tests.support.mail import imap, letter, needs, run, send
from tests.support.server import Server

_RULES = """\
options.certificates = true
options.info = true
options.create = true
options.subscribe = true
options.range = 50
account = IMAP {{ server = "localhost", port = {port}, username = "{user}", password = "{password}", ssl = "auto" }}
inbox = account["INBOX"]
invoices = inbox:contain_subject("Invoice") * inbox:is_unseen()
invoices:add_flags({{ "$Money" }})
invoices:mark_flagged()
invoices:move_messages(account["Rules/Invoices"])
news = inbox:contain_from("news@") + inbox:contain_body("unsubscribe")
news:copy_messages(account["Archive"])
news:delete_messages()
inbox:is_larger(20000):mark_seen()
local exist, unread, new = inbox:check_status()
print("left", exist, unread)
for _, mailbox in ipairs(account:list_all("Rules")) do print("folder", mailbox) end
"""


def _found(server: Server, account: Account, folder: str, *key: str) -> list[bytes]:
    with imap(server, *account) as client:
        client.select(f'"{folder}"', readonly=True)
        answer: list[bytes] = client.search(None, *key)[1]
        return answer


def test_rules(server: Server, account: Account, tmp_path: Path) -> None:
    program = needs("imapfilter")
    rules = tmp_path / "config.lua"
    rules.write_text(_RULES.format(port=server.port("imaps"), user=account.user, password=account.password))
    for message in (
        letter("Invoice 1"),
        letter("weekly", sender="news@client.example"),
        letter("Invoice 2"),
        letter("large", body="x" * 900 + ("\r\n" + "x" * 900) * 30),
        letter("offers", body="to unsubscribe write to us"),
    ):
        send(server, account.user, message)
    run(
        *[program, "-c", str(rules), "-t", str(server.directory / "ca.pem"), "-l", str(tmp_path / "log")],
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert _found(server, account, "Rules/Invoices", "FLAGGED", "KEYWORD", "$Money", "UNSEEN") == [b"1 2"]
    assert _found(server, account, "Archive", "ALL") == [b"1 2"]
    assert _found(server, account, "INBOX", "ALL") == [b"1"]
    assert _found(server, account, "INBOX", "SEEN", "SUBJECT", "large") == [b"1"]
