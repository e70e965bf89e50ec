"""The table of services: one line is a service, wherever services are read."""

import smtplib
import ssl
from pathlib import Path

from fastmta.model import services
from fastmta.model.services import NAMES, open_to_strangers, screened, speaking
from tests.support.server import Server
from tests.support.trial import trial

LINE = '    Service("inside", "smtp", 0, 0, Tls.IMPLICIT, Login.REQUIRED),\n'


def test_a_name_stands_once() -> None:
    assert len(set(NAMES)) == len(NAMES)


def test_services_by_what_they_speak() -> None:
    assert speaking("smtp") == ("smtp", "submission", "submissions", "reinjection")
    assert screened("smtp", "lmtp") == ("smtp", "submission", "submissions", "lmtp")
    assert speaking("imap", "pop3") == ("imap", "imaps", "pop3", "pop3s")
    assert open_to_strangers() == ("smtp",)


def test_a_service_on_a_second_port_is_one_line(tmp_path: Path) -> None:
    env = trial(tmp_path, services, '    Service("lmtp"', LINE)
    with Server(tmp_path / "server", services=("smtp", "inside"), env=env) as server:
        server.add_user("bill@example.test", "secret")
        context = ssl.create_default_context(cafile=str(tmp_path / "server" / "cert.pem"))
        with smtplib.SMTP_SSL("localhost", server.port("inside"), context=context, timeout=30) as client:
            client.ehlo()
            assert client.mail("bill@example.test")[0] == 530  # in mynetworks, and still nobody without a login
            client.login("bill@example.test", "secret")
            client.sendmail("bill@example.test", "bill@example.test", "Subject: by the new door\r\n\r\nx\r\n")
        figures = server.metrics()
        assert figures['fastmta_connections_total{service="inside"}'] == 1
        assert figures["fastmta_messages_received_total"] == 1
        assert "inside" in server.cli("check", "--all").stdout


def test_without_the_line_the_key_is_unknown(tmp_path: Path) -> None:
    server = Server(tmp_path / "server", services=("smtp", "inside"))
    done = server.cli("check", check=False)
    assert done.returncode == 78
    assert "listen.inside: unknown key" in done.stderr


def test_no_other_module_lists_services() -> None:
    """Lists of them have drifted before: whoever needs one asks the table."""
    package = Path(services.__file__).parent.parent
    offenders = [
        str(path.relative_to(package))
        for path in [*package.rglob("*.py"), *package.rglob("*.p[yx][xi]")]
        if path != Path(services.__file__)
        and any(f'"{name}"' in path.read_text() for name in ("submissions", "imaps", "pop3s"))
    ]
    assert offenders == []
