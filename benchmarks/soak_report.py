"""What a soak found: a table, and one HTML page that needs nothing else."""

from __future__ import annotations

import html
import json
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import table
from ecan.loadtest import tables
from ecan.loadtest.charts import Axis, Band, Line, chart, linear_axis
from ecan.loadtest.figures import percentile_chart, time_charts
from ecan.loadtest.style import page
from ecan.loadtest.summary import print_result

HEAD = ["", "middle third", "last third", "growth", "allowed", "slope an hour", ""]

ABOUT = (
    "Medians of all samples of the last third against those of the middle third; the first is for"
    " warming up. Allowed is a bound and three standard errors of the difference. The slope is"
    " Theil and Sen's over both thirds."
)


def rows(result: dict[str, Any]) -> list[list[str]]:
    """One for each figure."""
    words = {True: "flat", False: "GROWS", None: "(not judged)"}
    return [
        [
            row["name"],
            _show(row["middle"], row["unit"]),
            _show(row["last"], row["unit"]),
            _show(row["growth"], sign="+"),
            "-" if row["flat"] is None else _show(row["allowed"]),
            _show(row["slope_h"], sign="+"),
            words[row["flat"]],
        ]
        for row in result["verdicts"]
    ]


def print_soak(result: dict[str, Any]) -> None:
    """On the terminal."""
    print_result(result, None)
    print(f"\n{len(result['samples'])} samples. {ABOUT}")
    print(table(HEAD, rows(result)))


def write_soak(result: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """The page and the data; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"soak-{result['started_at'][:19].replace(':', '')}"
    paths = folder / f"{stem}.html", folder / f"{stem}.json"
    paths[0].write_text(make_page(result), encoding="utf-8")
    paths[1].write_text(json.dumps(result, ensure_ascii=False) + "\n", encoding="utf-8")
    return paths


def make_page(result: dict[str, Any]) -> str:
    """The page."""
    grown = [row["name"] for row in result["verdicts"] if row["flat"] is False]
    state = "bad" if grown else "ok"
    words = f"Grows: {', '.join(grown)}." if grown else "Everything that is judged stays flat."
    plan = result["plan"]
    facts = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    sections = [
        "<h1>Soak</h1>",
        f'<p class="soft">{html.escape(plan["doc"])}</p>',
        f'<p class="soft small">{result["started_at"]}, {plan["users"]} users, '
        f"{plan['played_s']:g} s. {html.escape(facts)}</p>",
        f'<div class="verdict {state}">{html.escape(words)}</div>',
        tables.verdict(result),
        f'<h2>Flat?</h2><p class="soft small">{ABOUT}</p>',
        _table(result),
        *_charts(result),
        "<h2>The load</h2>",
        *time_charts(result),
        percentile_chart(result),
        tables.methods(result),
        tables.errors(result),
        tables.checks(result),
    ]
    return page("Soak", "\n".join(sections))


def _table(result: dict[str, Any]) -> str:
    def cell(text: str) -> str:
        style = {"GROWS": ' class="bad"', "flat": ' class="ok"'}.get(text, "")
        return f"<td{style}>{html.escape(text)}</td>"

    head = "".join(f"<th>{html.escape(name)}</th>" for name in HEAD)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows(result))
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _charts(result: dict[str, Any]) -> list[str]:
    samples = result["samples"]
    xs = [sample["at_s"] for sample in samples]
    end = max(xs[-1], 1.0)
    thirds = [xs[len(xs) // 3], xs[len(xs) * 2 // 3]]
    bands = [
        Band(0.0, thirds[0], "warms up", faint=True),
        Band(thirds[0], thirds[1], "middle third"),
        Band(thirds[1], end, "last third"),
    ]
    x = Axis(low=0.0, high=end, show=lambda s: f"{s / 60:.3g} min" if end > 300 else f"{s:g} s")
    charts = []
    for number, row in enumerate(result["verdicts"]):
        ys = [sample[row["name"]] for sample in samples]
        y = linear_axis(ys, partial(_show, unit=row["unit"]))
        line = Line(row["name"], ys, f"s{number % 5 + 1}")
        charts.append(chart(row["name"][0].upper() + row["name"][1:], xs, [line], x, y, bands))
    return charts


def _show(value: float, unit: str = "", sign: str = "") -> str:
    digits = ",.0f" if abs(value) >= 1000 else ".4g"
    return f"{value:{sign}{digits}} {unit}".strip()
