"""The way to the server's own SMTP port, for callers that may not open the store, and for `sendmail -bs`."""

import os
import selectors
import socket
import sys
from typing import TYPE_CHECKING

from fastmta.cli.failures import EX_NOUSER, EX_TEMPFAIL, EX_UNAVAILABLE, CommandFailed
from fastmta.config.schema import Config
from fastmta.config.values import parse_endpoint

if TYPE_CHECKING:
    from fastmta.cli.submit import Submission

CONNECT_S = 10.0
ANSWER_S = 300.0


def connect(config: Config) -> socket.socket:
    """A connection to a local SMTP listener; CommandFailed with EX_TEMPFAIL where none answers."""
    reason = "listen.smtp is empty"
    for text in config.listen.smtp:
        endpoint = parse_endpoint(text)
        try:
            if endpoint.path:
                found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                found.settimeout(CONNECT_S)
                found.connect(endpoint.path)
                return found
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(endpoint.host, endpoint.host)
            return socket.create_connection((host, endpoint.port), timeout=CONNECT_S)
        except OSError as error:
            reason = f"{text}: {error.strerror or error}"
    raise CommandFailed(f"the store is not open to this user and the SMTP port does not answer: {reason}", EX_TEMPFAIL)


def hand_over(config: Config, submission: "Submission") -> None:
    """Sends a message through the SMTP port."""
    import smtplib

    content = submission.header + b"".join(submission.body)
    recipients = [r if "@" in r else f"{r}@{config.myorigin}" for r in submission.recipients]
    client = smtplib.SMTP(timeout=ANSWER_S, local_hostname=config.myhostname)
    client.sock = connect(config)
    client.sock.settimeout(ANSWER_S)
    try:
        code, answer = client.getreply()
        if code != 220:
            raise CommandFailed(f"the server said {code} {answer.decode('ascii', 'replace')}", EX_TEMPFAIL)
        client.sendmail(submission.reverse_path.decode("utf-8", "surrogateescape"), recipients, content)
        client.quit()
    except smtplib.SMTPRecipientsRefused as refused:
        code, answer = next(iter(refused.recipients.values()))
        text = f"{code} {answer.decode('ascii', 'replace')}"
        raise CommandFailed(text, EX_TEMPFAIL if code < 500 else EX_NOUSER) from refused
    except smtplib.SMTPResponseException as refused:
        said = refused.smtp_error
        text = f"{refused.smtp_code} {said.decode('ascii', 'replace') if isinstance(said, bytes) else said}"
        raise CommandFailed(text, EX_TEMPFAIL if refused.smtp_code < 500 else EX_UNAVAILABLE) from refused
    except (OSError, smtplib.SMTPException) as error:
        raise CommandFailed(f"the server did not take it: {error}", EX_TEMPFAIL) from error
    finally:
        client.close()


def bridge(config: Config) -> int:
    """`sendmail -bs`: an SMTP session on standard input and output, carried to the server's port."""
    with connect(config) as server, selectors.DefaultSelector() as selector:
        server.settimeout(ANSWER_S)
        greeting = b""
        while not greeting.endswith(b"\n"):  # who talks before it is taken for a spammer
            data = server.recv(65_536)
            if not data:
                raise CommandFailed("the server closed the connection", EX_TEMPFAIL)
            greeting += data
        sys.stdout.buffer.write(greeting)
        sys.stdout.buffer.flush()
        readable = True
        try:
            selector.register(0, selectors.EVENT_READ)
        except PermissionError:  # a plain file is always ready and cannot be waited for
            readable = False
            _send_all_of_stdin(server)
        selector.register(server, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(ANSWER_S) or _timed_out():
                if key.fileobj is server:
                    data = server.recv(65_536)
                    if not data:
                        return 0
                    sys.stdout.buffer.write(data)
                    sys.stdout.buffer.flush()
                else:
                    data = os.read(0, 65_536)
                    if data:
                        server.sendall(data)
                    elif readable:
                        readable = False
                        selector.unregister(0)
                        server.shutdown(socket.SHUT_WR)


def _send_all_of_stdin(server: socket.socket) -> None:
    while data := os.read(0, 65_536):
        server.sendall(data)
    server.shutdown(socket.SHUT_WR)


def _timed_out() -> list[tuple[selectors.SelectorKey, int]]:
    raise CommandFailed("the session timed out", EX_TEMPFAIL)
