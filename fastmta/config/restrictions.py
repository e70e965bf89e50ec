"""The words of Postfix's smtpd_*_restrictions that are obeyed here, and what each is given and reads.

The one grammar of these lists: the configuration is refused by it, and policy/checks/restrictions.py has one function
for each word.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from fastmta.config.values import parse_map, parse_peer
from fastmta.model.limits import SLEEP_S
from fastmta.model.stages import Stage


class Word(NamedTuple):
    """`given`: what follows the word ("", "zone", "map", "service", "seconds"); `reads`: where the last that it reads
    is known; `permits`: whether its table may say OK (forged names could, where it may not).
    """

    given: str
    reads: Stage
    permits: bool = True


class Restriction(NamedTuple):
    """One word with its argument, "" for none; or the name of a class."""

    name: str
    argument: str


WORDS: Final[dict[str, Word]] = {
    "permit": Word("", Stage.CONNECT),
    "reject": Word("", Stage.CONNECT),
    "defer": Word("", Stage.CONNECT),
    "defer_if_permit": Word("", Stage.CONNECT),
    "defer_if_reject": Word("", Stage.CONNECT),
    "warn_if_reject": Word("", Stage.CONNECT),  # the next word refuses nothing, and is logged
    "sleep": Word("seconds", Stage.CONNECT),
    "permit_inet_interfaces": Word("", Stage.CONNECT),
    "permit_mynetworks": Word("", Stage.CONNECT),
    "permit_sasl_authenticated": Word("", Stage.MAIL),
    "permit_tls_clientcerts": Word("", Stage.MAIL),  # the handshake may come late, as the login does
    "permit_tls_all_clientcerts": Word("", Stage.MAIL),
    "check_ccert_access": Word("map", Stage.MAIL),
    "check_sasl_access": Word("map", Stage.MAIL),
    "reject_plaintext_session": Word("", Stage.MAIL),
    "reject_unauth_pipelining": Word("", Stage.RCPT),  # what came by then
    "permit_dnswl_client": Word("zone", Stage.RCPT),  # since it never lets relay
    "permit_rhswl_client": Word("zone", Stage.RCPT),
    "reject_rbl_client": Word("zone", Stage.CONNECT),
    "reject_rhsbl_client": Word("zone", Stage.CONNECT),
    "reject_rhsbl_reverse_client": Word("zone", Stage.CONNECT),
    "reject_rhsbl_helo": Word("zone", Stage.HELO),
    "reject_rhsbl_sender": Word("zone", Stage.MAIL),
    "reject_rhsbl_recipient": Word("zone", Stage.RCPT),
    "reject_unknown_client_hostname": Word("", Stage.CONNECT),
    "reject_unknown_reverse_client_hostname": Word("", Stage.CONNECT),
    "check_client_access": Word("map", Stage.CONNECT),
    "check_reverse_client_hostname_access": Word("map", Stage.CONNECT, permits=False),
    "check_helo_access": Word("map", Stage.HELO),
    "check_sender_access": Word("map", Stage.MAIL),
    "check_recipient_access": Word("map", Stage.RCPT),
    "check_policy_service": Word("service", Stage.RCPT),  # whose answers are about a recipient
    "reject_invalid_helo_hostname": Word("", Stage.HELO),
    "reject_non_fqdn_helo_hostname": Word("", Stage.HELO),
    "reject_unknown_helo_hostname": Word("", Stage.HELO),
    "reject_non_fqdn_sender": Word("", Stage.MAIL),
    "reject_unknown_sender_domain": Word("", Stage.MAIL),
    "reject_non_fqdn_recipient": Word("", Stage.RCPT),
    "reject_unknown_recipient_domain": Word("", Stage.RCPT),
    "permit_auth_destination": Word("", Stage.RCPT),
    "permit_mx_backup": Word("", Stage.RCPT),
    "reject_unauth_destination": Word("", Stage.RCPT),
    "defer_unauth_destination": Word("", Stage.RCPT),
    "reject_unlisted_recipient": Word("", Stage.RCPT),  # always so, behind the list
    "reject_unlisted_sender": Word("", Stage.MAIL),
    "reject_sender_login_mismatch": Word("", Stage.MAIL),
    "reject_authenticated_sender_login_mismatch": Word("", Stage.MAIL),  # always so (smtp/session)
    "reject_unauthenticated_sender_login_mismatch": Word("", Stage.MAIL),
    "reject_known_sender_login_mismatch": Word("", Stage.MAIL),
    "reject_unverified_sender": Word("", Stage.MAIL),
    "reject_unverified_recipient": Word("", Stage.RCPT),
    "reject_multi_recipient_bounce": Word("", Stage.DATA),
}
SERVED_BY: Final = {  # check_WHOSE_a_access, _mx_, _ns_: whose domain's servers are looked up in a table
    "client": Stage.CONNECT,
    "reverse_client_hostname": Stage.CONNECT,
    "helo": Stage.HELO,
    "sender": Stage.MAIL,
    "recipient": Stage.RCPT,
}
WORDS.update(
    {
        f"check_{whose}_{kind}_access": Word("map", reads, permits=False)
        for whose, reads in SERVED_BY.items()
        for kind in ("a", "mx", "ns")
    }
)
OF_CERTIFICATES: Final = frozenset({"permit_tls_clientcerts", "permit_tls_all_clientcerts", "check_ccert_access"})
# One of these has to stand where it is decided who may relay, as Postfix demands too.
CLOSING: Final = frozenset(
    {"reject_unauth_destination", "defer_unauth_destination", "reject", "defer", "defer_if_permit"}
)
_CLASS: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_OLD: Final = {  # Postfix's earlier spellings
    "check_recipient_maps": "reject_unlisted_recipient",
    "reject_rbl": "reject_rbl_client",
    "reject_invalid_hostname": "reject_invalid_helo_hostname",
    "reject_non_fqdn_hostname": "reject_non_fqdn_helo_hostname",
    "reject_unknown_hostname": "reject_unknown_helo_hostname",
    "reject_unknown_client": "reject_unknown_client_hostname",
    "reject_unknown_address": "reject_unknown_sender_domain",
    "check_relay_domains": "reject_unauth_destination",
}
_ABSENT: Final = {  # Postfix's words that nothing here could obey, and what is to be written instead
    "check_etrn_access": "nothing, since ETRN is not spoken here",
    "permit_naked_ip_addr": "permit_mynetworks or permit_sasl_authenticated",
    "reject_maps_rbl": "reject_rbl_client with each zone",
}
_ZONE: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?")
_OCTET: Final = re.compile(r"\d{1,3}|\[\d{1,3}(?:\.\.\d{1,3})?(?:;\d{1,3}(?:\.\.\d{1,3})?)*\]")
_FILTER: Final = re.compile(r"(?:\[[^\[\]]*\]|[0-9]+)(?:\.(?:\[[^\[\]]*\]|[0-9]+)){3}")


def parse(words: Sequence[str]) -> list[Restriction]:
    """The restrictions that stand in a normalised list."""
    out = []
    at = iter(words)
    for name in at:
        word = WORDS.get(name)
        out.append(Restriction(name, next(at) if word is not None and word.given else ""))
    return out


def normalised(words: Sequence[str], base: Path, classes: Collection[str] = ()) -> tuple[str, ...]:
    """The words with today's names and absolute paths; a class keeps its name. ValueError says what is wrong."""
    return tuple(_normalised(words, base, classes))


def _normalised(words: Sequence[str], base: Path, classes: Collection[str]) -> Iterator[str]:
    at = iter(words)
    for given in at:
        if given in classes:
            yield given
            continue
        name = _OLD.get(given.lower(), given.lower())
        word = WORDS.get(name)
        if word is None:
            raise ValueError(_instead(given))
        yield name
        if word.given:
            argument = next(at, None)
            if argument is None:
                raise ValueError(f"a {word.given} behind {name}")
            if word.given == "service":
                parse_peer(argument)
                yield argument
            elif word.given == "seconds":
                yield _seconds(argument)
            else:
                yield parse_map(argument, base) if word.given == "map" else _zone(argument)


def _instead(given: str) -> str:
    """What an unknown word should have been."""
    if ":" in given:
        return f"check_client_access, check_helo_access, check_sender_access or check_recipient_access before {given}"
    absent = _ABSENT.get(given.lower())
    if absent is not None:
        return f"{absent}, not {given}"
    from difflib import get_close_matches  # late: a configuration without mistakes has no use for it

    near = get_close_matches(given.lower(), WORDS)
    such = f" such as {', '.join(near)}" if near else " (docs/restrictions.md)"
    return f"a restriction{such}, or a class of smtpd_restriction_classes, not {given}"


def _seconds(text: str) -> str:
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= SLEEP_S):
        raise ValueError(f"whole seconds up to {SLEEP_S} behind sleep, not {text}")
    return text


def class_problem(name: str, classes: Mapping[str, Sequence[str]]) -> str:
    """What keeps a class from being one; "" where nothing does."""
    if not _CLASS.fullmatch(name):
        return "is not the name of a class: letters, digits, - and _"
    if name.lower() in WORDS or name.lower() in _OLD:
        return "is a restriction of Postfix's, so no class can be called so"
    seen: set[str] = set()
    pending = [name]
    while pending:
        for word in classes.get(pending.pop(), ()):
            if word == name:
                return "holds itself"
            if word in classes and word not in seen:
                seen.add(word)
                pending.append(word)
    return ""


def closes(words: Sequence[str], classes: Mapping[str, Sequence[str]]) -> bool:
    """Whether a list, with the classes in it, refuses somebody who is to relay for nobody."""
    seen: set[str] = set()
    pending = [words]
    while pending:
        warned = False
        for each in parse(pending.pop()):
            if each.name in CLOSING and not warned:
                return True
            if each.name in classes and each.name not in seen and not warned:
                seen.add(each.name)
                pending.append(classes[each.name])
            warned = each.name == "warn_if_reject"
    return False


def _zone(text: str) -> str:
    """ "zone" or "zone=127.0.0.[2..4;9]"."""
    zone, separator, wanted = text.partition("=")
    if not _ZONE.fullmatch(zone):
        raise ValueError(f"a DNS zone, not {text}")
    if separator:
        parse_filter(wanted)
    return zone.rstrip(".").lower() + separator + wanted


def parse_filter(text: str) -> tuple[frozenset[int], ...]:
    """The octets that each place of an address may have, of "127.0.0.[2..4;9]"."""
    places = re.findall(r"\[[^\[\]]*\]|[0-9]+", text) if _FILTER.fullmatch(text) else []
    out = []
    for place in places:
        if not _OCTET.fullmatch(place):
            break
        allowed: set[int] = set()
        for piece in place.strip("[]").split(";"):
            low, _, high = piece.partition("..")
            allowed |= set(range(int(low), int(high or low) + 1))
        out.append(frozenset(allowed))
    if len(out) != 4 or any(not each or max(each) > 255 for each in out):
        raise ValueError(f"an address filter such as 127.0.0.[2..4;9], not {text}")
    return tuple(out)
