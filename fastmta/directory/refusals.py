"""What is said of an address that nobody has, or that is not for this client, and how a reply shows an address."""

from fastmta.directory.addresses import Address
from fastmta.model.reply import Reply


def unknown(address: Address, table: str) -> Reply:
    text = f"<{shown_address(address)}>: Recipient address rejected: User unknown in {table}"
    return Reply(550, "5.1.1", text)


def relay_denied(address: Address) -> Reply:
    return Reply(554, "5.7.1", f"<{shown_address(address)}>: Relay access denied")


def shown_address(address: Address) -> str:
    return shown(address.raw.decode("utf-8", "surrogateescape"))


def shown(text: str) -> str:
    """An address as a reply may carry it: ASCII, one line, bounded."""
    return "".join(c if 32 <= ord(c) < 127 else "?" for c in text[:320])
