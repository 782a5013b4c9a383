"""Fixed seeds of `ecan.testing.simulator`: all promises are kept, and everything was tried."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from ecan.testing.simulator import FEATURES, run_seed, shrink
from ecan.testing.simulator.__main__ import main
from ecan.testing.simulator.runner import Failure, Report

CHUNKS = 40
SEEDS_EACH = 13
"""520 seeds; with 70 steps each they take 10 s on two cores, with coverage a minute or two."""

STEPS = 70

SEEDS_FOR_EVENTS = 200


def chunk(number: int) -> range:
    return range(number * SEEDS_EACH + 1, (number + 1) * SEEDS_EACH + 1)


@pytest.mark.parametrize("number", range(CHUNKS))
def test_all_promises_are_kept(number: int) -> None:
    """P1-P14 hold in every run, whatever users, operators, disks and kill -9 do."""
    failures = [str(r) for seed in chunk(number) if (r := run_seed(seed, STEPS)).failure]
    assert failures == []


@pytest.mark.parametrize("seed", [3, 7, 11])
def test_a_long_run(seed: int) -> None:
    """More steps see other states: idle ends, long ledgers, many lives."""
    report = run_seed(1000 + seed, 600)
    assert report.failure is None, str(report)


class TestDeterminism:
    """A seed decides everything."""

    def test_the_same_seed_twice_does_the_same(self) -> None:
        first, second = run_seed(5), run_seed(5)
        assert (first.digest, first.counts) == (second.digest, second.counts)

    def test_other_seeds_do_other_things(self) -> None:
        assert len({run_seed(seed, 20).digest for seed in range(1, 6)}) == 5

    def test_another_process_with_other_hashes_does_the_same(self) -> None:
        """Neither addresses nor the randomisation of string hashes decide anything."""
        code = "from ecan.testing.simulator import run_seed; print(run_seed(6).digest)"
        digests = set()
        for hash_seed in ("1", "2"):
            done = subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "PYTHONHASHSEED": hash_seed},
                capture_output=True,
                text=True,
                check=True,
            )
            digests.add(done.stdout.strip())
        assert {run_seed(6).digest} == digests


EVENTS = [
    "accepted",
    "started",
    "replayed",
    "asked.again",
    "lobby.success",
    "idle",
    "zombie.returned",
    "reset.landed",
    "process.starts",
    "process.killed",
    "process.drains",
    "supervisor.crashes",
    "ending",
    "frame.in",
    "frame.out",
    "frame.push",
    "frame.pending",
    "push.restarted",
    "reply.handed_out",
    "resume.resumed",
    "tab.connects",
    "tab.gone",
    "tab.closed",
    "tab.cut_off",
    "tab.slow",
    "tab.answers",
    "store.limbo_found",
    "connection.lost",
    "server.closes",
    "session.over",
    "store.is_broken",
    "store.is_slow",
    "store.is_unreadable",
    "store.failed",
    "store.refused",
    "store.unreadable",
    "store.landed",
    "store.read",
    "store.conflict",
    "operator.restart",
    "operator.passivate",
    "operator.revive",
    "operator.reset",
    "operator.kill",
    "operator.refused",
    "ended.idle",
    "ended.logout",
    "ended.killed",
    "observed.success",
    "observed.error",
    "observed.crashed",
    "observed.timeout",
    "observed.cancelled",
]

CODES = [
    "PARSE_ERROR",
    "MISSING_TYPE",
    "UNKNOWN_TYPE",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "INVALID_PARAMS",
    "TOKEN_REQUIRED",
    "INVALID_TOKEN",
    "SESSION_NOT_FOUND",
    "SESSION_EXPIRED",
    "SESSION_CLOSED",
    "SESSION_FAILED",
    "RATE_LIMITED",
    "BUSY",
    "SESSION_LIMIT",
    "DRAINING",
    "TIMEOUT",
    "CANCELLED",
    "HANDLER_CRASHED",
    "METHOD_SUSPENDED",
    "ID_REUSED",
    "ID_EXPIRED",
    "DECLARED",
    "CONFLICT",
    "CLIENT_GONE",
    "CLIENT_TIMEOUT",
    "REFUSED",
]
"""All of CONTRACT §2 but INVALID_CREDENTIALS and FORBIDDEN: there are no passwords and roles here."""


def test_everything_really_happened() -> None:
    """A simulator that silently stops trying something would find nothing, and say so."""
    counts: Counter[str] = Counter()
    for seed in range(1, SEEDS_FOR_EVENTS + 1):
        counts.update(run_seed(seed, STEPS).counts)
    expected = [*EVENTS, *(f"code.{code}" for code in CODES)]
    assert [name for name in expected if not counts[name]] == []


class TestCommandLine:
    """How a person replays a seed."""

    def test_one_seed_is_replayed_step_by_step(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--seed", "4", "--steps", "12", "--verbose"]) == 0
        printed = capsys.readouterr().out
        assert "process.starts" in printed
        assert run_seed(4, 12).digest in printed

    def test_many_seeds_end_with_what_happened(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--seeds", "1-3", "--steps", "10", "--jobs", "1"]) == 0
        printed = capsys.readouterr().out
        assert "3 seeds, 30 steps, 0 failures" in printed
        assert "process.starts" in printed

    def test_the_first_failure_of_many_is_told(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from ecan.testing.simulator import __main__ as command

        def broken(job: tuple[int, int]) -> Report:
            failure = Failure(promise="P8", story="too much", step=1, lines=())
            return Report(
                seed=job[0],
                steps=job[1],
                features=FEATURES,
                digest="",
                counts=Counter(),
                failure=failure,
            )

        monkeypatch.setattr(command, "run_job", broken)
        monkeypatch.setattr(command, "shrink", lambda report: report)
        assert main(["--seeds", "5-9", "--jobs", "1"]) == 1
        printed = capsys.readouterr().out
        assert "seed 5 breaks P8" in printed
        assert "1 seeds" in printed

    def test_two_processes_share_the_seeds(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--seeds", "1-4", "--steps", "3", "--jobs", "2"]) == 0
        assert "4 seeds, 12 steps, 0 failures" in capsys.readouterr().out

    def test_features_can_be_left_out(self) -> None:
        """Without kills there is one process, and the one after the last drain."""
        features = tuple(name for name in FEATURES if name not in ("kill", "drain"))
        assert run_seed(8, 40, features).counts["process.starts"] == 2


class TestFailures:
    """What is shown when a promise is broken."""

    def test_a_failure_says_how_to_replay_it(self) -> None:
        failure = Failure(promise="P3", story="nobody answered", step=7, lines=("a", "b"))
        report = Report(
            seed=9, steps=20, features=FEATURES[1:], digest="", counts=Counter(), failure=failure
        )
        assert "a\nb" in str(report)
        assert "breaks P3 at step 7 of 20" in str(report)
        assert "--seed 9 --steps 20 --without kill --verbose" in str(report)

    def test_it_is_made_smaller(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Features and steps that a failure does not need are left out."""
        from ecan.testing.simulator import runner

        def run(seed: int, steps: int, features: tuple[str, ...]) -> Report:
            broken = steps >= 5 and "faults" in features
            failure = Failure(promise="P4", story="", step=5, lines=()) if broken else None
            return Report(
                seed=seed,
                steps=steps,
                features=features,
                digest="",
                counts=Counter(),
                failure=failure,
            )

        monkeypatch.setattr(runner, "run_seed", run)
        small = shrink(run(1, 90, FEATURES))
        assert (small.steps, small.features) == (5, ("faults",))
