"""What a run found, as one dict for the JSON file, the report and the terminal."""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING, Any

import attrs

from ecan import __version__
from ecan.loadtest import slo
from ecan.loadtest.checks import Violations
from ecan.loadtest.counts import Counts, from_hdr
from ecan.loadtest.health import LAG_PERCENTILE, verdict
from ecan.loadtest.recorder import AROUND, PARTS, Stats

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ecan.loadtest.plan import Plan

FORMAT = "ecan-loadtest/1"


@attrs.define(kw_only=True)
class Raw:
    """What a run brought home.

    Attributes:
        plan: as it was played.
        dones: of the generator processes.
        rows: one a second: load and server.
        events: ``{"at_s", "what"}``: what was done to the server.
        played_s: how long it really went on; less than the plan after Ctrl-C.
        objective: parsed.
        max_lag_s: what a generator's loop may be late.
        facts: for the report: url, where the sessions come from, missing methods, notes.
    """

    plan: Plan
    dones: Sequence[dict[str, Any]]
    rows: list[dict[str, Any]]
    events: list[dict[str, Any]]
    started_at: str
    played_s: float
    objective: tuple[slo.Term, ...]
    max_lag_s: float
    facts: dict[str, Any]


def make_result(raw: Raw) -> dict[str, Any]:
    """Merge, sum up, judge."""
    phases = _phases(raw)
    measured = [i for i, phase in enumerate(raw.plan.phases) if phase.measured]
    merged = _by_method(raw.dones, measured)
    seconds = sum(phases[i]["played_s"] for i in measured)
    dropped = sum(phases[i]["dropped"] for i in measured)
    inner = [stats for name, stats in merged.items() if name not in AROUND]
    total = _total(inner, seconds, dropped)
    checks = _checks(raw.dones, durable=bool(raw.facts.get("durable")))
    generator = _generator(raw)
    methods = {name: _stats(stats, seconds) for name, stats in sorted(merged.items())}

    def measure(term: slo.Term) -> float | None:
        return measured_value(term, total, methods, checks["total"])

    verdicts = [v.dump() for v in slo.judge(raw.objective, measure)]
    result: dict[str, Any] = {
        "format": FORMAT,
        "version": __version__,
        "started_at": raw.started_at,
        "plan": _plan(raw),
        "facts": raw.facts,
        "total": total,
        "methods": methods,
        "phases": phases,
        "timeline": raw.rows,
        "events": raw.events,
        "connections": _sum(done["closes"] for done in raw.dones),
        "checks": checks,
        "generator": generator,
        "slo": verdicts,
        "machine": machine(),
    }
    result["verdict"] = _verdict(result)
    return result


def measured_value(
    term: slo.Term, total: dict[str, Any], methods: dict[str, Any], violations: int
) -> float | None:
    """What a run measured for a term of an objective; None: nothing."""
    row = total if term.method is None else methods.get(term.method)
    if term.measure == "violations":
        return float(violations)
    if row is None or not row["sent"]:
        return None
    if term.measure in {"errors", "dropped", "rate"}:
        name = {"errors": "error_share", "dropped": "dropped_share", "rate": "rate"}[term.measure]
        value = row.get(name)
        return None if value is None else float(value)
    latency = row["parts"]["total"]
    if not latency["n"]:
        return None
    if term.measure in {"mean", "max"}:
        return float(latency[f"{term.measure}_ms"])
    return _percentile(latency, float(term.measure[1:]))


def _percentile(latency: dict[str, Any], percentile: float) -> float:
    name = f"p{percentile:g}"
    if name in latency:
        return float(latency[name])
    return from_hdr(latency["hdr"]).percentiles_ms((percentile,))[0]


# -- merging ---------------------------------------------------------------------------


def _by_method(dones: Sequence[dict[str, Any]], phases: Iterable[int]) -> dict[str, Stats]:
    merged: dict[str, Stats] = {}
    for done in dones:
        for index in phases:
            for name, data in done["stats"][index].items():
                merged.setdefault(name, Stats()).merge(data)
    return merged


def _sum(dicts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in dicts:
        for key, count in one.items():
            total[key] = total.get(key, 0) + count
    return total


def _stats(stats: Stats, seconds: float) -> dict[str, Any]:
    return {
        "sent": stats.sent,
        "ok": stats.ok,
        "replayed": stats.replayed,
        "errors": stats.errors,
        "expected": stats.expected,
        "rate": round(stats.ok / seconds, 3) if seconds else 0.0,
        "error_share": stats.failed / stats.sent if stats.sent else 0.0,
        "parts": {
            name: counts.summary()
            for name, counts in stats.parts.items()
            if counts.n or name == "total"
        },
    }


def _total(many: Iterable[Stats], seconds: float, dropped: int) -> dict[str, Any]:
    total = Stats()
    for stats in many:
        total.sent += stats.sent
        total.ok += stats.ok
        total.replayed += stats.replayed
        total.errors = _sum([total.errors, stats.errors])
        total.expected = _sum([total.expected, stats.expected])
        for name in PARTS:
            total.parts[name].merge(stats.parts[name])
    arrivals = total.sent + dropped
    return {
        **_stats(total, seconds),
        "seconds": round(seconds, 3),
        "dropped": dropped,
        "dropped_share": dropped / arrivals if arrivals else 0.0,
    }


def _phases(raw: Raw) -> list[dict[str, Any]]:
    rows = []
    start = 0.0
    for index, phase in enumerate(raw.plan.phases):
        played = min(phase.seconds, max(0.0, raw.played_s - start))
        merged = _by_method(raw.dones, [index])
        dropped = sum(done["dropped"][index] for done in raw.dones)
        inner = [stats for name, stats in merged.items() if name not in AROUND]
        rows.append(
            {
                "name": phase.name,
                "start_s": start,
                "seconds": phase.seconds,
                "played_s": played,
                "target_rate": phase.rate,
                "end_rate": phase.end_rate,
                "measured": phase.measured,
                **_total(inner, played, dropped),
                "around": {n: _stats(s, played) for n, s in merged.items() if n in AROUND},
            }
        )
        start += phase.seconds
    return rows


def _checks(dones: Sequence[dict[str, Any]], *, durable: bool) -> dict[str, Any]:
    violations = Violations()
    for done in dones:
        violations.merge(done["violations"])
    compared = sum(done["compared"] for done in dones)
    pushes = sum(done["pushes"] for done in dones)
    seen = {"P2": violations.ordered, "P10": compared, "P11": durable, "P12": pushes}
    return {
        "total": violations.total,
        **violations.dump(),
        "unseen": [promise for promise, count in seen.items() if not count],
        "compared": compared,
        "pushes": pushes,
        "pending_frames": sum(done["pending_frames"] for done in dones),
        "lost_sessions": sum(done["lost_sessions"] for done in dones),
        "withheld_crashes": sum(done["withheld_crashes"] for done in dones),
        "scenario_errors": _sum(done["scenario_errors"] for done in dones),
        "traceback": next((done["traceback"] for done in dones if done["traceback"]), ""),
    }


def _generator(raw: Raw) -> dict[str, Any]:
    processes = []
    reasons = []
    for number, done in enumerate(raw.dones):
        health = done["health"]
        lag = Counts.load(health["lag"])
        cpu = health["cpu_s"] / health["wall_s"] if health["wall_s"] else 0.0
        bad = verdict(lag.quick_ms(LAG_PERCENTILE), cpu, raw.max_lag_s)
        who = f"generator {number + 1}: " if len(raw.dones) > 1 else "the generator: "
        reasons += [who + reason for reason in bad]
        processes.append({"cpu": round(cpu, 3), "lag_p99_ms": lag.quick_ms(LAG_PERCENTILE)})
    requests = sum(
        data["sent"] for done in raw.dones for phase in done["stats"] for data in phase.values()
    )
    cpu_s = sum(done["cpu_s"] for done in raw.dones)
    lag = Counts.merged(Counts.load(done["health"]["lag"]) for done in raw.dones)
    lateness = Counts.merged(Counts.load(done["lateness"]) for done in raw.dones)
    return {
        "valid": not reasons,
        "reasons": reasons,
        "processes": processes,
        "max_lag_ms": raw.max_lag_s * 1000,
        "lag": lag.summary(),
        "late": lateness.summary(),
        "cpu_us_per_request": round(cpu_s / requests * 1e6, 1) if requests else None,
        "rss_bytes": sum(done["rss_kib"] for done in raw.dones) * 1024,
    }


def _plan(raw: Raw) -> dict[str, Any]:
    plan = raw.plan
    return {
        "name": plan.name,
        "doc": plan.doc,
        "users": plan.users,
        "loop": "closed" if plan.closed else "open",
        "seconds": plan.seconds,
        "played_s": round(raw.played_s, 3),
        "processes": len(raw.dones),
        "chaos": plan.chaos.describe(),
        "calls": [
            {"method": c.method, "weight": c.weight, "counter": c.counter} for c in plan.calls
        ],
    }


def machine() -> dict[str, Any]:
    """What it ran on; the generators, and the server if it is local."""
    return {
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _verdict(result: dict[str, Any]) -> dict[str, Any]:
    """Good or not, and why, worst first."""
    reasons = []
    checks = result["checks"]
    if checks["total"]:
        kinds = ", ".join(f"{name} {count} times" for name, count in checks["counts"].items())
        reasons.append(f"promises broken: {kinds}")
    if not result["generator"]["valid"]:
        reasons.append("the run is invalid: " + "; ".join(result["generator"]["reasons"]))
    reasons += [
        f"objective missed: {row['term']} (measured {row['shown']})"
        for row in result["slo"]
        if not row["ok"]
    ]
    if checks["scenario_errors"]:
        reasons.append(f"the scenario failed: {checks['scenario_errors']}")
    if not result["total"]["sent"]:
        reasons.append("nothing was sent in the measured phases")
    return {"ok": not reasons, "reasons": reasons}
