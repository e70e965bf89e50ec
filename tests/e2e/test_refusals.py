"""What a limit refuses is a line with its reason, in every protocol."""

import http.client
import json
import socket
from pathlib import Path

import pytest

from tests.support.server import Server
from tests.support.waiting import wait_for

LIMITS = {
    "smtpd_client_event_limit_exceptions": [],
    "smtpd_client_connection_count_limit": 1,
    "login_max_ip_connections": 1,
    "login_max_connections": 2,
}


def lines(server: Server, event: str) -> list[dict[str, object]]:
    found = (json.loads(line) for line in server.log_path.read_text().splitlines() if line.startswith("{"))
    return [line for line in found if line["event"] == event]


@pytest.mark.parametrize(("service", "event"), [("smtp", "smtp"), ("imap", "imap"), ("pop3", "pop3")])
def test_a_connection_too_many_is_a_line(tmp_path: Path, service: str, event: str) -> None:
    with Server(tmp_path, services=(service,), settings=LIMITS) as server:
        address = (server.host, server.port(service))
        with socket.create_connection(address, timeout=60) as first, socket.create_connection(address) as second:
            first.recv(4096)
            second.recv(4096)
            wait_for(lambda: lines(server, f"{event}.refused"), server.log_tail)
        (line,) = lines(server, f"{event}.refused")
        assert "too many connections" in str(line["reply"]).lower()
        assert server.host in str(line["client"])


def test_a_foreign_host_name_is_a_line(tmp_path: Path) -> None:
    with Server(tmp_path, services=()) as server:
        client = http.client.HTTPConnection(server.host, server.port("http"), timeout=60)
        client.request("GET", "/metrics", headers={"Host": "evil.example"})
        assert client.getresponse().status == 403
        client.close()
        wait_for(lambda: lines(server, "http.refused"), server.log_tail)
        (line,) = lines(server, "http.refused")
        assert (line["status"], line["host"]) == (403, "evil.example")
