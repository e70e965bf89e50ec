"""`fastmta policy test`: messages played through the site's own policy module, without a server.

They are files, or what the trace has of mail that came: its clients and envelopes, and what became of them then.
"""

import asyncio
import mailbox
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fastmta.cli.failures import EX_CONFIG, EX_NOINPUT, EX_USAGE, CommandFailed
from fastmta.cli.output import config_option, json_option, plain, print_json, print_table

if TYPE_CHECKING:
    from fastmta.policy.api import Context

_MESSAGE_BYTES = 50 << 20


class Played(NamedTuple):
    """One message to play. `raw` is None where only its envelope is known; `then` is what became of it."""

    name: str
    client: str
    client_name: str
    helo: str
    login: str
    sender: str
    recipients: tuple[str, ...]
    size: int
    raw: bytes | None = None
    then: str = ""


@click.group(
    epilog="\b\nExamples:\n  fastmta policy test letter.eml --module site_policy.py --sender ann@example.net\n"
    "  fastmta policy test --since 1d --module site_policy.py"
)
def policy() -> None:
    """The site's own policy, in Python (policy_module)."""


@policy.command()
@click.argument("files", nargs=-1, metavar="[FILE...]")
@click.option(
    "--since", metavar="WHEN", help='Instead of files: mail that the trace has since then, "1d" or an instant.'
)
@click.option(
    "--limit", type=click.IntRange(1), default=1000, show_default=True, help="Of the trace, so many messages."
)
@click.option("--module", metavar="FILE", help="The module; without it policy_module of the configuration.")
@click.option("--sender", metavar="ADDRESS", help="MAIL FROM; without it the message's Return-Path, else its From.")
@click.option("--recipient", "recipients", multiple=True, metavar="ADDRESS", help="RCPT TO; without it To and Cc.")
@click.option("--client", default="192.0.2.1", metavar="IP", show_default=True, help="Who brings it.")
@click.option("--client-name", default="unknown", metavar="NAME", help="What the DNS calls him.")
@click.option("--helo", default="client.example", metavar="NAME", show_default=True, help="What he calls himself.")
@click.option("--login", default="", metavar="ADDRESS", help="Whom he has logged in as.")
@json_option
@config_option
def test(
    files: tuple[str, ...],
    since: str | None,
    limit: int,
    module: str | None,
    sender: str | None,
    recipients: tuple[str, ...],
    client: str,
    client_name: str,
    helo: str,
    login: str,
    as_json: bool,
    config_path: str | None,
) -> int:
    """Play messages (files, mboxes, Maildirs) through the module, stage by stage, and tell what it says of each.

    With --since it is mail of the trace: its client and envelope, beside what became of it then. The trace keeps no
    text, so the stage message is not asked. The functions run as in the server, in a process of their own with the
    same time budget. The exit code is 1 where a function failed.
    """
    from fastmta.policy.api import STAGES

    if bool(files) == (since is not None):
        raise CommandFailed("nothing to play: name files, or --since for mail of the trace", EX_USAGE)
    path, budget_s = _module(module, config_path)
    rows: list[dict[str, Any]] = []
    if since is not None:
        played: Iterable[Played] = list(_traced(config_path, since, limit))
    else:
        played = (
            Played(name, client, client_name, helo, login, *_envelope(raw, sender, recipients), len(raw), raw)
            for name, raw in _messages(files)
        )

    async def play() -> None:
        from fastmta.policy.checks.site import translated
        from fastmta.policy.site import NoAnswer, SitePolicy
        from fastmta.runtime.log import Log

        host = SitePolicy(Log(sys.stderr.fileno(), level="error"), time.monotonic)
        host.configure(path, budget_s)
        try:
            for each in played:
                for stage in STAGES:
                    for context in _contexts(stage, each):
                        row: dict[str, Any] = {"file": each.name, "stage": stage, "recipient": context.recipient}
                        if since is not None:
                            row["then"] = each.then
                        began = time.perf_counter()
                        try:
                            said = await host.ask(context)
                            if said is None:
                                continue
                            verdict = translated(said)
                            row |= {"verdict": said.action, "reply": str(verdict.reply or ""), "reason": said.reason}
                            row |= {"fields": [f"{name}: {value}" for name, value in said.fields], "error": ""}
                        except (NoAnswer, ValueError) as error:
                            row |= {"verdict": "defer", "reply": "451 4.3.5 Server configuration problem"}
                            row |= {"reason": "", "fields": [], "error": str(error)}
                        row["seconds"] = round(time.perf_counter() - began, 4)
                        rows.append(row)
        finally:
            host.close()
            await asyncio.sleep(0)

    asyncio.run(play())
    if as_json:
        print_json(rows)
    else:
        table: list[tuple[str, ...]] = [
            (
                each["file"],
                each["stage"],
                each["recipient"],
                each["verdict"],
                each["reply"],
                each["reason"] or _last(each),
            )
            for each in rows
        ]
        columns: tuple[str, ...] = ("FILE", "STAGE", "RECIPIENT", "VERDICT", "REPLY", "REASON")
        if since is not None:
            columns = ("MESSAGE", *columns[1:], "THEN")
            table = [(*row, each["then"]) for row, each in zip(table, rows, strict=True)]
        print_table(columns, [tuple(map(plain, row)) for row in table])
        for each in rows:
            if each["error"]:
                print(plain(each["error"]).strip(), file=sys.stderr)
    return 1 if any(each["error"] for each in rows) else 0


def _contexts(stage: str, known: Played) -> "Iterator[Context]":
    from fastmta.model.limits import SITE_POLICY_SHOWN_BYTES
    from fastmta.policy.api import STAGES, Context

    at = STAGES.index(stage)
    if stage == "message" and known.raw is None:
        return
    head, _, body = (known.raw or b"").partition(b"\r\n\r\n")
    for recipient in known.recipients if stage == "rcpt" else ("",):
        yield Context(
            stage=stage,
            service="submission" if known.login else "smtp",
            session=1,
            client_ip=known.client,
            client_name=known.client_name,
            trusted=False,
            tls=False,
            helo=known.helo if at >= 1 else "",
            login=known.login,
            sender=known.sender if at >= 2 else "",
            recipient=recipient,
            recipients=known.recipients if at >= 4 else (),
            size=known.size if at >= 5 else 0,
            header=(head + b"\r\n")[:SITE_POLICY_SHOWN_BYTES] if at >= 5 else b"",
            body=body[:SITE_POLICY_SHOWN_BYTES] if at >= 5 else b"",
        )


def _traced(config_path: str | None, since: str, limit: int) -> Iterator[Played]:
    """What came over SMTP, as the trace has it: accepted mail and refusals."""
    from fastmta.cli.performing import perform
    from fastmta.operations import tracing

    found = perform(config_path, tracing.trace, tracing.TraceMail(since=since, limit=limit))
    for story in found.messages:
        lines = [line for line in story["events"] if line.get("event") in ("smtp.received", "smtp.rejected")]
        name, _, address = str(story["client"] or "").rpartition("[")
        if not lines or not address.endswith("]"):
            continue  # from a local program: the module is not asked
        recipients = story["recipients"]
        yield Played(
            story["queue_id"] or story["at"],
            address[:-1],
            name,
            str(lines[0].get("helo") or ""),
            story["login"] or "",
            story["sender"],
            tuple(each["original_recipient"] or each["recipient"] for each in recipients),
            story["size"] or 0,
            None,
            ", ".join(dict.fromkeys(each["status"] for each in recipients)) or "rejected",
        )


def _last(row: dict[str, Any]) -> str:
    return (str(row["error"]).splitlines() or [""])[-1]


def _module(module: str | None, config_path: str | None) -> tuple[str, float]:
    from fastmta.config.load import load
    from fastmta.config.location import default_path

    budget_s = 2.0
    if module is None or config_path is not None or Path(default_path()).is_file():
        config = load(config_path)
        module, budget_s = module or config.policy_module, config.policy_timeout
    if not module:
        raise CommandFailed("no policy_module is configured: name one with --module", EX_CONFIG)
    if not Path(module).is_file():
        raise CommandFailed(f"{module}: there is no such file", EX_NOINPUT)
    return str(Path(module).resolve()), budget_s


def _messages(files: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """(name, message with CRLF) of everything that was named."""
    from fastmta.authentication.message import with_crlf

    for file in files:
        path = Path(file)
        try:
            if path.is_dir():
                for number, each in enumerate(mailbox.Maildir(path, create=False)):
                    yield f"{file}:{number + 1}", with_crlf(each.as_bytes())
                continue
            with path.open("rb") as opened:
                raw = opened.read(_MESSAGE_BYTES)
        except OSError as error:
            raise CommandFailed(f"{file}: {error.strerror}", EX_NOINPUT) from error
        if raw.startswith(b"From "):
            for number, one in enumerate(mailbox.mbox(path, create=False)):
                yield f"{file}:{number + 1}", with_crlf(one.as_bytes())
        else:
            yield file, with_crlf(raw)


def _envelope(raw: bytes, sender: str | None, recipients: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    from email import message_from_bytes
    from email.utils import getaddresses

    head = message_from_bytes(raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    if sender is None:
        sender = next((a for _, a in getaddresses([str(head.get("Return-Path") or head.get("From") or "")])), "")
    if not recipients:
        fields = [str(each) for name in ("To", "Cc") for each in head.get_all(name, [])]
        recipients = tuple(address for _, address in getaddresses(fields) if "@" in address) or ("user@example.org",)
    return sender.strip("<>"), recipients
