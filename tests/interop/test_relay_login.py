"""Logins at Debian's Postfix, which asks Debian's Dovecot about them: each mechanism that these two have."""

import asyncio
import os
import smtplib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastmta.model.envelope import RecipientState
from tests.delivery.conftest import make_rig  # noqa: F401 - a fixture
from tests.support import dovecot, postfix, processes
from tests.support.server import Server
from tests.support.waiting import wait_for

MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256")
_DOVECOT = """\
base_dir = {directory}/run
state_dir = {directory}/run
log_path = {directory}/log
protocols =
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {directory}/passwd
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  unix_listener {socket} {{
    mode = 0666
  }}
}}
"""


@pytest.fixture(scope="module")
def relay() -> Iterator[postfix.Postfix]:
    """A Postfix that takes mail only from who logs in, and throws it away."""
    reason = postfix.missing() or dovecot.missing()
    if reason:
        pytest.skip(f"{reason} (tests/install_packages.sh)")
    directory = Path(tempfile.mkdtemp(prefix="fastmta-sasl-"))
    directory.chmod(0o755)
    (directory / "passwd").write_text("bill@example.test:sec ret=,\nann:p\n")
    (directory / "dovecot.conf").write_text(_DOVECOT.format(directory=directory, socket=directory / "auth"))
    parameters = {
        "mynetworks": "192.0.2.0/24",
        "smtpd_sasl_auth_enable": "yes",
        "smtpd_sasl_type": "dovecot",
        "smtpd_sasl_path": str(directory / "auth"),
        "smtpd_sasl_security_options": "noanonymous",
        "smtpd_relay_restrictions": "permit_sasl_authenticated, reject_unauth_destination",
        "default_transport": "discard:",
    }
    server = subprocess.Popen(
        ["dovecot", "-F", "-c", str(directory / "dovecot.conf")],
        env={**os.environ, "PATH": postfix.search_path()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for((directory / "auth").exists, "dovecot does not listen")
        with postfix.Postfix(parameters) as running:
            yield running
    finally:
        processes.stop(server)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("password", ["ret=,", "wrong"])
async def test_postfix_takes_the_login_or_the_mail_waits(
    relay: postfix.Postfix,
    make_rig: Any,  # noqa: F811
    tmp_path: Path,
    mechanism: str,
    password: str,
) -> None:
    (tmp_path / "map").write_text(f"[127.0.0.1]:{relay.port} bill@example.test:sec {password}\n")
    rig = make_rig(
        smtp_sasl_auth_enable=True,
        smtp_sasl_password_maps=(f"texthash:{tmp_path / 'map'}",),
        smtp_sasl_security_options=("noanonymous",),
        smtp_sasl_mechanism_filter=(mechanism,),
    )
    queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % relay.port, b"r@far.example")
    async with asyncio.timeout(60):
        if password == "wrong":
            await rig.until(lambda: rig.rows(queue_id)[0].state == RecipientState.DEFERRED)
            assert b"SASL authentication failed" in rig.rows(queue_id)[0].last_reply
            return
        await rig.until(lambda: rig.store.queue.message(queue_id) is None)
    relay.wait_empty()
    assert f"sasl_method={mechanism}, sasl_username=bill@example.test" in relay.log_tail(100)


def test_a_whole_server_sends_through_the_relay_(relay: postfix.Postfix, tmp_path: Path) -> None:
    (tmp_path / "map").write_text(f"[127.0.0.1]:{relay.port} bill@example.test:sec ret=,\n")
    (tmp_path / "map").chmod(0o640)
    settings = {
        "relayhost": f"[127.0.0.1]:{relay.port}",
        "delivery": {
            "smtp_sasl_auth_enable": True,
            "smtp_sasl_password_maps": f"texthash:{tmp_path / 'map'}",
            "smtp_sasl_security_options": "noanonymous",
        },
    }
    before = relay.log_tail(10_000).count("sasl_username=bill@example.test")
    with Server(tmp_path / "server", services=("smtp",), settings=settings) as server:
        with smtplib.SMTP(server.host, server.port("smtp"), timeout=60) as client:
            client.sendmail("s@example.test", ["r@far.example"], b"Subject: x\r\n\r\nx\r\n")
        wait_for(lambda: "delivery.delivered" in server.log_tail(200), server.log_tail)
        wait_for(
            lambda: server.metrics().get('fastmta_delivery_logins_total{mechanism="SCRAM-SHA-256",result="success"}'),
            "no login was counted",
        )
    assert relay.log_tail(10_000).count("sasl_username=bill@example.test") == before + 1


async def test_a_stranger_is_refused_for_good(relay: postfix.Postfix, make_rig: Any) -> None:  # noqa: F811
    """The relay takes nothing without a login, so the logins above are what let the mail pass."""
    rig = make_rig()
    queue_id = await rig.queue(b"smtp:[127.0.0.1]:%d" % relay.port, b"r@far.example")
    async with asyncio.timeout(60):
        await rig.gone(queue_id)
    assert rig.count("smtp", "bounced") == 1
