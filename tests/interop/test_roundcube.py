"""Roundcube in a real browser: log in, list, read, search, threads, flag, move, compose; over STARTTLS both ways.

With FASTMTA_PICTURES=DIRECTORY its pages are kept there.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import Account
from tests.support.browser import Browser
from tests.support.mail import imap, needs, send, wait_for_messages
from tests.support.ports import free_port, wait_until_listening
from tests.support.server import Server

_PROGRAM = Path("/usr/share/roundcube")
_DEFAULTS = Path("/etc/roundcube")  # what Debian's package keeps of its configuration apart
_CONFIG = """<?php
$config['db_dsnw'] = 'sqlite:///{directory}/roundcube.db?mode=0640';
$config['imap_host'] = 'tls://{host}:{imap}';
$config['smtp_host'] = 'tls://{host}:{submission}';
$config['imap_conn_options'] = $config['smtp_conn_options'] =
    ['ssl' => ['verify_peer' => false, 'verify_peer_name' => false]];
$config['smtp_user'] = '%u';
$config['smtp_pass'] = '%p';
$config['des_key'] = 'abcdefghijklmnopqrstuvwx';
$config['temp_dir'] = $config['log_dir'] = '{directory}';
$config['enable_installer'] = false;
$config['language'] = 'en_US';
"""
_ROWS = """
const rows = [...document.querySelectorAll('#messagelist tbody tr')].filter(row => row.getClientRects().length);
return rows.length == arguments[0].length && rows.every((row, at) => row.textContent.includes(arguments[0][at]));
"""


@pytest.fixture(scope="module")
def roundcube(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
    php = needs("php")
    if not (_PROGRAM / "index.php").exists():
        pytest.skip("roundcube-core is not installed (make interop)")
    directory = tmp_path_factory.mktemp("roundcube")
    values = {"directory": directory, "host": server.host, "imap": server.port("imap")}
    (directory / "config.inc.php").write_text(
        _CONFIG.replace("{submission}", str(server.port("submission")))
        .replace("{directory}", str(values["directory"]))
        .replace("{host}", server.host)
        .replace("{imap}", str(values["imap"]))
    )
    for name in ("defaults.inc.php", "mimetypes.php"):
        (directory / name).symlink_to(_DEFAULTS / name)
    port = free_port()
    environment = {**os.environ, "ROUNDCUBE_CONFIG_DIR": f"{directory}/", "PHP_CLI_SERVER_WORKERS": "3"}
    with (directory / "php.log").open("w") as log:
        running = subprocess.Popen(
            [php, "-S", f"127.0.0.1:{port}", "-t", str(_PROGRAM)],
            stdout=log,
            stderr=log,
            env=environment,
            process_group=0,
        )
        try:
            wait_until_listening("127.0.0.1", port)
            yield f"http://127.0.0.1:{port}/"
        finally:
            os.killpg(running.pid, 15)
            running.wait(30)


def _letter(number: int, subject: str, text: str, *, answers: int = 0) -> bytes:
    reference = (
        f"In-Reply-To: <{answers}@client.example>\r\nReferences: <{answers}@client.example>\r\n" if answers else ""
    )
    return (
        f"From: A Writer <writer@client.example>\r\nTo: you@example.test\r\nSubject: {subject}\r\n"
        f"Date: Tue, 24 Nov 2026 1{number}:00:00 +0000\r\nMessage-ID: <{number}@client.example>\r\n{reference}"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        f"{text}\r\n"
    ).encode()


def _picture(browser: Browser, name: str) -> None:
    if directory := os.environ.get("FASTMTA_PICTURES"):
        browser.screenshot(Path(directory) / name)


def _click(browser: Browser, selector: str, text: str = "") -> None:
    """Roundcube passes over a click while it waits for its server."""
    browser.until("return !rcmail.busy")
    browser.click(selector, text)


def _subjects(browser: Browser, *expected: str) -> None:
    """The list shows these subjects, from above."""
    browser.until(_ROWS, expected)


def test_what_people_do_in_roundcube(server: Server, account: Account, roundcube: str, tmp_path: Path) -> None:
    send(server, account.user, _letter(1, "Plans for the summer", "Shall we meet at the lake? Grüße"))
    send(server, account.user, _letter(2, "Invoice 4711", "Please find the amount below: 120 EUR."))
    send(server, account.user, _letter(3, "Re: Plans for the summer", "Yes, with pleasure.", answers=1))
    wait_for_messages(server, *account, 3)
    with Browser(tmp_path) as browser:
        browser.open(roundcube)
        browser.type("#rcmloginuser", account.user)
        browser.type("#rcmloginpwd", account.password)
        browser.click("#rcmloginsubmit")

        _subjects(browser, "Re: Plans", "Invoice 4711", "Plans for")
        for folder in ("Inbox", "Drafts", "Sent", "Junk", "Trash", "Archive"):
            browser.find("#mailboxlist li", folder)

        _click(browser, "#messagelist tbody tr .subject a", "Plans for the summer")  # the first is the answer
        browser.frame("#messagecontframe")
        browser.find("#messagebody", "Yes, with pleasure.")
        browser.frame()
        _picture(browser, "roundcube-read.png")

        browser.type("#mailsearchform", "4711\ue007")  # Enter
        _subjects(browser, "Invoice 4711")
        _click(browser, "#searchform ~ a.reset, .searchbar a.reset")
        _subjects(browser, "Re: Plans", "Invoice 4711", "Plans for")

        browser.script("rcmail.set_list_options([], 'date', 'DESC', 1)")  # what its list options' dialog calls
        browser.until(
            "return document.querySelector('#messagelist.thread, #messagelist tr.thread, #messagelist .branch')"
        )
        _picture(browser, "roundcube-threads.png")
        browser.script("rcmail.set_list_options([], 'date', 'DESC', 0)")
        _subjects(browser, "Re: Plans", "Invoice 4711", "Plans for")

        _click(browser, "#messagelist tbody tr:nth-child(2) .flags .flag, #messagelist tbody tr:nth-child(2) span.flag")
        browser.until("return document.querySelectorAll('#messagelist tr.flagged').length == 1")

        _click(browser, "#messagelist tbody tr:nth-child(3) .subject a")
        browser.frame("#messagecontframe")
        browser.find("#messagebody", "Shall we meet")
        browser.frame()
        browser.until("return !rcmail.busy && rcmail.get_single_uid()")
        browser.script("rcmail.command('move', 'Archive')")  # as dropping it on the folder does
        _subjects(browser, "Re: Plans", "Invoice 4711")
        _click(browser, "#mailboxlist li a", "Archive")
        _subjects(browser, "Plans for the summer")

        browser.open(f"{roundcube}?_task=mail&_action=compose")
        browser.type("#compose_to .recipient-input input", f"{account.user},")
        browser.type("#compose-subject", "Written in the browser")
        browser.type("#composebody", "With an umlaut: ü\n.\nand a dot.")
        _picture(browser, "roundcube-compose.png")
        _click(browser, "a.send, button.send")
        browser.find("#messagelist")
        found = wait_for_messages(server, *account, 3)

    written = [message for message in found if b"Written in the browser" in message]
    assert len(written) == 1 and b"\r\n.\r\nand a dot." in written[0]
    with imap(server, *account) as client:
        client.select("INBOX", readonly=True)
        assert client.search(None, "FLAGGED", "SUBJECT", "4711")[1] == [b"1"]
        assert client.search(None, "SEEN", "SUBJECT", '"Re: Plans"')[1] == [b"2"]
        for folder, subject in (("Archive", "Plans"), ("Sent", "Written")):
            client.select(folder, readonly=True)
            assert client.search(None, "SUBJECT", subject)[1] == [b"1"]
