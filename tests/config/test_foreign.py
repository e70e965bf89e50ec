"""Every key that an administrator of Postfix or Dovecot may bring along is known by name, with what to do instead."""

import re
import shutil
import subprocess

import pytest

from fastmta.config import foreign
from fastmta.config.foreign import advice
from fastmta.config.load import parse_all
from fastmta.config.not_built import NOT_BUILT
from fastmta.config.schema import leaves

OURS = {name for leaf in leaves() for name in (leaf.name, leaf.flat)}


def names(*command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted({match[1] for match in re.finditer(r"^\s*([a-zA-Z0-9_-]+) =", done.stdout, re.MULTILINE)})
    if not found:
        pytest.skip(f"{command[0]} says nothing: {done.stderr[:200]}")
    return found


@pytest.mark.parametrize("command", [("postconf", "-d"), ("doveconf", "-a")], ids=lambda c: c[0])
def test_every_name_of_the_installed_servers_is_known(command):
    found = names(*command)
    assert len(found) > 300
    assert [name for name in found if name not in OURS and not advice(name)] == []


def test_every_name_that_is_taken_at_its_default_has_its_advice():
    assert [name for name in NOT_BUILT if name not in OURS and not advice(name)] == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('inet_interfaces = "all"', "Postfix: the addresses to listen on stand in [listen]"),
        ('[delivery]\nbiff = "no"', "Postfix: mail is in the store"),
        ("uucp_destination_recipient_limit = 1", "Postfix: every destination has the limits of [delivery]"),
        ('mdbox_rotate_size = "2M"', "Dovecot: mail is in the store"),
        ('ssl = "required"', "Dovecot: TLS is cert_file"),
        ('ssl_server_cert_file = "/x"', "Dovecot: TLS is cert_file"),
    ],
)
def test_a_foreign_key_is_told_with_what_to_do_instead(text, says):
    _, found = parse_all(text, base="/x", name="f.toml")
    assert len(found) == 1
    assert found[0].line == text.count("\n") + 1
    assert f"FastMTA does not have this key of {says}" in found[0].text


@pytest.mark.parametrize("name", ["inet_interface", "destination", "smtp_(", "", "x_limit"])
def test_what_neither_server_has_is_not_made_up(name):
    assert advice(name) == ""


def test_no_key_of_ours_is_called_foreign():
    assert OURS & set(foreign._table()) <= {"listen"}  # Dovecot's is no table
