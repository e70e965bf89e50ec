"""A partner's domain is taken only from the partner's own servers."""

import ipaddress

from fastmta.policy.api import Context, Verdict, accept, reject

API = 1
PARTNERS = {"partner.example": ipaddress.ip_network("192.0.2.0/28")}


async def mail(context: Context) -> Verdict:
    network = PARTNERS.get(context.sender.rpartition("@")[2].lower())
    if network is None or ipaddress.ip_address(context.client_ip) in network:
        return accept()
    return reject("5.7.1", "That domain sends from elsewhere", reason="not the partner's server")


async def message(context: Context) -> Verdict:
    known = context.sender.rpartition("@")[2].lower() in PARTNERS
    return accept().adding("X-Partner", "yes") if known else accept()
