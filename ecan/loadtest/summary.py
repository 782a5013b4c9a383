# ruff: noqa: T201 - it prints
"""What a run found, on the terminal."""

from __future__ import annotations

from typing import Any

from ecan.loadtest.checks import PROMISES
from ecan.loadtest.units import show_count, show_ms

COLUMNS = ("p50", "p90", "p99", "p99.9", "p99.99", "max_ms")
LEAST_BEYOND = 10
"""A percentile with fewer values beyond it is a single request's story."""


def trusted(percentile: str, n: int) -> bool:
    """Whether enough values lie beyond a percentile to speak of it.

    >>> trusted("p99.9", 5000), trusted("p99.9", 10_000), trusted("max_ms", 5)
    (False, True, True)
    """
    if not percentile.startswith("p"):
        return True
    return n * (100 - float(percentile[1:])) / 100 >= LEAST_BEYOND - 1e-6


def table(head: list[str], rows: list[list[str]]) -> str:
    """Aligned columns, the first to the left.

    >>> print(table(["a", "n"], [["x", "10"]]))
    a   n
    x  10
    """
    cells = [head, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def latency_cells(row: dict[str, Any]) -> list[str]:
    """Percentiles of a row; in brackets where few values lie beyond."""
    latency = row["parts"]["total"]
    cells = []
    for key in COLUMNS:
        text = show_ms(latency.get(key))
        cells.append(text if trusted(key, latency["n"]) or text == "-" else f"({text})")
    return cells


def print_result(result: dict[str, Any], comparison: dict[str, Any] | None) -> None:
    """The headline, the methods, the promises, the verdict."""
    total, plan = result["total"], result["plan"]
    print(f"\n{plan['name']}: {plan['users']} users, {plan['loop']} loop, {plan['played_s']:g} s")
    head = ["", "sent", "ok/s", "errors", *(c.removesuffix("_ms") for c in COLUMNS)]
    rows = [_row("all", total)]
    rows += [_row(name, row) for name, row in result["methods"].items()]
    print(table(head, rows))
    if total["dropped"]:
        print(f"dropped: {total['dropped']} arrivals found no user with room")
    if len(result["phases"]) > 1:
        print("\nby phase")
        print(table(head, [_row(phase["name"], phase) for phase in result["phases"]]))
    codes = {**total["errors"]}
    if codes:
        print("\nerrors: " + ", ".join(f"{code} {count}" for code, count in codes.items()))
    _print_checks(result["checks"])
    generator = result["generator"]
    late = generator["late"]
    print(
        f"generator: {generator['cpu_us_per_request']} µs of CPU a request, requests left"
        f" {show_ms(late.get('p50'))} (p50) to {show_ms(late.get('p99'))} (p99) late"
    )
    for note in result["facts"]["notes"]:
        print(note)
    if comparison is not None:
        print_comparison(comparison)
    for row in result["slo"]:
        print(f"{'met' if row['ok'] else 'MISSED':6} {row['term']}: {row['shown']}")
    for reason in result["verdict"]["reasons"]:
        print(f"NOT GOOD: {reason}")


def _row(name: str, row: dict[str, Any]) -> list[str]:
    errors = sum(row["errors"].values())
    return [
        name,
        show_count(row["sent"]),
        show_count(row["rate"]),
        show_count(errors),
        *latency_cells(row),
    ]


def _print_checks(checks: dict[str, Any]) -> None:
    if not checks["total"]:
        looked = ", ".join(words for key, words in PROMISES.items() if key not in checks["unseen"])
        print(f"\npromises: kept, as far as this plan can see ({looked})")
        return
    print("\npromises BROKEN:")
    for name, count in checks["counts"].items():
        print(f"  {name} {PROMISES.get(name, '')}: {count}")
    for example in checks["examples"][:5]:
        print(f"    {example['session']}: {example['what']}")


def print_comparison(comparison: dict[str, Any]) -> None:
    """Old, new and ratio of each method."""
    print(f"\nagainst {comparison['old']['plan']} of {comparison['old']['started_at']}")
    names = ("rate", "p50", "p99")
    head = ["", *(f"{name} {part}" for name in names for part in ("old", "new", "ratio"))]
    rows = []
    for row in comparison["rows"]:
        cells = [row["name"]]
        for name in names:
            cell = row["cells"][name]
            show = show_ms if name != "rate" else show_count
            cells += ["-" if cell[k] is None else show(cell[k]) for k in ("old", "new")]
            cells.append("-" if cell["ratio"] is None else f"{cell['ratio']:.2f}")
        rows.append(cells)
    print(table(head, rows))
    for caveat in comparison["caveats"]:
        print(f"careful: {caveat}")


def print_capacity(found: dict[str, Any]) -> None:
    """Every point that was tried, and the most that met the objective."""
    unit = "requests/s" if found["kind"] == "rate" else "sessions"
    rows = [
        [
            show_count(point["load"]),
            "met" if point["ok"] else "missed",
            show_ms(point["p50_ms"]),
            show_ms(point["p99_ms"]),
            f"{point['error_share'] * 100:.2f} %",
            "; ".join(point["reasons"])[:60],
        ]
        for point in found["points"]
    ]
    print(table([unit, "objective", "p50", "p99", "errors", "why"], rows))
    best = show_count(found["best"]) if found["best"] else "none"
    print(f"\nThe most that met {found['objective']}: {best} {unit}. {found['ended']}")
