# ruff: noqa: E501 (whole messages, as an administrator reads them)
"""The configuration file: what is taken, and what an administrator is told."""

import pytest

from fastmta.config.default import DEMO_PORTS, default_text
from fastmta.config.load import load, parse, parse_all, read
from fastmta.config.location import default_path
from fastmta.config.schema import TABLES, Config, leaves
from fastmta.model.errors import ConfigError


def problems(text, base="/etc/fastmta"):
    config, found = parse_all(text, base=base, name="f.toml")
    assert (config is None) == bool(found)
    return [str(problem) for problem in found]


def test_every_field_is_a_declared_key():
    declared = {leaf.dotted for leaf in leaves()}
    for table, struct in {"": Config, **TABLES}.items():
        for name in struct.__struct_fields__:
            if table or name not in {"config_file", "transport", "pipe", "shaping", *TABLES}:
                assert (f"{table}.{name}" if table else name.removeprefix("_")) in declared


def test_every_key_has_a_flat_name_of_its_own():
    flat = [leaf.flat for leaf in leaves()]
    assert len(flat) == len(set(flat))


def test_the_empty_file_gives_the_defaults():
    config = parse('myhostname = "mx.example.test"')
    assert config.mydomain == "example.test"
    assert config.myorigin == "mx.example.test"
    assert config.mydestination == ("mx.example.test", "localhost.example.test", "localhost")
    assert config.delivery.smtp_helo_name == "mx.example.test"
    for leaf in leaves():
        if leaf.key.default is None and leaf.name not in {"myhostname", "mydomain"}:
            table = getattr(config, leaf.table) if leaf.table else config
            given = getattr(table, leaf.attribute)
            assert (
                given == tuple(v.strip("[]").replace("]/", "/") for v in leaf.value)
                if leaf.name == "mynetworks"
                else (given == leaf.value)
            )


def test_struct_defaults_agree_with_the_defaults_in_the_file_notation():
    config = parse('myhostname = "localhost"\nmydomain = "localdomain"\nmydestination = "localhost"')
    assert config == Config()


@pytest.mark.parametrize("text", [default_text(), default_text(ports=DEMO_PORTS, data="./data")])
def test_the_written_default_is_valid(text, tmp_path):
    config = parse(text, base=tmp_path)
    assert config.data_directory == str(tmp_path / "data")
    assert config.mydestination == ("example.test", "mx.example.test", "localhost")
    assert config.message_size_limit == 50 * 2**20


def test_the_demo_listens_on_loopback_only():
    config = parse(default_text(ports=DEMO_PORTS))
    assert config.listen.smtp == ("127.0.0.1:2525",)
    assert config.listen.http == ("127.0.0.1:8025",)
    for service in config.listen.__struct_fields__:
        assert all(endpoint.startswith("127.0.0.1:") for endpoint in getattr(config.listen, service))


def test_lists_take_postfix_one_string_form_and_references():
    config = parse(
        'mydomain = "e.org"\nmydestination = "$mydomain, mail.$mydomain\\tx.org"\n'
        'relay_domains = ["relay.${mydomain}", "b.org"]\nvirtual_alias_maps = "hash:a texthash:$(mydomain)"',
        base="/etc",
    )
    assert config.mydestination == ("e.org", "mail.e.org", "x.org")
    assert config.relay_domains == ("relay.e.org", "b.org")
    assert config.virtual_alias_maps == ("hash:/etc/a", "texthash:/etc/e.org")


def test_a_domain_belongs_to_one_list():
    assert problems('mydestination = "a.org"\nrelay_domains = ["$(mydestination)"]') == [
        "f.toml:2: relay_domains: a.org is in mydestination too: a domain belongs to one of them"
    ]


def test_times_and_sizes_count_in_postfix_units():
    config = parse(
        'message_size_limit = "2K"\nqueue_minfree = 1000\nsmtpd_timeout = 30\n'
        '[delivery]\nmaximal_queue_lifetime = 2\nminimal_backoff_time = "1m"\ndelay_warning_time = "4"'
    )
    assert (config.message_size_limit, config.queue_minfree, config.smtpd_timeout) == (2048, 1000, 30.0)
    assert config.delivery.maximal_queue_lifetime == 2 * 86_400
    assert config.delivery.minimal_backoff_time == 60
    assert config.delivery.delay_warning_time == 4 * 3600


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "f.toml").write_text(
        'data_directory = "data"\nvirtual_alias_maps = "hash:virtual"\n[listen]\nlmtp = ["unix:lmtp"]\n'
        '[tls]\ncert_file = "c.pem"\nkey_file = "/k.pem"\n'
    )
    config = load(tmp_path / "f.toml")
    assert config.data_directory == str(tmp_path / "data")
    assert config.virtual_alias_maps == (f"hash:{tmp_path}/virtual",)
    assert config.listen.lmtp == (f"unix:{tmp_path}/lmtp",)
    assert (config.tls.cert_file, config.tls.key_file) == (str(tmp_path / "c.pem"), "/k.pem")
    assert config.config_file == str(tmp_path / "f.toml")


def test_the_environment_names_the_default_file(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTMTA_CONFIG", str(tmp_path / "x.toml"))
    assert default_path() == str(tmp_path / "x.toml")
    with pytest.raises(ConfigError, match=r"x\.toml: cannot read the configuration: No such file"):
        load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('mynetwork = "x"', "f.toml:1: mynetwork: unknown key; did you mean mynetworks?"),
        ("smtp_tcp_port = 3", "f.toml:1: smtp_tcp_port: unknown key; write it as smtp_tcp_port in [delivery]"),
        ('smtpd_tls_cert_file = "x"', "f.toml:1: smtpd_tls_cert_file: unknown key; write it as cert_file in [tls]"),
        ("[tls]\nworkers = 3", "f.toml:2: tls.workers: unknown key; write it as workers above the first [table]"),
        ("[delivry]\na = 1", "f.toml:1: delivry: unknown table; did you mean delivery?"),
        ('\n[dns]\nx = ""', "f.toml:3: dns.x: unknown key; known in [dns]: nameservers, trust_ad"),
        ('workers = "many"', 'f.toml:1: workers: "many": expected a whole number, from 0 to 1024'),
        ("workers = true", "f.toml:1: workers: true: expected a whole number, from 0 to 1024"),
        ("workers = -1", "f.toml:1: workers: -1: expected a whole number, from 0 to 1024"),
        (
            '[delivery]\nsmtp_tls_security_level = "encript"',
            'f.toml:2: delivery.smtp_tls_security_level: "encript": expected one of none, may, encrypt, verify, secure, '
            "fingerprint, dane, dane-only; did you mean encrypt?",
        ),
        (
            '[delivery]\nmaximal_queue_lifetime = "5y"',
            'f.toml:2: delivery.maximal_queue_lifetime: "5y": expected a time such as "300s", "10m", "4h", "5d" or "1w"',
        ),
        (
            'message_size_limit = "big"',
            'f.toml:1: message_size_limit: "big": expected a size such as "50M", "2G" or a number of bytes',
        ),
        (
            'mynetworks = "10.0.0.1/8"',
            'f.toml:1: mynetworks: "10.0.0.1/8": expected a network without host bits (10.0.0.0/8, probably), not 10.0.0.1/8',
        ),
        (
            'myorigin = "$nowhere"',
            'f.toml:1: myorigin: "$nowhere": expected a value without $nowhere, which is not a known name',
        ),
        (
            '[auth]\nmechanisms = ["GSSAPI"]',
            'f.toml:2: auth.mechanisms: ["GSSAPI"]: expected PLAIN, LOGIN, OAUTHBEARER, XOAUTH2, SCRAM-SHA-1, SCRAM-SHA-256, EXTERNAL, not GSSAPI',
        ),
        (
            'smtpd_proxy_filter = "localhost:1"',
            'f.toml:1: smtpd_proxy_filter: FastMTA does not have this feature, so "localhost:1" would do nothing: remove it (header_checks, smtp_header_checks and their kin look into mail; of milters there are smtpd_milters and non_smtpd_milters)',
        ),
        (
            '[listen]\nmanagesieve = ["127.0.0.1:4190"]',
            "f.toml:2: listen.managesieve: FastMTA does not have ManageSieve: remove it",
        ),
        (
            '[listen]\nimaps = "*:993"',
            "f.toml:2: listen.imaps: needs a certificate: set tls.cert_file and tls.key_file",
        ),
        ('[listen]\nimap = ["a:1"]\nsmtp = ["a:1"]', "f.toml:2: listen.imap: a:1 is listen.smtp's too"),
        (
            '[transport]\n"a.org" = "smpt:b"',
            'f.toml:2: transport.a.org: "smpt:b" is not a route: it begins with one of '
            "smtp:, lmtp:, local:, discard:, error:, retry:, pipe:, hold:",
        ),
        (
            'relayhost = "[a]:b c"',
            'f.toml:1: relayhost: "[a]:b c" is not "[host]", "[host]:port", "domain" or "domain:port"',
        ),
        (
            'recipient_delimiter = "ab"',
            "f.toml:1: recipient_delimiter: may hold only characters such as + - = that are not letters or digits",
        ),
        ("a = = 1", "f.toml:1: not TOML: invalid value"),
        ("workers = 1\nworkers = 2", "f.toml:2: not TOML: cannot overwrite a value"),
        (
            'virtual_alias_maps = "/etc/x"',
            'f.toml:1: virtual_alias_maps: "/etc/x": expected a map such as hash:/etc/fastmta/virtual '
            "(types: hash, texthash, regexp, pcre, cidr, inline, static)",
        ),
        (
            'mydestination = ["a b.org"]',
            'f.toml:1: mydestination: ["a b.org"]: expected a domain name such as example.org (in its xn-- form where it isn\'t ASCII), not a b.org',
        ),
        (
            '[transport]\n"a.org" = "smtp:[192.0.2.1]:lmtp"',
            'f.toml:2: transport.a.org: "[192.0.2.1]:lmtp": lmtp is neither a port from 1 to 65535 nor the name of a service that this machine knows',
        ),
        ('[transport]\n"a.org" = "hold:pipe:md"', "f.toml:2: transport.a.org: there is no table [pipe.md]"),
        ('[pipe.md]\nuser = "vmail"', "f.toml:1: pipe.md: needs the key argv"),
        ('[pipe.md]\nargv = ["/bin/cat"]', "f.toml:1: pipe.md: needs the key user"),
        (
            '[pipe.md]\nuser = "vmail"\nargv = ["cat"]',
            'f.toml:3: pipe.md.argv: ["cat"]: expected the absolute path of a program first',
        ),
        (
            '[pipe.md]\nuser = "vmail"\nargv = "/bin/cat $sender"\nflags = "DZ"',
            'f.toml:4: pipe.md.flags: "DZ": expected flags of BDFORXhqu.>, not Z',
        ),
        (
            '[pipe.md]\nuser = "vmail"\nargv = "/bin/cat"\nshell = true',
            "f.toml:4: pipe.md.shell: unknown key; known in [pipe.md]: argv, user, flags, directory, eol, null_sender, "
            "size, time_limit, destination_concurrency_limit, destination_recipient_limit",
        ),
        ('tls = "x"', "f.toml:1: tls: is a table: write [tls] on a line of its own"),
    ],
)
def test_a_mistake_is_named_with_line_value_and_remedy(text, message):
    assert problems(text) == [message]


@pytest.mark.parametrize(
    "route",
    [
        *("smtp:[192.0.2.1]:0", "smtp:[192.0.2.1]:65536", "smtp:[192.0.2.1]:99999", "smtp:[192.0.2.1]:bogus"),
        *("smtp:[192.0.2.1", "smtp:192.0.2.1", "smtp:[192.0.2.300]", "smtp:[ipv6:zz]", "smtp:[2001:db8::g]:25"),
        *(
            "smtp:a..b",
            "smtp:-a",
            "smtp:[a b]",
            "smtp:[]",
            "smtp:[a],",
            "hold:smtp:[a]:x",
            "relay:a:b:c",
            "lmtp:[a]:lmtp",
        ),
        *("lmtp:unix:run", f"lmtp:unix:/{'x' * 107}", "smtp:unix:/x", "lmtp:inet:a:nothing"),
    ],
)
def test_a_route_that_cannot_be_served_is_refused(route):
    (found,) = problems(f'[transport]\n"a.org" = "{route}"')
    assert found.startswith("f.toml:2: transport.a.org: ")
    if route.startswith("smtp:") and "unix" not in route:
        (found,) = problems(f'relayhost = "{route[5:]}"')
        assert found.startswith("f.toml:1: relayhost: ")


@pytest.mark.parametrize(
    "route",
    [
        *(
            "smtp:[192.0.2.1]:25",
            "smtp:[ipv6:2001:db8::1]",
            "smtp:[2001:db8::1]:2525",
            "smtp:mx.a.org:smtp",
            "smtp:[a_b]",
        ),
        *("lmtp:127.0.0.1:24", "lmtp:inet:127.0.0.1:24", "lmtp:unix:/run/x", "smtp:[a], [b]:submission", "smtp:", ":"),
    ],
)
def test_a_route_that_can_be_served_is_taken_by_the_router_too(route):
    from fastmta.delivery.routing import Router

    Router(parse(f'[transport]\n"a.org" = "{route}"'))


def test_every_problem_is_found_in_one_reading():
    found = problems('workers = "x"\nmyhostnam = "a"\n[delivery]\nsmtp_tcp_port = 0\n[transport]\n"a b" = "smtp:c"')
    assert [line.split(":")[1] for line in found] == ["1", "2", "4", "6"]


def test_a_parameter_without_feature_is_taken_at_its_default():
    assert problems('smtpd_milters = ""\nsmtpd_helo_restrictions = ""\ninet_protocols = "all"') == []
    assert len(problems('smtpd_relay_restrictions = "permit"')) == 1


def test_references_in_a_circle_are_an_error():
    found = problems('myhostname = "$mydomain"\nmydomain = "$myhostname"')
    assert "circle" in found[0]


def test_load_raises_one_line_that_counts_the_others(tmp_path):
    (tmp_path / "f.toml").write_text("a = 1\nb = 2\n")
    with pytest.raises(ConfigError, match=r"f\.toml:1: a: unknown key \(and 1 more: fastmta check lists them\)$"):
        load(tmp_path / "f.toml")


@pytest.mark.parametrize("raw", [b"\xff", b"a = 1\n\xff\n"])
def test_a_file_that_is_not_utf8_is_named_with_its_line(raw, tmp_path):
    (tmp_path / "f.toml").write_bytes(raw)
    _, found = read(tmp_path / "f.toml")
    assert found[0].line == raw.count(b"\n", 0, raw.index(b"\xff")) + 1


def test_lines_are_found_behind_multi_line_values():
    text = 'mynetworks = [\n  "127.0.0.0/8",\n]\nmyorigin = """\na\n"""\nbad = 1\n'
    assert any(line.startswith("f.toml:7: bad") for line in problems(text))


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("smtp_sasl_auth_enable = true", "smtp_sasl_auth_enable", "needs delivery.smtp_sasl_password_maps"),
        ('smtp_sasl_security_options = "noplain"', "smtp_sasl_security_options", "noplaintext"),
        ('smtp_sasl_oauth_token_url = "http://x.test/"', "smtp_sasl_oauth_token_url", "https"),
        ('smtp_sasl_oauth_token_command = ["token"]', "smtp_sasl_oauth_token_command", "absolute path"),
        ('smtp_sasl_password_maps = "mysql:/x"', "smtp_sasl_password_maps", "a map such as"),
    ],
)
def test_a_login_that_could_not_work_is_an_error(text, key, says):
    config, problems = parse_all(f"[delivery]\n{text}\n", base="/", name="f")
    assert config is None and problems[0].key == f"delivery.{key}" and says in problems[0].text


def test_options_over_tls_are_those_without_it_unless_set():
    config = parse('[delivery]\nsmtp_sasl_security_options = "noanonymous"\n')
    assert config.delivery.smtp_sasl_tls_security_options == ("noanonymous",)
    assert parse("").delivery.smtp_sasl_tls_security_options == ("noplaintext", "noanonymous")
