"""Parameters of Postfix and Dovecot that an administrator may bring along and whose feature FastMTA does not have.

Setting one to its default there changes nothing here, so that is taken. Any other value is an error: a setting that
an administrator believes in and that nothing obeys is worse than a server that does not start.
"""

from typing import Final

# name: its default in Postfix or Dovecot, in one-string form.
NOT_BUILT: Final[dict[str, str]] = {
    # Postfix
    "disable_vrfy_command": "no",
    "generic_maps": "",
    "home_mailbox": "",
    "inet_protocols": "all",
    "local_recipient_maps": "proxy:unix:passwd.byname $alias_maps",
    "local_transport": "local:$myhostname",
    "luser_relay": "",
    "mail_spool_directory": "/var/mail",
    "mailbox_command": "",
    "mailbox_transport": "",
    "relocated_maps": "",
    "smtpd_proxy_filter": "",
    "smtpd_tls_auth_only": "no",
    "smtpd_tls_security_level": "",
    "smtpd_upstream_proxy_protocol": "",
    "virtual_mailbox_maps": "",
    "virtual_transport": "virtual",
    # Dovecot
    "auth_username_format": "%{user | lower}",
    "imap_capability": "",
    "mail_attachment_dir": "",
    "mail_home": "",
    "mail_location": "",
    "mail_plugins": "",
    "protocols": "imap pop3 lmtp",
    "sieve": "",
    "sieve_before": "",
    "ssl_dh": "",
}
