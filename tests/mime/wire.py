"""A strict reader of the IMAP wire forms that _mime writes: the tests' judge of their grammar (RFC 3501 §9)."""

from typing import Any


def read_value(wire: bytes, at: int = 0) -> tuple[Any, int]:
    """One parenthesised list, string, number or NIL from `at` on, and where it ends; ValueError for anything else."""
    stack: list[list[Any]] = [[]]
    expect_space = False
    while True:
        c = wire[at : at + 1]
        if c == b")":
            if len(stack) == 1 or (not expect_space and stack[-1]):
                raise ValueError(f"unexpected ) at {at}")
            value: Any = stack.pop()
            at += 1
        else:
            if expect_space:
                if c == b" ":
                    at += 1
                    c = wire[at : at + 1]
                elif not (c == b"(" and isinstance(stack[-1][-1], list)):  # lists may touch: addresses, parts
                    raise ValueError(f"space expected at {at}")
            if c == b"(":
                stack.append([])
                at += 1
                expect_space = False
                continue
            value, at = _atom(wire, at)
        stack[-1].append(value)
        expect_space = True
        if len(stack) == 1:
            return stack[0][0], at


def _atom(wire: bytes, at: int) -> tuple[Any, int]:
    c = wire[at : at + 1]
    if c == b'"':
        out = bytearray()
        at += 1
        while wire[at] != 0x22:
            if wire[at] == 0x5C:
                at += 1
                if wire[at] not in b'"\\':
                    raise ValueError(f"bad escape at {at}")
            if wire[at] in (0, 10, 13) or wire[at] > 126:
                raise ValueError(f"byte {wire[at]} in a quoted string at {at}")
            out.append(wire[at])
            at += 1
        return bytes(out), at + 1
    if c == b"{":
        end = wire.index(b"}\r\n", at)
        size = int(wire[at + 1 : end])
        value = wire[end + 3 : end + 3 + size]
        if len(value) != size or b"\0" in value:
            raise ValueError(f"bad literal at {at}")
        return value, end + 3 + size
    if wire[at : at + 3] == b"NIL":
        return None, at + 3
    end = at
    while wire[end : end + 1].isdigit():
        end += 1
    if end == at:
        raise ValueError(f"nothing of the grammar at {at}: {wire[at : at + 20]!r}")
    return int(wire[at:end]), end


def parse(wire: bytes) -> Any:
    value, end = read_value(wire)
    if end != len(wire):
        raise ValueError(f"trailing bytes: {wire[end:]!r}")
    return value


def _string(value: Any) -> None:
    assert isinstance(value, bytes), value


def _nstring(value: Any) -> None:
    assert value is None or isinstance(value, bytes), value


def check_envelope(value: Any) -> None:
    assert len(value) == 10
    for index in (0, 1, 8, 9):
        _nstring(value[index])
    for index in range(2, 8):
        if value[index] is not None:
            assert value[index]
            for address in value[index]:
                assert len(address) == 4
                for part in address:
                    _nstring(part)
    assert (value[2] is None) <= (value[3] is None or value[3] != value[2])


def _check_parameters(value: Any) -> None:
    if value is not None:
        assert value and len(value) % 2 == 0
        for part in value:
            _string(part)


def _check_extension(value: list[Any]) -> None:
    disposition, language, location = value
    if disposition is not None:
        assert len(disposition) == 2
        _string(disposition[0])
        _check_parameters(disposition[1])
    if language is not None:
        for tag in language:
            _string(tag)
    _nstring(location)


def check_body(value: Any, extended: bool) -> None:
    """BODY or BODYSTRUCTURE, arbitrarily deep (the caller's recursion limit is the tests')."""
    if isinstance(value[0], list):
        parts = [part for part in value if isinstance(part, list)]
        count = next(i for i, part in enumerate(value) if not isinstance(part, list))
        for part in parts[:count]:
            check_body(part, extended)
        _string(value[count])
        rest = value[count + 1 :]
        assert len(rest) == (4 if extended else 0), rest
        if extended:
            _check_parameters(rest[0])
            _check_extension(rest[1:])
        return
    kind, subtype, parameters, ident, description, encoding, octets, *rest = value
    _string(kind)
    _string(subtype)
    _check_parameters(parameters)
    _nstring(ident)
    _nstring(description)
    _string(encoding)
    assert isinstance(octets, int)
    if kind.lower() == b"message" and subtype.lower() == b"rfc822":
        check_envelope(rest[0])
        check_body(rest[1], extended)
        assert isinstance(rest[2], int)
        rest = rest[3:]
    elif kind.lower() == b"text":
        assert isinstance(rest[0], int)
        rest = rest[1:]
    assert len(rest) == (4 if extended else 0), rest
    if extended:
        _nstring(rest[0])
        _check_extension(rest[1:])
