"""Who has to wait for the greeting, and what becomes of those who speak before it (as in postscreen(8)).

A mail server waits for its turn; a program that sends spam to thousands often does not. A stranger that has waited once
is not made to wait again for postscreen_greet_ttl, whichever worker it comes to. The wait costs a task and no loop.
"""

import asyncio
from typing import Final

from fastmta.config.schema import Config
from fastmta.model.reply import Reply
from fastmta.model.services import open_to_strangers
from fastmta.policy.limits import Limits

PROTOCOL_ERROR: Final = Reply(550, "5.5.1", "Protocol error")
_DROPPED: Final = Reply(521, "5.5.1", "Protocol error")
_SPOKE: Final = Reply(554, "5.5.1", "Error: you spoke before the greeting")


class Greeting:
    """The greeting of one service and configuration."""

    __slots__ = ("_limits", "_ttl_s", "action", "early", "is_tested", "teaser", "wait_s")

    def __init__(self, service: str, config: Config, limits: Limits) -> None:
        self._limits = limits
        self.action = config.postscreen_greet_action
        self.is_tested = service in open_to_strangers() and self.action != "ignore"
        self.wait_s = config.postscreen_greet_wait
        self._ttl_s = config.postscreen_greet_ttl
        banner = config.postscreen_greet_banner
        self.teaser = f"220-{banner}\r\n".encode() if banner else b""
        self.early: set[object] = set()  # sessions whose recipients are refused

    def is_owed(self, ip: str, *, trusted: bool) -> bool:
        """Whether a client has to wait."""
        return self.is_tested and not trusted and not self._limits.has_waited(ip, self._ttl_s)

    async def wait(self, session: object, ip: str) -> None:
        """Comes back when the client may be greeted; cancel it when it has spoken or left."""
        await asyncio.sleep(self.wait_s)
        if session not in self.early:
            self._limits.waited(ip)

    def spoke_early(self, session: object) -> Reply | None:
        """The reply that ends a session whose client has spoken too early; None: its recipients are refused later."""
        if not self.is_tested:
            return _SPOKE
        if self.action == "drop":
            return _DROPPED
        self.early.add(session)
        return None
