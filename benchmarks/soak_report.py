"""The soak as one HTML file that needs nothing else, and the data beside it."""

from __future__ import annotations

import html
import json
import time
from pathlib import Path
from typing import Any

from ecan.loadtest.charts import Axis, Band, Line, chart, linear_axis
from ecan.loadtest.result import machine
from ecan.loadtest.style import page


def write_report(
    found: dict[str, Any], folder: Path, series: list[tuple[str, str]]
) -> tuple[Path, Path]:
    """Write both files; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"soak-{time.strftime('%Y-%m-%dT%H%M', time.gmtime())}"
    page_path, data_path = folder / f"{stem}.html", folder / f"{stem}.json"
    page_path.write_text(make_report(found, series), encoding="utf-8")
    data_path.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return page_path, data_path


def make_report(found: dict[str, Any], series: list[tuple[str, str]]) -> str:
    """The page."""
    load, about = found["load"], machine()
    good = not found["problems"]
    problems = "".join(f"<li>{html.escape(text)}</li>" for text in found["problems"])
    verdict = "Everything is flat." if good else f"Not good:<ul>{problems}</ul>"
    facts = (
        f"{found['seconds'] / 60:g} minutes, {load['total']['sent']:,} requests, "
        f"{load['started_at'][:16].replace('T', ' ')} UTC, {about['system']}, "
        f"Python {about['python']}, {about['cpus']} CPUs"
    )
    return page(
        "Soak",
        "\n".join(
            [
                "<h1>Soak</h1>",
                f'<p class="soft">{html.escape(facts)}</p>',
                f'<div class="verdict {"ok" if good else "bad"}">{verdict}</div>',
                _table(found["verdicts"], series),
                '<p class="soft small">Medians of the middle and of the last third of the run'
                " are compared; allowed is the larger of the bound and of three standard errors."
                "</p>",
                *_charts(found["samples"], series),
            ]
        ),
    )


def _table(verdicts: dict[str, Any], series: list[tuple[str, str]]) -> str:
    rows = []
    for name, label in series:
        one = verdicts[name]
        cells = [one["middle"], one["late"], one["late"] - one["middle"], one["allowed"]]
        numbers = "".join(f"<td>{value:,.4g}</td>" for value in [*cells, one["per_hour"]])
        word = '<td class="ok">flat</td>' if one["flat"] else '<td class="bad">grows</td>'
        rows.append(f"<tr><td>{html.escape(label)}</td>{numbers}{word}</tr>")
    head = "".join(
        f"<th>{text}</th>"
        for text in ("", "middle third", "last third", "growth", "allowed", "slope per hour", "")
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _charts(samples: list[dict[str, float]], series: list[tuple[str, str]]) -> list[str]:
    xs = [sample["seconds"] for sample in samples]
    end = xs[-1]
    x = Axis(low=0.0, high=end, show=lambda value: f"{value / 60:g} min")
    thirds = [
        Band(number * end / 3, (number + 1) * end / 3, name, faint=number == 0)
        for number, name in enumerate(("warm-up", "middle", "last"))
    ]
    figures = []
    for number, (name, label) in enumerate(series):
        ys = [sample[name] for sample in samples]
        y = linear_axis(ys, lambda value: f"{value:g}")
        figures.append(chart(label, xs, [Line(label, ys, f"s{number % 6 + 1}")], x, y, thirds))
    return figures
