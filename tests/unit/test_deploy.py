"""Dashboard and alerts speak of metrics and documents that exist. `make promtool` does the rest."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest

from ecan.admin.params import SortKey
from ecan.admin.table import COMMANDS
from ecan.config import markdown_table
from ecan.observability import Metrics
from ecan.observability.metrics import GAUGES
from ecan.protocol.codes import CLOSE_CODES, ERROR_CODES
from ecan.testing.docs import ROOT

DASHBOARD = ROOT / "deploy" / "grafana" / "ecan.json"
ALERTS = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text("utf-8")
ALERT_TESTS = (ROOT / "deploy" / "prometheus" / "alerts_test.yml").read_text("utf-8")
RUNBOOK = (ROOT / "docs" / "operators" / "runbook.md").read_text("utf-8")

NOT_OURS = {"up", "process_max_fds"}
"""Made by Prometheus; and absent from the exposition where there is no limit."""


@pytest.fixture(scope="module")
def exposed() -> set[str]:
    """Every sample's name that the server shows, and its family's."""
    metrics = Metrics()
    metrics.method("ping").observe("success", 0.0, 0.0, 0.0)
    for name, (label, _) in GAUGES.items():
        metrics.gauge_callback(name, lambda label=label: {"x": 1.0} if label else 1.0)
    text = metrics.render().decode()
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, flags=re.MULTILINE))
    names = set(re.findall(r"^(\w+)(?:\{| )", text, flags=re.MULTILINE))
    for name, kind in types.items():
        names |= {name} if kind in ("counter", "gauge") else {f"{name}_bucket", f"{name}_count"}
    return names


def _metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:ecan|process|python)_\w+\b", text)) | (
        {"up"} if re.search(r"\bup\{", text) else set()
    )


def _alert_exprs() -> list[str]:
    return re.findall(r"expr: >-\n +(.+)\n", ALERTS)


def _panels() -> list[dict]:
    return json.loads(DASHBOARD.read_text("utf-8"))["panels"]


def test_every_metric_of_the_alerts_exists(exposed):
    """An alert on a metric that nobody exposes never fires."""
    exprs = _alert_exprs()
    assert len(exprs) == ALERTS.count("- alert:")
    assert _metrics_in("\n".join(exprs)) - NOT_OURS - exposed == set()


def test_every_metric_of_the_dashboard_exists(exposed):
    """And every metric of the server is on it, histograms by their buckets."""
    text = "\n".join(target["expr"] for one in _panels() for target in one.get("targets", []))
    shown = _metrics_in(text)
    assert shown - NOT_OURS - exposed == set()
    ours = {
        name.removesuffix("_bucket")
        for name in exposed
        if name.startswith("ecan_") and not name.endswith(("_sum", "_created", "_count"))
    }
    assert {name for name in ours if not any(one.startswith(name) for one in shown)} == set()


def test_the_dashboard_is_one_that_grafana_takes():
    """Schema, unique ids, a variable for the data source, nothing over another."""
    board = json.loads(DASHBOARD.read_text("utf-8"))
    assert board["schemaVersion"] >= 36
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert set(variables) == {"datasource", "job", "instance"}
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert rows == [
        "Overview",
        "Latency: queue, run, commit, send",
        "Sessions",
        "Store",
        "Failures",
        "Process",
    ]
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        here = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not here & cells
        assert max(x for x, _ in here) < 24
        cells |= here
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"]


def _headings() -> set[str]:
    titles = re.findall(r"^#+ (.+)$", RUNBOOK, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_every_alert_is_complete_and_has_its_place_in_the_runbook():
    """Severity, for, summary, a link that leads somewhere, and a test that fires it."""
    alerts = re.split(r"^ +- alert: ", ALERTS, flags=re.MULTILINE)[1:]
    for alert in alerts:
        name = alert.splitlines()[0]
        assert re.search(r"severity: (critical|warning|info)$", alert, flags=re.MULTILINE), name
        assert re.search(r"^ +for: \d+[sm]$", alert, flags=re.MULTILINE), name
        assert re.search(r'summary: "\w.+\."$', alert, flags=re.MULTILINE), name
        assert f"runbook_url: docs/operators/runbook.md#{name.lower()}\n" in alert
        assert name.lower() in _headings(), name
        assert f"- name: {name}\n" in ALERT_TESTS, name


def test_every_code_has_its_place_in_the_runbook():
    """What clients are told, and what an operator does about it."""
    missing = {code for code in ERROR_CODES if f"**{code}**" not in RUNBOOK}
    assert missing == set()
    assert {code for code in CLOSE_CODES if f"**{int(code)}**" not in RUNBOOK} == set()


def test_every_command_of_the_runbook_exists():
    """A command that an operator types at night has to be there, with its options."""
    used = re.findall(r"ecan ops ([a-z]+(?: [a-z]+)?)", RUNBOOK)
    assert len(used) > 30
    known = {command.name.replace(".", " ") for command in COMMANDS}
    assert {one for one in used if one not in known and one.split()[0] not in known} - {
        "finds no"
    } == set()
    orders = set(re.findall(r"--sort (\w+)", RUNBOOK))
    assert orders <= set(get_args(SortKey))
    settings = set(re.findall(r"\bECAN_[A-Z_]+\b", RUNBOOK))
    variables = set(re.findall(r"^\| `(ECAN_\w+)`", markdown_table(), flags=re.MULTILINE))
    assert settings - variables == set()
