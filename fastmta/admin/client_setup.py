"""What mail programs ask for to set themselves up: an address in, servers, ports and encryption out.

Thunderbird's autoconfig, Outlook's autodiscover (POX and its JSON finder), Apple's .mobileconfig. All of it is public:
no account is looked up. Pages for domains that are not ours are 404. TLS is the web server's in front of us, as for
every page here.
"""

import json
import plistlib
import re
import uuid
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote
from xml.etree import ElementTree

from fastmta.admin.http import Answer, Page, Request
from fastmta.config.schema import Config
from fastmta.config.values import parse_endpoint
from fastmta.model.services import SERVICES, Service, Tls

XML: Final = "application/xml; charset=utf-8"
JSON: Final = "application/json; charset=utf-8"
PROFILE: Final = "application/x-apple-aspen-config"
NAMES: Final = ("autoconfig", "autodiscover")  # below each domain of ours
_ADDRESS: Final = re.compile(r"[^\s@<>&\"']{1,64}@([a-z0-9.-]{1,255})", re.IGNORECASE)
_ASKED: Final = re.compile(rb"<EMailAddress>\s*([^<>\s]{3,320})\s*</EMailAddress>", re.IGNORECASE)
_POX: Final = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"
_OUTLOOK: Final = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"
_NOT_HERE: Final = Answer(404, b"no such address here\n")


class Way(NamedTuple):
    """One way to read or to send mail. `tls`: "implicit", "starttls" or "none"."""

    protocol: str  # imap, pop3, smtp
    host: str
    port: int
    tls: str


def first_port(config: Config, service: Service) -> int:
    """The port at which a service is found; 0: at none."""
    ports = (parse_endpoint(text).port for text in config.listen.of(service.name))
    return next((port for port in ports if port), 0)


def ways(config: Config) -> list[Way]:
    """The services that mail programs find, the best of a protocol first (RFC 8314 prefers implicit TLS)."""
    named = [(s.srv_priority, s) for s in SERVICES if s.srv_priority is not None and first_port(config, s)]
    found = []
    for _, service in sorted(named, key=lambda pair: pair[0]):
        has_tls = bool(config.tls.cert_file)
        tls = "implicit" if service.tls is Tls.IMPLICIT else "starttls" if has_tls else "none"
        found.append(Way(service.protocol, config.myhostname, first_port(config, service), tls))
    return sorted(found, key=lambda way: ("imap", "pop3", "smtp").index(way.protocol))


def domains(config: Config) -> frozenset[str]:
    """Those with mailboxes here."""
    return frozenset(name.lower() for name in config.mailbox_domains)


def hosts(config: Config) -> list[str]:
    """The names under which the pages are asked for, beside the server's own."""
    return [f"{name}.{domain}" for domain in sorted(domains(config)) for name in NAMES] + sorted(domains(config))


def pages(config: Callable[[], Config]) -> tuple[dict[str, Page], dict[str, Page]]:
    """The pages for GET and for POST, by path in lower case. `config` gives the one in force."""

    def page(make: Callable[[Config, Request], Answer]) -> Page:
        return lambda request: make(config(), request)

    read = {
        "/mail/config-v1.1.xml": page(_autoconfig),
        "/.well-known/autoconfig/mail/config-v1.1.xml": page(_autoconfig),
        "/autodiscover/autodiscover.json": page(_finder),
        "/autodiscover/autodiscover.json/v1.0/": page(_finder),  # with the address behind it
        "/mobileconfig": page(_mobileconfig),
    }
    return read, {"/autodiscover/autodiscover.xml": page(_autodiscover)}


def _autoconfig(config: Config, request: Request) -> Answer:
    """Without an address the domain is that of the host's name."""
    address = _parameter(request, "emailaddress")
    domain = _domain_of(address, config) if address else _below(request.host, "autoconfig", config)
    if not domain:
        return _NOT_HERE
    root = ElementTree.Element("clientConfig", version="1.1")
    provider = ElementTree.SubElement(root, "emailProvider", id=domain)
    _put(provider, domain=domain, displayName=domain, displayShortName=domain)
    words = {"implicit": "SSL", "starttls": "STARTTLS", "none": "plain"}
    for way in ways(config):
        kind = "outgoingServer" if way.protocol == "smtp" else "incomingServer"
        server = ElementTree.SubElement(provider, kind, type=way.protocol)
        _put(server, hostname=way.host, port=str(way.port), socketType=words[way.tls])
        _put(server, authentication="password-cleartext", username="%EMAILADDRESS%")
    return _xml(root)


def _autodiscover(config: Config, request: Request) -> Answer:
    """Outlook's question, of which the address alone counts; it is searched for and not parsed as XML."""
    asked = _ASKED.search(request.body)
    address = asked[1].decode("utf-8", "replace") if asked else ""
    if not _domain_of(address, config):
        return _NOT_HERE
    root = ElementTree.Element("Autodiscover", xmlns=_POX)
    response = ElementTree.SubElement(root, "Response", xmlns=_OUTLOOK)
    _put(ElementTree.SubElement(response, "User"), DisplayName=address)
    account = ElementTree.SubElement(response, "Account")
    _put(account, AccountType="email", Action="settings")
    words = {"implicit": "SSL", "starttls": "TLS", "none": "None"}
    seen = set()
    for way in ways(config):
        if way.protocol in seen:
            continue  # one of each: Outlook takes the first
        seen.add(way.protocol)
        protocol = ElementTree.SubElement(account, "Protocol")
        _put(protocol, Type=way.protocol.upper(), Server=way.host, Port=str(way.port), LoginName=address)
        _put(protocol, DomainRequired="off", SPA="off", SSL="on" if way.tls == "implicit" else "off")
        _put(protocol, Encryption=words[way.tls], AuthRequired="on")
        if way.protocol == "smtp":
            _put(protocol, UsePOPAuth="on", SMTPLast="off")
    return _xml(root)


def _finder(config: Config, request: Request) -> Answer:
    """Autodiscover's second version: it tells only where the first one is."""
    below = request.path.partition("/v1.0/")[2]
    domain = _domain_of(unquote(below) if below else _parameter(request, "email"), config)
    if not domain:
        return _NOT_HERE
    protocol = _parameter(request, "protocol")
    if protocol.lower() != "autodiscoverv1":
        error = {"ErrorCode": "ProtocolNotSupported", "ErrorMessage": "only AutodiscoverV1 is answered here"}
        return Answer(404, json.dumps(error).encode(), JSON)
    url = f"https://autodiscover.{domain}/autodiscover/autodiscover.xml"
    return Answer(200, json.dumps({"Protocol": "AutodiscoverV1", "Url": url}).encode(), JSON)


def _mobileconfig(config: Config, request: Request) -> Answer:
    """Apple's profile for one address; the device asks for the password."""
    address = _parameter(request, "email") or _parameter(request, "emailaddress")
    domain = _domain_of(address, config)
    known = {way.protocol: way for way in reversed(ways(config))}
    reading, sending = known.get("imap") or known.get("pop3"), known.get("smtp")
    if not domain or reading is None or sending is None:
        return _NOT_HERE
    number = uuid.uuid5(uuid.NAMESPACE_URL, f"mailto:{address.lower()}")
    lead = ".".join(reversed(domain.split(".")))
    account: dict[str, Any] = {
        "PayloadType": "com.apple.mail.managed",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{lead}.mail.{number}",
        "PayloadUUID": str(uuid.uuid5(number, "account")).upper(),
        "PayloadDisplayName": address,
        "EmailAccountDescription": address,
        "EmailAccountType": "EmailTypeIMAP" if reading.protocol == "imap" else "EmailTypePOP",
        "EmailAddress": address,
        "OutgoingPasswordSameAsIncomingPassword": True,
    }
    for name, way in (("Incoming", reading), ("Outgoing", sending)):
        account |= {
            f"{name}MailServerHostName": way.host,
            f"{name}MailServerPortNumber": way.port,
            f"{name}MailServerUseSSL": way.tls != "none",
            f"{name}MailServerUsername": address,
            f"{name}MailServerAuthentication": "EmailAuthPassword",
        }
    profile = {
        "PayloadType": "Configuration",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{lead}.profile.{number}",
        "PayloadUUID": str(number).upper(),
        "PayloadDisplayName": f"Mail of {address}",
        "PayloadOrganization": domain,
        "PayloadContent": [account],
    }
    return Answer(200, plistlib.dumps(profile), PROFILE)


def _domain_of(address: str, config: Config) -> str:
    """The domain of an address, where it is one of ours; else ""."""
    found = _ADDRESS.fullmatch(address)
    domain = found[1].lower() if found else ""
    return domain if domain in domains(config) else ""


def _below(host: str, name: str, config: Config) -> str:
    """The domain of ours that a host's name belongs to: `name`.DOMAIN, or DOMAIN itself."""
    domain = host.partition(":")[0].lower().rstrip(".").removeprefix(f"{name}.")
    return domain if domain in domains(config) else ""


def _parameter(request: Request, name: str) -> str:
    """One value of the query, its name in any case (Outlook writes Email, others email)."""
    try:
        fields = parse_qs(request.query, max_num_fields=20)
    except ValueError:
        return ""
    return next((values[0].strip() for key, values in fields.items() if key.lower() == name), "")


def _put(parent: ElementTree.Element, **texts: str) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(parent, name).text = text


def _xml(root: ElementTree.Element) -> Answer:
    body: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return Answer(200, body, XML)
