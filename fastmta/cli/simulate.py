"""`fastmta simulate`: what a configuration would have done with mail that was, beside what the present one does."""

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastmta.cli.asking import shown_progress
from fastmta.cli.failures import EX_DATAERR, EX_NOINPUT, EX_USAGE, CommandFailed
from fastmta.cli.output import json_option, plain, print_json
from fastmta.config.load import load
from fastmta.config.location import default_path
from fastmta.runtime.owned import acting_as_owner
from fastmta.trace.search import search
from fastmta.trace.story import Wanted

if TYPE_CHECKING:
    from fastmta.config.schema import Config
    from fastmta.operations.desk import Progress
    from fastmta.simulation.day import Day, Destination
    from fastmta.simulation.envelopes import Letter

_DAY_S = 86_400
_MOST_DAYS = 366  # from the first message to the last: a month of few messages takes half a second


@click.command(
    epilog="\b\nExamples:\n  fastmta simulate --config new.toml --yesterday\n"
    "  fastmta trace --since 2h --limit 100000 --json >mail && fastmta simulate --config new.toml --envelopes mail\n"
    '  echo \'{"at":"2026-11-27T10:00","sender":"ann@example.org","recipients":["bill@example.net"]}\' |\n'
    "    fastmta simulate --envelopes -"
)
@click.option("-c", "--config", "changed_path", type=click.Path(), help="The changed configuration.")
@click.option("--present", "present_path", type=click.Path(), help="The present one; without it the default file.")
@click.option("--envelopes", "source", type=click.Path(), metavar="FILE", help='Lines of JSON; "-": standard input.')
@click.option("--yesterday", is_flag=True, help="The mail of yesterday (UTC), from the present server's trace.")
@click.option("--limit", default=20, show_default=True, help="Show so many destinations; 0: all of them.")
@click.option("--seed", default=1, show_default=True, help="Of what is left to chance: jitter and turns.")
@json_option
def simulate(
    changed_path: str | None,
    present_path: str | None,
    source: str | None,
    yesterday: bool,
    limit: int,
    seed: int,
    as_json: bool,
) -> None:
    """Say what a changed configuration would have done with mail that was, beside what the present one does.

    The real router, queue, scheduler and limits run under a clock that jumps, against servers that answer as the trace
    says they did. Nothing is sent, no name server is asked, and the store is not opened.
    """
    if (source is None) == (not yesterday):
        raise CommandFailed("which mail? give --envelopes FILE or --yesterday", EX_USAGE)
    root = click.get_current_context().find_root().obj
    configs = _configs(changed_path or root, present_path)
    with shown_progress("simulate") as told:
        letters = _letters(configs, source)
        if not letters:
            raise CommandFailed("there was no mail", EX_NOINPUT)
        days_between = (letters[-1].at - letters[0].at) / _DAY_S
        if days_between > _MOST_DAYS:
            raise CommandFailed(
                f"the mail is of {days_between:.0f} days, and at most {_MOST_DAYS} can be simulated at once", EX_DATAERR
            )
        from fastmta.simulation import day as simulation

        past = simulation.past_of(letters, next(iter(configs.values())))
        days = {}
        for name, config in configs.items():
            days[name] = simulation.run(config, letters, past, partial(_progressed, told, name), seed)
    if as_json:
        print_json({name: _as_json(day) for name, day in days.items()})
    else:
        _print(days, limit)


def _progressed(told: "Progress", name: str, done: int, of: int) -> None:
    told(done, of, name)


def _configs(changed_path: str | None, present_path: str | None) -> "dict[str, Config]":
    """By what they are called in the answer: one of them, or both."""
    found: dict[str, Config] = {}
    here = present_path or default_path()
    if present_path is not None or changed_path is None or os.path.exists(here):
        found["present"] = load(here)
    if changed_path is not None:
        found["changed"] = load(changed_path)
    return found


def _letters(configs: "dict[str, Config]", source: str | None) -> "list[Letter]":
    from fastmta.simulation import envelopes

    if source is None:
        directory = Path(next(iter(configs.values())).data_directory)
        if not directory.is_dir():
            raise CommandFailed(f"{directory}: no server has been here, so there is no trace", EX_NOINPUT)
        letters = list(_of_yesterday(directory))
    else:
        try:
            with click.open_file(source, "rb") as file:
                letters = list(envelopes.read(file))
        except OSError as error:
            raise CommandFailed(f"{source}: {error.strerror}", EX_NOINPUT) from error
        except envelopes.Unreadable as error:
            raise CommandFailed(f"{source}: {error}", EX_DATAERR) from error
    return sorted(letters, key=lambda letter: letter.at)


def _of_yesterday(directory: Path) -> "Iterator[Letter]":
    from fastmta.simulation.envelopes import letter_of

    begin = int(time.time()) // _DAY_S * _DAY_S - _DAY_S
    day = time.strftime("%Y-%m-%d", time.gmtime(begin))
    wanted = Wanted(since_at=float(begin), since=f"{day}T00:00:00.000Z", until=f"{day}T23:59:59.999Z")
    with acting_as_owner(directory):
        for story in search(directory, wanted):
            if story.queue_id and story.accepted and begin <= _at(story.accepted) < begin + _DAY_S:
                letter = letter_of(story.as_json())
                if letter is not None:
                    yield letter


def _at(line: dict[str, Any]) -> float:
    from fastmta.simulation.envelopes import instant

    return instant(line["at"])


# --- the answer ---


def _as_json(day: "Day") -> dict[str, Any]:
    return {
        "connections": day.connections,
        "most_in_hand": day.most_waiting,
        "dead": dict(day.dead),
        "held_back_seconds": {hop: dict(why) for hop, why in day.held_back.items()},
        "destinations": {
            name: {
                "recipients": row.recipients,
                "delivered": row.delivered,
                "bounced": row.bounced,
                "refused": row.refused,
                "waiting": row.waiting,
                "put_off": row.put_off,
                "routes": dict(row.routes),
                "replies": dict(row.replies),
                "waited_seconds": {
                    "median": round(row.share(0.5), 3),
                    "p95": round(row.share(0.95), 3),
                    "longest": round(row.share(1.0), 3),
                },
            }
            for name, row in day.destinations.items()
        },
    }


def _print(days: "dict[str, Day]", limit: int) -> None:
    names: dict[str, int] = {}
    for day in days.values():
        for name, row in day.destinations.items():
            names[name] = max(names.get(name, 0), row.recipients)
    chosen = sorted(names, key=lambda name: (-names[name], name))
    _line("", list(days))
    for name in chosen[: limit or None]:
        rows = [day.destinations.get(name) for day in days.values()]
        print()
        print(plain(f"{name}: {names[name]} recipients"))
        _line("  route", [_route(row) for row in rows])
        _line("  delivered, bounced", [f"{row.delivered}, {row.bounced}" if row else "-" for row in rows])
        if any(row and (row.refused or row.waiting) for row in rows):
            _line("  refused, waiting", [f"{row.refused}, {row.waiting}" if row else "-" for row in rows])
        _line("  put off (times)", [str(row.put_off) if row else "-" for row in rows])
        _line("  waited: half, 95 %, all", [_waits(row) for row in rows])
        replies = sorted({each for row in rows if row for each in row.replies})
        for each in replies[:5]:
            _line(f"    {each}"[:60], [str(row.replies[each]) if row else "-" for row in rows])
    if limit and len(chosen) > limit:
        print(f"\nand {len(chosen) - limit} more destinations; --limit 0 shows them")
    print()
    _line("connections", [str(day.connections) for day in days.values()])
    for hop in sorted({hop for day in days.values() for hop in day.held_back}):
        reasons = sorted({why for day in days.values() for why in day.held_back[hop]})
        for why in reasons:
            seconds = [f"{day.held_back[hop][why]} s" for day in days.values()]
            _line(f"held back: {hop}: {why}"[:100], seconds)
    for hop in sorted({hop for day in days.values() for hop in day.dead}):
        _line(f"dead: {hop}", [f"{day.dead[hop]} times" for day in days.values()])


def _line(name: str, values: list[str]) -> None:
    if len(name) > 28:
        print(plain(name))
        name = ""
    print(plain(f"{name:<28}" + "".join(f"{value:<34}" for value in values)).rstrip())


def _route(row: "Destination | None") -> str:
    if row is None or not row.routes:
        return "-"
    hop, _ = row.routes.most_common(1)[0]
    return hop + (f" and {len(row.routes) - 1} more" if len(row.routes) > 1 else "")


def _waits(row: "Destination | None") -> str:
    if row is None or not row.waited:
        return "-"
    return ", ".join(_span(row.share(part)) for part in (0.5, 0.95, 1.0))


def _span(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
