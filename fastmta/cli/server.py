"""`fastmta serve`, `reload`, `stop`, `status`: the server itself.

`serve` becomes the supervisor (becoming.py), which a plain call does without loading this.
"""

from typing import Any, NoReturn

import click

from fastmta.cli.becoming import become_supervisor
from fastmta.cli.failures import EX_TEMPFAIL, CommandFailed
from fastmta.cli.output import config_option, json_option, print_json, print_table, size
from fastmta.config.load import load


@click.command(epilog="\b\nExamples:\n  fastmta serve -c /etc/fastmta/fastmta.toml")
@config_option
def serve(config_path: str | None) -> NoReturn:
    """Run the server in the foreground until it is stopped.

    SIGHUP makes it read its configuration again, SIGTERM ends it gracefully.
    """
    become_supervisor(config_path)


@click.command()
@config_option
def reload(config_path: str | None) -> None:
    """Let the running server read its configuration again; no connection is lost."""
    load(config_path)  # a mistake is told here, and not only in the server's log
    _ask(config_path, "reload")


@click.command()
@config_option
def stop(config_path: str | None) -> None:
    """Stop the running server when its transactions have ended."""
    _ask(config_path, "stop")


@click.command()
@json_option
@config_option
def status(as_json: bool, config_path: str | None) -> None:
    """Show the running server: processes, listeners, connections, totals, queue."""
    answer = _ask(config_path, "status")
    answer.pop("ok", None)
    if as_json:
        print_json(answer)
        return
    state = "ready" if answer.get("ready") else "not ready"
    print(
        f"fastmta {answer.get('version', '')}, process {answer.get('pid')}, {state}, up {_age(answer.get('uptime_s'))}"
    )
    print(f"configuration {answer.get('config')}, {answer.get('restarts', 0)} worker restarts")
    print()
    print_table(
        ("SLOT", "PROCESS", "STATE", "UP", "CONNECTIONS"),
        [(w["slot"], w["pid"], w["state"], _age(w["uptime_s"]), w["connections"]) for w in answer.get("workers", ())],
        right=(0, 1, 3, 4),
    )
    print()
    open_now = answer.get("connections") or {}
    print_table(
        ("SERVICE", "LISTENS ON", "CONNECTIONS"),
        [(e["service"], e["address"], open_now.get(e["service"], 0)) for e in answer.get("listeners", ())],
        right=(2,),
    )
    print()
    for name, figures in (
        ("totals", answer.get("totals")),
        ("queue", answer.get("queue")),
        ("store", answer.get("store")),
    ):
        if isinstance(figures, dict):
            print(f"{name}: " + ", ".join(f"{key} {_figure(key, value)}" for key, value in figures.items()))


def _ask(config_path: str | None, what: str) -> dict[str, Any]:
    from fastmta.admin.control import request

    answer = request(load(config_path), {"do": what})
    if not answer.get("ok"):
        raise CommandFailed(str(answer.get("error", "the server refused")), EX_TEMPFAIL)
    return answer


def _figure(key: str, value: object) -> str:
    return size(value) if key.endswith("bytes") and isinstance(value, int) else str(value)


def _age(seconds: object) -> str:
    left = int(seconds) if isinstance(seconds, int | float) else 0
    days, left = divmod(left, 86_400)
    hours, left = divmod(left, 3600)
    minutes, left = divmod(left, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (left, "s")]
    shown = [f"{value}{unit}" for value, unit in parts if value]
    return " ".join(shown[:2]) or "0s"
