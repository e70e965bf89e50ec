"""The DATA rules as slowly and plainly as they can be said, over the whole input at once."""

import re

DOT_LINE, EIGHT_BIT, LONG_LINE, BARE, NUL = 1, 2, 4, 16, 32


def receive(data: bytes) -> tuple[bytes, int, bool, int]:
    """(message, octets up to the end of data, whether it was seen, arrival bits). RFC 5321 §4.1.1.4, §4.5.2."""
    match = re.search(rb"\A\.\r\n|(?<=\r\n)\.\r\n", data)
    raw = data[: match.start()] if match else data
    if match is None:  # what may yet become the end of data is not given out
        raw = re.sub(rb"(\A|(?<=\r\n))\.\r?\Z", b"", raw)
    message = re.sub(rb"(\A|(?<=\r\n))\.", b"", raw)
    bits = 0
    lines = message.split(b"\r\n")
    # A line is a dot line if it still begins with a dot once the stuffing is out.
    if any(line.startswith(b".") for line in re.split(rb"\r\n", message)):
        bits |= DOT_LINE
    if any(octet > 127 for octet in message):
        bits |= EIGHT_BIT
    if any(len(line) > 998 for line in lines[:-1]) or len(lines[-1].removesuffix(b"\r")) > 998:
        bits |= LONG_LINE
    if b"\0" in message:
        bits |= NUL
    without_pairs = message.replace(b"\r\n", b"")
    if match is None and without_pairs.endswith(b"\r") and message.endswith(b"\r"):
        without_pairs = without_pairs[:-1]  # may yet be followed by its LF
    if b"\r" in without_pairs or b"\n" in without_pairs:
        bits |= BARE
    return message, match.end() if match else len(data), match is not None, bits


def receive_normalized(data: bytes) -> tuple[bytes, bool]:
    """(message, whether the end of data was seen) for whole inputs that end in the end of data."""
    match = re.search(rb"\A\.\r\n|(?<=\r\n)\.\r\n", data)
    raw = data[: match.start()] if match else data
    out = []
    for line in re.split(rb"(?<=\n)", raw):
        if not line:
            continue
        text = line[:-2] if line.endswith(b"\r\n") else line[:-1]
        out.append(text.removeprefix(b".").replace(b"\r", b" ") + b"\r\n")
    return b"".join(out), match is not None
