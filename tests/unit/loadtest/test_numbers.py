"""Schedule, counts, objectives, the search for the capacity: the pure arithmetic."""

from __future__ import annotations

import io
import math
import random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecan.loadtest import capacity, charts, health, slo
from ecan.loadtest.builtin import PLANS
from ecan.loadtest.counts import Counts, from_hdr, highest_equivalent
from ecan.loadtest.figures import _show_share
from ecan.loadtest.fleet import FleetError, Seconds
from ecan.loadtest.live import Live
from ecan.loadtest.plan import Phase, PlanError, make_phases
from ecan.loadtest.schedule import Schedule, due_after
from ecan.loadtest.wire import WireError

rates = st.floats(0, 500) | st.just(0.0)


@given(
    st.lists(st.tuples(rates, rates, st.floats(0.1, 5)), min_size=1, max_size=4),
    st.integers(1, 5),
)
def test_processes_share_all_arrivals(shapes, of) -> None:
    """Whatever the phases: the processes' arrivals together are those of one, in order, in time."""
    phases = [
        Phase(name=str(i), seconds=seconds, rate=first, end_rate=last)
        for i, (first, last, seconds) in enumerate(shapes)
    ]
    whole = list(Schedule(phases).arrivals())
    parts = [list(Schedule(phases, k, of).arrivals()) for k in range(of)]
    assert sorted(arrival for part in parts for arrival in part) == sorted(whole)
    assert whole == sorted(whole)
    area = sum((first + last) / 2 * seconds for first, last, seconds in shapes)
    assert abs(len(whole) - area) <= 1
    starts = [Schedule(phases).start_of(i) for i in range(len(phases))]
    for due, phase in whole:
        assert starts[phase] - 1e-9 <= due <= starts[phase] + phases[phase].seconds + 1e-9


def test_steady_arrivals_are_evenly_spaced() -> None:
    """At a constant rate the gap is its inverse, across phases too."""
    dues = [due for due, _ in Schedule(make_phases(100, 2, warm_up_s=1)).arrivals()]
    assert dues == pytest.approx([i / 100 for i in range(300)])


def test_ramp_has_its_arrivals_where_the_rate_is() -> None:
    """0 to 100 in 10 s: a quarter of the arrivals in the first half."""
    ramp = Phase(name="ramp", seconds=10, rate=0, end_rate=100)
    dues = [due for due, _ in Schedule([ramp]).arrivals()]
    assert len(dues) == 500
    assert sum(due < 5 for due in dues) == 125
    assert due_after(ramp, 125) == pytest.approx(5.0)


def test_closed_phases_have_no_arrivals() -> None:
    """A closed loop is not scheduled."""
    assert list(Schedule(make_phases(None, 5)).arrivals()) == []


@given(st.lists(st.floats(1e-6, 3000), min_size=1, max_size=300))
def test_percentiles_are_the_sorted_values(values) -> None:
    """Every percentile is within a thousandth (and a microsecond) of the value of its rank."""
    counts = Counts()
    for value in values:
        counts.add(value)
    wanted = (1, 50, 90, 99, 99.9, 100)
    ordered = sorted(values)
    for percentile, found in zip(wanted, counts.percentiles_ms(wanted), strict=True):
        exact = ordered[max(0, math.ceil(len(values) * percentile / 100) - 1)] * 1000
        assert found == pytest.approx(exact, rel=1e-3, abs=2e-3)


@given(st.lists(st.lists(st.floats(1e-6, 100), max_size=50), min_size=1, max_size=4))
def test_merging_is_counting_together(parts) -> None:
    """Histograms of several processes merge to that of one, through JSON and HDR too."""
    whole = Counts()
    for value in (value for part in parts for value in part):
        whole.add(value)
    several = []
    for part in parts:
        counts = Counts()
        for value in part:
            counts.add(value)
        several.append(Counts.load(counts.dump()))
    merged = Counts.merged(several)
    assert (merged.buckets, merged.n) == (whole.buckets, whole.n)
    if whole.n:
        back = from_hdr(whole.summary()["hdr"])
        assert back.percentiles_ms() == whole.percentiles_ms()
        assert [share for share, _ in whole.curve()][-1] == 1.0


def test_buckets_are_those_of_hdrhistogram() -> None:
    """A bucket's ends are what HdrHistogram says they are."""
    histogram = Counts().histogram()
    chance = random.Random(1)
    for _ in range(2000):
        counts = Counts()
        value = chance.uniform(0.002, 3000)
        counts.add(value)
        (bucket,) = counts.buckets
        assert bucket == histogram.get_lowest_equivalent_value(int(value * 1e6))
        assert highest_equivalent(bucket) == histogram.get_highest_equivalent_value(bucket)


@pytest.mark.parametrize(
    ("text", "measured", "ok"),
    [
        ("p99<50ms", 49.9, True),
        ("p99<50ms", 50.0, False),
        ("p99.9 <= 1s", 1000.0, True),
        ("max<2s", 2500.0, False),
        ("errors<0.1%", 0.0005, True),
        ("dropped<=0", 0.0, True),
        ("rate>=2k", 1999.0, False),
        ("violations<=0", 1.0, False),
        ("debug.incr:p50<3ms", 2.0, True),
        ("mean<1ms", None, False),
    ],
)
def test_objectives(text, measured, ok) -> None:
    """Units, operators, methods; what was not measured is not met."""
    (verdict,) = slo.judge(slo.parse(text), lambda _: measured)
    assert verdict.ok is ok
    assert verdict.dump()["term"] == text
    assert verdict.dump()["shown"]


@pytest.mark.parametrize(
    "text",
    ["p99", "p99<", "p99<50", "fast<3ms", "p99<3apples", "errors<200%", "p99=3ms", "p99<1.2.3ms"],
)
def test_what_is_no_objective(text) -> None:
    """It is named."""
    with pytest.raises(slo.SloError) as caught:
        slo.parse(text)
    assert text in str(caught.value)


def server_with(limit: float, noise: random.Random | None = None, generator: float = math.inf):
    """A trial whose latency explodes above a limit; with noise it lies now and then near it."""

    async def trial(load: float) -> capacity.Point:
        use = load / limit
        margin = 0.2 + use**8 * 0.8
        if noise is not None and noise.random() < 0.15:
            margin *= 3
        return capacity.Point(load=load, ok=margin <= 1, margin=margin, valid=load <= generator)

    return trial


@pytest.mark.parametrize("limit", [3, 47, 1234, 90_000])
async def test_search_finds_the_limit(limit) -> None:
    """Within 5 % below it, in few tries, wherever it lies."""
    found = await capacity.find(server_with(limit), 200.0)
    assert limit / 1.06 <= found.best <= limit
    assert len(found.points) <= capacity.MAX_POINTS
    assert "did not" in found.ended


async def test_search_is_not_fooled_by_hiccups() -> None:
    """Two of three decide near the bound, so a lie now and then changes little."""
    results = [
        (await capacity.find(server_with(1000, random.Random(seed)), 100.0)).best
        for seed in range(20)
    ]
    assert sum(900 <= best <= 1000 for best in results) >= 17


async def test_search_in_whole_numbers_and_its_ends() -> None:
    """Sessions are whole; nothing meets it; the generator is the limit; the most asked for."""
    assert (await capacity.find(server_with(7), 2, whole=True)).best == 7
    nothing = await capacity.find(server_with(0.1), 8.0)
    assert (nothing.best, nothing.ended) == (0.0, "Not even the least load met it.")
    limited = await capacity.find(server_with(10_000, generator=500), 100.0)
    assert limited.best == 400
    assert "generator is the limit" in limited.ended
    assert (await capacity.find(server_with(1e9), 100.0, most=1000.0)).best == 1000.0


async def test_search_that_is_stopped() -> None:
    """It ends with what it has."""
    tries: list[float] = []

    async def trial(load: float) -> capacity.Point:
        tries.append(load)
        return capacity.Point(load=load, ok=True, margin=0.9)

    found = await capacity.find(trial, 10.0, stopped=lambda: len(tries) > 3)
    assert (found.best, len(found.points)) == (10.0, 4)
    assert found.ended == "The search was stopped."


def test_seconds_wait_for_every_process() -> None:
    """A row is made when all processes have told of that second."""
    counts = Counts()
    counts.add(0.01)
    tick = {
        "second": 1, "sent": 5, "ok": 4, "errors": 1, "dropped": 0, "connected": 2,
        "under_way": 0, "violations": 0, "latency": counts.dump(),
    }  # fmt: skip
    seconds = Seconds(2)
    assert seconds.add(tick) is None
    row = seconds.add(tick)
    assert row is not None
    assert (row["sent"], row["ok"], row["p50_ms"]) == (10, 8, pytest.approx(10, rel=1e-3))
    assert seconds.rows == [row]


def test_axes_and_ticks() -> None:
    """Places go from 0 to 1; long series keep their spikes."""
    axis = charts.log_axis([1.0, 1000.0, None], str)
    assert axis.place(axis.low) == 0.0
    assert axis.place(axis.high) == pytest.approx(1.0)
    assert axis.labels() == [1.0, 10.0, 100.0, 1000.0]
    assert charts.linear_axis([None, 0], str).place(0) == 0.0
    ys: list[float | None] = [0.0] * 5000
    ys[1234] = 9.0
    ys[7] = None
    thinned = charts.thin([float(i) for i in range(5000)], ys)
    assert len(thinned) <= charts.MAX_POINTS
    assert (1234.0, 9.0) in thinned
    assert [_show_share(odds) for odds in (1, 2, 10, 100, 1000, 1e6)] == [
        "0 %", "50 %", "90 %", "99 %", "99.9 %", "99.9999 %",
    ]  # fmt: skip


def test_generator_without_a_measurement_is_not_blamed() -> None:
    """No lag measured, little CPU."""
    assert health.verdict(None, 0.1, 0.02) == []


class FakeRunner:
    """A runner whose tries fail, as when not all users can connect."""

    objective = slo.parse("p99<1s")
    most_users = 40
    stopped = False

    async def run(self, plan):
        if plan.users > 20 or plan.phases[-1].rate > 20:
            raise FleetError("cannot connect")
        raise WireError("hung up")


async def test_search_whose_tries_fail() -> None:
    """A load that cannot even connect is a miss with its reason; an objective is needed."""
    notes = io.StringIO()
    live = Live(notes, PLANS["ping"])
    found = await capacity.search(FakeRunner(), PLANS["ping"], "sessions", 1.0, live)
    assert found["best"] == 0
    assert found["points"][0]["reasons"] == ["cannot connect"]
    assert "40 sessions: missed: cannot connect" in notes.getvalue()
    closed = attrs.evolve(PLANS["ping"], phases=make_phases(None, 1))
    with pytest.raises(PlanError, match="open arrivals"):
        await capacity.search(FakeRunner(), closed, "rate", 1.0, live)
    aimless = FakeRunner()
    aimless.objective = ()
    with pytest.raises(PlanError, match="needs an objective"):
        await capacity.search(aimless, PLANS["ping"], "rate", 1.0, live)


def test_a_value_below_zero_counts_as_none() -> None:
    """A timer may wake the sender before the moment from which the latency counts."""
    counts = Counts()
    for seconds in (-1e-7, -0.0002, -0.5, 0.0, 0.001):
        counts.add(seconds)
    assert counts.n == 5
    assert counts.total_s == 0.001
    assert counts.buckets == {1: 4, 1000: 1}
