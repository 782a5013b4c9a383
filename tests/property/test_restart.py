"""P5, P6, P13: restart budget, back-off and idle deadlines against simple models."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecan.actors.idle import DeadlineHeap
from ecan.actors.restart import (
    FIRST_DELAY_S,
    JITTER,
    MAX_CRASHES,
    MAX_DELAY_S,
    WINDOW_S,
    RestartBudget,
    backoff_s,
)

unit = st.floats(0, 1, exclude_max=True)
# Halves are exact in binary: a gap that adds up to the window is the window.
gaps = st.lists(st.integers(0, 200).map(lambda n: n / 2), min_size=1, max_size=40)


@given(st.integers(1, 10_000), unit)
def test_p5_a_back_off_is_within_its_bounds(attempt: int, draw: float) -> None:
    """0.2 s doubling to 10 s, each plus or minus 20 per cent, for any attempt."""
    nominal = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** min(attempt - 1, 60))
    delay = backoff_s(attempt, lambda: draw)
    assert delay == pytest.approx(nominal * (1 + JITTER * (2 * draw - 1)))
    assert nominal * (1 - JITTER) <= delay <= nominal * (1 + JITTER)


@given(gaps)
def test_p6_gives_up_exactly_when_the_window_holds_too_many(pauses: list[float]) -> None:
    """None if and only if more than three crashes fall within the last sixty seconds."""
    budget = RestartBudget()
    now, times, in_a_row = 0.0, [], 0
    for pause in pauses:
        now += pause
        in_a_row = 1 if not times or now - times[-1] >= WINDOW_S else in_a_row + 1
        times.append(now)
        delay = budget.crashed(now, lambda: 0.5)
        within = [t for t in times if now - t < WINDOW_S]
        if len(within) > MAX_CRASHES:
            assert delay is None
        else:
            assert delay == pytest.approx(min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** (in_a_row - 1)))
        assert len(budget.crashes) == len(within)


@given(st.lists(gaps, min_size=2, max_size=4), st.integers())
def test_p6_a_budget_does_not_depend_on_the_others(sessions: list[list[float]], seed: int) -> None:
    """Crashes of many sessions in any mixture: each fares as if it were alone."""

    def alone(pauses: list[float]) -> list[float | None]:
        budget, now, fates = RestartBudget(), 0.0, []
        for pause in pauses:
            now += pause
            fates.append(budget.crashed(now, lambda: 0.5))
        return fates

    budgets = [RestartBudget() for _ in sessions]
    clocks, fates = [0.0] * len(sessions), [[] for _ in sessions]
    turns = [n for n, pauses in enumerate(sessions) for _ in pauses]
    random.Random(seed).shuffle(turns)
    for n in turns:
        clocks[n] += sessions[n][len(fates[n])]
        fates[n].append(budgets[n].crashed(clocks[n], lambda: 0.5))
    assert fates == [alone(pauses) for pauses in sessions]


keys = st.sampled_from("abcdef")
times = st.integers(0, 30).map(float)
commands = st.lists(
    st.one_of(
        st.tuples(st.just("schedule"), keys, times),
        st.tuples(st.just("cancel"), keys, times),
        st.tuples(st.just("due"), st.none() | st.integers(0, 4), times),
    ),
    max_size=200,
)


@given(commands)
def test_p13_the_heap_is_a_sorted_list(steps: list[tuple[str, object, float]]) -> None:
    """Schedule, replace, cancel and take: the same keys in the same order as a sorted dict."""
    heap, model = DeadlineHeap(), {}
    for command, argument, when in steps:
        if command == "schedule":
            heap.schedule(argument, when)
            model[argument] = when
        elif command == "cancel":
            heap.cancel(argument)
            model.pop(argument, None)
        else:
            due = sorted((at, key) for key, at in model.items() if at <= when)[:argument]
            assert list(heap.due(when, argument)) == [key for _, key in due]
            for _, key in due:
                del model[key]
        assert heap.next_at() == min(model.values(), default=None)
        assert len(heap) == len(model)
        assert {key for key in "abcdef" if key in heap} == set(model)
        assert all(len(part.heap) <= 3 * max(1, len(part.at)) + 65 for part in heap._parts)
