"""Replies and their wire form."""

from fastmta.model.reply import Reply


def test_a_prepared_reply_says_the_same() -> None:
    for reply in (Reply(250, "", "mx\nPIPELINING\nSIZE 5"), Reply(452, "4.3.1", "no r\xf6\xf6m"), Reply(221)):
        prepared = reply.prepared()
        assert prepared.encode() == reply.encode() == prepared.encode()
        assert (prepared.code, prepared.enhanced, prepared.text, str(prepared)) == (
            reply.code, reply.enhanced, reply.text, str(reply),
        )  # fmt: skip
