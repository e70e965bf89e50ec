import json
import plistlib
from xml.etree import ElementTree

import pytest

from fastmta.admin.client_setup import hosts, pages, ways
from fastmta.admin.http import Request
from fastmta.config.schema import Config
from fastmta.config.tables import LISTEN as Listen
from fastmta.config.tables import TlsConfig

LISTEN = Listen(
    submission=("0.0.0.0:587",),
    submissions=("0.0.0.0:465",),
    imap=("0.0.0.0:143",),
    imaps=("0.0.0.0:993",),
    pop3s=("0.0.0.0:1995",),
)


def config(**settings):
    known = {
        "myhostname": "mx.example.test",
        "mydestination": ("example.test",),
        "virtual_mailbox_domains": ("other.test",),
        "listen": LISTEN,
        "tls": TlsConfig(cert_file="cert.pem", key_file="key.pem"),
    }
    return Config(**{**known, **settings})


def ask(path, query="", host="mx.example.test", body=b"", **settings):
    read, forms = pages(lambda: config(**settings))
    method = "POST" if body else "GET"
    known = forms if body else read
    page = known.get(path) or known[path[: path.rfind("/") + 1]]  # as HttpServer finds it
    return page(Request(method, path, query, host, body))


def test_the_best_way_of_each_protocol_comes_first():
    assert [(way.protocol, way.port, way.tls) for way in ways(config())] == [
        ("imap", 993, "implicit"),
        ("imap", 143, "starttls"),
        ("pop3", 1995, "implicit"),
        ("smtp", 465, "implicit"),
        ("smtp", 587, "starttls"),
    ]


def test_without_a_certificate_nothing_is_said_to_be_encrypted():
    plain = config(tls=TlsConfig(), listen=Listen(imap=("0.0.0.0:143",), submission=("0.0.0.0:587",)))
    assert [way.tls for way in ways(plain)] == ["none", "none"]


@pytest.mark.parametrize("path", ["/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml"])
def test_thunderbird_finds_servers_by_address(path):
    answer = ask(path, "emailaddress=bill%40Other.test")
    assert (answer.status, answer.content_type) == (200, "application/xml; charset=utf-8")
    root = ElementTree.fromstring(answer.body)
    assert root.find("emailProvider/domain").text == "other.test"
    first = root.find("emailProvider/incomingServer")
    assert {each.tag: each.text for each in first} == {
        "hostname": "mx.example.test",
        "port": "993",
        "socketType": "SSL",
        "authentication": "password-cleartext",
        "username": "%EMAILADDRESS%",
    }
    assert [each.get("type") for each in root.findall("emailProvider/outgoingServer")] == ["smtp", "smtp"]


def test_thunderbird_finds_servers_by_the_name_that_it_asks():
    assert ask("/mail/config-v1.1.xml", host="autoconfig.example.test:8025").status == 200
    assert ask("/mail/config-v1.1.xml", host="autoconfig.elsewhere.test").status == 404


ASKED = (
    b'<?xml version="1.0"?><Autodiscover'
    b' xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006">'
    b"<Request><EMailAddress>bill@example.test</EMailAddress></Request></Autodiscover>"
)


def test_outlook_finds_one_server_of_each_protocol():
    answer = ask("/autodiscover/autodiscover.xml", body=ASKED)
    space = {"o": "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"}
    root = ElementTree.fromstring(answer.body)
    found = root.findall("o:Response/o:Account/o:Protocol", space)
    assert [
        (each.find("o:Type", space).text, each.find("o:Port", space).text, each.find("o:SSL", space).text)
        for each in found
    ] == [("IMAP", "993", "on"), ("POP3", "1995", "on"), ("SMTP", "465", "on")]
    assert found[0].find("o:LoginName", space).text == "bill@example.test"


@pytest.mark.parametrize(
    "body",
    [
        b"x",
        ASKED.replace(b"example.test", b"elsewhere.test"),
        b"<EMailAddress>bill@example.test&quot;</EMailAddress>",
        b'<!DOCTYPE x [<!ENTITY a "bill@example.test">]><EMailAddress>&a;</EMailAddress>',
        b"<EMailAddress>" + b"b" * 400 + b"@example.test</EMailAddress>",
    ],
)
def test_outlook_is_told_nothing_of_others_and_no_xml_is_parsed(body):
    assert ask("/autodiscover/autodiscover.xml", body=body).status == 404


def test_the_second_autodiscover_tells_where_the_first_is():
    answer = ask("/autodiscover/autodiscover.json", "Email=bill%40example.test&Protocol=AutodiscoverV1")
    assert json.loads(answer.body) == {
        "Protocol": "AutodiscoverV1",
        "Url": "https://autodiscover.example.test/autodiscover/autodiscover.xml",
    }
    assert ask("/autodiscover/autodiscover.json", "Email=bill%40example.test&Protocol=ActiveSync").status == 404
    for address in ("bill@example.test", "bill%40example.test"):
        below = ask(f"/autodiscover/autodiscover.json/v1.0/{address}", "Protocol=AutodiscoverV1")
        assert below.body == answer.body
    assert ask("/autodiscover/autodiscover.json/v1.0/bill@strange.test", "Protocol=AutodiscoverV1").status == 404
    assert ask("/autodiscover/autodiscover.json/v1.0/", "Protocol=AutodiscoverV1").status == 404


def test_apple_gets_a_profile_for_one_address():
    answer = ask("/mobileconfig", "email=bill%40example.test")
    assert answer.content_type == "application/x-apple-aspen-config"
    account = plistlib.loads(answer.body)["PayloadContent"][0]
    assert account["IncomingMailServerHostName"] == "mx.example.test"
    assert (account["IncomingMailServerPortNumber"], account["OutgoingMailServerPortNumber"]) == (993, 465)
    assert account["EmailAccountType"] == "EmailTypeIMAP"
    again = plistlib.loads(ask("/mobileconfig", "email=Bill%40example.test").body)
    assert again["PayloadUUID"] == plistlib.loads(answer.body)["PayloadUUID"]  # installed anew it replaces the first


@pytest.mark.parametrize(
    "query", ["", "email=bill", "email=bill%40elsewhere.test", "email=%3Cx%3E%40example.test", "a=1&" * 50]
)
def test_no_profile_for_what_is_no_address_of_ours(query):
    assert ask("/mobileconfig", query).status == 404


def test_the_pages_are_asked_for_under_these_names():
    assert "autodiscover.other.test" in hosts(config())
