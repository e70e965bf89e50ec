"""Whose ARC seals are believed, and what follows from that for DMARC."""

from collections.abc import Collection, Sequence

from fastmta.authentication.arc import ArcVerdict, collect_sets
from fastmta.authentication.message import Field
from fastmta.authentication.results import passed_dmarc


def vouching_sealer(fields: Sequence[Field], verdict: ArcVerdict, trusted: Collection[str], author_domain: str) -> str:
    """The trusted sealer who saw DMARC pass for this author's domain before the message was sent on; "" for none.

    Each set from the newest back to that sealer's must be of trusted domains: what an unknown host wrote below them
    counts for nothing. `verdict` is of these fields (RFC 8617 §5.2, §7.2.1).
    """
    if verdict.result != "pass" or not trusted:
        return ""
    for one, domain in zip(reversed(collect_sets(fields)), reversed(verdict.sealers), strict=True):
        if domain not in trusted:
            break
        if passed_dmarc(one.results.value.decode("utf-8", "replace").partition(";")[2], author_domain):
            return domain
    return ""
