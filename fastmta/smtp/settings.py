"""What of the configuration the rules of one service obey."""

from fastmta.config.schema import Config
from fastmta.smtp.session import Settings


def settings_of(config: Config, service: str) -> Settings:
    """One service's settings out of the configuration."""
    return Settings(
        service=service,
        myhostname=config.myhostname,
        myorigin=config.myorigin,
        banner=config.smtpd_banner,
        message_size_limit=config.message_size_limit,
        forbid_bare_newline=config.smtpd_forbid_bare_newline,
        recipient_limit=config.smtpd_recipient_limit,
        recipient_overshoot_limit=config.smtpd_recipient_overshoot_limit,
        soft_error_limit=config.smtpd_soft_error_limit,
        error_sleep_s=config.smtpd_error_sleep_time,
        softens=config.soft_bounce,
        hard_error_limit=config.smtpd_hard_error_limit,
        junk_command_limit=config.smtpd_junk_command_limit,
        timeout_s=config.smtpd_timeout,
        hopcount_limit=config.hopcount_limit,
        strict_envelopes=config.strict_rfc821_envelopes,
        helo_required=config.smtpd_helo_required,
        through=config.filter_for(service),
    )
