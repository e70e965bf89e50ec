"""Thunderbird: it finds its settings by our autoconfig page, then people list, read, flag and move; IDLE brings mail.

All over TLS with a certificate that it verifies; DEFLATE, UTF8=ACCEPT and the rest as it chooses. With
FASTMTA_PICTURES=DIRECTORY its window is kept there.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import HOSTNAME, Account
from tests.support.mail import imap, letter, send
from tests.support.server import Server
from tests.support.thunderbird import Thunderbird
from tests.support.waiting import wait_for

_NAMES = (HOSTNAME, "autoconfig.example.test", "example.test")
_SETUP = """
    const tab = document.getElementById("tabmail").tabInfo.find(
        each => each.browser?.currentURI.spec == "about:accountsetup");
    const page = tab.browser.contentDocument;
"""
_FILL = """
    for (const [id, value] of [["realname", "A Reader"], ["email", arguments[0]], ["password", arguments[1]]]) {
        const field = page.getElementById(id);
        field.value = value;
        field.dispatchEvent(new page.defaultView.Event("input", { bubbles: true }));
    }
    const button = page.getElementById("continueButton");
    if (button.disabled) return false;
    button.click();
    return true;
"""
_CLICK = "const button = page.getElementById(arguments[0]); if (button.disabled || !button.getClientRects().length) "
_CLICK += "return false; button.click(); return true;"
_MAIL = """
    const about = document.getElementById("tabmail").currentAbout3Pane;
    const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
    const folders = MailServices.accounts.accounts[0].incomingServer.rootFolder.descendants;
    const folder = name => folders.find(each => each.name == name);
    const shown = () => about.gDBView ? Array.from({ length: about.gDBView.rowCount },
        (_, row) => about.gDBView.cellTextForColumn(row, "subjectCol")).sort() : [];
"""
_SHOWS = "return JSON.stringify(shown()) == JSON.stringify(arguments[0]);"
_CHOOSE = """
    for (let row = 0; row < about.gDBView.rowCount; row++) {
        if (about.gDBView.cellTextForColumn(row, "subjectCol") == arguments[0]) {
            about.threadTree.selectedIndex = row;
            return true;
        }
    }
    return false;
"""
_READS = """
    const message = document.getElementById("tabmail").currentAboutMessage;
    return message?.document.getElementById("expandedsubjectBox").textContent.includes(arguments[0])
        && message.document.getElementById("messagepane").contentDocument.body.textContent.includes(arguments[1]);
"""


@pytest.fixture
def thunderbird(server: Server, tmp_path: Path) -> Iterator[Thunderbird]:
    """As started for the first time. Port 80 of the domain's autoconfig host is ours by way of a proxy."""
    preferences: dict[str, str | int | bool] = {
        "network.proxy.type": 1,
        "network.proxy.http": server.host,
        "network.proxy.http_port": server.port("http"),
        "network.proxy.allow_hijacking_localhost": True,
    }
    with Thunderbird(tmp_path, trusted=server.directory / "ca.pem", names=_NAMES, preferences=preferences) as running:
        yield running


def _picture(thunderbird: Thunderbird, name: str) -> None:
    if directory := os.environ.get("FASTMTA_PICTURES"):
        thunderbird.screenshot(Path(directory) / name)


def _found(server: Server, account: Account, folder: str, *key: str) -> int:
    """How many messages of a folder the server finds."""
    with imap(server, *account) as client:
        client.select(folder, readonly=True)
        return len(client.search(None, *key)[1][0].split())


def test_what_people_do_in_thunderbird(server: Server, account: Account, thunderbird: Thunderbird) -> None:
    for subject in ("Plans for the summer", "Invoice 4711"):
        send(server, account.user, letter(subject))

    thunderbird.until(_SETUP + _FILL, *account)
    thunderbird.until(_SETUP + "return page.getElementById('resultSelect-imap').checked;")
    told = thunderbird.script(_SETUP + "return page.getElementById('resultsOption-imap').textContent;")
    assert f":{server.port('imaps')}" in told and f":{server.port('submissions')}" in told and account.user in told
    _picture(thunderbird, "thunderbird-setup.png")
    thunderbird.until(_SETUP + _CLICK, "createButton")  # it logs in to see whether the settings are right
    thunderbird.until(_SETUP + _CLICK, "finishButton")

    thunderbird.until(_MAIL + "return ['Archive', 'Drafts', 'Sent', 'Junk', 'Trash'].every(folder);")
    thunderbird.until(_MAIL + "about.displayFolder(folder('Inbox').URI); return true;")
    thunderbird.until(_MAIL + _SHOWS, ["Invoice 4711", "Plans for the summer"])

    thunderbird.until(_MAIL + _CHOOSE, "Plans for the summer")
    thunderbird.until(_READS, "Plans for the summer", "Grüße aus Köln")
    wait_for(lambda: _found(server, account, "INBOX", "SEEN", "SUBJECT", "Plans") == 1, "read")
    _picture(thunderbird, "thunderbird-read.png")

    thunderbird.script(_MAIL + "about.commandController.doCommand('cmd_markAsFlagged');")
    wait_for(lambda: _found(server, account, "INBOX", "FLAGGED", "SUBJECT", "Plans") == 1, "flagged")

    send(server, account.user, letter("Just arrived"))
    thunderbird.until(_MAIL + _SHOWS, ["Invoice 4711", "Just arrived", "Plans for the summer"])  # by IDLE

    thunderbird.script(_MAIL + "about.commandController.doCommand('cmd_moveMessage', folder('Archive'));")
    thunderbird.until(_MAIL + _SHOWS, ["Invoice 4711", "Just arrived"])
    wait_for(lambda: _found(server, account, "Archive", "FLAGGED", "SEEN", "SUBJECT", "Plans") == 1, "moved")
    assert _found(server, account, "INBOX", "SUBJECT", "Plans") == 0

    thunderbird.until(_MAIL + "about.displayFolder(folder('Archive').URI); return true;")
    thunderbird.until(_MAIL + _SHOWS, ["Plans for the summer"])
