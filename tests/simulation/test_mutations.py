"""Every fault planted in the core is found by the simulator, and the promise it breaks is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ecan.testing.simulator import run_seed

sys.path.insert(0, str(Path(__file__).parent))

from mutations import MUTATIONS, Mutation

STEPS = 70
SEEDS = 80
"""Tried when the recorded one does not find it any more, because core or simulator changed."""


def find(mutation: Mutation, patch: pytest.MonkeyPatch) -> list[str]:
    """Promises that are found broken, up to one that is broken by the fault itself."""
    mutation.plant(patch)
    broken: list[str] = []
    for seed in (mutation.seed, *range(1, SEEDS + 1)):
        failure = run_seed(seed, STEPS).failure
        if failure is not None:
            broken.append(failure.promise)
            if failure.promise in mutation.promises.split():
                return broken
    return broken


# A core that is broken on purpose may leave coroutines unawaited and exceptions unseen.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MUTATIONS)
def test_the_fault_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulator that finds no planted fault would find no other one."""
    mutation = MUTATIONS[name]
    broken = find(mutation, monkeypatch)
    assert set(mutation.promises.split()) & set(broken), broken


def test_without_a_fault_these_seeds_find_nothing() -> None:
    """So it is the fault that is found, not the seed."""
    seeds = sorted({mutation.seed for mutation in MUTATIONS.values()})
    assert [str(r) for seed in seeds if (r := run_seed(seed, STEPS)).failure] == []
