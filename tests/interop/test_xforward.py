"""XFORWARD to a Postfix that trusts us: its log names the client that has handed the message in to us."""

import json
import smtplib
from pathlib import Path

import pytest

from tests.support import postfix
from tests.support.server import Server
from tests.support.waiting import wait_for


def test_postfix_logs_our_client(tmp_path: Path) -> None:
    reason = postfix.missing()
    if reason:
        pytest.skip(f"{reason} (tests/install_packages.sh)")
    theirs = postfix.Postfix(
        {"smtpd_authorized_xforward_hosts": "127.0.0.0/8", "relay_domains": "filter.test", "relay_transport": "discard"}
    )
    settings = {
        "mynetworks": ["127.0.0.0/8", "192.0.2.0/24"],
        "smtpd_authorized_xclient_hosts": ["127.0.0.0/8"],
        "transport": {"filter.test": f"smtp:[{theirs.host}]:{theirs.port}"},
        "delivery": {"smtp_send_xforward_command": True},
    }
    with theirs, Server(tmp_path, services=("smtp",), settings=settings, with_tls=False) as ours:
        with smtplib.SMTP(ours.host, ours.port("smtp"), timeout=60) as client:
            assert client.docmd("XCLIENT", "NAME=mail.client.test ADDR=192.0.2.7")[0] == 220
            client.sendmail("ann@client.test", ["bob@filter.test"], "Subject: x\r\n\r\nx\r\n")
        wait_for(lambda: "orig_client=" in theirs.log_tail(1000), "the message")
        log = theirs.log_tail(1000)
        received = next(line for line in ours.log_path.read_text().splitlines() if "smtp.received" in line)
        queue_id = json.loads(received)["queue_id"]
    assert "orig_client=mail.client.test[192.0.2.7]" in log, log
    assert f"orig_queue_id={queue_id}" in log
