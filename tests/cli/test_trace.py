"""`fastmta trace` against a running server, and after it."""

import asyncio
import json
import smtplib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastmta.cli.failures import EX_USAGE
from fastmta.model.errors import ActFailed
from fastmta.operations.tracing import instant
from tests.support.mail import letter
from tests.support.server import Server
from tests.support.smtp_sink import SmtpSink
from tests.support.waiting import wait_for


@contextmanager
def running(sink: SmtpSink) -> Iterator[SmtpSink]:
    """The sink, on a loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(sink.__aenter__(), loop).result(10)
    try:
        yield sink
    finally:
        asyncio.run_coroutine_threadsafe(sink.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("trace")
    with running(SmtpSink()) as sink:
        sink.reply_for = lambda address: "450 4.2.0 try later" if b"late" in address else None
        server = Server(
            directory,
            services=("smtp",),
            settings={
                "log_level": "warning",
                "transport": {
                    "relay.example": f"smtp:[127.0.0.1]:{sink.port}",
                    "parked.example": "hold:",
                    "down.example": "smtp:[127.0.0.1]:1",
                },
            },
        )
        server.add_user("bill@example.test", "x")
        server.cli("alias", "add", "staff@example.test", "bill@example.test", "late@relay.example")
        with server:
            yield server


def send(server: Server, *to: str, sender: str = "ann@client.example", subject: str = "traced") -> str:
    """The Message-ID."""
    raw = letter(subject, sender=sender, to=to[0])
    with smtplib.SMTP(server.host, server.port("smtp")) as client:
        client.sendmail(sender, to, raw, mail_options=["BODY=8BITMIME"])
    return next(line[12:] for line in raw.decode().splitlines() if line.startswith("Message-ID: "))


def trace(server: Server, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(server.cli("trace", "--json", *options).stdout)
    return found


def statuses(message: dict[str, Any]) -> dict[str, str]:
    return {each["recipient"]: each["status"] for each in message["recipients"]}


def test_each_recipient_and_each_attempt_is_known_though_the_log_is_silent(server: Server) -> None:
    message_id = send(server, "bill@example.test", "ok@relay.example", "late@relay.example", "x@parked.example")
    expected = {
        "bill@example.test": "delivered",
        "ok@relay.example": "delivered",
        "late@relay.example": "deferred",
        "x@parked.example": "held",
    }
    wait_for(
        lambda: statuses(trace(server, "--message-id", message_id)[0]) == expected,
        lambda: str(trace(server, "--message-id", message_id)),
    )
    (message,) = trace(server, "--message-id", message_id.strip("<>"), "--from", "ANN@client.example")
    assert message["client"] == "localhost[127.0.0.1]" and message["message_id"] == message_id
    relayed = next(each for each in message["recipients"] if each["recipient"] == "ok@relay.example")["events"][0]
    assert relayed["relay"].startswith("[127.0.0.1]") or relayed["relay"].startswith("127.0.0.1[127.0.0.1]")
    assert relayed["took"] >= 0 and relayed["dsn"].startswith("2.") and "250" in relayed["reply"]
    late = next(each for each in message["recipients"] if each["recipient"] == "late@relay.example")
    assert "450 4.2.0 try later" in late["events"][0]["reply"]
    assert not server.log_path.read_text().count("smtp.received")

    queue_id = message["queue_id"]
    server.cli("queue", "release", "--id", queue_id, "--recipient", "x@parked.example")
    server.cli("queue", "delete", "--yes", "--id", queue_id, "--recipient", "late@relay.example")
    (message,) = trace(server, "--id", queue_id)
    late = next(each for each in message["recipients"] if each["recipient"] == "late@relay.example")
    assert late["status"] == "deleted" and late["events"][-1]["event"] == "admin.queue.delete"
    shown = server.cli("trace", "--id", queue_id).stdout
    assert "deleted   <late@relay.example>" in shown and "delivery.deferred" in shown


def test_an_alias_is_told_with_what_it_stands_for(server: Server) -> None:
    message_id = send(server, "staff@example.test")
    wait_for(
        lambda: (
            "late@relay.example" in statuses(trace(server, "--message-id", message_id)[0])
            and "accepted" not in statuses(trace(server, "--message-id", message_id)[0]).values()
        ),
        lambda: str(trace(server, "--message-id", message_id)),
    )
    (message,) = trace(server, "--to", "staff@example.test")
    assert statuses(message) == {
        "staff@example.test": "expanded",
        "bill@example.test": "delivered",
        "late@relay.example": "deferred",
    }


def test_a_refusal_is_found_by_whom_it_was_for(server: Server) -> None:
    with smtplib.SMTP(server.host, server.port("smtp")) as client, pytest.raises(smtplib.SMTPRecipientsRefused):
        client.sendmail("ann@client.example", ["nobody@example.test"], letter("refused"))
    (refusal,) = trace(server, "--to", "nobody@example.test", "--status", "rejected")
    assert refusal["queue_id"] is None and refusal["sender"] == "ann@client.example"
    assert refusal["events"][0]["verb"] == "RCPT" and refusal["events"][0]["reply"].startswith("550 5.1.1")
    assert "refused at RCPT" in server.cli("trace", "--to", "nobody@example.test").stdout


def test_every_address_that_failed_is_told(server: Server) -> None:
    message_id = send(server, "x@down.example")
    wait_for(
        lambda: statuses(trace(server, "--message-id", message_id)[0]) == {"x@down.example": "deferred"}, message_id
    )
    (message,) = trace(server, "--status", "deferred", "--to", "down.example")
    assert [line["event"] for line in message["events"]] == ["smtp.received", "delivery.attempt_failed"]
    assert "Connection refused" in message["events"][1]["reply"]


def test_a_kill_costs_a_second_of_trace_and_a_stopped_server_is_traced(tmp_path: Path) -> None:
    server = Server(tmp_path, services=("smtp",), with_tls=False)
    server.add_user("bill@example.test", "x")
    with server:
        first = send(server, "bill@example.test")
        assert len(trace(server, "--message-id", first)) == 1
        server.kill()
    assert len(trace(server, "--message-id", first)) == 1
    with server:
        second = send(server, "bill@example.test")
    (message,) = trace(server, "--message-id", second)
    assert statuses(message) == {"bill@example.test": "delivered"}
    server.write_config({"trace_retention": "0"})
    with server:
        third = send(server, "bill@example.test")
        assert trace(server, "--message-id", third) == []
    assert "trace_retention is 0" in server.cli("trace", "--message-id", third).stdout


def test_a_reload_turns_the_trace_on_and_off(tmp_path: Path) -> None:
    server = Server(tmp_path, services=("smtp",), with_tls=False, settings={"trace_retention": "0"})
    server.add_user("bill@example.test", "x")
    with server:
        assert trace(server, "--message-id", send(server, "bill@example.test")) == []
        server.write_config({"trace_retention": "2d"})
        server.cli("reload")
        assert len(trace(server, "--message-id", send(server, "bill@example.test"))) == 1


@pytest.mark.parametrize("text", ["", "yesterday", "2h30m", "2027-13-01", "99999999999999999d"])
def test_an_instant_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ActFailed) as failure:
        instant("--since", text)
    assert failure.value.kind == "usage"


def test_instants_are_utc_unless_they_say_otherwise() -> None:
    assert instant("--since", "2027-01-15T08:00") == 1_800_000_000.0
    assert instant("--since", "2027-01-15T09:00+01:00") == 1_800_000_000.0
    assert instant("--since", "2027-01-15") == 1_799_971_200.0


@pytest.mark.parametrize(
    "options", [("--id", "a b"), ("--to", ""), ("--message-id", "<>"), ("--status", "gone"), ("--limit", "0")]
)
def test_what_cannot_be_searched_is_refused(cli: Any, options: tuple[str, str]) -> None:
    assert cli("trace", *options).code == EX_USAGE


def test_what_happened_can_be_simulated(server: Server, tmp_path: Path) -> None:
    """The real trace of a real server, as `simulate` reads it; an alias of the store is known by what it became."""
    message_id = send(server, "staff@example.test", "again@relay.example", subject="simulated")
    expected = {"again@relay.example": "delivered", "late@relay.example": "deferred"}
    wait_for(
        lambda: expected.items() <= statuses(trace(server, "--message-id", message_id)[0]).items(),
        lambda: str(trace(server, "--message-id", message_id)),
    )
    (tmp_path / "mail").write_text(server.cli("trace", "--json", "--message-id", message_id).stdout)
    asked = ("simulate", "--json", "--envelopes", str(tmp_path / "mail"))
    found = json.loads(server.cli(*asked).stdout)
    (rows,) = (day["destinations"] for day in found.values())
    assert (rows["example.test"]["recipients"], rows["example.test"]["delivered"]) == (1, 1)
    relay = rows["relay.example"]
    assert (relay["delivered"], relay["waiting"], relay["put_off"]) == (2, 0, 1)
    assert relay["waited_seconds"]["longest"] >= 300
    assert all(hop.startswith("smtp:[127.0.0.1]:") for hop in relay["routes"])
