"""Envelopes that another version of the program has written."""

import msgspec

from fastmta.model.envelope import Envelope, Terms


def test_an_envelope_without_terms_is_read_and_one_with_them_is_read_by_who_knows_none():
    encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode
    known = [(each.name, each.type) for each in msgspec.structs.fields(Envelope)]
    before = msgspec.defstruct("Before", known[: [name for name, _ in known].index("terms")], array_like=True)
    old = encode(before(b"s@a.test", 1000, 10, 0, "", "", b"", "", False, "ESMTP"))
    assert decode(old, type=Envelope) == Envelope(b"s@a.test", 1000, 10, 0)
    new = Envelope(b"s@a.test", 1000, 10, 0, terms=Terms(True, 5000, "RT", 2000))
    assert decode(encode(new), type=Envelope) == new and new.began_ms == 2000
    assert decode(encode(new), type=before).reverse_path == b"s@a.test"
