"""`fastmta trace`: what happened to messages, from the files of the trace; with the server up or down.

A running server is asked to write what it has gathered first, so that a message which was answered a moment ago is
found.
"""

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from fastmta.admin.control import NotRunning, request
from fastmta.cli.failures import EX_USAGE, CommandFailed
from fastmta.cli.output import config_option, json_option, plain, print_json
from fastmta.cli.owned import acting_as_owner
from fastmta.config.load import load
from fastmta.config.schema import Config
from fastmta.config.values import parse_time
from fastmta.model.errors import FastMTAError
from fastmta.model.ids import queue_id_text
from fastmta.operations.selecting import queue_id
from fastmta.trace.search import newest, search
from fastmta.trace.story import STATUSES, Recipient, Story, Wanted

_SHOWN_ELSEWHERE = ("at", "level", "event", "slot", "pid", "queue_id", "recipient", "original_recipient", "session")


@click.command(
    epilog="\b\nExamples:\n  fastmta trace --to bill@example.net --since 2h\n  fastmta trace --id 0000000BCDFG\n"
    "  fastmta trace --message-id '<abc@example.org>'\n  fastmta trace --status bounced --since 2026-11-27 --json"
)
@click.option("--from", "sender", metavar="ADDRESS", help='The envelope sender, or its domain; "": the null sender.')
@click.option("--to", "recipient", metavar="ADDRESS", help="A recipient, also before aliases, or a domain.")
@click.option("--id", "id_text", metavar="QUEUE_ID")
@click.option("--message-id", metavar="ID", help="The Message-ID, with or without its angle brackets.")
@click.option("--client", metavar="CLIENT", help="The client's address, network or name.")
@click.option(
    "--status", type=click.Choice(STATUSES, case_sensitive=False), help="Where a recipient stands at the last."
)
@click.option("--since", metavar="TIME", help='"2h" ago, or an instant of UTC such as 2026-11-27T22:00.')
@click.option("--until", metavar="TIME", help="The same.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many messages.")
@json_option
@config_option
def trace(
    sender: str | None,
    recipient: str | None,
    id_text: str | None,
    message_id: str | None,
    client: str | None,
    status: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    as_json: bool,
    config_path: str | None,
) -> None:
    """Say what happened to messages: who sent them to whom, each attempt, and where each recipient stands.

    A message is told if it is as all options say; without any, the last ones are. The newest come last.
    """
    for option, value in (("--to", recipient), ("--message-id", message_id), ("--client", client)):
        if value is not None and not value.strip("<> "):
            raise CommandFailed(f"{option} is empty", EX_USAGE)
    since_at = instant("--since", since) if since is not None else 0.0
    wanted = Wanted(
        queue_id_text(queue_id(id_text)) if id_text is not None else "",
        (message_id or "").strip(),
        None if sender is None else sender.strip().removeprefix("<").removesuffix(">"),
        (recipient or "").strip().removeprefix("<").removesuffix(">"),
        (client or "").strip(),
        (status or "").lower(),
        since_at,
        _as_told(since_at) if since_at else "",
        _as_told(instant("--until", until)) if until is not None else "",
    )
    config = load(config_path)
    directory = Path(config.data_directory)
    _have_it_written(config)
    with acting_as_owner(directory):
        found, more = newest(search(directory, wanted), limit)
    if as_json:
        print_json([story.as_json() for story in found])
    elif not found:
        print(_nothing(config))
    else:
        for story in found:
            _print(story)
    if more:
        click.echo(f"there is more: only the last {limit} are shown; --limit shows more", err=True)


def instant(option: str, text: str) -> float:
    """Unix time of "2h" (ago) or of an ISO 8601 instant, which is UTC where it names no zone."""
    try:
        return time.time() - parse_time(text) if re.fullmatch(r"\d+\s*[a-zA-Z]", text.strip()) else _iso(text)
    except (ValueError, OverflowError):
        raise CommandFailed(
            f'{option} {text}: expected a time such as "2h" or "3d", or an instant such as 2026-11-27T22:00', EX_USAGE
        ) from None


def _iso(text: str) -> float:
    at = datetime.fromisoformat(text.strip())
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def _as_told(at: float) -> str:
    """An instant as the lines of the trace have it; they sort as texts."""
    shown = datetime.fromtimestamp(min(max(at, 0.0), 253_402_300_799.0), UTC)
    return shown.strftime("%Y-%m-%dT%H:%M:%S.") + f"{shown.microsecond // 1000:03d}Z"


def _have_it_written(config: Config) -> None:
    try:
        request(config, {"do": "flush_trace"}, timeout_s=5.0)
    except NotRunning:
        return
    except FastMTAError as error:
        click.echo(f"the last second may be missing: {error}", err=True)


def _nothing(config: Config) -> str:
    if not config.trace_retention:
        return "nothing is traced: trace_retention is 0"
    return "nothing in the trace is like that"


def _print(story: Story) -> None:
    first = story.accepted
    if story.is_refusal:
        line = story.lines[0]
        to = ", ".join(map(str, line.get("to") or ())) or "-"
        print(
            plain(f"{story.at}  refused at {line.get('verb')}: client={story.client} from=<{story.sender}> to=<{to}>")
        )
        print(plain(f"    {line.get('reply')}"))
        return
    about = [f"from=<{story.sender}>"]
    about += [f"{name}={first[name]}" for name in ("client", "login", "message_id", "size") if first.get(name)]
    print(plain(f"{story.at}  {story.queue_id}  {' '.join(about)}"))
    for each in story.recipients.values():
        _print_recipient(each)
    told = {id(event) for each in story.recipients.values() for event in each.events}
    for line in story.lines:
        if id(line) not in told and line is not first:
            print(plain(f"    {_clock(line)}  {_event(line)}"))


def _print_recipient(recipient: Recipient) -> None:
    was = f" (for {recipient.original_recipient})" if recipient.original_recipient else ""
    print(plain(f"    {recipient.status:<9} <{recipient.recipient}>{was}"))
    for event in recipient.events:
        print(plain(f"        {_clock(event)}  {_event(event)}"))


def _event(line: dict[str, Any]) -> str:
    """A line in the log's own words."""
    said = [f"{name}={value}" for name, value in line.items() if name not in _SHOWN_ELSEWHERE and name != "reply"]
    if "reply" in line:
        said.append(f"reply={line['reply']}")
    return " ".join([str(line.get("event")), *said])


def _clock(line: dict[str, Any]) -> str:
    return str(line.get("at", "")).removesuffix("Z")
