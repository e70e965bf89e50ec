"""Records as lines of a zone file (RFC 1035 §5), which every name server and most web forms take."""

from typing import Final

TTL_S: Final = 3600
STRING_BYTES: Final = 255  # of one string of a TXT record; longer texts are several strings


def record(name: str, kind: str, value: str) -> str:
    """One line; `name` without its last dot."""
    return f"{name}. {TTL_S} IN {kind} {value}"


def text_record(name: str, text: str) -> str:
    """A TXT record, its text in strings of 255 octets."""
    return record(name, "TXT", quoted(text))


def quoted(text: str) -> str:
    pieces = [text[at : at + STRING_BYTES] for at in range(0, len(text), STRING_BYTES)] or [""]
    return " ".join('"' + piece.replace("\\", "\\\\").replace('"', '\\"') + '"' for piece in pieces)
