"""Postfix's notation of TLS versions and cipher grades.

A list of versions is ">=TLSv1.2", "<=TLSv1.3", "!TLSv1" (all but this one) or "TLSv1.2" (this and what else is named).
Versions that no library speaks any more (SSLv2, SSLv3) may be named and change nothing.
"""

from typing import Final

VERSIONS: Final = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
SPOKEN: Final = frozenset(VERSIONS[2:])
GRADES: Final = ("high", "medium", "low", "export")
DIGESTS: Final = ("sha256", "sha384", "sha512", "sha1", "md5")  # of fingerprints
_FOLDED: Final = {version.lower(): version for version in VERSIONS}


def parse_protocols(text: str) -> frozenset[str]:
    """The versions that a list permits. ValueError: not such a list, or one that leaves none."""
    included: set[str] = set()
    excluded: set[str] = set()
    low, high = 0, len(VERSIONS) - 1
    for word in text.replace(",", " ").replace(":", " ").split():
        name = _FOLDED.get(word.lstrip("<>=!").lower().replace("tlsv1.0", "tlsv1"))
        if name is None:
            raise ValueError(f'"{word}" names no version: {", ".join(VERSIONS)}, with >=, <= or !')
        if word.startswith(">="):
            low = VERSIONS.index(name)
        elif word.startswith("<="):
            high = VERSIONS.index(name)
        elif word.startswith("!"):
            excluded.add(name)
        else:
            included.add(name)
    permitted = {v for n, v in enumerate(VERSIONS) if low <= n <= high and v not in excluded}
    if included:
        permitted &= included
    if not permitted & SPOKEN:
        raise ValueError(f'"{text}" leaves no version')
    return frozenset(permitted)


def parse_ciphers(grade: str) -> str:
    """The grade in lower case. ValueError: none of Postfix's that encrypts."""
    if grade.lower() not in GRADES:
        raise ValueError(f'"{grade}" is no grade: {", ".join(GRADES)}')
    return grade.lower()
