"""What one message came to, as a row of the report that its author's domain asks for (RFC 9990)."""

import time
from typing import Final

from fastmta.authentication.verifying import Client, Verdicts
from fastmta.model.verdict import Action
from fastmta.policy.check import Parts
from fastmta.store.dmarc_rows import Published, Row

_DISPOSITIONS: Final = {Action.REJECT: "reject", Action.QUARANTINE: "quarantine"}
_SIGNATURES: Final = 10  # of a message that are told
_WORD: Final = 100  # characters of a selector or a comment


def count_for_report(parts: Parts, verdicts: Verdicts, who: Client, action: Action, sealer: str) -> None:
    """Counts a message, where its domain wants to be told."""
    dmarc = verdicts.dmarc
    record = dmarc.record
    if record is None or not record.rua or not dmarc.domain:
        return
    done = _DISPOSITIONS.get(action, "none")
    reasons: tuple[tuple[str, str], ...] = ()
    if sealer:
        reasons = (("trusted_forwarder", f"arc=pass d={sealer}"),)
    elif done != dmarc.disposition and dmarc.result == "fail":
        reasons = (("local_policy", ""),)
    spf = verdicts.spf
    row = Row(
        who.ip,
        "pass" if dmarc.result == "pass" else done,
        "pass" if dmarc.dkim_aligned else "fail",
        "pass" if dmarc.spf_aligned else "fail",
        dmarc.author_domain[:253],
        who.sender.rpartition("@")[2].lower()[:253],
        tuple((each.domain[:253], each.selector[:_WORD], each.result) for each in verdicts.dkim[:_SIGNATURES]),
        ((spf.domain[:253], "helo" if spf.from_helo else "mfrom", spf.result),) if spf is not None else (),
        reasons,
    )
    published = Published(
        record.p or "none",
        record.sp or "",
        record.np or "",
        "s" if record.strict_dkim else "r",
        "s" if record.strict_spf else "r",
        "y" if record.testing else "n",
    )
    day = time.strftime("%Y%m%d", time.gmtime(parts.clock.now()))
    parts.store.dmarc_rows.note(day, dmarc.domain, published, row)
