"""Generated SMTP dialogs under generated restriction lists, the same for any seed: for a comparison with Postfix.

A `Scenario` is what both servers are configured with; `dialogs` are what clients say to both. Clients' addresses and
names come by XCLIENT, and both servers ask the same DNS: `ZONES`.
"""

import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAPS = ("clients", "helos", "senders", "recipients", "servers")
ZONES: dict[str, Any] = {
    "localhost": {"A": ["127.0.0.1"]},
    "mail.client.test": {"A": ["192.0.2.1"]},
    "client.test": {"MX": [(10, "mail.client.test")], "NS": ["ns.client.test"], "A": ["192.0.2.5"]},
    "ns.client.test": {"A": ["192.0.2.53"]},
    "mixed.client.test": {"A": ["203.0.113.200"]},
    "spammer.test": {"MX": [(10, "mx.evil.test")], "NS": ["ns.evil.test"]},
    "out.spammer.test": {"A": ["192.0.2.77"], "AAAA": ["2001:db8::77"]},
    "mx.evil.test": {"A": ["203.0.113.66"]},
    "ns.evil.test": {"A": ["203.0.113.53"]},
    "inside.ours.test": {"A": ["10.1.2.3"]},
    "test": {"NS": ["ns.top.test"]},
    "ns.top.test": {"A": ["198.51.100.53"]},
    "null.test": {"MX": [(0, ".")]},
    "trouble.test": "SERVFAIL",
    "away.test": {"MX": [(10, "mx.trouble.test")]},
    "mx.trouble.test": "SERVFAIL",
    "backup.test": {"MX": [(10, "mail.client.test"), (20, "mx.here.test")]},
    "best.test": {"MX": [(10, "mx.here.test"), (20, "mail.client.test")]},
    "mx.here.test": {"A": ["127.0.0.1"]},
    "example.test": {"MX": [(10, "mx.here.test")]},
    "relay.test": {"A": ["192.0.2.9"]},
    "77.2.0.192.bl.test": {"A": ["127.0.0.2"], "TXT": ["seen"]},
    "1.2.0.192.bl.test": {"A": ["127.0.0.9"]},
    "3.2.1.10.wl.test": {"A": ["127.0.0.2"]},
    "1.2.0.192.wl.test": {"A": ["127.0.0.2"]},
    "200.113.0.203.wl.test": "SERVFAIL",
    "spammer.test.names.test": {"A": ["127.0.0.2"]},
    "out.spammer.test.names.test": {"A": ["127.0.0.2"]},
    "mail.client.test.names.test": {"A": ["127.0.0.3"]},
    "client.test.names.test": "SERVFAIL",
    "relay.test.names.test": {"A": ["127.0.0.2"]},
}
CLIENTS = (
    ("mail.client.test", "192.0.2.1"),
    ("out.spammer.test", "192.0.2.77"),
    ("[UNAVAILABLE]", "198.51.100.9"),
    ("inside.ours.test", "10.1.2.3"),
    ("six.client.test", "IPV6:2001:db8::25"),
    ("MIXED.Client.Test", "203.0.113.200"),
)
HELOS = (
    "mail.client.test",
    "spammer.test",
    "localhost",
    "trouble.test",
    "nowhere.test",
    "null.test",
    "[192.0.2.1]",
    "[IPv6:2001:db8::25]",
    "bad_name.client.test",
    "-bad.test",
    "a..b",
    "192.0.2.1",
    "UPPER.Client.Test",
    "x" * 70 + ".test",
)
SENDERS = (
    "",
    "ann@client.test",
    "bob@spammer.test",
    "bill@example.test",
    "nobody@example.test",
    "bill+tag@example.test",
    "ann@localonly",
    "Upper@Client.Test",
    "ann@sub.client.test",
    "postmaster",
    "ann",
    '"odd one"@client.test',
    "ann@null.test",
    "ann@trouble.test",
    "ann@away.test",
    "ann@nowhere.test",
)
RECIPIENTS = (
    "bill@example.test",
    "nobody@example.test",
    "bill+news@example.test",
    "Bill@EXAMPLE.test",
    "any@relay.test",
    "any@sub.relay.test",
    "x@elsewhere.test",
    "x@localonly",
    "postmaster@example.test",
    "postmaster",
    "bill",
    "bill@example.test.",
    "@route.test:bill@example.test",
    "x@backup.test",
    "x@best.test",
    "x@null.test",
    "x@trouble.test",
    "x@away.test",
)
KEYS = {
    "clients": (
        "mail.client.test", "client.test", "test", "192.0.2.1", "192.0.2", "192.0", "192", "spammer.test",
        "198.51.100.9", "10", "2001:db8::25", "2001:db8", "unknown",
    ),
    "helos": ("mail.client.test", "client.test", "spammer.test", "localhost", "192.0.2.1", "test", "[192.0.2.1]"),
    "senders": (
        "ann@client.test", "client.test", "spammer.test", "bill@", "<>", "bill@example.test", "example.test", "test",
        "upper@client.test", "postmaster@", "bob@", "localonly",
    ),
    "recipients": (
        "bill@example.test", "example.test", "nobody@", "relay.test", "any@relay.test", "bill@", "test", "postmaster@",
        "elsewhere.test", "localonly", "x@elsewhere.test",
    ),
    "servers": (
        "mx.evil.test", "evil.test", "203.0.113.66", "203.0.113", "ns.evil.test", "ns.top.test", "192.0.2.1", "192.0.2",
        "mail.client.test", "client.test", "192.0.2.53", "2001:db8", "127.0.0.1", "192.0.2.77", "test",
    ),
}  # fmt: skip
ACTIONS = (
    "OK",
    "1234567",
    "DUNNO",
    "REJECT",
    "REJECT go away",
    "REJECT 5.1.1 no such user",
    "REJECT 5.1.7 bad sender",
    "REJECT 4.2.1 wrong class",
    "550 no",
    "554 5.7.9 policy",
    "450 4.2.0 later",
    "451",
    "421 4.3.2 closing",
    "521 5.3.2 botnet",
    "DEFER",
    "DEFER busy",
    "DEFER_IF_PERMIT",
    "DEFER_IF_PERMIT 4.3.3 soon",
    "DEFER_IF_REJECT",
    "DEFER_IF_REJECT wait",
    "HOLD",
    "HOLD look",
    "REDIRECT bill@example.test",
    "BCC bill@example.test",
    "PREPEND X-Seen: yes",
    "WARN careful",
    "INFO seen",
    "FILTER smtp:[127.0.0.1]:9",
    "permit",
    "reject",
    "one",
    "permit_mynetworks, reject",
    "reject_unauth_destination",
)
_PLAIN = ("permit_mynetworks", "defer_if_permit", "defer_if_reject", "warn_if_reject reject", "one", "two")


def _served(whose: str) -> tuple[str, ...]:
    return tuple(f"check_{whose}_{kind}_access servers" for kind in ("a", "mx", "ns"))


DNS_WORDS = {
    "client": (
        "reject_unknown_client_hostname", "permit_dnswl_client wl.test", "reject_rbl_client bl.test",
        "reject_rbl_client bl.test=127.0.0.[2..8]", "permit_rhswl_client names.test=127.0.0.3",
        "reject_rhsbl_client names.test", "sleep 0", "permit_inet_interfaces", *_served("client"),
    ),
    "helo": ("reject_unknown_helo_hostname", "reject_rhsbl_helo names.test", *_served("helo")),
    "sender": (
        "reject_unknown_sender_domain", "reject_rhsbl_sender names.test", "warn_if_reject defer_if_reject",
        "reject_plaintext_session", *_served("sender"),
    ),
    "recipient": (
        "reject_unknown_recipient_domain", "reject_rhsbl_recipient names.test", "permit_mx_backup",
        "permit_dnswl_client wl.test", "reject_unauth_pipelining", *_served("recipient"),
    ),
    "data": ("reject_unauth_pipelining", "reject_rbl_client bl.test", "check_sender_mx_access servers"),
}  # fmt: skip
WORDS = {
    "client": (*_PLAIN, "check_client_access clients"),
    "helo": (
        *_PLAIN, "check_helo_access helos", "reject_invalid_helo_hostname", "reject_non_fqdn_helo_hostname",
        "check_client_access clients",
    ),
    "sender": (
        *_PLAIN, "check_sender_access senders", "reject_non_fqdn_sender", "reject_unlisted_sender",
        "check_client_access clients", "check_helo_access helos",
    ),
    "recipient": (
        *_PLAIN, "check_recipient_access recipients", "reject_non_fqdn_recipient", "permit_auth_destination",
        "reject_unlisted_recipient", "check_sender_access senders", "check_client_access clients",
        "reject_unauth_destination", "reject_non_fqdn_sender", "reject_invalid_helo_hostname",
    ),
    "data": (
        *_PLAIN, "reject_multi_recipient_bounce", "check_sender_access senders", "check_client_access clients",
        "check_helo_access helos",
    ),
    "end_of_data": (*_PLAIN, "check_sender_access senders", "check_client_access clients"),
}  # fmt: skip
_PIPELINED = "NOOP\r\nNOOP"
_ODD = ("NOOP", "RSET", "MAIL", "RCPT TO:<>", "DATA", _PIPELINED)
CLASSES = (
    "check_sender_access senders, reject_non_fqdn_sender",
    "check_client_access clients",
    "reject_invalid_helo_hostname, permit",
    "check_helo_access helos",
    "permit_mynetworks",
)


@dataclass
class Scenario:
    """`lists`: by the middle of their key; `tables`: the lines of each map; `settings`: the same keys for both."""

    lists: dict[str, list[str]] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)


@dataclass
class Dialog:
    client: tuple[str, str]
    lines: list[str]


def scenario(seed: int) -> Scenario:
    rng = random.Random(f"scenario {seed}")
    made = Scenario()
    made.settings["smtpd_delay_reject"] = rng.choice(("yes", "yes", "no"))
    made.settings["smtpd_helo_required"] = rng.choice(("yes", "no"))
    made.settings["access_map_reject_code"] = rng.choice(("554", "550"))
    made.settings["access_map_defer_code"] = rng.choice(("450", "451"))
    for name, pool in WORDS.items():
        if rng.random() < 0.75:
            made.lists[name] = rng.sample(pool, rng.randrange(1, 4))
        if name in DNS_WORDS and rng.random() < 0.5:
            words = made.lists.setdefault(name, [])
            words.insert(rng.randrange(len(words) + 1), rng.choice(DNS_WORDS[name]))
    if made.settings["smtpd_delay_reject"] == "no":  # the real client's name is asked for in the greeting
        made.lists["client"] = [word for word in made.lists.get("client", []) if "client_hostname" not in word]
    made.lists["relay"] = rng.choice(
        (
            ["permit_mynetworks", "reject_unauth_destination"],
            ["permit_mynetworks", "defer_unauth_destination"],
            ["check_recipient_access recipients", "reject_unauth_destination"],
            ["permit_mx_backup", "permit_mynetworks", "reject_unauth_destination"],
            ["permit_dnswl_client wl.test", "reject_unauth_destination"],
        )
    )
    made.classes = {"one": rng.choice(CLASSES), "two": rng.choice(CLASSES)}
    for name in MAPS:
        keys = rng.sample(KEYS[name], rng.randrange(3, 7))
        made.tables[name] = [f"{key} {rng.choice(ACTIONS)}" for key in keys]
    return made


def dialogs(seed: int, count: int) -> Iterator[Dialog]:
    rng = random.Random(f"dialogs {seed}")
    for _ in range(count):
        lines = []
        if rng.random() < 0.93:
            lines.append(f"{rng.choice(('EHLO', 'EHLO', 'HELO'))} {rng.choice(HELOS)}")
        for _ in range(rng.choice((1, 1, 1, 2))):
            lines += _transaction(rng)
        if rng.random() < 0.15:
            lines.insert(rng.randrange(len(lines)), rng.choice(_ODD))
        yield Dialog(rng.choice(CLIENTS), [*lines, "QUIT"])


def _transaction(rng: random.Random) -> list[str]:
    lines = [f"MAIL FROM:<{rng.choice(SENDERS)}>"]
    lines += [f"RCPT TO:<{rng.choice(RECIPIENTS)}>" for _ in range(rng.choice((1, 1, 2, 3)))]
    if rng.random() < 0.9:
        lines += ["DATA"]
    return lines


class Talk:
    """One connection: what came for each line said; a closed connection is "closed"."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=60)
        self._file = self._socket.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def reply(self) -> str:
        """Code and enhanced code."""
        while True:
            try:
                line = self._file.readline()
            except ConnectionResetError:
                return "closed"
            if not line:
                return "closed"
            if line[3:4] != b"-":
                text = line.decode("utf-8", "replace").rstrip()
                self.last = text
                words = text.split(" ", 2)
                enhanced = words[1] if len(words) > 1 and words[1].count(".") == 2 and words[1][0].isdigit() else ""
                return f"{words[0]} {enhanced}".strip()

    def say(self, line: str) -> str:
        try:
            self._socket.sendall(line.encode() + b"\r\n")
        except OSError:
            return "closed"
        if line == _PIPELINED:
            self.reply()
        return self.reply()


def held(host: str, port: int, dialog: Dialog) -> list[tuple[str, str, str]]:
    """(what was said, the codes of the reply, the reply's last line) of a whole dialog."""
    talk = Talk(host, port)
    talk.last = ""
    out = [("greeting", talk.reply(), talk.last)]
    try:
        name, address = dialog.client
        out.append(("XCLIENT", talk.say(f"XCLIENT NAME={name} ADDR={address}"), talk.last))
        for line in dialog.lines:
            reply = talk.say(line)
            out.append((line, reply, talk.last))
            if reply.startswith("354"):
                out.append(("message", talk.say("Subject: x\r\n\r\nx\r\n."), talk.last))
            if reply == "closed":
                break
    finally:
        talk.close()
    return out
