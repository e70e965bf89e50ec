"""Which queued recipients a queue command means: --id --sender --recipient --domain --hop --error --older --state."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from fastmta.cli.failures import EX_USAGE, CommandFailed
from fastmta.config.values import parse_time
from fastmta.model.envelope import RecipientState
from fastmta.model.ids import parse_queue_id
from fastmta.model.routes import hop_named

if TYPE_CHECKING:
    from fastmta.store import MailStore
    from fastmta.store.queue import QueuedMessage, QueuedRecipient

F = TypeVar("F", bound=Callable[..., Any])
STATES: Final = {"active": RecipientState.ACTIVE, "deferred": RecipientState.DEFERRED, "held": RecipientState.HELD}


class Selector(msgspec.Struct, frozen=True):
    """What the options say; None does not select."""

    ids: tuple[int, ...] = ()
    sender: bytes | None = None
    recipient: bytes | None = None
    domain: bytes | None = None
    hop: bytes | None = None
    error: bytes | None = None
    before_ms: int | None = None
    state: int | None = None
    everything: bool = False

    @property
    def is_empty(self) -> bool:
        return self == Selector()

    @property
    def shown(self) -> str:
        """The options that were given, for the log."""
        given = [f"{name}={value!a}" for name, value in msgspec.structs.asdict(self).items() if value not in (None, ())]
        return " ".join(item for item in given if item != "everything=False")[:500]


def selector_options(function: F) -> F:
    """Adds the options; the command gets `selector`."""
    options = (
        click.option("--id", "ids", multiple=True, help="A queue id; may be given more than once."),
        click.option("--sender", help='The envelope sender; "" is the null sender.'),
        click.option("--recipient", help="A recipient's address."),
        click.option("--domain", help="The domain of recipients."),
        click.option("--hop", help="A next hop, as queue list --json shows it."),
        click.option("--error", help="What the last reply has in it, in letters of either case."),
        click.option("--older", help='Received longer ago than this, such as "4h".'),
        click.option("--state", type=click.Choice(list(STATES), case_sensitive=False), help="State of recipients."),
        click.option("--all", "everything", is_flag=True, help="Everything in the queue."),
    )

    def wrapped(*args: Any, **given: Any) -> Any:
        names = ("ids", "sender", "recipient", "domain", "hop", "error", "older", "state", "everything")
        return function(*args, selector=_selector(*(given.pop(name) for name in names)), **given)

    wrapped.__name__, wrapped.__doc__ = function.__name__, function.__doc__
    wrapped.__click_params__ = list(getattr(function, "__click_params__", []))  # type: ignore[attr-defined]
    out: Any = wrapped
    for option in reversed(options):
        out = option(out)
    found: F = out
    return found


def _selector(
    ids: tuple[str, ...],
    sender: str | None,
    recipient: str | None,
    domain: str | None,
    hop: str | None,
    error: str | None,
    older: str | None,
    state: str | None,
    everything: bool,
) -> Selector:
    before_ms = None
    if older is not None:
        try:
            before_ms = int((time.time() - parse_time(older)) * 1000)
        except ValueError as wrong:
            raise CommandFailed(f"--older {older}: expected {wrong}", EX_USAGE) from wrong
    return Selector(
        tuple(queue_id(text) for text in ids),
        None if sender is None else _folded(sender.strip().removeprefix("<").removesuffix(">")),
        None if recipient is None else _folded(recipient),
        None if domain is None else _folded(domain.removeprefix("@")),
        None if hop is None else hop_named(hop.strip()),
        None if error is None else _folded(error),
        before_ms,
        None if state is None else STATES[state.lower()],
        everything,
    )


def queue_id(text: str) -> int:
    """The number of a queue id; CommandFailed for what is none."""
    try:
        number = parse_queue_id(text.rstrip("*!"))
    except ValueError as error:
        raise CommandFailed(str(error), EX_USAGE) from error
    if not text or number >= 2**63:
        raise CommandFailed(f"not a queue id: {text!a}", EX_USAGE)
    return number


def selected(store: "MailStore", selector: Selector) -> "Iterator[tuple[QueuedMessage, QueuedRecipient]]":
    """The recipients that it means, in the order of the queue or of an index; read page by page."""
    from fastmta.store.queue import Selection, selects

    selection = Selection(
        selector.state,
        selector.sender,
        selector.recipient,
        selector.domain,
        selector.before_ms,
        selector.hop,
        selector.error,
    )
    if selector.ids:
        for number in selector.ids:
            message = store.queue.message(number)
            for recipient in store.queue.recipients(number) if message is not None else ():
                if message is not None and selects(selection, message, recipient):
                    yield message, recipient
        return
    after = b""
    while True:
        page, after = store.queue.walk(selection, after)
        yield from page
        if not after:
            return


def _folded(text: str) -> bytes:
    return text.strip().lower().encode("utf-8", "surrogateescape")
