"""The most that still meets an objective: doubling until it fails, then halving the gap."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs

from ecan.loadtest.fleet import FleetError
from ecan.loadtest.plan import Phase, Plan, PlanError
from ecan.loadtest.units import show_count
from ecan.loadtest.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ecan.loadtest.live import Live
    from ecan.loadtest.run import Runner

PRECISION = 1.05
"""The search ends when what failed is less than 5 % above what was met."""

MAX_POINTS = 40
LEAST_LOAD = 1.0
NEAR = (0.7, 5.0)
"""Measured over allowed: between these a point is borderline, and is tried again. The upper
bound is far off because one hiccup of the machine is enough to miss a p99 once."""

WARM_UP_S = 2.0
IDLE_RATE = 20.0


@attrs.frozen(kw_only=True)
class Point:
    """One try.

    Attributes:
        load: requests a second, or sessions.
        ok: the objective was met.
        margin: measured over allowed, of the term that is closest to its bound.
        valid: the generator kept up.
        facts: for the report.
    """

    load: float
    ok: bool
    margin: float
    valid: bool = True
    facts: dict[str, Any] = attrs.field(factory=dict)

    @property
    def borderline(self) -> bool:
        """Another try may end differently."""
        return NEAR[0] < self.margin < NEAR[1]


@attrs.frozen
class Found:
    """The most that was met (0: nothing was), every try, and why the search ended."""

    best: float
    points: list[Point]
    ended: str


async def find(
    trial: Callable[[float], Awaitable[Point]],
    first: float,
    *,
    whole: bool = False,
    precision: float = PRECISION,
    most: float = math.inf,
    stopped: Callable[[], bool] = lambda: False,
) -> Found:
    """Bracket, then bisect; a borderline point is decided by two of three.

    Args:
        trial: tries a load.
        first: where to begin.
        whole: loads are whole numbers.
        precision: least ratio between what failed and what was met.
        most: do not try more than this.
        stopped: asked after every try: whether to end with what there is.
    """
    points: list[Point] = []
    low, high = 0.0, math.inf
    load = min(first, most)
    while len(points) < MAX_POINTS:
        ok = await _decide(trial, load, points, stopped)
        if stopped():
            return Found(low, points, "The search was stopped.")
        if ok is None:
            return Found(low, points, "Above that the generator is the limit (--processes).")
        if ok:
            low = load
            if low >= most:
                return Found(low, points, "More cannot be tried from here (open files).")
        else:
            high = load
        if high is math.inf:
            load = min(low * 2, most)
        elif not low:
            if high <= LEAST_LOAD:
                return Found(0.0, points, "Not even the least load met it.")
            load = max(LEAST_LOAD, high / 2)
        else:
            if high / low <= precision or (whole and high - low <= 1):
                return Found(low, points, f"{high:,.0f} did not.")
            load = math.sqrt(low * high)
        load = float(round(load)) if whole else float(f"{load:.4g}")
    return Found(low, points, f"The search ended after {MAX_POINTS} tries.")


async def _decide(
    trial: Callable[[float], Awaitable[Point]],
    load: float,
    points: list[Point],
    stopped: Callable[[], bool],
) -> bool | None:
    """Whether a load meets the objective; None: the generator cannot make it."""
    votes: list[bool] = []
    while len(votes) < 2 or votes.count(True) == votes.count(False):  # noqa: PLR2004 - of three
        point = await trial(load)
        points.append(point)
        if not point.valid and point.ok:
            return None
        votes.append(point.ok)
        if stopped() or (len(votes) == 1 and not point.borderline):
            break
    return votes.count(True) > votes.count(False)


async def search(
    runner: Runner, plan: Plan, kind: str, hold_s: float, live: Live
) -> dict[str, Any]:
    """Search with real runs; a dict for the report.

    Args:
        runner: plays the plans.
        plan: whose rate or number of sessions is raised.
        kind: ``rate`` or ``sessions``.
        hold_s: how long each try is measured, after a warm-up.
        live: what is seen meanwhile.

    Raises:
        PlanError: there is no objective.
    """
    terms = runner.objective
    if not terms:
        raise PlanError("a capacity needs an objective: --slo 'p99<50ms,errors<0.1%'")
    if plan.closed:
        raise PlanError("a capacity is searched with open arrivals, not with --users")

    async def trial(load: float) -> Point:
        try:
            point = make_point(load, await runner.run(_trial_plan(plan, kind, load, hold_s)))
        except (FleetError, WireError) as error:  # not all of them could connect
            point = Point(load=load, ok=False, margin=math.inf, facts=_nothing(str(error)))
        words = "met" if point.ok else f"missed: {'; '.join(point.facts['reasons'])}"
        unit = "requests/s" if kind == "rate" else "sessions"
        live.note(f"{show_count(load)} {unit}: {words}")
        return point

    first = plan.phases[-1].last_rate if kind == "rate" else float(plan.users)
    most = math.inf if kind == "rate" else float(runner.most_users)
    found = await find(
        trial,
        max(LEAST_LOAD, first),
        whole=kind == "sessions",
        most=most,
        stopped=lambda: runner.stopped,
    )
    return {
        "format": "ecan-loadtest-capacity/1",
        "kind": kind,
        "plan": plan.name,
        "users": plan.users,
        "hold_s": hold_s,
        "objective": ", ".join(term.text for term in terms),
        "best": found.best,
        "ended": found.ended,
        "points": [{"load": p.load, "ok": p.ok, "valid": p.valid, **p.facts} for p in found.points],
    }


def _trial_plan(plan: Plan, kind: str, load: float, hold_s: float) -> Plan:
    rate = load if kind == "rate" else plan.phases[-1].last_rate or IDLE_RATE
    phases = (
        Phase(name="warm-up", seconds=WARM_UP_S, rate=rate, measured=False),
        Phase(name="hold", seconds=hold_s, rate=rate),
    )
    return attrs.evolve(plan, phases=phases, users=plan.users if kind == "rate" else int(load))


def make_point(load: float, result: dict[str, Any]) -> Point:
    """A try from the result of its run."""
    total = result["total"]
    latency = total["parts"]["total"]
    samples = [row["server"] for row in result["timeline"] if "server" in row]
    cpu = [sample["cpu"] for sample in samples if "cpu" in sample]
    rss = [sample["rss_bytes"] for sample in samples if "rss_bytes" in sample]
    reasons = [f"{row['term']} was {row['shown']}" for row in result["slo"] if not row["ok"]]
    if result["checks"]["total"]:
        reasons.append("promises broken")
    return Point(
        load=load,
        ok=not reasons,
        margin=max((_margin(row) for row in result["slo"]), default=0.0),
        valid=result["generator"]["valid"],
        facts={
            "rate": total["rate"],
            "p50_ms": latency.get("p50"),
            "p99_ms": latency.get("p99"),
            "error_share": total["error_share"],
            "cpu": round(sum(cpu) / len(cpu), 3) if cpu else None,
            "rss_bytes": max(rss) if rss else None,
            "reasons": reasons + result["generator"]["reasons"],
        },
    )


def _nothing(reason: str) -> dict[str, Any]:
    keys = ("p50_ms", "p99_ms", "cpu", "rss_bytes")
    return {"rate": 0.0, "error_share": 1.0, "reasons": [reason], **dict.fromkeys(keys)}


def _margin(row: dict[str, Any]) -> float:
    measured, bound = row["measured"], row["bound"]
    if measured is None:
        return math.inf
    if row["op"].startswith(">"):
        measured, bound = bound, measured
    if not bound:
        return math.inf if measured else 0.0
    return float(measured / bound)
