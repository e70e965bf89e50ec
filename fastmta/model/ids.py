"""Identifiers: 63-bit numbers from the store's id blocks, and the text by which people and logs know them."""

from typing import Final

_ALPHABET: Final = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}
_BASE: Final = len(_ALPHABET)
_WIDTH: Final = 12
_PAIRS: Final = tuple(first + second for first in _ALPHABET for second in _ALPHABET)


def queue_id_text(queue_id: int) -> str:
    """The queue id as users see it: 12 or more characters, no vowels (so no words); sorts as the number does."""
    text = ""
    while queue_id:
        queue_id, pair = divmod(queue_id, _BASE * _BASE)
        text = _PAIRS[pair] + text
    return text.lstrip("0").rjust(_WIDTH, "0")


def parse_queue_id(text: str) -> int:
    """The number behind a queue id's text; ValueError names the character that does not belong."""
    value = 0
    for character in text:
        if character not in _VALUES:
            raise ValueError(f"not a queue id: {text!r} contains {character!r}")
        value = value * _BASE + _VALUES[character]
    return value
