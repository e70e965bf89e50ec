"""Clients that show a certificate: who may relay by it, what Received and the log say, and where one is demanded."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from fastmta.config.tables import TlsConfig
from fastmta.policy.networks import Networks
from fastmta.runtime.tasks import Tasks
from fastmta.tls.certificate import write_self_signed
from fastmta.tls.contexts import Contexts
from fastmta.tls.sessions import resuming
from tests.smtp.test_sockets import Running, Talk
from tests.support.authority import Issued, issue
from tests.support.smtp_rig import SmtpRig

AUTHORITY = issue(["Test authority"], ca=True)
BRANCH = issue(["branch.example.test"], AUTHORITY)
STRANGER = issue(['evil) (by "x'])
Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def begin(*, tls: dict[str, Any] | None = None, **keys: Any) -> Running:
            return await stack.enter_async_context(_running(tmp_path, tls or {}, keys))

        yield begin


@asynccontextmanager
async def _running(path: Path, tls: dict[str, Any], keys: dict[str, Any]) -> AsyncIterator[Running]:
    write_self_signed(path / "cert.pem", path / "key.pem", ["localhost"])
    authority = AUTHORITY.write(path, "authority")
    rig = SmtpRig(path)
    settings = TlsConfig(
        cert_file=str(path / "cert.pem"),
        key_file=str(path / "key.pem"),
        smtpd_tls_ask_ccert=True,
        smtpd_tls_CAfile=authority,
    )
    rig.config = replace(rig.config, mynetworks=(), tls=replace(settings, **tls), **keys)
    rig.networks = Networks(())
    rig.contexts = Contexts(rig.config.tls)  # type: ignore[assignment]
    tasks: Any = Tasks(rig.log)  # type: ignore[arg-type]
    rig.tasks = tasks
    rig.server.reload(rig)  # type: ignore[arg-type]
    rig.store.attach(asyncio.get_running_loop())
    running = Running(rig, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    try:
        yield running
    finally:
        for server in running.servers:
            server.close()
        rig.server.close_all()
        await tasks.close()
        tasks.spawned = []
        async with asyncio.timeout(60):
            while rig.server.sessions:  # noqa: ASYNC110 - the server only counts
                await asyncio.sleep(0.01)
        rig.close()


def context(running: Running, shown: Issued | None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if shown is not None:
        path = shown.write(running.rig.path, "client")
        made.load_cert_chain(path, path.replace(".pem", ".key"))
    return made


async def secured(
    running: Running, shown: Issued | None, service: str = "smtp", using: ssl.SSLContext | None = None
) -> Talk:
    """A session after STARTTLS."""
    talk = await running.connect(service)
    await talk.say(b"EHLO a.test\r\n")
    assert (await talk.say(b"STARTTLS\r\n")).startswith(b"220 ")
    await talk.writer.start_tls(using or context(running, shown))
    return talk


async def relays(running: Running, shown: Issued | None) -> bytes:
    talk = await secured(running, shown)
    await talk.say(b"EHLO a.test\r\n")
    await talk.say(b"MAIL FROM:<a@b.test>\r\n")
    reply = await talk.say(b"RCPT TO:<x@elsewhere.test>\r\n")
    await talk.say(b"QUIT\r\n")
    return reply[:9]


def listed(path: Path, text: str) -> tuple[str, ...]:
    (path / "clientcerts").write_text(text)
    return (f"texthash:{path}/clientcerts",)


@pytest.mark.parametrize("by_key", [False, True])
async def test_a_listed_fingerprint_relays_whoever_signed_it(start: Start, tmp_path: Path, by_key: bool) -> None:
    running = await start(
        smtpd_relay_restrictions=("permit_tls_clientcerts", "reject_unauth_destination"),
        relay_clientcerts=listed(tmp_path, f"{STRANGER.fingerprint(key=by_key)} a-branch\n"),
    )
    assert await relays(running, STRANGER) == b"250 2.1.5"
    assert await relays(running, BRANCH) == b"554 5.7.1"
    assert await relays(running, None) == b"554 5.7.1"


async def test_a_list_that_cannot_be_read_defers(start: Start, tmp_path: Path) -> None:
    running = await start(
        smtpd_relay_restrictions=("permit_tls_clientcerts", "reject_unauth_destination"),
        relay_clientcerts=(f"texthash:{tmp_path}/absent",),
    )
    assert await relays(running, BRANCH) == b"451 4.3.0"
    assert await relays(running, None) == b"554 5.7.1"


async def test_all_trusted_certificates_may_relay(start: Start) -> None:
    running = await start(smtpd_relay_restrictions=("permit_tls_all_clientcerts", "reject_unauth_destination"))
    assert await relays(running, BRANCH) == b"250 2.1.5"
    assert await relays(running, STRANGER) == b"554 5.7.1"


async def test_a_table_says_what_becomes_of_a_certificate(start: Start, tmp_path: Path) -> None:
    (table,) = listed(tmp_path, f"{BRANCH.fingerprint()} OK\n{STRANGER.fingerprint()} REJECT go away\n")
    running = await start(
        smtpd_relay_restrictions=(
            "check_ccert_access",
            table,
            "defer_unauth_destination",
        )
    )
    assert await relays(running, BRANCH) == b"250 2.1.5"
    assert await relays(running, None) == b"454 4.7.1"
    talk = await secured(running, STRANGER)
    await talk.say(b"EHLO a.test\r\n")
    await talk.say(b"MAIL FROM:<a@b.test>\r\n")
    reply = await talk.say(b"RCPT TO:<x@relay.test>\r\n")
    assert reply == b"554 5.7.1 <unknown[127.0.0.1]>: Client certificate rejected: go away\r\n"


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (BRANCH, b'(Client CN "branch.example.test", Issuer "Test authority" (verified OK))'),
        (STRANGER, b'(Client CN "evil? ?by ?x", Issuer "evil? ?by ?x" (not verified))'),
        (None, b"(Client did not present a certificate)"),
    ],
    ids=["trusted", "self-signed", "none"],
)
async def test_received_and_the_log_name_it(start: Start, shown: Issued | None, said: bytes) -> None:
    running = await start()
    talk = await secured(running, shown)
    await talk.say(b"EHLO a.test\r\n")
    await talk.say(b"MAIL FROM:<a@b.test>\r\n")
    await talk.say(b"RCPT TO:<x@relay.test>\r\n")
    await talk.say(b"DATA\r\n")
    assert (await talk.say(b"Subject: x\r\n\r\nx\r\n.\r\n")).startswith(b"250 ")
    (blob,) = running.rig.blobs()
    assert said in blob.partition(b"Subject")[0]
    told = [fields for event, fields in running.rig.log.events if event == "smtp.client_certificate"]
    assert [each["fingerprint"] for each in told] == ([shown.fingerprint()] if shown else [])


async def test_received_may_say_nothing_of_tls(start: Start) -> None:
    running = await start(tls={"smtpd_tls_received_header": False})
    talk = await secured(running, BRANCH)
    await talk.say(b"EHLO a.test\r\n")
    await talk.say(b"MAIL FROM:<a@b.test>\r\n")
    await talk.say(b"RCPT TO:<x@relay.test>\r\n")
    await talk.say(b"DATA\r\n")
    assert (await talk.say(b"Subject: x\r\n\r\nx\r\n.\r\n")).startswith(b"250 ")
    (blob,) = running.rig.blobs()
    assert b"ESMTPS id" in blob and b"TLSv1.3" not in blob and b"branch" not in blob


@pytest.mark.parametrize(
    ("shown", "said"),
    [(STRANGER, b"Client certificate not trusted"), (None, b"No client certificate presented")],
    ids=["self-signed", "none"],
)
async def test_where_it_is_demanded_the_session_ends(start: Start, shown: Issued | None, said: bytes) -> None:
    running = await start(tls={"smtpd_tls_ask_ccert": False, "smtpd_tls_req_ccert": True})
    port = await running.listen("submissions")
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context(running, shown))
    assert await Talk(reader, writer).reply() == b"421 4.7.1 mx.example.test Error: " + said + b"\r\n"
    assert await reader.read() == b""
    talk = await secured(running, shown, "submission")
    assert await talk.reply() == b"421 4.7.1 mx.example.test Error: " + said + b"\r\n"
    talk = await secured(running, shown)  # TLS is optional there
    assert (await talk.say(b"EHLO a.test\r\n")).startswith(b"250")


async def test_the_demanded_certificate_lets_in(start: Start) -> None:
    running = await start(tls={"smtpd_tls_req_ccert": True})
    port = await running.listen("submissions")
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context(running, BRANCH))
    talk = Talk(reader, writer)
    assert (await talk.reply()).startswith(b"220 ")
    assert (await talk.say(b"QUIT\r\n")).startswith(b"221 ")
    writer.close()
    talk = await secured(running, BRANCH, "submission")
    assert (await talk.say(b"EHLO a.test\r\n")).startswith(b"250")


# --- certificates that their makers have taken pains with ---


def strange(common_name: str | None, oid: str = "", raw: bytes = b"") -> Issued:
    """A certificate of the authority with any common name, and an extension of any octets."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    names = [] if common_name is None else [x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(AUTHORITY.certificate.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if oid:
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), raw), critical=False)
    return Issued(builder.sign(AUTHORITY.key, hashes.SHA256()), key, [AUTHORITY])


BY_ITS_NAME = issue(["Test authority"], ca=True)  # an authority of the same name


@pytest.mark.parametrize(
    ("shown", "subject", "trusted"),
    [
        (issue(["forged.test"], BY_ITS_NAME), "forged.test", False),
        (strange("ok\0{auth_authen}\0admin"), "", True),
        (strange("ok\r\nX-Evil: yes"), "", True),
        (strange(None), "", True),
        (strange("aia", "1.3.6.1.5.5.7.1.1", b"garbage"), "aia", True),
        (strange("san", "2.5.29.17", b"\x30\x05\x82\x03a\xffb"), "san", True),
    ],
    ids=["forged", "nul", "crlf", "no name", "access", "8-bit name"],
)
async def test_a_strange_certificate_is_read_and_disturbs_nobody(
    start: Start, shown: Issued, subject: str, trusted: bool
) -> None:
    running = await start(smtpd_relay_restrictions=("permit_tls_all_clientcerts", "reject_unauth_destination"))
    other = await secured(running, None)
    assert await relays(running, shown) == (b"250 2.1.5" if trusted else b"554 5.7.1")
    assert (await other.say(b"EHLO a.test\r\n")).startswith(b"250")
    (told,) = [fields for event, fields in running.rig.log.events if event == "smtp.client_certificate"]
    assert (told["subject"], told["trusted"]) == (subject, trusted)
    await other.say(b"QUIT\r\n")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_every_handshake_shows_the_certificate_anew(start: Start, version: ssl.TLSVersion) -> None:
    running = await start(smtpd_relay_restrictions=("permit_tls_all_clientcerts", "reject_unauth_destination"))
    made = context(running, BRANCH)
    made.minimum_version = made.maximum_version = version
    talk = await secured(running, None, using=made)
    assert (await talk.say(b"EHLO a.test\r\n")).startswith(b"250")
    session = talk.writer.get_extra_info("ssl_object").session
    await talk.say(b"QUIT\r\n")
    again = await secured(running, None, using=resuming(made, session))
    assert not again.writer.get_extra_info("ssl_object").session_reused
    await again.say(b"QUIT\r\n")
