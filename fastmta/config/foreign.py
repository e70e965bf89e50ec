"""The keys of Postfix and Dovecot that FastMTA does not have, by name, each with what to do instead.

An administrator who moves in brings hundreds of them. Names are packed: `smtp_(a b)` is smtp_a and smtp_b. A key that
schema.py knows is never looked up here, so a name that becomes a key need not be removed.
"""

import re
from functools import cache
from typing import Final

_POSTFIX: Final = (
    (
        'routes stand in [transport]: "domain" = "smtp:[host]:port", and "*" for all others',
        "local_transport virtual_transport",
    ),
    (
        "write the networks themselves in mynetworks",
        "mynetworks_style",
    ),
    (
        "accounts decide who has a mailbox here",
        "local_recipient_maps virtual_mailbox_maps",
    ),
    (
        "header_checks, smtp_header_checks and their kin look into mail; of milters there are smtpd_milters and "
        "non_smtpd_milters",
        "header_(address_token_limit from_format size_limit) lmtp_delivery_status_filter milter_(connect_macros "
        "data_macros end_of_data_macros end_of_header_macros "
        "helo_macros macro_daemon_name macro_defaults macro_v mail_macros protocol rcpt_macros "
        "unknown_command_macros) "
        "smtpd_(command_filter dns_reply_filter milter_maps proxy_ehlo proxy_filter proxy_options "
        "proxy_timeout) default_delivery_status_filter "
        "local_delivery_status_filter message_drop_headers message_strip_characters "
        "pipe_delivery_status_filter "
        "receive_override_options undisclosed_recipients_header "
        "virtual_delivery_status_filter",
    ),
    (
        "the protocol's limits are fixed, or among the smtpd_ keys that `fastmta check --all` lists",
        "smtpd_(discard_ehlo_keyword_address_maps "
        "history_flush_threshold min_data_rate noop_commands "
        "per_request_deadline relay_before_recipient_restrictions upstream_proxy_protocol upstream_proxy_timeout) "
        "strict_(7bit_headers 8bitmime 8bitmime_body mime_encoding_domain smtputf8) cleanup_replace_stray_cr_lf "
        "detect_8bit_encoding_header disable_mime_input_processing disable_vrfy_command enable_threaded_bounces "
        "force_mime_input_conversion full_name_encoding_charset info_log_address_format line_length_limit "
        "message_reject_characters mime_boundary_length_limit mime_nesting_limit smtp_per_request_deadline "
        "sun_mailtool_compatibility",
    ),
    (
        "Postfix's master(8) and its daemons are one program here: workers = N is the number of processes",
        "authorized_(flush_users mailq_users submit_users) daemon_(directory table_open_error_is_fatal timeout) "
        "ipc_(idle timeout ttl) multi_(instance_directories instance_enable instance_group instance_name "
        "instance_wrapper) postmulti_(control_commands start_commands stop_commands) process_(id id_directory "
        "name) qmqpd_(authorized_clients client_port_logging error_delay timeout) queue_(directory "
        "file_attribute_count_limit run_delay service_name) tls_(config_file config_name daemon_random_bytes "
        "random_bytes random_exchange_name random_prng_update_period random_reseed_period random_source "
        "session_ticket_cipher) address_verify_service_name allow_min_user alternate_config_directories "
        "anvil_status_update_time application_event_drain_time bounce_service_name "
        "cleanup_service_name command_directory config_directory connection_cache_service_name default_privs "
        "default_process_limit defer_service_name deliver_lock_attempts deliver_lock_delay dnsblog_service_name "
        "dont_remove error_service_name export_environment flush_service_name fork_attempts fork_delay "
        "hash_queue_depth hash_queue_names helpful_warnings import_environment in_flow_delay "
        "internal_mail_filter_classes known_tcp_ports mail_owner max_idle max_use meta_directory "
        "owner_request_special pickup_service_name postlog_service_name postlogd_watchdog_timeout "
        "postscreen_watchdog_timeout proxymap_service_name proxywrite_service_name respectful_logging "
        "rewrite_service_name send_cyrus_sasl_authzid sendmail_fix_line_endings service_name "
        "service_throttle_time setgid_group shlib_directory showq_service_name smtpd_service_name stale_lock_time "
        "tcp_windowsize tlsmgr_service_name tlsproxy_service_name tlsproxy_watchdog_timeout trace_service_name "
        "transport_retry_time trigger_timeout",
    ),
    (
        'the addresses to listen on stand in [listen], such as smtp = ["0.0.0.0:25", "[::]:25"]',
        "inet_interfaces inet_protocols master_service_disable",
    ),
    (
        "a host is reached as its MX and address records say; smtp_tcp_port and the timeouts are in [delivery]",
        "smtp_(address_verify_target always_send_ehlo balance_inet_protocols "
        "bind_address_enforce cname_overrides_servername connection_cache_destinations connection_cache_on_demand "
        "connection_cache_time_limit connection_reuse_count_limit connection_reuse_time_limit "
        "defer_if_no_mx_address_found delivery_status_filter "
        "dns_reply_filter dns_resolver_options dns_support_level enforce_tls "
        "min_data_rate never_send_ehlo pix_workaround_delay_time "
        "pix_workaround_maps pix_workaround_threshold_time pix_workarounds quit_timeout quote_rfc821_envelope "
        "randomize_addresses reply_filter send_dummy_mail_auth "
        "skip_5xx_greeting skip_quit_response use_tls xforward_timeout) "
        "allow_srv_lookup_fallback best_mx_transport disable_dns_lookups dns_ncache_ttl_fix_enable dnssec_probe "
        "enable_idna2003_compatibility enable_long_queue_ids ignore_mx_lookup_error ignore_srv_lookup_error "
        "smtputf8_autodetect_classes smtputf8_enable use_srv_lookup",
    ),
    (
        "the mail server's files and programs are where they were installed: this is not needed",
        "mail_(name release_date version) resolve_(dequoted_address null_domain) "
        "berkeley_db_create_buffer_size berkeley_db_read_buffer_size command_execution_directory "
        "command_expansion_filter compatibility_level confirm_delay_cleared debugger_command "
        "default_database_type default_filter_nexthop enable_original_recipient "
        "execution_directory_expansion_filter html_directory lmdb_map_size mailq_path manpage_directory "
        "newaliases_path openssl_path parent_domain_matches_subdomains proxy_read_maps proxy_write_maps "
        "readme_directory sample_directory sendmail_path stress tls_append_default_CA",
    ),
    (
        "the log goes to standard error, one event a line: log_level sets how much",
        "maillog_(file file_compressor file_prefixes file_rotate_suffix) debug_peer_level debug_peer_list "
        "delay_logging_resolution_limit lmtp_tls_loglevel smtp_tls_loglevel "
        "smtpd_tls_loglevel syslog_facility syslog_name tlsproxy_client_loglevel tlsproxy_tls_loglevel",
    ),
    (
        "who may send what is decided by mynetworks, logins, strict_rfc821_envelopes and smtpd_helo_required",
        "smtpd_(authorized_verp_clients client_port_logging "
        "delay_open_until_valid_rcpt "
        "etrn_restrictions expansion_filter forbid_bare_newline_reject_code forbid_unauth_pipelining "
        "forbidden_commands hide_client_session log_access_permit_actions "
        "null_access_lookup_key policy_service_policy_context policy_service_request_limit "
        "policy_service_retry_delay policy_service_try_limit "
        "reject_filter_maps reject_footer reject_footer_maps) "
        "unknown_(address_tempfail_action helo_hostname_tempfail_action "
        "local_recipient_reject_code relay_recipient_reject_code virtual_alias_reject_code "
        "virtual_mailbox_reject_code) unverified_(recipient_tempfail_action "
        "sender_tempfail_action) "
        "allow_untrusted_routing default_rbl_reply "
        "fault_injection_code maps_rbl_domains "
        "rbl_reply_maps relocated_maps "
        "show_user_unknown_table_name",
    ),
    (
        "addresses are not rewritten, but by virtual_alias_maps and `fastmta alias`",
        "empty_(address_default_transport_maps_lookup_key address_local_login_sender_maps_lookup_key "
        "address_recipient address_relayhost_maps_lookup_key) "
        "allow_percent_hack always_add_missing_headers append_at_myorigin "
        "append_dot_mydomain expand_owner_alias frozen_delivered_to generic_maps "
        "luser_relay propagate_unmatched_extensions swap_bangpath",
    ),
    (
        "there is no postscreen(8), and address verification goes the way of mail and keeps its answers in the store",
        "address_(verify_cache_cleanup_interval verify_default_transport verify_local_transport verify_map "
        "verify_relay_transport verify_relayhost "
        "verify_sender_dependent_default_transport_maps verify_sender_dependent_relayhost_maps verify_sender_ttl "
        "verify_virtual_transport) postscreen_(access_list allowlist_interfaces "
        "bare_newline_action bare_newline_enable bare_newline_ttl cache_cleanup_interval cache_map "
        "cache_retention_time client_connection_count_limit command_count_limit command_filter command_time_limit "
        "denylist_action disable_vrfy_command discard_ehlo_keyword_address_maps discard_ehlo_keywords "
        "dnsbl_action dnsbl_allowlist_threshold dnsbl_max_ttl dnsbl_min_ttl dnsbl_reply_map dnsbl_sites "
        "dnsbl_threshold dnsbl_timeout enforce_tls expansion_filter forbidden_commands "
        "helo_required non_smtp_command_action non_smtp_command_enable non_smtp_command_ttl "
        "pipelining_action pipelining_enable pipelining_ttl post_queue_limit pre_queue_limit reject_footer "
        "reject_footer_maps tls_security_level upstream_proxy_protocol upstream_proxy_timeout use_tls) "
        "tlsproxy_(client_CAfile client_CApath client_cert_file client_chain_files client_dcert_file "
        "client_dkey_file client_eccert_file client_eckey_file client_enforce_tls client_fingerprint_digest "
        "client_key_file client_loglevel_parameter client_per_site client_policy_maps client_scert_verifydepth "
        "client_security_level client_use_tls enforce_tls tls_CAfile tls_CApath tls_always_issue_session_ids "
        "tls_ask_ccert tls_ccert_verifydepth tls_cert_file tls_chain_files tls_ciphers tls_dcert_file "
        "tls_dh1024_param_file tls_dh512_param_file tls_dkey_file tls_eccert_file tls_eckey_file tls_eecdh_grade "
        "tls_exclude_ciphers tls_fingerprint_digest tls_key_file tls_mandatory_ciphers "
        "tls_mandatory_exclude_ciphers tls_mandatory_protocols tls_protocols tls_req_ccert tls_security_level "
        "use_tls) default_verp_delimiters disable_verp_bounces dnsblog_reply_delay "
        "verp_delimiter_filter",
    ),
    (
        "the TLS of outgoing mail is smtp_tls_security_level in [delivery] and smtp_tls_CAfile in [tls]",
        "lmtp_(cname_overrides_servername enforce_tls starttls_timeout tls_CAfile tls_CApath "
        "tls_block_early_mail_reply tls_cert_file tls_chain_files tls_ciphers tls_connection_reuse tls_dcert_file "
        "tls_dkey_file tls_eccert_file tls_eckey_file tls_enforce_peername tls_enforce_sts_mx_patterns "
        "tls_exclude_ciphers tls_fingerprint_cert_match tls_fingerprint_digest "
        "tls_force_insecure_host_tlsa_lookup tls_key_file tls_mandatory_ciphers tls_mandatory_exclude_ciphers "
        "tls_mandatory_protocols tls_note_starttls_offer tls_per_site tls_policy_maps tls_protocols "
        "tls_scert_verifydepth tls_secure_cert_match tls_security_level tls_servername tls_session_cache_database "
        "tls_session_cache_timeout tls_trust_anchor_file tls_verify_cert_match tls_wrappermode use_tls) "
        "smtp_(tls_block_early_mail_reply tls_chain_files tls_connection_reuse tls_dcert_file "
        "tls_dkey_file tls_eccert_file tls_eckey_file tls_enforce_peername "
        "tls_enforce_sts_mx_patterns tls_exclude_ciphers tls_force_insecure_host_tlsa_lookup "
        "tls_mandatory_exclude_ciphers tls_note_starttls_offer tls_per_site "
        "tls_scert_verifydepth tls_servername tls_session_cache_database "
        "tls_trust_anchor_file "
        "tlsrpt_socket_name) tls_(dane_digests disable_workarounds "
        "eecdh_auto_curves eecdh_strong_curve eecdh_ultra_curve export_cipherlist fast_shutdown_enable "
        "ffdhe_auto_groups high_cipherlist legacy_public_key_fingerprints low_cipherlist medium_cipherlist "
        "null_cipherlist preempt_cipherlist server_sni_maps ssl_options wildcard_matches_multiple_labels)",
    ),
    (
        "the server's TLS is cert_file, key_file and ssl_min_protocol in [tls]; with them every listener offers it",
        "smtpd_(enforce_tls starttls_timeout tls_always_issue_session_ids "
        "tls_auth_only tls_ccert_verifydepth tls_chain_files tls_ciphers tls_dcert_file tls_dh1024_param_file "
        "tls_dh512_param_file tls_dkey_file tls_eecdh_grade tls_exclude_ciphers "
        "tls_mandatory_ciphers tls_mandatory_exclude_ciphers tls_mandatory_protocols "
        "tls_protocols tls_security_level tls_session_cache_database "
        "tls_session_cache_timeout tls_wrappermode use_tls)",
    ),
    (
        "logins are set in [auth]: mechanisms, disable_plaintext_auth; accounts are made by `fastmta user add`",
        "smtpd_(sasl_auth_enable sasl_authenticated_header sasl_exceptions_networks sasl_local_domain "
        "sasl_mechanism_filter sasl_path sasl_response_limit sasl_security_options sasl_service "
        "sasl_tls_security_options sasl_type) broken_sasl_auth_clients cyrus_sasl_config_path",
    ),
    (
        "logins at other servers are set by smtp_sasl_auth_enable and the like in [delivery]; a failed one defers",
        "lmtp_(sasl_auth_cache_name sasl_auth_cache_time sasl_auth_enable sasl_auth_soft_bounce "
        "sender_dependent_authentication sasl_mechanism_filter sasl_password_maps sasl_path "
        "sasl_security_options sasl_tls_security_options "
        "sasl_tls_verified_security_options sasl_type) smtp_(sasl_auth_cache_name sasl_auth_cache_time "
        "sasl_auth_soft_bounce sasl_path sasl_tls_verified_security_options sasl_type)",
    ),
    (
        'LMTP is a route, "lmtp:unix:/path" or "lmtp:[host]:24" in [transport], set as smtp in [delivery]',
        "lmtp_(address_preference address_verify_target assume_final balance_inet_protocols bind_address "
        "bind_address6 bind_address_enforce connect_timeout connection_cache_destinations "
        "connection_cache_on_demand connection_cache_time_limit connection_reuse_count_limit "
        "connection_reuse_time_limit data_done_timeout data_init_timeout data_xfer_timeout "
        "defer_if_no_mx_address_found dns_reply_filter "
        "dns_resolver_options dns_support_level fallback_relay host_lookup lhlo_name lhlo_timeout "
        "line_length_limit mail_timeout min_data_rate mx_address_limit mx_session_limit per_request_deadline "
        "pix_workaround_delay_time pix_workaround_maps pix_workaround_threshold_time pix_workarounds quit_timeout "
        "quote_rfc821_envelope randomize_addresses rcpt_timeout reply_filter rset_timeout send_dummy_mail_auth "
        "skip_5xx_greeting skip_quit_response tcp_port "
        "xforward_timeout)",
    ),
    (
        "every destination has the limits of [delivery], such as default_destination_concurrency_limit",
        "connection_(cache_protocol_timeout cache_status_update_time cache_ttl_limit) fast_(flush_domains "
        "flush_purge_time flush_refresh_time) qmgr_(clog_warn_time daemon_timeout fudge_factor ipc_timeout "
        "message_active_limit message_recipient_limit message_recipient_minimum) "
        "destination_concurrency_feedback_debug error_notice_recipient",
    ),
    (
        "mail is in the store and not in files: accounts by `fastmta user`, forwarding by `fastmta alias`",
        "mailbox_(command command_maps delivery_lock size_limit transport transport_maps) "
        "virtual_(alias_address_length_limit gid_maps mailbox_base mailbox_limit mailbox_lock minimum_uid "
        "uid_maps) allow_mail_to_commands allow_mail_to_files biff fallback_transport fallback_transport_maps "
        "forward_expansion_filter forward_path home_mailbox local_command_shell local_login_sender_maps "
        "mail_spool_directory prepend_delivered_header require_home_directory reset_owner_alias "
        "strict_mailbox_ownership",
    ),
    (
        "bounces and delay reports have one form",
        "backwards_bounce_logfile_compatibility bounce_template_file duplicate_filter_limit",
    ),
)

_DOVECOT: Final = (
    (
        "mail is in the store and not in Maildir, mbox or dbox: `fastmta mailbox import` takes it over",
        "imapc_(cmd_timeout connection_retry_count connection_retry_interval features host list_prefix "
        "master_user max_idle_time max_line_length password port rawlog_dir sasl_mechanisms ssl ssl_verify user) "
        "mail_(access_groups always_cache_fields attachment_detection attachment_detection_options attachment_dir "
        "attachment_fs attachment_hash attachment_min_size cache_fields chroot control_path driver fsync "
        "full_filesystem_access gid home inbox_path index_path location max_lock_timeout never_cache_fields "
        "nfs_index nfs_storage path prefetch_count privileged_group save_crlf shared_explicit_inbox "
        "sort_max_read_count temp_dir temp_scan_interval uid vsize_bg_after_count) mailbox_(idle_check_interval "
        "list_index list_index_include_inbox list_index_very_dirty_syncs list_layout) "
        "maildir_(broken_filename_sizes copy_with_hardlinks empty_new stat_dirs very_dirty_syncs) "
        "mbox_(dirty_syncs dotlock_change_timeout lazy_writes lock_timeout md5 min_index_size read_locks "
        "very_dirty_syncs write_locks) mdbox_(preallocate_space rotate_interval rotate_size) pop3c_(features host "
        "master_user password port quick_received_date rawlog_dir ssl ssl_verify user) dotlock_use_excl "
        "first_valid_gid first_valid_uid last_valid_gid last_valid_uid lock_method mmap_disable valid_chroot_dirs",
    ),
    (
        "accounts are made by `fastmta user add`; there are no other password and user databases",
        "auth_(allow_cleartext anonymous_username cache_negative_ttl cache_size cache_verify_password_with_worker "
        "debug debug_passwords default_realm gssapi_hostname krb5_keytab "
        "policy_check_after_auth policy_check_before_auth policy_hash_mech policy_hash_nonce policy_hash_truncate "
        "policy_log_only policy_reject_on_fail policy_report_after_auth policy_request_attributes "
        "policy_server_api_header policy_server_timeout_msecs policy_server_url proxy_self realms socket_path "
        "ssl_require_client_cert stats use_winbind username_chars username_format "
        "username_translation verbose verbose_passwords winbind_helper_path worker_max_count) "
        "login_(access_sockets greeting log_format log_format_elements plugin_dir plugins "
        "proxy_max_disconnect_delay proxy_max_reconnects proxy_notify_path proxy_rawlog_dir proxy_timeout "
        "source_ips trusted_networks) result_(failure internalfail success) args default_fields deny driver "
        "master master_user_separator override_fields pass passdb_driver skip submission_relay_master_user user "
        "userdb_driver username_filter",
    ),
    (
        "TLS is cert_file, key_file and ssl_min_protocol in [tls]",
        "ssl_(alt_cert alt_key cert cipher_list cipher_suites client_ca_dir client_ca_file "
        "client_cert client_cert_file client_key client_require_valid_cert crypto_device curve_list dh key "
        "key_password options prefer_server_ciphers server_ca_file server_cert_file server_dh_file "
        "server_key_file) ssl verbose_ssl",
    ),
    (
        "the addresses to listen on stand in [listen], each service a key of its own",
        "submission_(client_workarounds host logout_format max_mail_size max_recipients relay_command_timeout "
        "relay_connect_timeout relay_host relay_max_idle_time relay_password relay_port relay_rawlog_dir "
        "relay_ssl relay_ssl_verify relay_trusted relay_user ssl timeout) address haproxy "
        "listen port protocol protocols reuse_port",
    ),
    (
        "one program serves every protocol: workers = N is the number of processes",
        "default_(client_limit idle_kill internal_group internal_user login_user vsz_limit) "
        "director_(flush_socket mail_servers max_parallel_kicks max_parallel_moves output_buffer_size "
        "ping_idle_timeout ping_max_timeout servers user_expire user_kick_delay username_hash) "
        "doveadm_(allowed_commands api_key http_rawlog_dir password port socket_path ssl username worker_count) "
        "dsync_(alt_char commit_msgs_interval features hashed_headers remote_cmd) lmtp_(proxy_rawlog_dir "
        "rawlog_dir user_concurrency_limit) old_(stats_carbon_interval stats_carbon_name stats_carbon_server "
        "stats_command_min_time stats_domain_min_time stats_ip_min_time stats_memory_limit stats_session_min_time "
        "stats_user_min_time) process_(limit min_avail shutdown_filter) replication_(dsync_parameters "
        "full_sync_interval max_conns) base_dir chroot client_limit config_cache_size dict_db_config "
        "dovecot_config_version dovecot_storage_version drop_priv_before_exec executable extra_groups group "
        "idle_kill instance_name libexec_dir mail_server_admin mail_server_comment mode privileged_group "
        "rawlog_dir replicator_host replicator_port service_count shutdown_clients state_dir "
        "stats_http_rawlog_dir stats_writer_socket_path type verbose_proctitle version_ignore vsz_limit",
    ),
    (
        "the log goes to standard error, one event a line: log_level sets how much",
        "imap_(id_log logout_format urlauth_logout_format) log_(core_filter debug path timestamp) debug_log_path "
        "deliver_log_format info_log_path mail_debug mail_log_prefix pop3_logout_format",
    ),
    (
        "a new account has Drafts, Sent, Junk, Trash and Archive; other mailboxes clients make",
        "auto autoexpunge autoexpunge_max_mails comment disabled hidden hostname ignore_on_failure inbox list "
        "location name order prefix separator special_use subscriptions",
    ),
    (
        "FastMTA has no Sieve or plugins, and no quotas but quota_rule to quota_rule5 and `fastmta user quota`",
        "lda_(mailbox_autocreate mailbox_autosubscribe original_recipient_header) lmtp_(add_received_header "
        "client_workarounds hdr_delivery_address proxy rcpt_check_quota save_to_detail_mailbox verbose_replies) "
        "mail_(attribute_dict plugin_dir plugins) managesieve_(client_workarounds implementation_string "
        "logout_format max_compile_errors max_line_length notify_capability sieve_capability) "
        "quota_(full_tempfail grace storage_size warning) "
        "sieve_(after before dir extensions global global_extensions max_actions max_redirects max_script_size "
        "plugins quota_max_scripts quota_max_storage) acl plugin postmaster_address "
        "rejection_reason rejection_subject sieve",
    ),
    (
        "the protocol is served as its RFCs say; this cannot be set",
        "imap_(capability client_workarounds fetch_failure hibernate_timeout id_retain id_send "
        "literal_minus max_line_length metadata urlauth_host urlauth_port) "
        "pop3_(client_workarounds enable_last fast_size_lookups lock_session "
        "no_flag_updates reuse_xuidl save_uidl uidl_duplicates uidl_format) mail_max_keyword_length",
    ),
)

# Postfix's settings of single transports, whose names an administrator chooses in master.cf.
_OF_A_TRANSPORT: Final = re.compile(
    r"[A-Za-z0-9-]+_(?:destination_(?:concurrency_(?:limit|(?:positive|negative)_feedback|failed_cohort_limit)"
    r"|rate_delay|recipient_limit)|initial_destination_concurrency|delivery_slot_(?:cost|discount|loan)"
    r"|minimum_delivery_slots|(?:extra_)?recipient_limit|recipient_refill_(?:delay|limit)|transport_rate_delay"
    r"|time_limit)"
)


def advice(name: str) -> str:
    """What to do instead of a key of Postfix or Dovecot, with whose it is; "" for a name that neither has."""
    found = _table().get(name)
    if found is None and _OF_A_TRANSPORT.fullmatch(name):
        found = ("Postfix", "every destination has the limits of [delivery]")
    return f"FastMTA does not have this key of {found[0]}: {found[1]}" if found else ""


@cache
def _table() -> dict[str, tuple[str, str]]:
    out: dict[str, tuple[str, str]] = {}
    for owner, groups in (("Dovecot", _DOVECOT), ("Postfix", _POSTFIX)):
        for text, packed in groups:
            out.update((name, (owner, text)) for name in _names(packed))
    return out


def _names(packed: str) -> list[str]:
    out = []
    for prefix, inner, single in re.findall(r"(\S+?)\(([^)]*)\)|(\S+)", packed):
        out += [prefix + rest for rest in inner.split()] if prefix else [single]
    return out
