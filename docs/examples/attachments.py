"""Executable attachments of strangers go into quarantine."""

import re

from fastmta.policy.api import Context, Verdict, accept, quarantine

API = 1
NAME = re.compile(rb'name\*?=\s*"?[^"\r\n]*\.(exe|scr|js|vbs|bat|lnk)"?', re.IGNORECASE)


async def message(context: Context) -> Verdict:
    if context.login:
        return accept()
    found = NAME.search(context.header + context.body)
    if found is None:
        return accept()
    return quarantine(f"an attachment *.{found[1].decode()}").adding("X-Site-Policy", "executable attachment")
