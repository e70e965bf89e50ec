"""What an administrator's commands do to the other user: rows of bench/two_users.py.

Each act runs commands of `fastmta` one after the other in a process of its own, as an administrator's script does; the
program's start is paid once. What they work on lies in the store before the server starts.
"""

import asyncio
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from bench.busy import Act, imap, registry
from fastmta.cli.main import main as fastmta
from fastmta.model.envelope import Envelope, RecipientState, RecipientTail
from fastmta.model.limits import REPORT_ROWS
from fastmta.store import MailStore
from fastmta.store.dmarc_rows import Published, Row
from fastmta.store.tls_rows import TlsRow
from fastmta.store.verified import Verified
from tests.support.server import Server, command

ACCOUNTS: Final = ("spare@example.test", "moved@example.test", "folders@example.test")
HELD: Final = 20_000  # messages in the queue with one recipient each
SENDERS: Final = 40
CROWDS: Final = 20  # messages with CROWD recipients
CROWD: Final = 4000
IMPORTED: Final = 5000
FOLDERS: Final = 20_000
ALIASES: Final = 20_000
VERIFIED: Final = 20_000
LINES: Final = 500_000  # of a map
CROWDED: Final = 50_000  # recipients of one call of sendmail
SHAPED: Final = 2_000  # next hops that one traffic rule is for
RULE: Final = {"name": "slow", "domain": [".shaped.test"], "concurrency": 1, "messages_per_second": 1}
REPORTED: Final = 1_000  # domains that TLS and DMARC reports are due to, the last with as many rows as one may have
CUT: Final = 8 << 20  # octets of a file that are given up at a time
HOP: Final = b"smtp:[127.0.0.1]:9"  # nobody listens: what is released soon waits again

ROWS: dict[str, Act] = {}
row = registry(ROWS)


async def fill(store: MailStore) -> None:
    """A queue that is held, aliases of one address, and what the other rows work on."""
    now_ms = int(time.time() * 1000)

    async def queue(number: int, sender: bytes, recipients: int, hop: bytes = HOP) -> None:
        blob = store.mailboxes.new_blob()
        blob.feed(b"Subject: %d\r\n\r\n" % number + b"text of a message\r\n" * 50)
        tails = [RecipientTail(b"u%d@held%d.test" % (n, number % 100)) for n in range(recipients)]
        rows = [(hop, 0, int(RecipientState.HELD), now_ms, tail) for tail in tails]
        await store.queue.add(Envelope(sender, now_ms, 900, 0), rows, blob)

    for start in range(0, HELD, 200):
        await asyncio.gather(*(queue(n, b"s%d@example.test" % (n % SENDERS), 1) for n in range(start, start + 200)))
    for n in range(CROWDS):
        await queue(n, b"crowd%d@example.test" % n, CROWD)
    for start in range(0, SHAPED, 200):
        some = range(start, min(SHAPED, start + 200))
        await asyncio.gather(*(queue(n, b"shaped@example.test", 1, b"smtp:d%d.shaped.test" % n) for n in some))
    await _count_reports(store)
    folders = store.accounts.lookup("folders@example.test")
    assert folders is not None
    for start in range(0, FOLDERS, 200):
        unit = store.raw.new_unit()
        for n in range(start, start + 200):
            unit.mailbox_new(store.raw.new_id(), folders.id, f"folder {n}".encode(), b"", now_ms // 1000)
        await store.commit(unit)
    for start in range(0, ALIASES, 200):
        await asyncio.gather(
            *(store.aliases.add(f"a{n}@example.test", ("moved@example.test",)) for n in range(start, start + 200))
        )
    for start in range(0, VERIFIED, 200):
        answers = [Verified(f"v{n}@verified.test", "ok", "2.1.5", "", now_ms) for n in range(start, start + 200)]
        await asyncio.gather(*map(store.verified.put, answers))


async def _count_reports(store: MailStore) -> None:
    """What TLS and DMARC reports will say of today: nothing is due before it is over."""
    today = time.strftime("%Y%m%d", time.gmtime())
    published = Published("none", "", "", "r", "r", "n")
    for n in range(REPORTED):
        domain = f"d{n}.reported.test"
        for row in range(REPORT_ROWS if n == REPORTED - 1 else 5):
            host = f"mx{row}.{domain}"
            store.tls_rows.note(today, domain, "", TlsRow("no-policy-found", domain, receiving_host=host))
            who = f"192.0.{row // 250}.{row % 250}"
            store.dmarc_rows.note(today, domain, published, Row(who, "none", "pass", "pass", domain, "", (), (), ()))
        if n % 100 == 0:
            await store.tls_rows.flush()
            await store.dmarc_rows.flush()
    await store.tls_rows.flush()
    await store.dmarc_rows.flush()


def map_path(server: Server) -> Path:
    """The map of LINES lines that the server's configuration names."""
    return server.directory / "virtual"


def write_map(server: Server) -> None:
    """Writes it anew, so that whoever reads it has to read all of it; over what is there, since a file that is cut off
    gives its space back (see `_cut_down`).
    """
    lines = "".join(f"user{n}@elsewhere.test quiet@example.test\n" for n in range(LINES))
    path = map_path(server)
    with path.open("r+" if path.exists() else "w") as file:
        file.write(lines)


def run(server: Server, *arguments: str, said: str = "") -> str:
    """What one command says, with `said` on its input; RuntimeError where it could not do its work."""
    os.environ["FASTMTA_CONFIG"] = str(server.config_path)
    octets = io.BytesIO()
    out = io.TextIOWrapper(octets, "utf-8", write_through=True)
    sys.stdin = io.TextIOWrapper(io.BytesIO(said.encode()))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = fastmta(list(arguments))
    what_was_said = octets.getvalue().decode("utf-8", "replace")
    if code not in (0, None, 75):
        raise RuntimeError(f"fastmta {' '.join(arguments)} ended with {code}: {what_was_said}")
    return what_was_said


@row("queue release, hold of 20,000")
def _hold(server: Server) -> None:
    while True:
        for n in range(SENDERS):
            run(server, "queue", "release", "--sender", f"s{n}@example.test")
        for n in range(SENDERS):
            run(server, "queue", "hold", "--sender", f"s{n}@example.test")


@row("queue flush, requeue of 20,000")
def _flush(server: Server) -> None:
    while True:
        run(server, "queue", "requeue", "--all")
        run(server, "queue", "flush")


@row("queue release, hold of 4,000 x20")
def _crowd(server: Server) -> None:
    while True:
        for act in ("release", "hold"):
            for n in range(CROWDS):
                run(server, "queue", act, "--sender", f"crowd{n}@example.test")


@row("queue delete")
def _delete(server: Server) -> None:
    for n in range(CROWDS // 2):
        run(server, "queue", "delete", "--yes", "--sender", f"crowd{n}@example.test")
    for n in range(SENDERS // 2):
        run(server, "queue", "delete", "--yes", "--sender", f"s{n}@example.test")
    while True:
        run(server, "queue", "delete", "--yes", "--sender", "nobody@example.test")


@row("queue list, stats")
def _list(server: Server) -> None:
    while True:
        run(server, "queue", "list", "--json")
        run(server, "queue", "stats", "--exact")


@row("mailbox import, purge of 5,000")
def _import(server: Server) -> None:
    path = server.directory / f"{os.getpid()}.mbox"
    message = b"From a@example.org Thu Jan  1 00:00:00 1970\nSubject: %d\n\n" + b"some text of a letter\n" * 150 + b"\n"
    path.write_bytes(b"".join(message % n for n in range(IMPORTED)))
    while True:
        run(server, "mailbox", "import", "spare@example.test", str(path))
        run(server, "mailbox", "purge", "--yes", "spare@example.test")


@row("mailbox expunged, undelete of 5,000")
def _undelete(server: Server) -> None:
    path = server.directory / f"{os.getpid()}.mbox"
    message = b"From a@example.org Thu Jan  1 00:00:00 1970\nSubject: %d\n\n" + b"some text of a letter\n" * 150 + b"\n"
    path.write_bytes(b"".join(message % n for n in range(IMPORTED)))
    run(server, "mailbox", "import", "spare@example.test", str(path))
    peer = imap(server, "spare@example.test")
    while True:
        peer.ask(b"c STORE 1:* +FLAGS.SILENT (\\Deleted)\r\n", b"c ")
        peer.ask(b"c EXPUNGE\r\n", b"c ")
        run(server, "mailbox", "expunged", "spare@example.test", "--json")
        run(server, "mailbox", "undelete", "spare@example.test")
        peer.ask(b"c NOOP\r\n", b"c ")


@row("mailbox export of all")
def _export(server: Server) -> None:
    path = server.directory / f"{os.getpid()}.export"
    while True:
        run(server, "mailbox", "export", "busy@example.test", str(path), "--format", "mbox")
        path.unlink()


@row("user rename, 20,000 aliases")
def _rename(server: Server) -> None:
    while True:
        run(server, "user", "rename", "moved@example.test", "again@example.test")
        run(server, "user", "rename", "again@example.test", "moved@example.test")


@row("alias add, show, delete; user quota")
def _small(server: Server) -> None:
    while True:
        run(server, "alias", "add", "--replace", "extra@example.test", "moved@example.test")
        run(server, "alias", "show", "extra@example.test")
        run(server, "alias", "delete", "--yes", "extra@example.test")
        run(server, "user", "quota", "spare@example.test", "0")


@row("queue shape, top, suspend, resume")
def _hops(server: Server) -> None:
    while True:
        run(server, "queue", "shape", "--state", "held")
        run(server, "queue", "top")
        run(server, "queue", "suspend", "held1.test")
        run(server, "queue", "resume", "held1.test")
        run(server, "queue", "stats")


@row("traffic rule that 2,000 hops wait for")
def _shaped(server: Server) -> None:
    while True:
        run(server, "queue", "release", "--sender", "shaped@example.test")
        run(server, "queue", "top")
        run(server, "explain", "a@example.org", "b@d1.shaped.test")
        time.sleep(1)
        run(server, "queue", "hold", "--sender", "shaped@example.test")


@row("tlsrpt show, send; dmarc pending, send")
def _reports(server: Server) -> None:
    while True:
        run(server, "tlsrpt", "show", "--json")
        run(server, "tlsrpt", "send")
        run(server, "dmarc", "pending", "--json")
        run(server, "dmarc", "send")


@row("user add, passwd, disable, enable, delete")
def _user(server: Server) -> None:
    while True:
        run(server, "user", "add", "extra2@example.test", "--password-stdin", said="secret\n")
        run(server, "user", "passwd", "extra2@example.test", "--password-stdin", said="other\n")
        for act in ("disable", "enable", "show"):
            run(server, "user", act, "extra2@example.test")
        run(server, "user", "delete", "--yes", "extra2@example.test")


@row("user list, alias list, mailbox list, status")
def _listings(server: Server) -> None:
    while True:
        run(server, "user", "list")
        run(server, "alias", "list")
        run(server, "mailbox", "list", "busy@example.test")
        run(server, "status")


@row("explain, mailq, trace; queue explain, content")
def _explain(server: Server) -> None:
    while True:
        run(server, "explain", "a@example.org", "quiet@example.test")
        run(server, "mailq")
        run(server, "trace", "--to", "quiet@example.test")
        for each in json.loads(run(server, "queue", "list", "--state", "held", "--limit", "1", "--json")):
            run(server, "queue", "explain", each["queue_id"])
            run(server, "queue", "content", each["queue_id"])


@row("dkim add, list, publish, delete")
def _dkim(server: Server) -> None:
    while True:
        run(server, "dkim", "add", "example.test", "--selector", "s1", "--algorithm", "ed25519")
        run(server, "dkim", "list")
        run(server, "dkim", "publish", "example.test")
        run(server, "dkim", "delete", "--yes", "example.test", "s1")


@row("session list, kill")
def _sessions(server: Server) -> None:
    while True:
        run(server, "session", "list")
        run(server, "session", "kill", "--address", "192.0.2.1")


@row("mailbox share add, list, remove")
def _sharing(server: Server) -> None:
    while True:
        run(server, "mailbox", "share", "add", "spare@example.test", "INBOX", "anyone", "lrs")
        run(server, "mailbox", "share", "list", "spare@example.test")
        run(server, "mailbox", "share", "remove", "spare@example.test", "INBOX", "anyone")


@row("app-password add, list, delete; ban add, list, remove")
def _credentials(server: Server) -> None:
    while True:
        run(server, "app-password", "add", "spare@example.test", "phone")
        run(server, "user", "group", "add", "sales", "spare@example.test")
        run(server, "user", "group", "list", "sales")
        run(server, "user", "group", "remove", "sales", "spare@example.test")
        run(server, "app-password", "list", "spare@example.test")
        run(server, "app-password", "delete", "spare@example.test", "phone")
        run(server, "user", "totp", "add", "spare@example.test")
        run(server, "user", "totp", "remove", "spare@example.test")
        run(server, "ban", "add", "192.0.2.0/24")
        run(server, "ban", "list")
        run(server, "ban", "remove", "192.0.2.0/24")


@row("verified list, clear of 20,000")
def _verified(server: Server) -> None:
    while True:
        run(server, "verified", "list")
        run(server, "verified", "list", "--domain", "elsewhere.test")
        run(server, "verified", "clear", "@elsewhere.test")
        run(server, "verified", "clear", "v0@verified.test")


@row("quarantine list, release, delete")
def _quarantine(server: Server) -> None:
    while True:
        run(server, "quarantine", "list")
        for act in ("release", "delete"):
            with contextlib.suppress(RuntimeError):  # it is looked for, and not there
                run(server, "quarantine", act, "1")


@row("index status, rebuild")
def _index(server: Server) -> None:
    while True:
        run(server, "index", "rebuild")
        run(server, "index", "status", "--json")


@row("sendmail to 50,000")
def _sendmail(server: Server) -> None:
    os.environ["FASTMTA_CONFIG"] = str(server.config_path)
    letter = b"Subject: x\r\n\r\nhello\r\n"
    recipients = [f"user{n}@elsewhere.test" for n in range(CROWDED)]
    while True:
        called = command("sendmail", "-t", "-f", "a@example.test")
        header = ("To: " + ",\n ".join(recipients) + "\n").encode()
        subprocess.run(called, input=header + letter, check=False, capture_output=True, env=dict(os.environ))
        time.sleep(0.5)


@row("SIGHUP, map of 500,000 lines")
def _hang_up(server: Server) -> None:
    while True:
        write_map(server)
        os.kill(server.pid, signal.SIGHUP)
        time.sleep(2)


@row("map of 500,000 lines edited")
def _edit(server: Server) -> None:
    while True:
        write_map(server)
        time.sleep(2)


@row("store backup")
def _backup(server: Server) -> None:
    path = server.directory / f"{os.getpid()}.backup"
    while True:
        run(server, "store", "backup", str(path))
        _cut_down(path / "data.mdb")
        shutil.rmtree(path)


def _cut_down(path: Path) -> None:
    """Shortens a file to nothing, a piece at a time: of a long one that is unlinked, a file system that is mounted with
    `discard` tells the disk in one go, and every flush waits for it, a tenth of a second and more.
    """
    with path.open("r+b") as file:
        for size in range(path.stat().st_size, -1, -CUT):
            file.truncate(size)
            os.fsync(file.fileno())
            time.sleep(0.02)


@row("store check")
def _check(server: Server) -> None:
    while True:
        run(server, "store", "check")


@row("user delete that has 20,000 mailboxes")
def _user_delete(server: Server) -> None:
    run(server, "user", "delete", "--yes", "folders@example.test")
    while True:
        run(server, "user", "list")
