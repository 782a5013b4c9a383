"""The charts of a run. Pure."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from ecan.loadtest.charts import Axis, Band, Line, Mark, chart, linear_axis, log_axis
from ecan.loadtest.counts import from_hdr
from ecan.loadtest.units import show_bytes, show_count, show_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CURVE_POINTS = 160
CURVE_METHODS = 4
SECONDS_IN_MINUTES = 600


def _show_s(value: float) -> str:
    return f"{value:g} s" if value < SECONDS_IN_MINUTES else f"{value / 60:g} min"


def _show_share(odds: float) -> str:
    """1 / (1 - q) as a percentile: 100 is 99 %."""
    percent = 100 - 100 / odds
    return f"{percent:.6g} %" if odds >= 1e6 else f"{float(f'{percent:.5g}'):g} %"  # noqa: PLR2004


def _show_percent(value: float) -> str:
    return f"{value * 100:.3g} %"


def _mib(value: float | None) -> float | None:
    return None if value is None else value / 2**20


def _show_mib(value: float) -> str:
    return show_bytes(value * 2**20)


def time_charts(result: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    """Everything over time: latency, throughput, errors, what is under way, the server."""
    rows = result["timeline"]
    if not rows:
        return []
    xs = [float(row["second"]) for row in rows]
    end = max(xs[-1], result["plan"]["played_s"], 1.0)
    x = Axis(low=0.0, high=end, show=_show_s)
    bands = [
        Band(p["start_s"], min(end, p["start_s"] + p["played_s"]), p["name"], not p["measured"])
        for p in result["phases"]
        if p["start_s"] < end
    ]
    played = result["plan"]["played_s"]
    if end > played:
        bands.append(Band(played, end, "answers to what was sent before", faint=True))
    marks = [Mark(event["at_s"], event["what"]) for event in result["events"]]

    def column(key: str, source: Sequence[dict[str, Any]] = rows) -> list[float | None]:
        return [row.get(key) for row in source]

    latencies = [
        Line("p50", column("p50_ms"), "s1"),
        Line("p90", column("p90_ms"), "s2"),
        Line("p99", column("p99_ms"), "s3"),
        Line("max", column("max_ms"), "s4"),
    ]
    if old is not None:
        before = {row["second"]: row["p99_ms"] for row in old["timeline"]}
        latencies.append(Line("p99 before", [before.get(row["second"]) for row in rows], "old"))
    values = [value for line in latencies for value in line.ys]
    charts = [
        chart("Latency over time", xs, latencies, x, log_axis(values, show_ms), bands, marks),
    ]
    due = [row["sent"] if row["second"] <= end + 1 else None for row in rows]
    rates = [Line("due", due, "s6"), Line("answered", column("ok"), "s1", area=True)]
    values = [value for line in rates for value in line.ys]
    y = linear_axis(values, show_count)
    charts.append(chart("Requests a second", xs, rates, x, y, bands, marks))
    troubles = [
        Line("errors", column("errors"), "s4", area=True),
        Line("dropped", column("dropped"), "s3"),
    ]
    if any(value for line in troubles for value in line.ys):
        y = linear_axis([value for line in troubles for value in line.ys], show_count)
        charts.append(
            chart("Errors and dropped arrivals a second", xs, troubles, x, y, bands, marks)
        )
    crowd = [Line("under way", column("under_way"), "s5", area=True)]
    users = Line("users connected", column("connected"), "s2")
    crowd.append(users)
    y = linear_axis([value for line in crowd for value in line.ys], show_count)
    charts.append(chart("Requests under way, users connected", xs, crowd, x, y, bands, marks))
    return charts + _server_charts(rows, xs, x, bands, marks)


def _server_charts(
    rows: list[dict[str, Any]], xs: list[float], x: Axis, bands: list[Band], marks: list[Mark]
) -> list[str]:
    charts = []
    cpu = [row.get("server", {}).get("cpu") for row in rows]
    if any(value is not None for value in cpu):
        percent = [None if value is None else value * 100 for value in cpu]
        y = linear_axis(percent, lambda value: f"{value:.3g} %")
        lines = [Line("CPU (100 % is one core)", percent, "s1", area=True)]
        charts.append(chart("Server CPU", xs, lines, x, y, bands, marks))
    rss = [_mib(row.get("server", {}).get("rss_bytes")) for row in rows]
    if any(value is not None for value in rss):
        y = linear_axis(rss, _show_mib)
        lines = [Line("resident", rss, "s2", area=True)]
        charts.append(chart("Server memory", xs, lines, x, y, bands, marks))
    return charts


def percentile_chart(result: dict[str, Any], old: dict[str, Any] | None = None) -> str:
    """Latency by percentile, each nine as wide as the one before; empty without values."""
    rows = [("all", result["total"])]
    busiest = sorted(
        ((name, row) for name, row in result["methods"].items() if not name.startswith("(")),
        key=lambda pair: -pair[1]["ok"],
    )
    if len(busiest) > 1:
        rows += busiest[:CURVE_METHODS]
    encoded = [(name, row["parts"]["total"]) for name, row in rows]
    if old is not None:
        encoded.append(("all before", old["total"]["parts"]["total"]))
    encoded = [(name, total) for name, total in encoded if total.get("hdr")]
    if not encoded:
        return ""
    most = max(total["n"] for _, total in encoded)
    odds = [most ** (i / (CURVE_POINTS - 1)) for i in range(CURVE_POINTS)] if most > 1 else [1.0]
    lines = []
    for number, (name, total) in enumerate(encoded):
        style = "old" if name == "all before" else f"s{number % 6 + 1}"
        lines.append(Line(name, _at_odds(total["hdr"], total["n"], odds), style))
    nines = tuple(10.0**i for i in range(1, 8))
    x = Axis(
        low=1.0, high=max(odds[-1], 10.0), log=True, show=_show_share, ticks=(1.0, 2.0, *nines)
    )
    y = log_axis([value for line in lines for value in line.ys], show_ms)
    return chart("Latency by percentile", odds, lines, x, y)


def _at_odds(hdr: str, n: int, odds: Sequence[float]) -> list[float | None]:
    """Latency at each 1 / (1 - q); None beyond the last value."""
    curve = from_hdr(hdr).curve()
    shares = [share for share, _ in curve]
    ys: list[float | None] = []
    for value in odds:
        if value > n * 1.0001:
            ys.append(None)
        else:
            at = bisect_left(shares, 1 - 1 / value - 1e-12)
            ys.append(curve[min(at, len(curve) - 1)][1])
    return ys


def capacity_chart(found: dict[str, Any]) -> str:
    """p50 and p99 at every load that was tried; what missed is marked."""
    by_load: dict[float, list[dict[str, Any]]] = {}
    for point in found["points"]:
        by_load.setdefault(point["load"], []).append(point)
    loads = sorted(by_load)
    if not loads:
        return ""

    def middle(load: float, key: str) -> float | None:
        values = sorted(p[key] for p in by_load[load] if p[key] is not None)
        return values[len(values) // 2] if values else None

    lines = [
        Line("p50", [middle(load, "p50_ms") for load in loads], "s1"),
        Line("p99", [middle(load, "p99_ms") for load in loads], "s3"),
        Line(
            "p99 where it was missed",
            [None if by_load[load][-1]["ok"] else middle(load, "p99_ms") for load in loads],
            "s4",
        ),
    ]
    unit = "requests/s" if found["kind"] == "rate" else "sessions"
    x = Axis(
        low=loads[0] / 1.1,
        high=max(loads[-1] * 1.1, loads[0] * 2),
        log=True,
        show=lambda value: f"{show_count(value)}",
    )
    y = log_axis([value for line in lines for value in line.ys], show_ms)
    marks = [Mark(found["best"], f"{show_count(found['best'])} {unit}")] if found["best"] else []
    return chart(f"Latency by {unit}", loads, lines, x, y, (), marks)


def cost_charts(found: dict[str, Any]) -> list[str]:
    """CPU and memory of the server at every load, if somebody looked."""
    charts = []
    points = sorted(found["points"], key=lambda point: point["load"])
    loads = [point["load"] for point in points]
    if not loads:
        return []
    x = Axis(low=0.0, high=max(loads) * 1.05, show=show_count)
    for key, title, style in (("cpu", "Server CPU", "s1"), ("rss_bytes", "Server memory", "s2")):
        ys = [point[key] for point in points]
        if any(value is not None for value in ys):
            show: Callable[[float], str] = _show_percent
            if key == "rss_bytes":
                ys, show = [_mib(value) for value in ys], _show_mib
            charts.append(chart(title, loads, [Line(title, ys, style)], x, linear_axis(ys, show)))
    return charts
