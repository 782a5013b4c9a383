"""The four lines on top of the screen."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from ecan.admin.render import age, clean, millis, rate, size, state
from ecan.admin.top.readings import Readings, sparkline

_HEALTH = {"healthy": "bold green", "draining": "bold yellow"}


def summary(status: dict[str, Any], readings: Readings, width: int) -> list[Text]:
    """How the server is."""
    return [
        _who(status),
        _sessions(status),
        _rates(status, readings, width),
        _machine(status, readings),
    ]


def _who(status: dict[str, Any]) -> Text:
    line = Text.assemble(
        (clean(status["status"]), _HEALTH.get(status["status"], "bold red")),
        f"  up {age(status['uptime_s'])}  {clean(status['version'])}  pid {status['pid']}",
        f"  {clean(status['store'])}/{clean(status['durability'])}",
    )
    if status.get("store_trouble"):
        line.append(f"  {clean(status['store_trouble'])}", "bold red")
    for stall in status["stalled"][:1]:
        line.append(
            f"  ! {clean(stall['sid'])} stuck {age(stall['since_s'])} in {clean(stall['method'])}",
            "bold red",
        )
    return line


def _sessions(status: dict[str, Any]) -> Text:
    counts = [
        Text.assemble(f"{count:,} ", state(name))
        for name, count in status["sessions"].items()
        if count
    ]
    line = Text("sessions ", "dim")
    line.append_text(Text("  ").join(counts) if counts else Text("none"))
    line.append("  connections ", "dim")
    line.append(f"{status['connections']:,}")
    return line


def _rates(status: dict[str, Any], readings: Readings, width: int) -> Text:
    bars = max(4, min(40, (width - 46) // 2))
    now = status["rates"]
    return Text.assemble(
        ("req/s ", "dim"),
        f"{rate(now['requests_s']):>6} ",
        (sparkline(readings.requests, bars), "green"),
        ("  p50 ", "dim"),
        millis(readings.p50_ms),
        ("  p99 ", "dim"),
        f"{millis(readings.p99[-1] if readings.p99 else None):>5} ms ",
        (sparkline(readings.p99, bars), "yellow"),
        ("  err/s ", "dim"),
        (rate(now["errors_s"]), "bold red" if now["errors_s"] else ""),
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
        line.append(f"  {zombies} abandoned threads", "bold red")
    if suspended:
        line.append(f"  suspended: {clean(', '.join(suspended))}", "yellow")
    return line
