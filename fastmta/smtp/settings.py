"""What of the configuration the rules of one service obey."""

from typing import Final

from fastmta.config.schema import Config
from fastmta.smtp.session import Settings

# Those that stand in the configuration under the same name.
_AS_IT_IS: Final = frozenset(Settings.__struct_fields__) & frozenset(Config.__struct_fields__)


def settings_of(config: Config, service: str) -> Settings:
    """One service's settings out of the configuration."""
    return Settings(
        service=service,
        **{name: getattr(config, name) for name in _AS_IT_IS},
        banner=config.smtpd_banner,
        forbid_bare_newline=config.smtpd_forbid_bare_newline,
        recipient_limit=config.smtpd_recipient_limit,
        recipient_overshoot_limit=config.smtpd_recipient_overshoot_limit,
        soft_error_limit=config.smtpd_soft_error_limit,
        error_sleep_s=config.smtpd_error_sleep_time,
        softens=config.soft_bounce,
        hard_error_limit=config.smtpd_hard_error_limit,
        junk_command_limit=config.smtpd_junk_command_limit,
        timeout_s=config.smtpd_timeout,
        strict_envelopes=config.strict_rfc821_envelopes,
        helo_required=config.smtpd_helo_required,
        through=config.filter_for(service),
    )
