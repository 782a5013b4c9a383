"""The four lines on top of the screen."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from ecan.admin.render import age, clean, millis, rate, size, state
from ecan.admin.top.readings import Readings, sparkline

_HEALTH = {"healthy": "bold green", "draining": "bold yellow"}


def summary(status: dict[str, Any], readings: Readings, width: int, chosen: str = "") -> list[Text]:
    """How the server is.

    Args:
        status: answer of the command.
        readings: of the looks so far.
        width: of each line.
        chosen: order and filter of the list, in words.
    """
    lines = [
        _who(status),
        _sessions(status, chosen),
        _rates(status, readings, width),
        _machine(status, readings),
    ]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _who(status: dict[str, Any]) -> Text:
    line = Text.assemble((clean(status["status"]), _HEALTH.get(status["status"], "bold red")))
    # What is wrong comes first: a narrow screen cuts the rest.
    if status.get("store_trouble"):
        line.append(f"  {clean(status['store_trouble'])}", "bold red")
    stalled = [stall for stall in status["stalled"] if not stall.get("abandoned")]
    for stall in stalled[:1]:
        more = f" (and {len(stalled) - 1} more)" if len(stalled) > 1 else ""
        line.append(
            f"  ! {clean(stall['sid'])} stuck {age(stall['since_s'])} in"
            f" {clean(stall['method'])}{more}",
            "bold red",
        )
    line.append(f"  up {age(status['uptime_s'])}  {clean(status['store'])}/")
    line.append(f"{clean(status['durability'])}  {clean(status['version'])}  pid {status['pid']}")
    return line


def _sessions(status: dict[str, Any], chosen: str) -> Text:
    counts = [
        Text.assemble(f"{count:,} ", state(name))
        for name, count in status["sessions"].items()
        if count
    ]
    return Text.assemble(
        (clean(chosen), "italic"),
        ("  sessions ", "dim"),
        Text("  ").join(counts) if counts else "none",
        ("  tabs ", "dim"),
        f"{status['connections']:,}",
    )


def _rates(status: dict[str, Any], readings: Readings, width: int) -> Text:
    now = status["rates"]
    requests = f"{rate(now['requests_s']):>6} "
    latency = f"{millis(readings.p50_ms):>6} / {millis(readings.p99_ms)} ms "
    errors = rate(now["errors_s"])
    words = len("req/s   p50/p99   err/s ") + len(requests) + len(latency) + len(errors)
    bars = max(0, min(40, (width - words) // 2))
    return Text.assemble(
        ("req/s ", "dim"),
        requests,
        (sparkline(readings.requests, bars), "green"),
        ("  p50/p99 ", "dim"),
        latency,
        (sparkline(readings.p99, bars), "yellow"),
        ("  err/s ", "dim"),
        (errors, "bold red" if now["errors_s"] else ""),
    )


def _machine(status: dict[str, Any], readings: Readings) -> Text:
    zombies = status["worker_zombies"]
    letters = status["dead_letters"]
    suspended = status["suspended_methods"]
    line = Text.assemble(
        ("lag ", "dim"),
        f"{millis(status['loop_lag_ms'])} ms",
        ("  memory ", "dim"),
        size(status["rss_bytes"]),
        ("  CPU ", "dim"),
        f"{readings.cpu_percent:.0f} %",
        ("  crashes ", "dim"),
        f"{status['crashes']:,}",
        ("  letters ", "dim"),
        (f"{letters:,}", "yellow" if letters else ""),
    )
    if zombies:
        line.append(f"  zombie threads {zombies}", "bold red")
    if suspended:
        line.append(f"  suspended: {clean(', '.join(suspended))}", "yellow")
    return line
