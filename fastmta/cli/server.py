"""`fastmta serve`, `reload`, `stop`, `status`: the server itself.

`serve` becomes the supervisor (becoming.py), which a plain call does without loading this.
"""

from typing import Any, NoReturn

import click

from fastmta.cli import derived
from fastmta.cli.becoming import become_supervisor
from fastmta.cli.output import config_option, print_json, print_table, size
from fastmta.cli.performing import perform
from fastmta.operations import server as acts
from fastmta.operations.values import Nothing


@click.command(epilog="\b\nExamples:\n  fastmta serve -c /etc/fastmta/fastmta.toml")
@config_option
def serve(config_path: str | None) -> NoReturn:
    """Run the server in the foreground until it is stopped.

    SIGHUP makes it read its configuration again, SIGTERM ends it gracefully.
    """
    become_supervisor(config_path)


reload = derived.command(acts.reload)
stop = derived.command(acts.stop)


def _status(answer: dict[str, Any]) -> None:
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


def _whole_status(config_path: str | None, asked: Nothing, as_json: bool) -> None:
    answer = perform(config_path, acts.status, asked)
    answer.pop("ok", None)
    (print_json if as_json else _status)(answer)


status = derived.command(acts.status, whole=_whole_status)
