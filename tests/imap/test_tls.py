"""STARTTLS over a real connection: what was pipelined in plain text behind it is never run (CVE-2011-0411)."""

import asyncio
import ssl
from pathlib import Path

import pytest

from fastmta.tls.certificate import write_self_signed
from tests.imap.harness import World


@pytest.mark.parametrize("store_kind", ["memory"])
@pytest.mark.parametrize(
    "smuggled",
    [
        b"b LOGIN user@example.test secret\r\n",
        b"b LOGIN user@example.test ",
        b"b LOGIN {17}\r\nuser@",
        b"x" * 9000,
        b"b",
    ],
)
async def test_commands_behind_starttls_are_dropped(world: World, tmp_path: Path, smuggled: bytes) -> None:
    """So is a part of one: it must not stand in front of the first command inside TLS."""
    write_self_signed(tmp_path / "cert.pem", tmp_path / "key.pem", ["localhost"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    world.services.contexts.server_context = lambda: context
    loop = asyncio.get_running_loop()
    server = await loop.create_server(world.server.factory("imap"), "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        greeting = await reader.readline()
        assert b" STARTTLS " in greeting
        writer.write(b"a STARTTLS\r\n" + smuggled)
        assert (await reader.readline()).startswith(b"a OK")
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        await writer.start_tls(client)
        writer.write(b"c CAPABILITY\r\n")
        line = await reader.readline()
        assert line.startswith(b"* CAPABILITY ")
        assert b"STARTTLS" not in line
        assert b"AUTH=PLAIN" in line
        assert (await reader.readline()).startswith(b"c OK")
        assert world.services.authenticator.tries == 0
        writer.write(b"d STARTTLS\r\ne LOGIN user@example.test secret\r\nf LOGOUT\r\n")
        assert (await reader.readline()).startswith(b"d BAD")
        assert (await reader.readline()).startswith(b"e OK")
        assert (await reader.readline()).startswith(b"* BYE")
        writer.close()
        try:
            await writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            pass
    finally:
        server.close()
        await server.wait_closed()
