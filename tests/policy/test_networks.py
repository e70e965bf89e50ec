import ipaddress
import random

import pytest

from fastmta.policy.networks import Networks, is_loopback


@pytest.mark.parametrize(
    ("ip", "inside"),
    [
        ("127.0.0.1", True),
        ("127.255.255.255", True),
        ("128.0.0.0", False),
        ("126.255.255.255", False),
        ("::1", True),
        ("::2", False),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.1", False),
        ("2001:db8:1::5", True),
        ("2001:db9::", False),
        ("fe80::1%eth0", True),
        ("", False),
        ("localhost", False),
        ("127.0.0.1:25", False),
    ],
)
def test_membership(ip, inside):
    networks = Networks(["127.0.0.0/8", "[::1]/128", "[2001:db8::]/32", "fe80::/10"])
    assert (ip in networks) is inside
    assert (ip in networks) is inside


def test_what_is_not_a_string_is_in_no_network():
    assert None not in Networks(["0.0.0.0/0"])


def test_no_networks_hold_nothing():
    assert "127.0.0.1" not in Networks([])


def test_agrees_with_a_slow_search():
    random.seed(7)
    texts = [f"10.{random.randrange(4)}.{random.randrange(4)}.0/{random.randrange(14, 30)}" for _ in range(30)]
    slow = [ipaddress.ip_network(text, strict=False) for text in texts]
    fast = Networks(texts)
    for _ in range(5000):
        ip = f"10.{random.randrange(8)}.{random.randrange(8)}.{random.randrange(256)}"
        assert (ip in fast) == any(ipaddress.ip_address(ip) in network for network in slow)


def test_a_bad_network_is_an_error():
    with pytest.raises(ValueError, match=r"x\.y"):
        Networks(["x.y"])


@pytest.mark.parametrize(
    ("ip", "answer"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.9", True), ("", True), ("10.0.0.1", False), ("x", False)],
)
def test_loopback(ip, answer):
    assert is_loopback(ip) is answer
