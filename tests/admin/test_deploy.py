"""What deploy/ asks for must exist: metric names, ports, and files that their programs can read."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fastmta.admin.collector import Collector, StoreFigures
from fastmta.runtime.board import Board
from fastmta.runtime.metrics import SharedCells

DEPLOY = Path(__file__).parents[2] / "deploy"


def exported() -> set[str]:
    shared = SharedCells.create(2)
    shared.range(0)[Board.RANGES_USED] = 2
    text = Collector(shared, lambda: StoreFigures({"active": 0}, 0.0, {})).text().decode()
    return set(re.findall(r"^(fastmta_\w+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["prometheus/alerts.yml", "grafana/fastmta.json"])
def test_every_metric_that_is_asked_for_is_exported(name: str) -> None:
    asked = set(re.findall(r"\bfastmta_\w+", (DEPLOY / name).read_text()))
    assert len(asked) > 5
    assert asked <= exported()


def test_the_dashboard_is_json_whose_panels_do_not_overlap() -> None:
    panels = json.loads((DEPLOY / "grafana/fastmta.json").read_text())["panels"]
    covered = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(covered) == len(set(covered))
    assert all(x < 24 for x, _ in covered)


def test_the_unit_waits_for_readiness_and_reloads_by_hup() -> None:
    unit = (DEPLOY / "systemd/fastmta.service").read_text()
    assert "Type=notify\n" in unit
    assert "kill -HUP $MAINPID" in unit


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (package prometheus) is not installed")
def test_promtool_accepts_the_alert_rules() -> None:
    subprocess.run(["promtool", "check", "rules", DEPLOY / "prometheus/alerts.yml"], check=True, capture_output=True)
