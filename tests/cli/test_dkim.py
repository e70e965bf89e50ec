"""`fastmta dkim`: keys from making and importing to rotation and deletion, beside what the DNS has."""

from pathlib import Path
from typing import Any

import dns.zone
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from fastmta.authentication.signing import load_signer
from fastmta.store import dkim_keys
from tests.support.dns_thread import dns_stub
from tests.support.keys import rsa_key


def pem(key: Any, encryption: Any = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())  # type: ignore[no-any-return]


def states(cli: Any) -> dict[str, str]:
    return {key["selector"]: key["state"] for key in cli.ok("dkim", "list", "example.org", "--json").json}


def zones(cli: Any) -> dict[str, Any]:
    return {key["name"]: {"TXT": [key["record"]]} for key in cli.ok("dkim", "list", "--json").json}


def test_the_first_key_signs_at_once_and_the_next_after_a_rotation(cli: Any) -> None:
    cli.ok("dkim", "add", "Example.ORG.", "--selector", "S1")
    cli.ok("dkim", "add", "example.org", "--selector", "e1", "--algorithm", "ed25519")
    assert states(cli) == {"s1": "active", "e1": "active"}
    cli.ok("dkim", "add", "example.org", "--selector", "s2")
    assert states(cli) == {"s1": "active", "e1": "active", "s2": "new"}
    with dns_stub(zones(cli)) as stub:
        done = cli.ok("dkim", "rotate", "example.org", "--nameserver", stub.address)
    assert "s2: active" in done.out
    assert states(cli) == {"s1": "old", "e1": "active", "s2": "active"}
    cli.ok("dkim", "delete", "example.org", "s1", "--yes")
    assert states(cli) == {"e1": "active", "s2": "active"}


def test_a_key_that_is_not_published_does_not_begin_to_sign(cli: Any) -> None:
    cli.ok("dkim", "add", "example.org", "--selector", "s1")
    cli.ok("dkim", "add", "example.org", "--selector", "s2")
    with dns_stub({}) as stub:
        done = cli("dkim", "rotate", "example.org", "--nameserver", stub.address)
    assert done.code == 65
    assert "s2._domainkey.example.org is missing in the DNS" in done.err
    assert states(cli) == {"s1": "active", "s2": "new"}
    cli.ok("dkim", "rotate", "example.org", "--force")
    assert states(cli) == {"s1": "old", "s2": "active"}


def test_rotate_without_a_new_key_makes_one_of_each_algorithm_in_use(cli: Any) -> None:
    cli.ok("dkim", "add", "example.org", "--algorithm", "both")
    first, second = sorted(states(cli))
    assert second == first + "e"
    made = cli.ok("dkim", "rotate", "example.org", "--json").json
    assert {key["algorithm"] for key in made} == {"rsa", "ed25519"}
    assert sorted(states(cli).values()) == ["active", "active", "new", "new"]
    assert len(states(cli)) == 4


def test_publish_prints_a_zone_file_and_tells_what_the_dns_has(cli: Any) -> None:
    cli.ok("dkim", "add", "example.org", "--selector", "s1", "--bits", "3072")
    cli.ok("dkim", "add", "example.org", "--selector", "s2")
    cli.ok("dkim", "add", "example.org", "--selector", "e1", "--algorithm", "ed25519")
    known = zones(cli)
    lost = dict(known)
    del lost["s2._domainkey.example.org"]
    lost["e1._domainkey.example.org"] = known["s1._domainkey.example.org"]
    with dns_stub(lost) as stub:
        done = cli.ok("dkim", "publish", "example.org", "--nameserver", stub.address)
        shown = cli.ok("dkim", "publish", "example.org", "--nameserver", stub.address, "--json").json
    assert {key["selector"]: key["published"] for key in shown} == {
        "s1": "published",
        "s2": "missing",
        "e1": "different",
    }
    zone = dns.zone.from_text("$ORIGIN .\n. 1 IN SOA a. b. 1 1 1 1 1\n. 1 IN NS a.\n" + done.out, origin=".")
    texts = zone["s1._domainkey.example.org."].rdatasets[0][0].strings
    assert max(map(len, texts)) == 255
    assert b"".join(texts).decode() == known["s1._domainkey.example.org"]["TXT"][0]


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(rsa_key(), "rsa"), (ed25519.Ed25519PrivateKey.generate(), "ed25519")],
)
def test_an_imported_key_is_kept_as_it_is(cli: Any, tmp_path: Path, key: Any, algorithm: str) -> None:
    path = tmp_path / "in.pem"
    path.write_bytes(pem(key))
    (shown,) = cli.ok("dkim", "add", "example.org", "--selector", "s1", "--key", str(path), "--json").json
    assert shown["algorithm"] == algorithm
    assert shown["record"] == load_signer(pem(key), "example.org", "s1").public_record()
    assert "pem" not in shown


def test_keys_that_were_checked_when_they_came_are_not_checked_again(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of an RSA key is 60 ms of CPU, for each key of each domain."""
    cli.ok("dkim", "add", "example.org", "--selector", "s1")
    monkeypatch.delattr("fastmta.authentication.signing.load_signer")
    assert zones(cli).keys() == {"s1._domainkey.example.org"}
    with dns_stub(zones(cli)) as stub:
        done = cli.ok("dkim", "publish", "example.org", "--nameserver", stub.address, "--json")
    assert [key["published"] for key in done.json] == ["published"]


def test_keys_that_cannot_be_imported(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "in.pem"
    for raw, words in (
        (b"nonsense", "not a private key"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "neither RSA nor Ed25519"),
        (pem(rsa_key(), BestAvailableEncryption(b"x")), "passphrase"),
    ):
        path.write_bytes(raw)
        done = cli("dkim", "add", "example.org", "--selector", "s1", "--key", str(path))
        assert (done.code, words in done.err) == (65, True), done.err
    assert cli("dkim", "add", "example.org", "--selector", "s1", "--key", str(tmp_path / "none")).code == 66
    assert cli("dkim", "add", "example.org", "--key", str(path)).code == 64


def test_mistakes_are_one_line_with_a_code(cli: Any) -> None:
    cli.ok("dkim", "add", "example.org", "--selector", "s1")
    for arguments, code in (
        (("add", "example.org", "--selector", "s1"), 65),
        (("add", "nodots"), 64),
        (("add", "exa mple..org"), 64),
        (("add", "example.org", "--selector", "a;b"), 65),
        (("publish", "example.net"), 67),
        (("rotate", "example.net"), 67),
        (("delete", "example.org", "s9", "--yes"), 67),
    ):
        done = cli("dkim", *arguments)
        assert (done.code, done.err.count("\n")) == (code, 1), (arguments, done.err)


def test_many_keys_are_listed_over_pages(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dkim_keys, "PAGE", 2)
    for number in range(5):
        cli.ok("dkim", "add", "example.org", "--selector", f"s{number}", "--algorithm", "ed25519")
    cli.ok("dkim", "add", "example.org.uk", "--selector", "s", "--algorithm", "ed25519")
    assert list(states(cli)) == [f"s{number}" for number in range(5)]
    assert len(cli.ok("dkim", "list", "--json").json) == 6
