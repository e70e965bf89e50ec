"""Our own MTA-STS policy (RFC 8461 §3.2) as a page of the http listener, for the proxy that has the certificate of
mta-sts.DOMAIN.
"""

from fastmta.admin.http import Answer
from fastmta.config.consistency import own_domains
from fastmta.config.schema import Config

PATH = "/.well-known/mta-sts.txt"


def policy_page(config: Config) -> Answer:
    """The policy; 404 where none is configured."""
    if not config.mta_sts_policy_mode:
        return Answer(404, b"not found\n")
    hosts = config.mta_sts_policy_mx or (config.myhostname,)
    lines = ["version: STSv1", f"mode: {config.mta_sts_policy_mode}", *(f"mx: {host}" for host in hosts)]
    lines.append(f"max_age: {int(config.mta_sts_policy_max_age)}")
    return Answer(200, "".join(f"{line}\r\n" for line in lines).encode())


def policy_hosts(config: Config) -> tuple[str, ...]:
    """The names under which it is asked for: those of our domains."""
    if not config.mta_sts_policy_mode:
        return ()
    return tuple(f"mta-sts.{domain}" for domain in own_domains(config))
