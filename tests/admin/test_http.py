"""The HTTP handler, the collector and readiness, over a transport that keeps what is written."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastmta.admin import http
from fastmta.admin.collector import Collector, StoreFigures
from fastmta.admin.health import Readiness, healthz
from fastmta.admin.http import Answer, HttpServer, Request
from fastmta.admin.origin import AllowedHosts
from fastmta.model.limits import PIECE_S
from fastmta.runtime.board import Board
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import METRICS, SharedCells, local_cells
from fastmta.runtime.turns import Turns
from tests.support.limits import local_limits


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False
        self.aborted = False
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.aborted = self.closed = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def broken(_: Request) -> Answer:
    raise ValueError("no")


def long(_: Request) -> Answer:
    """A page whose body takes ten pieces."""
    return Answer(200, b"", pieces=iter([b"piece\n"] * 10))


def breaks_off(_: Request) -> Answer:
    def pieces() -> Iterator[bytes]:
        yield b"piece\n"
        raise ValueError("no")

    return Answer(200, b"", pieces=pieces())


class Client:
    def __init__(self) -> None:
        self.cells = local_cells()
        self.now_ns = 1
        self.tick_ns = 0
        self.turns = Turns(asyncio.get_running_loop(), self.look)
        pages = {"/healthz": healthz, "/broken": broken, "/long": long, "/breaks-off": breaks_off}
        hosts = AllowedHosts(("mx.example.test", ".allowed.test"))
        forms = {"/form": lambda request: Answer(200, request.body)}
        self.server = HttpServer(pages, self.cells, Log(fd=-1), self.turns, local_limits(), hosts, forms=forms)
        self.protocol = self.server.factory()
        self.wire = Wire()
        self.protocol.connection_made(self.wire)

    def look(self) -> int:
        """The clock of turns; at `tick_ns` 0 no turn ends by itself."""
        self.now_ns += self.tick_ns
        return self.now_ns

    def send(self, data: bytes) -> bytes:
        self.wire.sent = b""
        self.protocol.data_received(data)
        return self.wire.sent


@pytest.fixture
async def client() -> Iterator[Client]:
    made = Client()
    yield made
    made.protocol.connection_lost(None)
    assert made.cells[METRICS.connections["http"]] == 0


ASKED = Request("GET", "/readyz")
GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_a_page_is_answered_and_the_connection_kept(client: Client) -> None:
    answer = client.send(GET)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"Content-Length: 3\r\n\r\nok\n")
    assert client.send(GET + GET).count(b"200 OK") == 2
    assert not client.wire.closed


async def test_a_long_page_is_made_in_turns_and_sent_whole(client: Client) -> None:
    client.tick_ns = 300_000
    request = GET.replace(b"/healthz", b"/long")
    assert client.send(request + GET) == b""
    assert client.turns.waiting
    for _ in range(20):
        await asyncio.sleep(0)
    head, _, rest = client.wire.sent.partition(b"\r\n\r\n")
    assert b"Content-Length: 60" in head and rest.startswith(b"piece\n" * 10 + b"HTTP/1.1 200 OK")


async def test_a_long_page_that_breaks_off_is_a_500(client: Client) -> None:
    answer = client.send(GET.replace(b"/healthz", b"/breaks-off") + GET)
    assert answer.startswith(b"HTTP/1.1 500 ") and b"piece" not in answer and answer.count(b"200 OK") == 1


async def test_leaving_while_a_page_is_made_ends_it(client: Client) -> None:
    client.tick_ns = 300_000
    client.send(GET.replace(b"/healthz", b"/long"))
    client.protocol.connection_lost(None)
    for _ in range(20):
        await asyncio.sleep(0)
    assert client.wire.sent == b""
    client.protocol.connection_made(client.wire)  # the fixture counts it out again


async def test_pipelined_requests_are_answered_in_turns(client: Client) -> None:
    client.tick_ns = 300_000
    first = client.send(GET * 5000)
    assert 0 < first.count(b"200 OK") < 10
    assert not client.wire.reading
    passes = 0
    while client.turns.waiting:
        await asyncio.sleep(0)
        passes += 1
    assert client.wire.sent.count(b"200 OK") == 5000
    assert passes > 100
    assert client.wire.reading


async def test_a_peer_that_does_not_read_is_made_no_more_answers_and_ended_in_time(client: Client) -> None:
    client.protocol.pause_writing()
    assert client.send(GET * 5000) == b""
    assert not client.wire.reading
    client.protocol.resume_writing()
    assert client.wire.sent.count(b"200 OK") == 5000
    client.protocol.pause_writing()
    client.protocol._late()
    assert client.wire.aborted


async def test_who_leaves_in_the_middle_of_a_pipeline_is_forgotten(client: Client) -> None:
    client.tick_ns = 300_000
    client.send(GET * 5000)
    client.protocol.connection_lost(None)
    while client.turns.waiting:  # noqa: ASYNC110 - each pass is one turn
        await asyncio.sleep(0)
    assert client.wire.sent.count(b"200 OK") < 10
    client.protocol.connection_made(client.wire)


@pytest.mark.parametrize("cut", range(len(GET)))
async def test_a_request_may_be_split_anywhere(client: Client, cut: int) -> None:
    assert client.send(GET[:cut]) == b""
    assert client.send(GET[cut:]).startswith(b"HTTP/1.1 200")


async def test_head_has_the_fields_without_the_body(client: Client) -> None:
    answer = client.send(GET.replace(b"GET", b"HEAD"))
    assert b"Content-Length: 3" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"POST /healthz HTTP/1.1", b"405"),
        (b"GET /etc/passwd HTTP/1.1", b"404"),
        (b"GET /healthz?x=1 HTTP/1.1", b"200"),
        (b"GET /broken HTTP/1.1", b"500"),
        (b"EHLO there", b"400"),
        (b"GET  /healthz HTTP/1.1", b"400"),
        (b"GET /healthz HTTP/2.0", b"400"),
        (b"\xff\x00", b"400"),
    ],
)
async def test_each_request_has_its_status(client: Client, request_line: bytes, status: bytes) -> None:
    assert client.send(request_line + b"\r\n\r\n").split()[1] == status


async def test_a_request_with_a_body_ends_the_connection(client: Client) -> None:
    answer = client.send(b"GET /healthz HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET ")
    assert b"Connection: close\r\n" in answer
    assert client.wire.closed


async def test_http_1_0_and_connection_close_end_the_connection(client: Client) -> None:
    client.send(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert client.wire.closed


@pytest.mark.parametrize(("size", "refused"), [(http.REQUEST_BYTES, False), (http.REQUEST_BYTES + 1, True)])
async def test_a_request_is_bounded(client: Client, size: int, refused: bool) -> None:
    client.send(b"x" * (size - 1))
    answer = client.send(b"x")
    assert answer.startswith(b"HTTP/1.1 431") == refused
    assert client.wire.closed == refused


async def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_S", 0.0)
    client = Client()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert client.wire.closed
    client.protocol.connection_lost(None)


def value(text: str, name: str) -> float:
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + " "))


def test_the_figures_are_of_all_ranges_together() -> None:
    shared = SharedCells.create(4)
    shared.range(0)[Board.RANGES_USED] = 3
    shared.range(1)[METRICS.connections_total["smtp"]] = 2
    shared.range(2)[METRICS.connections_total["smtp"]] = 3
    METRICS.commit_seconds.observe(shared.range(1), 0.0001)
    METRICS.commit_seconds.observe(shared.range(2), 10.0)
    figures = StoreFigures({"active": 4, "deferred": 1, "held": 0}, 12.5, {"map_used_bytes": 99.0})
    text = b"".join(Collector(shared, lambda: figures).pieces()).decode()
    assert value(text, 'fastmta_connections_total{service="smtp"}') == 5
    assert value(text, 'fastmta_store_commit_seconds_bucket{le="0.000128"}') == 1
    assert value(text, 'fastmta_store_commit_seconds_bucket{le="+Inf"}') == 2
    assert value(text, "fastmta_store_commit_seconds_count") == 2
    assert value(text, "fastmta_store_commit_seconds_sum") == pytest.approx(10.0001)
    assert value(text, 'fastmta_queue_messages{state="active"}') == 4
    assert value(text, "fastmta_queue_age_seconds") == 12.5
    assert value(text, "fastmta_store_map_used_bytes") == 99


def test_the_names_that_operators_rely_on_are_there() -> None:
    shared = SharedCells.create(2)
    shared.range(0)[Board.RANGES_USED] = 2
    text = b"".join(Collector(shared, lambda: StoreFigures({"active": 0}, 0.0, {})).pieces()).decode()
    for name in (
        'connections_total{service="imap"}',
        'connections{service="imap"}',
        "messages_received_total",
        "received_bytes_total",
        'messages_rejected_total{reason="relay_denied"}',
        'deliveries_total{result="bounced",transport="smtp"}',
        'delivery_seconds_bucket{le="+Inf"}',
        'queue_messages{state="active"}',
        "queue_age_seconds",
        "store_commit_seconds_count",
        "store_commit_messages_count",
        'auth_total{mechanism="PLAIN",result="success"}',
        'tls_connections_total{service="imaps",version="TLSv1.3"}',
    ):
        assert f"fastmta_{name} " in text


def test_prometheus_own_parser_reads_every_family_as_it_is_meant() -> None:
    shared = SharedCells.create(2)
    shared.range(0)[Board.RANGES_USED] = 2
    shared.range(1)[METRICS.connections["imap"]] = 7
    METRICS.delivery_seconds.observe(shared.range(1), 3.0)
    figures = StoreFigures({"active": 3}, 1.5, {"commits": 2.0}, {"disk_free_bytes": 5.0})
    text = b"".join(Collector(shared, lambda: figures).pieces()).decode()
    families = {(family.name, family.type): family for family in text_string_to_metric_families(text)}
    for family in METRICS.families:
        kind = "counter" if family.counter else "gauge"
        found = families[family.name.removesuffix("_total") if family.counter else family.name, kind]
        assert found.documentation == family.documentation
        assert len(found.samples) == len(family.places)
    open_now = {sample.labels["service"]: sample.value for sample in families["fastmta_connections", "gauge"].samples}
    assert open_now["imap"] == 7
    counts = {s.labels.get("le", s.name): s.value for s in families["fastmta_delivery_seconds", "histogram"].samples}
    assert (counts["2.0"], counts["10.0"], counts["+Inf"]) == (0, 1, 1)
    assert counts["fastmta_delivery_seconds_sum"] == 3
    assert families["fastmta_disk_free_bytes", "gauge"].samples[0].value == 5


def test_a_family_is_made_in_less_than_a_piece_of_work() -> None:
    shared = SharedCells.create(8)
    shared.range(0)[Board.RANGES_USED] = 8
    collector = Collector(shared, lambda: StoreFigures({"active": 0}, 0.0, {}))
    longest = []
    for _ in range(20):
        took = []
        begun = time.thread_time()  # processor time: others may be busy
        for _piece in collector.pieces():
            took.append(time.thread_time() - begun)
            begun = time.thread_time()
        longest.append(max(took))
    assert min(longest) < PIECE_S / 2


def test_readiness_says_in_one_line_what_is_wrong() -> None:
    board = local_cells()
    board[Board.SLOTS] = board[Board.READY] = 2
    state = {"accepting": True, "trouble": ""}
    readiness = Readiness(board, lambda: bool(state["accepting"]), lambda: str(state["trouble"]))
    assert readiness.readyz(ASKED) == Answer(200, b"ready: 2 of 2 workers\n")
    state["trouble"] = "free space 1 bytes is below queue_minfree 2"
    assert readiness.readyz(ASKED) == Answer(503, b"not ready: free space 1 bytes is below queue_minfree 2\n")
    board[Board.STORE_FAILED] = 1
    assert readiness.readyz(ASKED).body.startswith(b"not ready: the store failed")
    state["accepting"] = False
    assert readiness.readyz(ASKED).body.startswith(b"not ready: this worker is not accepting")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Host: 127.0.0.1:8025", b"200"),
        (b"Host: [::1]:8025", b"200"),
        (b"Host: localhost:8025", b"200"),
        (b"Host: MX.example.test:8025", b"200"),
        (b"Host: mx.example.test.", b"200"),
        (b"Host: fastmta:8025", b"200"),
        (b"Host: a.allowed.test", b"200"),
        (b"Host: allowed.test", b"403"),
        (b"Host: evil.example:8025", b"403"),
        (b"Host: 127.0.0.1.evil.example", b"403"),
        (b"Host: mx.example.test.evil.example", b"403"),
        (b"Host: localhost.evil.example", b"403"),
        (b"Host: [::1", b"403"),
        (b"Host: [::1]evil", b"403"),
        (b"Host: a b", b"403"),
        (b"Host: 127.0.0.1:8025\r\nOrigin: http://127.0.0.1:8025", b"200"),
        (b"Host: 127.0.0.1:8025\r\nOrigin: http://evil.example", b"403"),
        (b"Host: 127.0.0.1:8025\r\nOrigin: null", b"403"),
        (b"Host: 127.0.0.1:8025\r\nOrigin: http://127.0.0.1:3000", b"403"),
        (b"Host: 127.0.0.1\r\nHost: evil.example", b"400"),
    ],
)
async def test_a_web_page_gets_no_answer_by_a_name_or_origin_of_its_own(
    client: Client, fields: bytes, status: bytes
) -> None:
    assert client.send(b"GET /healthz HTTP/1.1\r\n" + fields + b"\r\n\r\n").startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://mx.example.test/healthz", b"200"),
        (b"HTTP://MX.example.test:80/healthz?x", b"200"),
        (b"http://evil.example/healthz", b"403"),
        (b"http://mx.example.test", b"404"),
    ],
)
async def test_what_a_proxy_would_be_asked_is_answered_by_its_own_host(
    client: Client, target: bytes, status: bytes
) -> None:
    answer = client.send(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)


async def test_a_form_is_answered_when_its_body_has_come(client: Client) -> None:
    head = b"POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
    assert client.send(head + b"hel") == b""
    assert client.send(b"lo" + GET).endswith(b"ok\n")
    assert client.send(head + b"again").endswith(b"\r\n\r\nagain")


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 8193",
        b"Content-Length: -1",
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Content-Length: 5x",
    ],
)
async def test_a_body_that_is_not_read_ends_the_connection(client: Client, fields: bytes) -> None:
    answer = client.send(b"POST /form HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\nhello" + GET)
    assert b"Connection: close" in answer
    assert b"ok" not in answer.partition(b"\r\n")[2]


async def test_a_form_is_no_page_to_read(client: Client) -> None:
    assert client.send(b"GET /form HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 405")
