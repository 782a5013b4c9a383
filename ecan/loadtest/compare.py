"""A run held against an earlier one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ecan.loadtest.result import FORMAT

if TYPE_CHECKING:
    from pathlib import Path

LATENCIES = ("p50", "p90", "p99", "p99.9", "max_ms")


class CompareError(Exception):
    """The earlier run cannot be read; ``str`` is a line for people. Exit code 2."""


def read_result(path: Path) -> dict[str, Any]:
    """The data of an earlier run.

    Raises:
        CompareError: it is none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CompareError(f"cannot read {path}: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise CompareError(f"{path} is not the data of a load test ({FORMAT})")
    return data


def compare(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Both, and the ratios new / old: of everything, and of each method in both.

    A ratio of a latency below 1 is faster. ``caveats`` says what makes them hard to
    compare.
    """
    rows = [_row("all", new["total"], old["total"])]
    rows += [
        _row(name, new["methods"][name], old["methods"][name])
        for name in new["methods"]
        if name in old["methods"]
    ]
    server = _row_server(new, old)
    return {
        "old": {
            "started_at": old["started_at"],
            "plan": old["plan"]["name"],
            "version": old["version"],
            "timeline": old["timeline"],
            "total": old["total"],
        },
        "rows": rows,
        "server": server,
        "caveats": _caveats(new, old),
    }


def ratio(new: float | None, old: float | None) -> float | None:
    """New / old; None if that says nothing.

    >>> ratio(3.0, 2.0), ratio(1.0, 0.0), ratio(None, 2.0)
    (1.5, None, None)
    """
    return None if new is None or not old else new / old


def _row(name: str, new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    cells: dict[str, Any] = {"rate": _cell(new["rate"], old["rate"])}
    for key in LATENCIES:
        cells[key] = _cell(new["parts"]["total"].get(key), old["parts"]["total"].get(key))
    cells["errors"] = _cell(new["error_share"], old["error_share"])
    return {"name": name, "cells": cells}


def _cell(new: float | None, old: float | None) -> dict[str, float | None]:
    return {"new": new, "old": old, "ratio": ratio(new, old)}


def server_means(result: dict[str, Any]) -> dict[str, float | None]:
    """Mean CPU and top memory of the server over a run; None where nobody looked."""
    samples = [row["server"] for row in result["timeline"] if "server" in row]
    cpu = [sample["cpu"] for sample in samples if "cpu" in sample]
    rss = [sample["rss_bytes"] for sample in samples if "rss_bytes" in sample]
    return {
        "cpu": sum(cpu) / len(cpu) if cpu else None,
        "rss_bytes": max(rss) if rss else None,
    }


def _row_server(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    mine, theirs = server_means(new), server_means(old)
    return {key: _cell(mine[key], theirs[key]) for key in mine}


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _caveats(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    caveats = [
        f"another {what}: {_words(old['plan'][what])} before, now {_words(new['plan'][what])}"
        for what in ("name", "users", "loop", "chaos")
        if new["plan"][what] != old["plan"][what]
    ]
    targets = [
        {phase["target_rate"] for phase in r["phases"] if phase["measured"]} for r in (new, old)
    ]
    if targets[0] != targets[1]:
        rates = [_words([f"{rate:g}/s" for rate in t if rate is not None]) for t in targets]
        caveats.append(f"another rate: {rates[1]} before, now {rates[0]}")
    caveats += [
        f"another {what}: {old['machine'][what]} before, now {new['machine'][what]}"
        for what in ("system", "cpus", "python")
        if new["machine"][what] != old["machine"][what]
    ]
    caveats += [
        f"{name} is invalid: {'; '.join(result['generator']['reasons'])}"
        for name, result in (("this run", new), ("the earlier run", old))
        if not result["generator"]["valid"]
    ]
    return caveats
