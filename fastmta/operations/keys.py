"""The keys that sign a domain's mail: the acts `dkim.*`.

A key is `new` (published, not signing yet), `active` (signs) or `old` (published for the mail that is still on its
way). The first key of a domain and algorithm is active at once. Private keys come in and never go out.
"""

import time
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from fastmta.model.errors import ActFailed, Refused
from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.values import Secret, stamp

if TYPE_CHECKING:
    from fastmta.authentication.signing import Signer
    from fastmta.store.dkim_keys import DkimKey

ALGORITHMS: Final = ("rsa", "ed25519")
RENEWED_BITS: Final = 2048


class Key(msgspec.Struct):
    """A key without its private part; `record` is the text that belongs into the DNS at `name`."""

    domain: str
    selector: str
    algorithm: str
    state: str
    created: str
    changed: str
    name: str
    record: str


class AddKey(msgspec.Struct, forbid_unknown_fields=True):
    """`key`: a private key in PEM, with a selector and no algorithm; without it one is made."""

    domain: str
    selector: str | None = None
    algorithm: str | None = None  # "rsa", "ed25519" or "both"
    bits: Annotated[int, msgspec.Meta(ge=1024, le=4096)] = RENEWED_BITS
    key: Secret | None = None


class OfDomain(msgspec.Struct, forbid_unknown_fields=True):
    domain: str


class OfDomains(msgspec.Struct, forbid_unknown_fields=True):
    domain: Annotated[str, msgspec.Meta(extra={"argument": True})] = ""


class OneKey(msgspec.Struct, forbid_unknown_fields=True):
    domain: str
    selector: str


@act("dkim.add", changes=True)
async def add(desk: Desk, asked: AddKey) -> list[Key]:
    """Make or import a key."""
    name = domain_name(asked.domain)
    if asked.key is not None:
        if asked.algorithm is not None or asked.selector is None:
            raise ActFailed("--key needs --selector, and no --algorithm: the key has its own", "usage")
        made = [_signer(asked.key.encode(), name, asked.selector)]
    else:
        wanted = ALGORITHMS if asked.algorithm == "both" else (asked.algorithm or "rsa",)
        made = [
            await desk.offload(_made, name, _selector(asked.selector, kind, len(wanted) > 1), kind, asked.bits)
            for kind in wanted
        ]
    active = {key.algorithm for key in desk.store.dkim_keys.list(name) if key.state == "active"}
    keys = [_record(signer, "new" if _kind_of(signer) in active else "active") for signer in made]
    return await _add(desk, keys)


@rows("dkim.list")
async def list_(desk: Desk, asked: OfDomains) -> AsyncIterator[Key]:
    """List the keys, of all domains or one."""
    for key in desk.store.dkim_keys.list(domain_name(asked.domain) if asked.domain else ""):
        yield _public(key)
        await desk.pause()


@act("dkim.renew", changes=True)
async def renew(desk: Desk, asked: OfDomain) -> list[Key]:
    """Make a new key for each algorithm that signs a domain's mail, to be published and then rotated."""
    name = domain_name(asked.domain)
    keys = _required(desk, name)
    kinds = list(dict.fromkeys(key.algorithm for key in keys if key.state == "active")) or ["rsa"]
    made = [
        await desk.offload(_made, name, _free(_selector(None, kind, False), keys), kind, RENEWED_BITS) for kind in kinds
    ]
    return await _add(desk, [_record(signer, "new") for signer in made])


@act("dkim.rotate", changes=True)
async def rotate(desk: Desk, asked: OfDomain) -> dict[str, str]:
    """Let the new keys sign and the active ones become old; the new state of each that changed, by selector."""
    name = domain_name(asked.domain)
    keys = _required(desk, name)
    # Of several new keys of one algorithm the youngest signs.
    new = sorted((key for key in keys if key.state == "new"), key=lambda key: key.created_at_s)
    chosen = {key.algorithm: key for key in new}
    if not chosen:
        raise ActFailed(f"{name} has no new key", "invalid")
    moves: dict[str, Any] = {key.selector: "active" for key in chosen.values()}
    moves |= {key.selector: "old" for key in keys if key.state == "active" and key.algorithm in chosen}
    await desk.store.dkim_keys.move(name, moves)
    for selector, state in moves.items():
        desk.tell(domain=name, selector=selector, state=state)
    return moves


@act("dkim.show")
async def show(desk: Desk, asked: OneKey) -> Key:
    """Show one key."""
    name, wanted = domain_name(asked.domain), asked.selector.lower()
    for key in _required(desk, name):
        if key.selector == wanted:
            return _public(key)
    raise ActFailed(f"{name} has no key {wanted}", "no_user")


@act("dkim.delete", changes=True)
async def delete(desk: Desk, asked: OneKey) -> None:
    """Delete a key. Take its record out of the DNS afterwards."""
    found = await show(desk, asked)
    await desk.store.dkim_keys.delete(found.domain, found.selector)
    desk.note(domain=found.domain, selector=found.selector)


def domain_name(text: str) -> str:
    """A domain as an administrator writes it, as A-labels."""
    from fastmta.authentication.signature import domain_of
    from fastmta.authentication.tags import TagError

    try:
        name = domain_of(text.strip().encode("utf-8", "replace"))
    except TagError as error:
        raise ActFailed(f"{text}: not a domain", "usage") from error
    if "." not in name:
        raise ActFailed(f"{text}: not a domain", "usage")
    return name


async def _add(desk: Desk, keys: "list[DkimKey]") -> list[Key]:
    try:
        await desk.store.dkim_keys.add(*keys)
    except Refused as refused:
        if refused.code != "exists":
            raise
        names = " or ".join(key.selector for key in keys)
        raise ActFailed(f"{keys[0].domain} has a key {names} already; give another --selector", "invalid") from refused
    for key in keys:
        desk.tell(domain=key.domain, selector=key.selector, algorithm=key.algorithm, state=key.state)
    return [_public(key) for key in keys]


def _required(desk: Desk, domain: str) -> "list[DkimKey]":
    keys = desk.store.dkim_keys.list(domain)
    if not keys:
        raise ActFailed(f"{domain} has no key; make one: fastmta dkim add {domain}", "no_user")
    return keys


def _selector(given: str | None, kind: str, several: bool) -> str:
    if given is not None:
        return f"{given.lower()}-{kind}" if several else given.lower()
    return time.strftime("s%Y%m%d", time.gmtime()) + ("" if kind == "rsa" else "e")


def _free(selector: str, keys: "Iterable[DkimKey]") -> str:
    """The selector, with a number behind it where it is taken."""
    taken = {key.selector for key in keys}
    number = 2
    free = selector
    while free in taken:
        free = f"{selector}-{number}"
        number += 1
    return free


def _made(domain: str, selector: str, kind: str, bits: int) -> "Signer":
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    key: Any = rsa.generate_private_key(65537, bits) if kind == "rsa" else ed25519.Ed25519PrivateKey.generate()
    return _signer(_pem(key), domain, selector)


def _signer(pem: bytes, domain: str, selector: str) -> "Signer":
    from fastmta.authentication.signing import SigningError, load_signer

    try:
        return load_signer(pem, domain, selector)
    except SigningError as error:
        raise ActFailed(str(error), "invalid") from error


def _pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def _kind_of(signer: "Signer") -> str:
    return signer.algorithm.partition("-")[0]


def _record(signer: "Signer", state: Any) -> "DkimKey":
    from fastmta.store.dkim_keys import DkimKey

    now = int(time.time())
    return DkimKey(signer.domain, signer.selector, _kind_of(signer), state, _pem(signer.key), now, now)


def _public(key: "DkimKey") -> Key:
    from fastmta.authentication.signing import load_own_signer

    return Key(
        key.domain,
        key.selector,
        key.algorithm,
        key.state,
        stamp(key.created_at_s),
        stamp(key.changed_at_s),
        f"{key.selector}._domainkey.{key.domain}",
        load_own_signer(key.pem, key.domain, key.selector).public_record(),
    )
