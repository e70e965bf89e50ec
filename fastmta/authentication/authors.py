"""The author's domains: what stands behind the @ in From (RFC 5322 §3.6.2), read so that no trick hides one."""

from collections.abc import Iterator, Sequence

from fastmta.authentication.message import Field, named


def author_domains(fields: Sequence[Field]) -> tuple[str, ...]:
    """The domains of all addresses of all From fields, as A-labels, each once, in order. Addresses without one are not
    there; literals neither.
    """
    found: dict[str, None] = {}
    for field in named(fields, b"from"):
        for address in _addresses(_clean(field.value.decode("utf-8", "replace"))):
            domain = _domain(address)
            if domain:
                found[domain] = None
    return tuple(found)


def _clean(text: str) -> str:
    """Without comments and folds; what is quoted keeps its place as q, so that nothing in it has a meaning."""
    out: list[str] = []
    depth, at = 0, 0
    quoted = False
    while at < len(text):
        char = text[at]
        if char == "\\" and (quoted or depth):
            at += 1
        elif quoted:
            quoted = char != '"'
        elif char == '"' and not depth:
            quoted = True
            out.append("q")
        elif char == "(":
            depth += 1
        elif char == ")" and depth:
            depth -= 1
        elif not depth:
            out.append(" " if char in "\r\n\t" else char)
        at += 1
    return "".join(out)


def _addresses(text: str) -> Iterator[str]:
    """Each mailbox's address: what is in its angle brackets, else all of it. Groups are opened."""
    for mailbox in _split(text):
        start = mailbox.rfind("<")
        if start >= 0:
            inside = mailbox[start + 1 :].partition(">")[0]
            yield inside.rpartition(":")[2] if inside.startswith("@") else inside  # a source route
        else:
            yield mailbox


def _split(text: str) -> Iterator[str]:
    start, angle = 0, False
    for at, char in enumerate(text):
        if char == "<":
            angle = True
        elif char == ">":
            angle = False
        elif (char in ",;" and not angle) or (char == ":" and not angle):
            yield text[start:at]
            start = at + 1
    yield text[start:]


def _domain(address: str) -> str:
    _, at, domain = address.strip().rpartition("@")
    domain = "".join(domain.split()).lower().rstrip(".")
    if not at or not domain or domain.startswith("["):
        return ""
    if domain.isascii():
        return domain[:255]
    import idna

    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except (UnicodeError, idna.IDNAError):
        return ""
