"""What deploy/ asks for must exist: metric names, ports, and files that their programs can read."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fastmta.admin.collector import HOST, Collector, StoreFigures
from fastmta.runtime.board import Board
from fastmta.runtime.metrics import SharedCells
from fastmta.store import MailStore

DEPLOY = Path(__file__).parents[2] / "deploy"


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (package prometheus) is missing")


def exposition(store: dict[str, float]) -> str:
    """What GET /metrics answers, where the store says so much."""
    shared = SharedCells.create(2)
    shared.range(0)[Board.RANGES_USED] = 2
    figures = StoreFigures({"active": 0}, 0.0, store, dict.fromkeys(HOST, 1.0))
    return b"".join(Collector(shared, lambda: figures).pieces()).decode()


def exported() -> set[str]:
    return set(re.findall(r"^(fastmta_\w+)", exposition({}), re.MULTILINE))


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


@needs_promtool
def test_promtool_accepts_the_alert_rules() -> None:
    subprocess.run(["promtool", "check", "rules", DEPLOY / "prometheus/alerts.yml"], check=True, capture_output=True)


@needs_promtool
def test_every_alert_fires_when_it_should_and_is_silent_when_it_should() -> None:
    """deploy/prometheus/alerts_test.yml has both for each of them."""
    rules, tests = (DEPLOY / "prometheus" / name for name in ("alerts.yml", "alerts_test.yml"))
    done = subprocess.run(["promtool", "test", "rules", tests], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tested = re.findall(r"alertname: (\w+)", tests.read_text())
    for name in re.findall(r"alert: (\w+)", rules.read_text()):
        assert tested.count(name) >= 2, f"{name} has no test of both"


@needs_promtool
def test_promtool_finds_nothing_to_say_about_the_metrics(tmp_path: Path) -> None:
    store = MailStore.open(tmp_path)
    figures = {name: float(value) for name, value in store.raw.stats().items() if isinstance(value, int | float)}
    store.close()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=exposition(figures), text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
