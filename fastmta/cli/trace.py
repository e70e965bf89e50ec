"""`fastmta trace`: what happened to messages, as people read it."""

from typing import Any

import click

from fastmta.cli import derived
from fastmta.cli.output import plain, print_json
from fastmta.cli.performing import perform
from fastmta.config.load import load
from fastmta.operations import tracing

_SHOWN_ELSEWHERE = ("at", "level", "event", "slot", "pid", "queue_id", "recipient", "original_recipient", "session")


def _whole(config_path: str | None, asked: tracing.TraceMail, as_json: bool) -> None:
    found = perform(config_path, tracing.trace, asked)
    if found.trouble:
        click.echo(f"the last second may be missing: {found.trouble}", err=True)
    if as_json:
        print_json(found.messages)
    elif not found.messages:
        is_off = not load(config_path).trace_retention
        print("nothing is traced: trace_retention is 0" if is_off else "nothing in the trace is like that")
    for story in () if as_json else found.messages:
        _print(story)
    if found.more:
        click.echo(f"there is more: only the last {asked.limit} are shown; --limit shows more", err=True)


trace = derived.command(tracing.trace, whole=_whole)
trace.epilog = (
    "\b\nExamples:\n  fastmta trace --to bill@example.net --since 2h\n  fastmta trace --id 0000000BCDFG\n"
    "  fastmta trace --message-id '<abc@example.org>'\n  fastmta trace --status bounced --since 2026-11-27 --json"
)


def _print(story: dict[str, Any]) -> None:
    if story["queue_id"] is None:
        line = story["events"][0]
        to = ", ".join(map(str, line.get("to") or ())) or "-"
        client, sender = story["client"] or "", story["sender"]
        print(plain(f"{story['at']}  refused at {line.get('verb')}: client={client} from=<{sender}> to=<{to}>"))
        print(plain(f"    {line.get('reply')}"))
        return
    about = [f"from=<{story['sender']}>"]
    about += [f"{name}={story[name]}" for name in ("client", "login", "tenant", "message_id", "size") if story[name]]
    print(plain(f"{story['at']}  {story['queue_id']}  {' '.join(about)}"))
    for each in story["recipients"]:
        was = f" (for {each['original_recipient']})" if each["original_recipient"] else ""
        print(plain(f"    {each['status']:<9} <{each['recipient']}>{was}"))
        for event in each["events"]:
            print(plain(f"        {_clock(event)}  {_event(event)}"))
    for line in story["events"]:
        if not str(line.get("event")).endswith(".received"):
            print(plain(f"    {_clock(line)}  {_event(line)}"))


def _event(line: dict[str, Any]) -> str:
    """A line in the log's own words."""
    said = [f"{name}={value}" for name, value in line.items() if name not in _SHOWN_ELSEWHERE and name != "reply"]
    if "reply" in line:
        said.append(f"reply={line['reply']}")
    return " ".join([str(line.get("event")), *said])


def _clock(line: dict[str, Any]) -> str:
    return str(line.get("at", "")).removesuffix("Z")
