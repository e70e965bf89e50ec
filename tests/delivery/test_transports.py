"""Transports: each one line of the table and one class; a new one needs no more."""

import smtplib
from pathlib import Path

import pytest

from fastmta.delivery.owner import HopOwner
from fastmta.delivery.service import kind_of
from fastmta.model import routes
from fastmta.model.routes import TRANSPORTS, Transport, written_route
from tests.support.server import Server
from tests.support.trial import trial
from tests.support.waiting import wait_for

LINE = '    Transport("file", lambda argument, _: NextHop("file", name=argument), "to_file:FileHop", "file"),\n'
FILE = '''\
"""Appends mail to a file: the trial of a transport."""

from pathlib import Path

from fastmta.delivery.owner import TaskHop
from fastmta.delivery.routing import parse_hop
from fastmta.model.reply import Reply


class FileHop(TaskHop):
    __slots__ = ()

    is_final = True

    async def deliver(self, job):
        path = Path(parse_hop(self.hop).name)
        if not path.is_absolute():
            return [Reply(550, "5.3.5", "not an absolute path")] * len(job.rows)
        body = self.service.queue.read(job.message.blob_id, 0, job.envelope.size_bytes)
        with path.open("ab") as file:
            for row in job.rows:
                file.write(b"To " + row.tail.forward_path + b"\\\\n" + body)
        return [Reply(250, "2.0.0", "appended")] * len(job.rows)
'''


@pytest.mark.parametrize("transport", TRANSPORTS, ids=lambda each: each.name)
def test_each_line_names_a_class_that_delivers(transport: Transport) -> None:
    assert issubclass(kind_of(transport), HopOwner)


def test_a_transport_is_one_file_and_one_line(tmp_path: Path) -> None:
    env = trial(tmp_path, routes, '    Transport("error"', LINE, {"delivery/to_file.py": FILE.replace("\\\\n", "\\n")})
    target = tmp_path / "mail"
    settings = {"transport": {"out.test": f"file:{target}", "bad.test": "file:rel"}}
    with Server(tmp_path / "server", services=("smtp",), env=env, settings=settings) as server:
        server.add_user("bill@example.test", "secret")
        with smtplib.SMTP(server.host, server.port("smtp"), timeout=30) as client:
            to = ["a@out.test", "b@out.test", "c@bad.test"]
            client.sendmail("bill@example.test", to, "Subject: appended\r\n\r\nx\r\n")
        wait_for(lambda: not server.queue(), server.log_tail, 30)
        written = target.read_text()
        assert "To a@out.test\n" in written and "To b@out.test\n" in written
        assert written.count("Subject: appended") == 2
        figures = server.metrics()
        assert figures['fastmta_deliveries_total{result="delivered",transport="file"}'] == 2
        assert figures['fastmta_deliveries_total{result="bounced",transport="file"}'] == 1


@pytest.mark.parametrize(
    ("route", "written"),
    [
        (":", ":"),
        ("smtp:", "smtp:"),
        (":[a.test]", "smtp:[a.test]"),
        ("relay: [a.test] ", "smtp:[a.test]"),
        ("virtual:", "local:"),
        ("hold:", "hold:"),
        ("hold:relay:[a.test]", "hold:smtp:[a.test]"),
        ("lmtp:inet:127.0.0.1:24", "lmtp:inet:127.0.0.1:24"),
        ("error:5.1.2 no", "error:5.1.2 no"),
    ],
)
def test_a_line_of_transport_is_kept_in_one_form(route: str, written: str) -> None:
    assert written_route(route) == written


@pytest.mark.parametrize("domain", ["a_b.test", "-odd-.test", "192.0.2.1", "x" * 80 + ".test"])
def test_a_recipients_own_domain_is_the_dns_to_judge(domain: str) -> None:
    assert routes.parse_route(f"smtp:{domain}").hosts[0].name == domain
