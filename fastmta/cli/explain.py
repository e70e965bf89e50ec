"""`fastmta explain`: what would become of a message, step by step, or why a queued one waits. Nothing is sent."""

from collections.abc import Iterable

import click
import msgspec

from fastmta.cli.failures import EX_USAGE, CommandFailed
from fastmta.cli.output import config_option, json_option, plain, print_json
from fastmta.cli.performing import perform, visit_rows
from fastmta.operations.listing import OfMessage
from fastmta.operations.mail import OUTCOME, ExplainMail, Said
from fastmta.operations.mail import explain as explain_new
from fastmta.operations.waiting import explain as explain_queued


@click.command(
    epilog="\b\nExamples:\n  fastmta explain ann@example.org bill@example.net\n"
    "  fastmta explain '<>' bill@example.org --client 192.0.2.1\n  fastmta explain --id 0000000BCDFG"
)
@click.argument("sender", metavar="FROM", required=False)
@click.argument("recipient", metavar="TO", required=False)
@click.option("--client", metavar="ADDRESS", help="The client's IP address; without it one that may relay.")
@click.option("--helo", metavar="NAME", default="", help="What the client says in EHLO.")
@click.option("--id", "id_text", metavar="QUEUE_ID", help="Explain a message in the queue instead.")
@json_option
@config_option
def explain(
    sender: str | None,
    recipient: str | None,
    client: str | None,
    helo: str,
    id_text: str | None,
    as_json: bool,
    config_path: str | None,
) -> None:
    """Say each step of a message's way: checks with verdicts, aliases, route, addresses, TLS, limits. Nothing is sent.

    With --id: why each recipient of a queued message waits, and until when.
    """
    if id_text is not None:
        if sender is not None or client is not None or helo:
            raise CommandFailed("--id stands alone: a queued message has its sender and recipients", EX_USAGE)
        _explain_queued(config_path, id_text, as_json)
        return
    if sender is None or recipient is None:
        raise CommandFailed("which? give FROM and TO, or --id QUEUE_ID", EX_USAGE)
    _explain_new(config_path, ExplainMail(sender, recipient, client, helo), as_json)


def _explain_new(config_path: str | None, asked: ExplainMail, as_json: bool) -> None:
    found: list[dict[str, object]] = []
    outcome: dict[str, object] = {}

    def visit(rows: Iterable[Said]) -> None:
        for each in rows:
            if each.step == OUTCOME:
                outcome.update(each.values)
                continue
            found.append({"step": each.step, "text": each.text, **each.values})
            if not as_json:
                print(f"{each.step:10} {plain(each.text)}")

    visit_rows(config_path, explain_new, asked, visit)
    if as_json:
        print_json({"from": asked.sender, "to": asked.recipient, "client": asked.client, **outcome, "steps": found})


def _explain_queued(config_path: str | None, id_text: str, as_json: bool) -> None:
    found = msgspec.to_builtins(perform(config_path, explain_queued, OfMessage(id_text)))
    if as_json:
        print_json(found)
        return
    print(f"{found['queue_id']} from <{plain(found['sender'])}>, received {found['received_at']}")
    for name in ("requiretls", "deliver_by", "release_at"):
        if found[name]:
            print(f"{name:13} {found[name]}")
    for each in found["recipients"]:
        print(f"\n{plain(each['recipient'])}: {each['state']}")
        print(f"  why         {plain(each['why'])}")
        if each["until"]:
            print(f"  until       {each['until']}")
        if each["last_reply"]:
            print(f"  last answer {plain(each['last_reply'])} (after {each['attempts']} attempts)")
        print(f"  next hop    {plain(each['next_hop'])}")
        if each["route_today"]:
            print(
                f"  route today {plain(each['route_today'])}: fastmta queue requeue --id {found['queue_id']} takes it"
            )
        hop = each["hop"]
        if hop:
            print(f"  the hop     {hop['in_flight']} in flight, {hop['connections']} connections")
        print(f"  given up    {found['given_up_at']}")
