"""What of the configuration the rules of one service obey."""

from typing import Final

from fastmta.config.schema import Config
from fastmta.model.services import BY_NAME, Login
from fastmta.smtp.session import Settings

# Those that stand in the configuration under the same name.
_AS_IT_IS: Final = frozenset(Settings.__struct_fields__) & frozenset(Config.__struct_fields__)
_DEMANDS: Final = ("REQUIRETLS", "DELIVERBY", "FUTURERELEASE")


def settings_of(config: Config, service: str) -> Settings:
    """One service's settings out of the configuration."""
    found = BY_NAME[service]
    discards = frozenset(word.upper() for word in config.smtpd_discard_ehlo_keywords)
    hold_s = int(config.smtpd_future_release_limit) if found.login is Login.REQUIRED else 0
    offers = {word for word in _DEMANDS if word not in discards} if found.protocol == "smtp" else set()
    if not hold_s:
        offers.discard("FUTURERELEASE")
    through = config.filter_for(service)
    if through:  # a filter gives back another message, of which nobody demands anything
        offers -= {"REQUIRETLS", "DELIVERBY"}
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
        takes_unlisted=found.protocol == "smtp" and not config.smtpd_reject_unlisted_recipient,
        offers=frozenset(offers),
        hold_s=hold_s if "FUTURERELEASE" in offers else 0,
        discards=discards,
        through=through,
    )
