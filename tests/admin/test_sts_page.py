"""Our own MTA-STS policy: its form, who may ask, and that nothing is served where none is configured."""

from fastmta.admin.origin import AllowedHosts
from fastmta.admin.sts_page import policy_hosts, policy_page
from fastmta.config.schema import Config
from fastmta.tls.mta_sts import parse_policy

CONFIG = Config(myhostname="mx.example.test", mydestination=("example.test",), mta_sts_policy_mode="enforce")


def test_the_policy_is_read_by_who_obeys_it() -> None:
    answer = policy_page(CONFIG)
    assert answer.status == 200 and answer.content_type.startswith("text/plain")
    assert answer.body == b"version: STSv1\r\nmode: enforce\r\nmx: mx.example.test\r\nmax_age: 604800\r\n"
    assert parse_policy(answer.body, "1", 0.0).mode == "enforce"


def test_it_is_asked_for_by_the_names_of_our_domains() -> None:
    assert AllowedHosts(policy_hosts(CONFIG)).refusal({"host": "mta-sts.example.test"}) == ""
    assert AllowedHosts(policy_hosts(Config())).refusal({"host": "mta-sts.example.test"})


def test_nothing_is_served_where_none_is_configured() -> None:
    assert policy_page(Config()).status == 404
