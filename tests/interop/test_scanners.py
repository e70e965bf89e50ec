"""rspamd, spamd and clamd of the distribution, each with a configuration of our own and without the network."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastmta.config.load import parse
from fastmta.model.verdict import Action, Verdict
from fastmta.policy.checks import clamav, rspamd, spamassassin
from tests.policy.test_scanner import Parts, context_of

GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
LETTER = (
    b"From: Ann <ann@sender.test>\r\nTo: bob@example.test\r\nSubject: Words\r\n"
    b"Date: Fri, 27 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@sender.test>\r\n\r\nHello Bob, %s\r\n"
)
DEADLINE_S = 60

Start = Callable[..., Any]


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that every user reaches: spamd reads its rules as nobody."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a program and waits until its socket answers; ends it afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    async def begin(socket: Path, *command: str) -> None:
        if shutil.which(command[0], path="/usr/sbin:/usr/bin:/bin") is None:
            pytest.skip(f"{command[0]} is not installed")
        with socket.with_suffix(".log").open("wb") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log))  # noqa: ASYNC220
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    _, writer = await asyncio.open_unix_connection(socket)
                    writer.close()
                    return
                except OSError:
                    said = socket.with_suffix(".log").read_text()
                    assert started[-1].poll() is None, said
                    await asyncio.sleep(0.05)

    yield begin
    for process in started:
        process.terminate()
        process.wait(DEADLINE_S)


async def verdict_of(build: Any, text: str, letter: bytes) -> Verdict:
    parts = Parts()
    (check,) = build(parse(text), parts)
    verdict: Verdict = await check.check(context_of(letter))
    assert not verdict.is_late, parts.log.told
    return verdict


async def test_clamd_finds_what_a_signature_of_ours_names(start: Start, home: Path) -> None:
    socket = home / "clamd"
    (home / "db").mkdir()
    mark = b"a mark that no mail has"
    (home / "db" / "own.ndb").write_text(f"Own.Test.Mark:0:*:{mark.hex()}\n")
    (home / "clamd.conf").write_text(
        f"Foreground yes\nLocalSocket {socket}\nDatabaseDirectory {home}/db\nUser root\nMaxThreads 2\n"
    )
    await start(socket, "clamd", "-c", str(home / "clamd.conf"))
    key = f'clamd = "unix:{socket}"\n'
    assert (await verdict_of(clamav.build, key, LETTER % b"all well")).action is Action.NONE
    found = await verdict_of(clamav.build, key, LETTER % mark)
    assert str(found.reply) == "550 5.7.1 Message rejected: Own.Test.Mark.UNOFFICIAL found"
    held = await verdict_of(clamav.build, key + 'clamd_infected_action = "quarantine"', LETTER % mark)
    assert held.action is Action.HOLD


async def test_spamd_files_into_junk(start: Start, home: Path) -> None:
    socket = home / "spamd"
    rules, site = home / "rules", home / "site"
    rules.mkdir()
    site.mkdir()
    (site / "own.pre").write_text("loadplugin Mail::SpamAssassin::Plugin::Check\n")
    (rules / "10_own.cf").write_text(
        "required_score 5\nuse_bayes 0\nbody OWN_GTUBE /GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL/\nscore OWN_GTUBE 50\n"
        "body OWN_GREETING /Hello Bob/\nscore OWN_GREETING 1.5\n"
    )
    await start(
        socket,
        "spamd",
        "--local",
        "--nouser-config",
        "--max-children=1",
        f"--socketpath={socket}",
        f"--configpath={rules}",
        f"--siteconfigpath={site}",
        f"--helper-home-dir={home}",
        f"--pidfile={home}/pid",
        "--syslog=stderr",
    )
    key = f'spamd = "unix:{socket}"\n'
    well = await verdict_of(spamassassin.build, key, LETTER % b"all well")
    assert well.action is Action.NONE
    assert well.fields[0].startswith(b"X-Spam-Status: No, score=1.5 required=5.0\r\n\ttests=OWN_GREETING")
    spam = await verdict_of(spamassassin.build, key, b"X-Spam-Flag: NO\r\n" + LETTER % GTUBE)
    assert (spam.action, spam.cuts) == (Action.QUARANTINE, ((0, 17),))
    assert spam.fields[-1] == b"X-Spam-Flag: YES\r\n"
    refused = await verdict_of(spamassassin.build, key + "spamd_reject_score = 20", LETTER % GTUBE)
    assert refused.action is Action.REJECT


async def test_rspamd_says_what_becomes_of_a_message(start: Start, home: Path) -> None:
    socket = home / "rspamd"
    (home / "tlds").write_text("test\n")  # its own list takes seconds to compile
    (home / "rspamd.conf").write_text(
        f"""
options {{ filters = ""; dns {{ nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; }}
  tempdir = "{home}"; control_socket = "{home}/control mode=0600"; pidfile = "{home}/pid";
  gtube_patterns = "all"; enable_test_patterns = true; url_tld = "{home}/tlds"; }}
logging {{ type = "console"; level = "error"; }}
worker "normal" {{ bind_socket = "{socket} mode=0666"; count = 1; }}
actions {{ reject = 15; add_header = 6; greylist = 4; }}
"""
    )
    await start(socket, "rspamd", "-f", "-i", "-c", str(home / "rspamd.conf"))
    key = f'rspamd = "unix:{socket}"\n'
    well = await verdict_of(rspamd.build, key, LETTER % b"all well")
    assert (well.action, well.fields) == (Action.NONE, ())
    spam = await verdict_of(rspamd.build, key, LETTER % GTUBE)
    assert (spam.action, spam.reply and spam.reply.code) == (Action.REJECT, 550)
    junk = await verdict_of(rspamd.build, key, LETTER % GTUBE.replace(b"XJS*C4J", b"YJS*C4J"))
    assert junk.action is Action.QUARANTINE
    assert b"X-Spam: Yes\r\n" in junk.fields
