"""Draws a benchmark's JSON as pictures for the README: how many times a peer's rate, and which part of its CPU.

    python -m bench.run --json >now.json
    python -m bench.plot now.json docs/figures/bench.svg     # needs matplotlib: pip install -e '.[plot]'

A bar is the median of the rounds' ratios, its whisker their range; both axes are logarithmic, and 1 is the peer.
"""

import argparse
import json
from pathlib import Path
from typing import Any

COLOUR = {"sink": "#7a869a", "postfix": "#2f7d6b", "dovecot": "#b5622a"}


def bars(axis: Any, rows: list[dict[str, Any]], key: str, title: str) -> None:
    """One panel: a horizontal bar for each row, from 1 to the ratio."""
    for place, row in enumerate(reversed(rows)):
        ratio = row["ratio"][key]
        middle, low, high = ratio["median"], ratio["low"], ratio["high"]
        axis.barh(place, middle - 1, left=1, height=0.62, color=COLOUR[row["ratio"]["against"]])
        axis.plot([low, high], [place, place], color="#1c2430", linewidth=1.2)
        axis.text(max(middle, high, 1) * 1.12, place, f"{middle:.2g}×", va="center", fontsize=8)
    axis.set_xscale("log")
    axis.axvline(1, color="#1c2430", linewidth=1)
    axis.set_title(title, fontsize=10, loc="left")
    axis.margins(x=0.12)
    axis.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.plot", description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()

    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    report = json.loads(options.report.read_text())
    rows = [row for row in report["rows"] if "ratio" in row and not row["row"].startswith("latency")]
    figure, (rate, cpu) = plt.subplots(1, 2, sharey=True, figsize=(10.5, 0.36 * len(rows) + 1.4), layout="constrained")
    bars(rate, rows, "per_second", "rate, times the peer's (right is better)")
    bars(cpu, rows, "cpu", "server CPU, times the peer's (left is better)")
    rate.set_yticks(range(len(rows)), [row["title"] for row in reversed(rows)], fontsize=8)
    peers = dict.fromkeys(row["ratio"]["against"] for row in rows)
    handles = [Patch(color=COLOUR[peer], label=f"beside {peer}") for peer in peers]
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles), fontsize=8, frameon=False)
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.picture)


if __name__ == "__main__":
    main()
