"""The report: one HTML file that needs nothing else, and the data beside it."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any

from ecan.loadtest import tables
from ecan.loadtest.compare import server_means
from ecan.loadtest.figures import capacity_chart, cost_charts, percentile_chart, time_charts
from ecan.loadtest.style import page
from ecan.loadtest.units import show_bytes, show_count, show_ms

if TYPE_CHECKING:
    from pathlib import Path


def write_report(
    result: dict[str, Any],
    folder: Path,
    name: str | None = None,
    comparison: dict[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Write both files.

    Args:
        result: of the run.
        folder: made if it is not there.
        name: of the files; None: plan and time.
        comparison: with an earlier run.

    Returns:
        Paths of the HTML and the JSON file.
    """
    stem = name or f"{result['plan']['name']}-{result['started_at'][:19].replace(':', '')}"
    data = {**result, "comparison": comparison} if comparison else result
    return _write(folder, stem, make_report(result, comparison), data)


def write_capacity(
    found: dict[str, Any], folder: Path, name: str | None = None
) -> tuple[Path, Path]:
    """As `write_report`, of a search for the capacity."""
    return _write(folder, name or f"capacity-{found['plan']}", make_capacity_report(found), found)


def _write(folder: Path, stem: str, text: str, data: dict[str, Any]) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.-]+", "-", stem)
    page_path, data_path = folder / f"{stem}.html", folder / f"{stem}.json"
    page_path.write_text(text, encoding="utf-8")
    data_path.write_text(json.dumps(data, ensure_ascii=False) + "\n", encoding="utf-8")
    return page_path, data_path


def make_report(result: dict[str, Any], comparison: dict[str, Any] | None = None) -> str:
    """The page of a run."""
    plan = result["plan"]
    name = html.escape(plan["name"])
    old = None if comparison is None else comparison["old"]
    sections = [
        f"<h1>{name}</h1>",
        f'<p class="soft">{html.escape(plan["doc"])}</p>',
        f'<p class="soft small">{_headline(result)}</p>',
        tables.verdict(result),
        _cards(result),
        _section("Objective", tables.objective(result)),
        _section("Against the earlier run", tables.comparison(comparison)),
        "<h2>Over time</h2>",
        *time_charts(result, old),
        "<h2>Latency</h2>",
        percentile_chart(result, old),
        tables.methods(result),
        f'<p class="soft small">{tables.LATENCY_NOTE[plan["loop"]]}</p>',
        _section("Where the time goes", tables.split(result)),
        _section("What clients saw, by phase", tables.phases(result)),
        _section("Errors", tables.errors(result)),
        _section("Promises", tables.checks(result)),
        _section("What the server counted", tables.server(result)),
        _section("The generator itself", tables.generator(result)),
        _section("How it was run", tables.facts(result)),
    ]
    return page(f"Load test: {name}", "\n".join(sections))


def make_capacity_report(found: dict[str, Any]) -> str:
    """The page of a search."""
    unit = "requests/s" if found["kind"] == "rate" else "sessions"
    name = html.escape(found["plan"])
    objective = html.escape(found["objective"])
    intro = (
        f"Each load was held for {found['hold_s']:g} s after a warm-up; borderline ones were"
        " decided by two of three tries."
    )
    if found["best"]:
        state, words = "ok", f"{show_count(found['best'])} {unit} meet {objective}."
    else:
        state, words = "bad", f"Nothing that was tried meets {objective}."
    return page(
        f"Capacity: {name}",
        "\n".join(
            [
                f"<h1>Capacity: {name}</h1>",
                f'<p class="soft">{intro}</p>',
                f'<div class="verdict {state}">{words} {html.escape(found["ended"])}</div>',
                capacity_chart(found),
                *cost_charts(found),
                "<h2>Every try</h2>",
                tables.points(found),
            ]
        ),
    )


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>{body}" if body else ""


def _headline(result: dict[str, Any]) -> str:
    plan = result["plan"]
    loop = "open arrivals" if plan["loop"] == "open" else "a closed loop"
    generators = f"{plan['processes']} generator{'s' if plan['processes'] > 1 else ''}"
    started = html.escape(result["started_at"].replace("T", " ").replace("+00:00", " UTC"))
    return f"{started} · {plan['users']:,} users, {loop}, {generators}, {plan['played_s']:g} s"


def _cards(result: dict[str, Any]) -> str:
    total = result["total"]
    latency = total["parts"]["total"]
    server = server_means(result)
    broken = result["checks"]["total"]
    cards = [
        (f"{show_count(total['rate'])}/s", "answered", False),
        (show_ms(latency.get("p50")), "p50", False),
        (show_ms(latency.get("p99")), "p99", False),
        (show_ms(latency.get("p99.9")), "p99.9", False),
        (f"{total['error_share'] * 100:.3g} %", "errors", total["error_share"] > 0),
        (show_count(total["dropped"]), "dropped", total["dropped"] > 0),
        (
            str(broken) if broken else "kept",
            "promises broken" if broken else "promises",
            broken > 0,
        ),
    ]
    if server["cpu"] is not None:
        cards.append((f"{server['cpu'] * 100:.0f} %", "server CPU, mean", False))
    if server["rss_bytes"] is not None:
        cards.append((show_bytes(server["rss_bytes"]), "server memory, top", False))
    return (
        '<div class="cards">'
        + "".join(
            f'<div class="card{" bad" if bad else ""}"><b>{value}</b><span>{label}</span></div>'
            for value, label, bad in cards
        )
        + "</div>"
    )
