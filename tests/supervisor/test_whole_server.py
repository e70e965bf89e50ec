"""The real server under its supervisor: mail in by SMTP, out by IMAP and POP3, through deaths, reloads and loss."""

import imaplib
import json
import os
import poplib
import signal
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastmta.supervisor.demo import DEMO_DOMAIN, PASSWORD, add_accounts
from fastmta.tls.certificate import write_self_signed
from tests.supervisor.running import Server, eventually, python

Start = Callable[..., Server]
PATHS = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
SERVICES = ("smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s", "http")
ALICE = f"alice@{DEMO_DOMAIN}"
BOB = f"bob@{DEMO_DOMAIN}"


def config(workers: int = 1, more: str = "") -> str:
    listen = "\n".join(f'{service} = ["127.0.0.1:0"]' for service in SERVICES)
    return (
        f'myhostname = "mx.example.test"\nmydomain = "{DEMO_DOMAIN}"\nmydestination = ["{DEMO_DOMAIN}"]\n'
        f'data_directory = "data"\nworkers_may_be_root = true\nworkers = {workers}\n{more}'
        f'[listen]\n{listen}\n[tls]\ncert_file = "cert.pem"\nkey_file = "key.pem"\n'
        '[auth]\nmechanisms = ["PLAIN", "LOGIN"]\n[transport]\n"parked.example" = "hold:"\n'
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def begin(workers: int = 1, more: str = "", **environment: str) -> Server:
        write_self_signed(tmp_path / "cert.pem", tmp_path / "key.pem", ["localhost"])
        add_accounts(tmp_path / "data")
        command = python("-m", "fastmta.supervisor.main")
        server = Server(tmp_path, config(workers, more), command, PYTHONPATH=PATHS, **environment)
        servers.append(server)
        return server.start()

    yield begin
    for server in servers:
        server.kill()


def send(server: Server, subject: str, to: str = ALICE) -> None:
    with smtplib.SMTP(*server.address("smtp"), timeout=60) as client:
        client.sendmail(BOB, [to], f"From: {BOB}\r\nTo: {to}\r\nSubject: {subject}\r\n\r\nHello\r\n")


def imap(server: Server) -> imaplib.IMAP4:
    client = imaplib.IMAP4(*server.address("imap"), timeout=60)
    client.login(ALICE, PASSWORD)
    client.select("INBOX")
    return client


def subjects(server: Server) -> set[str]:
    client = imap(server)
    _, found = client.search(None, "ALL")
    out = set()
    for number in found[0].split():
        _, data = client.fetch(number.decode(), "(BODY[HEADER.FIELDS (SUBJECT)])")
        out.add(data[0][1].decode().partition(":")[2].strip())  # type: ignore[index,union-attr]
    client.logout()
    return out


def get(server: Server, page: str) -> tuple[int, str]:
    host, port = server.address("http")
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{page}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def figure(server: Server, name: str) -> float:
    _, text = get(server, "/metrics")
    return next(float(row.rpartition(" ")[2]) for row in text.splitlines() if row.startswith(f"fastmta_{name} "))


@pytest.mark.parametrize("workers", [1, 2])
def test_mail_goes_in_by_smtp_and_out_by_imap_and_pop3(start: Start, workers: int) -> None:
    server = start(workers)
    send(server, "one")
    assert subjects(server) == {"one"}
    pop = poplib.POP3(*server.address("pop3"), timeout=60)
    pop.user(ALICE)
    pop.pass_(PASSWORD)
    assert pop.stat()[0] == 1
    assert b"Hello" in pop.retr(1)[1]
    pop.quit()
    assert figure(server, "messages_received_total") == 1
    assert figure(server, 'connections_total{service="smtp"}') == 1
    assert figure(server, "store_commit_seconds_count") >= 1
    assert get(server, "/healthz") == (200, "ok\n")
    assert get(server, "/readyz") == (200, f"ready: {workers} of {workers} workers\n")
    assert server.stop() == 0
    assert "Traceback" not in server.log


def test_implicit_tls_and_starttls_speak_the_same(start: Start) -> None:
    server = start()
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, port = server.address("submissions")
    with smtplib.SMTP_SSL(host, port, timeout=15, context=context) as client:
        client.login(BOB, PASSWORD)
        client.sendmail(BOB, [ALICE], "Subject: over tls\r\n\r\nx\r\n")
    with smtplib.SMTP(*server.address("submission"), timeout=60) as client:
        client.starttls(context=context)
        client.login(BOB, PASSWORD)
        client.sendmail(BOB, [ALICE], "Subject: over starttls\r\n\r\nx\r\n")
    host, port = server.address("imaps")
    box = imaplib.IMAP4_SSL(host, port, timeout=15, ssl_context=context)
    box.login(ALICE, PASSWORD)
    assert box.select("INBOX")[1] == [b"2"]
    box.logout()
    host, port = server.address("pop3s")
    pop = poplib.POP3_SSL(host, port, timeout=15, context=context)
    pop.user(ALICE)
    pop.pass_(PASSWORD)
    assert pop.stat()[0] == 2
    pop.quit()
    assert server.stop() == 0


def test_mail_and_totals_survive_a_killed_worker(start: Start) -> None:
    server = start()
    send(server, "before")
    pids = server.pids
    os.kill(pids[0], signal.SIGKILL)
    send(server, "after")
    eventually(lambda: server.status()["ready"] and server.pids != pids, "a successor")
    assert subjects(server) == {"before", "after"}
    assert figure(server, "messages_received_total") == 2
    assert figure(server, 'connections{service="smtp"}') == 0


def test_the_store_is_checked_after_a_bad_end_and_only_then(start: Start) -> None:
    server = start()
    send(server, "one")
    assert server.stop() == 0
    server.start()
    pids = server.pids
    assert "store.checked" not in server.log
    os.kill(pids[0], signal.SIGKILL)
    eventually(lambda: '"store.checked"' in server.log, "it is checked, beside the mail")
    checked = [json.loads(line) for line in server.log.splitlines() if '"store.checked"' in line]
    assert [(each["problems"], each["messages"]) for each in checked] == [(0, 1)]
    assert server.stop() == 0


def test_a_reload_keeps_idle_imap_and_the_next_command_works(start: Start) -> None:
    server = start(2)
    client = imap(server)
    assert server.ask("reload") == {"ok": True, "replaced": False}
    send(server, "while reloading")
    assert client.noop()[0] == "OK"
    server.config_path.write_text(config(1))
    assert server.ask("reload")["ok"]
    eventually(lambda: server.status()["ready"] and len(server.status()["workers"]) > 1, "two generations")
    assert client.noop()[0] == "OK"
    send(server, "after")
    client.logout()
    assert subjects(server) == {"while reloading", "after"}


@pytest.mark.parametrize("drop", ["0", "1"])
def test_idle_is_told_within_two_seconds_with_and_without_datagrams(start: Start, drop: str) -> None:
    server = start(2, FASTMTA_BUS_DROP=drop)
    clients = []
    for _ in range(8):  # the kernel spreads connections over the workers, so some are not where the mail comes in
        client = imap(server)
        client.send(client._new_tag() + b" IDLE\r\n")  # type: ignore[attr-defined]
        assert client.readline().startswith(b"+")
        client.sock.settimeout(2.5)
        clients.append(client)
    send(server, "news")
    for client in clients:
        assert b"1 EXISTS" in client.readline()
        client.shutdown()


def test_sigterm_says_goodbye_in_each_protocol(start: Start) -> None:
    server = start()
    smtp, box, pop = (server.connect(service) for service in ("smtp", "imap", "pop3"))
    for sock in (smtp, box, pop):
        assert sock.recv(500)
    server.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
    assert smtp.recv(500).startswith(b"421")
    assert box.recv(500).startswith(b"* BYE")
    pop.recv(500)
    assert server.stop() == 0
    for sock in (smtp, box, pop):
        sock.close()


def test_low_space_is_said_by_readyz_and_452(start: Start) -> None:
    server = start(1, 'queue_minfree = "900000G"\n')
    status, body = get(server, "/readyz")
    assert status == 503
    assert "queue_minfree" in body
    with smtplib.SMTP(*server.address("smtp"), timeout=60) as client, pytest.raises(smtplib.SMTPException) as failure:
        client.sendmail(BOB, [ALICE], "Subject: x\r\n\r\nx\r\n")
    assert "452" in str(failure.value)
    server.config_path.write_text(config())
    assert server.ask("reload")["ok"]
    send(server, "there is room")
    assert get(server, "/readyz")[0] == 200


def test_what_is_held_is_counted_in_status_and_metrics(start: Start) -> None:
    server = start(2)
    send(server, "parked", "who@parked.example")
    assert server.status()["queue"]["held"] == 1
    assert figure(server, 'queue_messages{state="held"}') == 1


def test_what_the_store_holds_is_in_the_metrics(start: Start) -> None:
    server = start(1)
    assert figure(server, "store_map_bytes") >= figure(server, "store_map_used_bytes") > 0
    assert figure(server, "store_free_bytes") >= 0
    assert figure(server, "store_reader_lag_transactions") >= 0


def test_postmaster_and_abuse_have_a_home_in_the_demo(start: Start) -> None:
    server = start(1)
    with smtplib.SMTP(*server.address("smtp"), timeout=60) as client:
        client.mail(BOB)
        for role in ("postmaster", f"Postmaster@{DEMO_DOMAIN}", f"abuse@{DEMO_DOMAIN}"):
            assert client.rcpt(role)[0] == 250
