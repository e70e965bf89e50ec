"""A day of mail through a configuration: servers of the past do what they did, and settings show what they change."""

from datetime import UTC, datetime

import msgspec
import pytest

from fastmta.config.schema import Config
from fastmta.config.shaping import ShapingConfig
from fastmta.queue.replies import ReplyClasses
from fastmta.simulation import day
from fastmta.simulation.envelopes import Letter, Unreadable, read
from fastmta.simulation.past import Past

BEGAN = 1_800_000_000.0
CONFIG = Config(myhostname="mx.home.test", mydomain="home.test", myorigin="home.test", mydestination=("home.test",))
SLOW_DOWN = "451 4.7.0 Too many messages, slow down"


def event(happened, seconds, recipient, reply, relay="", took=0.3):
    domain = recipient.rpartition("@")[2]
    at = datetime.fromtimestamp(BEGAN + seconds, UTC).isoformat()
    return {
        "event": f"delivery.{happened}",
        "at": at,
        "recipient": recipient,
        "next_hop": f"smtp:{domain}",
        "relay": relay or f"mx.{domain}[203.0.113.{len(domain)}]:25",
        "reply": reply,
        "took": took,
    }


def letter(seconds, *recipients, events=(), **more):
    fields = {"sender": "ann@home.test", "size_bytes": 1000, "client": "", "login": "", "became": {}}
    return Letter(at=BEGAN + seconds, recipients=list(recipients), events=list(events), **{**fields, **more})


def ran(letters, config=CONFIG):
    return day.run(config, letters, day.past_of(letters, config), lambda done, of: None)


def test_who_was_refused_is_refused_again_and_who_was_taken_is_taken():
    letters = [
        letter(0, "a@b.test", events=[event("bounced", 1, "a@b.test", "550 5.1.1 no such user")]),
        letter(1, "c@b.test", events=[event("delivered", 2, "c@b.test", "250 ok")]),
    ]
    found = ran(letters).destinations["b.test"]
    assert (found.recipients, found.delivered, found.bounced, found.waiting) == (2, 1, 1, 0)
    assert found.replies["550 5.1.1 no such user"] == 1
    assert found.routes == {"smtp:b.test": 2}


def test_who_was_put_off_is_put_off_until_then():
    events = [event("deferred", 1, "a@b.test", "450 4.2.0 busy"), event("deferred", 200, "a@b.test", "450 4.2.0 busy")]
    found = ran([letter(0, "a@b.test", events=events)]).destinations["b.test"]
    assert (found.delivered, found.put_off) == (1, 1)
    assert 290 < found.share(1.0) < 340


def test_who_was_put_off_at_once_is_put_off_though_the_simulation_asks_a_little_later():
    found = ran([letter(0, "a@b.test", events=[event("deferred", 0.001, "a@b.test", "450 4.2.0 busy")])])
    assert (found.destinations["b.test"].delivered, found.destinations["b.test"].put_off) == (1, 1)


@pytest.mark.parametrize(("why", "waits_s"), [("Connection refused", 0), ("Connection timed out", 30)])
def test_a_server_that_was_called_in_vain_is_away(why, waits_s):
    failed = f"450 4.4.1 connect to mx.b.test[203.0.113.6]:25: {why}"
    events = [event("deferred", at, "a@b.test", failed, relay="none") for at in (0, 250)]
    found = ran([letter(0, "a@b.test", events=events)]).destinations["b.test"]
    assert (found.delivered, found.put_off) == (1, 1)
    assert 300 + waits_s <= found.share(1.0) < 360 + waits_s


def test_a_server_that_answered_in_between_was_not_away():
    past = Past(ReplyClasses.of())
    failed = "450 4.4.1 connect to mx.b.test[203.0.113.6]:25: Connection refused"
    times = [("deferred", 10), ("deferred", 20), ("delivered", 30), ("deferred", 40)]
    past.learn(
        [
            letter(
                0,
                events=[
                    event(
                        what, at, "a@b.test", failed if what == "deferred" else "250 ok", "none" * (what == "deferred")
                    )
                    for what, at in times
                ],
            )
        ]
    )
    away = [(begin - BEGAN, end - BEGAN) for begin, end, _ in past.hosts["mx.b.test"].away()]
    assert away == [(10, 25), (40, 45)]


def test_a_rule_spares_a_server_that_takes_so_many_a_minute():
    letters = []
    for n in range(60):
        path = f"u{n}@b.test"
        first = event("deferred", n, path, SLOW_DOWN) if n % 6 else event("delivered", n, path, "250 ok")
        letters.append(letter(n, path, events=[first, event("delivered", 400 + n, path, "250 ok")]))
    assert day.past_of(letters, CONFIG).hosts["mx.b.test"].a_minute() == 10
    plain = ran(letters).destinations["b.test"]
    rule = ShapingConfig(name="ten", domain=("b.test",), messages_per_hour=540)
    ruled = ran(letters, msgspec.structs.replace(CONFIG, shaping=(rule,)))
    assert plain.delivered == ruled.destinations["b.test"].delivered == 60
    assert plain.replies["rate-limited"] > 0 == ruled.destinations["b.test"].put_off
    assert any(why.startswith("rule ten") for why in ruled.held_back["smtp:b.test"])


def test_another_route_leads_around_what_servers_said():
    letters = [letter(0, "a@b.test", events=[event("bounced", 1, "a@b.test", "550 5.1.1 no such user")])]
    config = msgspec.structs.replace(CONFIG, relayhost="[relay.home.test]:25")
    found = ran(letters, config).destinations["b.test"]
    assert found.delivered == 1 and found.routes == {"smtp:[relay.home.test]:25": 1}


def test_mail_for_ourselves_and_mail_that_nobody_may_relay():
    letters = [
        letter(0, "bill@home.test"),
        letter(1, "sales@home.test", became={"sales@home.test": ["x@b.test", "carl@home.test"]}),
        letter(2, "y@b.test", client="spam.test[192.0.2.77]"),
        letter(3, "z@b.test", client="spam.test[192.0.2.77]", login="ann@home.test"),
    ]
    found = ran(letters).destinations
    assert (found["home.test"].recipients, found["home.test"].delivered) == (2, 2)
    assert found["home.test"].routes == {"local:": 2}
    assert (found["b.test"].recipients, found["b.test"].refused, found["b.test"].delivered) == (2, 1, 2)


def test_a_run_repeats_itself():
    letters = [letter(n, f"u{n}@b.test", events=[event("deferred", n, f"u{n}@b.test", "450 later")]) for n in range(20)]
    assert msgspec.structs.asdict(ran(letters)) == msgspec.structs.asdict(ran(letters))


@pytest.mark.parametrize(
    "line",
    [
        b'{"at":"2026-11-27T10:00","sender":"a@b.test","recipients":["c@d.test"]}',
        b'[{"at":1795773600,"sender":"a@b.test","recipients":[{"recipient":"c@d.test"}],"size":5}]',
        b'{"queue_id":"1","at":"2026-11-27T10:00:00.000Z","sender":"a@b.test","events":[],"size":null,"recipients":'
        b'[{"recipient":"c@d.test","original_recipient":null},{"recipient":"e@f.test","original_recipient":"c@d.test"}]}',
    ],
    ids=["plain", "list", "trace"],
)
def test_a_line_is_a_message_or_several(line):
    (found,) = read([b"\n", line + b"\n"])
    assert (found.at, found.sender, found.recipients) == (1_795_773_600.0, "a@b.test", ["c@d.test"])


@pytest.mark.parametrize(
    "line", [b"{", b"7", b"[7]", b'{"at":1}', b'{"at":"x","sender":"","recipients":[]}', b'{"at":1,"sender":"a"}']
)
def test_another_line_is_named(line):
    with pytest.raises(Unreadable, match=r"^line 2"):
        list(read([b"", line]))


def test_a_refusal_is_no_mail():
    assert not list(read([b'{"queue_id":null,"at":"2026-11-27T10:00","sender":"a@b.test","recipients":[]}']))
