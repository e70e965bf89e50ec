import pytest

from fastmta.pickup.address_list import parse_addresses


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("", []),
        ("bill", ["bill"]),
        ("a@b, c@d ,e@f", ["a@b", "c@d", "e@f"]),
        (",, a@b,,", ["a@b"]),
        ("Bill Smith <a@b>", ["a@b"]),
        ('"Smith, Bill" <a@b>, c@d', ["a@b", "c@d"]),
        ("Bill (the, <first>) <a@b> (x)", ["a@b"]),
        ("a@b (comment \\) still)", ["a@b"]),
        ("(nested (deep)) a@b", ["a@b"]),
        ('"quoted local"@b', ['"quoted local"@b']),
        ('"a\\"b"@c', ['"a\\"b"@c']),
        ("a @ b", ["a@b"]),
        ("a . b @ c . d", ["a.b@c.d"]),
        ("friends: a@b, C <c@d>;, e@f", ["a@b", "c@d", "e@f"]),
        ("undisclosed-recipients:;", []),
        ("nobody <>", []),
        ("<@x,@y:a@b>", ["a@b"]),
        ('<"a>b"@c>', ['"a>b"@c']),
        ("a@[192.0.2.1], b@[IPv6:::1]", ["a@[192.0.2.1]", "b@[IPv6:::1]"]),
        ("\u00fc@b\u00fccher.test", ["\u00fc@b\u00fccher.test"]),
    ],
)
def test_addresses_are_found(value, found):
    assert parse_addresses(value) == found


@pytest.mark.parametrize(
    "value",
    ["two words", "<a@b> <c@d>", "<a@b", '"open', "(open", "<a@b> c", "a@b\nx", "a\0@b", "x: y: a@b;", "a;b", "[open"],
)
def test_what_is_no_list_of_addresses_is_an_error(value):
    with pytest.raises(ValueError, match=r"\w"):
        parse_addresses(value)


def test_a_huge_field_is_linear():
    assert len(parse_addresses(", ".join(f"u{n}@x.test" for n in range(50_000)))) == 50_000
    with pytest.raises(ValueError, match="comment"):
        parse_addresses("(" * 200_000)
