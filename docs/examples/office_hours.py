"""Mail to sales@ outside of office hours is put off: the sender's server tries again, and nobody is woken."""

import time

from fastmta.policy.api import Context, Verdict, accept, defer

API = 1
OPENS, CLOSES = 8, 18
SATURDAY = 5


async def rcpt(context: Context) -> Verdict:
    if not context.recipient.lower().startswith("sales@") or context.login:
        return accept()
    now = time.localtime()
    if OPENS <= now.tm_hour < CLOSES and now.tm_wday < SATURDAY:
        return accept()
    return defer("4.7.1", f"We read mail from {OPENS} to {CLOSES} o'clock", reason="outside of office hours")
