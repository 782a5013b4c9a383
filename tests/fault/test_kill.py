"""P10, P11, P12, P14: a real server is killed again and again, and contradicts nothing it said.

The number of deaths here is for a machine that does much else; `ECAN_KILLS=100` makes it a
hundred. A failure names its seed; `ECAN_SEED` runs it again.
"""

from __future__ import annotations

import os
import random

import pytest

from ecan.testing.killer import Killer, Plan

KILLS = int(os.environ.get("ECAN_KILLS", "0"))
SEED = int(os.environ.get("ECAN_SEED", "0")) or random.randrange(1, 2**32)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 6 * KILLS)]


async def kill(folder, *, deaths, **plan):
    report = await Killer(folder, Plan(seed=SEED, deaths=KILLS or deaths, **plan)).run()
    print(f"\n  seed {SEED}: {report}")
    return report


async def test_kill_9(tmp_path):
    """P10, P11: SIGKILL at random moments loses nothing acknowledged and does nothing twice."""
    report = await kill(tmp_path, deaths=8)

    assert report.requests > 0
    assert report.replays >= report.checked - report.expired
    assert report.gaps == 0


async def test_kill_9_and_sigterm(tmp_path):
    """P14: drains between the kills end with exit code 0 and lose nothing either."""
    report = await kill(tmp_path, deaths=5, kinds=("kill", "drain"))

    assert report.gaps == 0


async def test_kill_9_while_it_starts(tmp_path):
    """A start that is killed half-way is repeated by the next one; nothing is half there."""
    report = await kill(tmp_path, deaths=4, kinds=("start", "start", "kill"))

    assert report.gaps == 0


@pytest.mark.parametrize("durability", ["interval", "off"])
async def test_what_is_lost_is_told(tmp_path, durability):
    """Without commits before replies a kill loses the last ones; then the tabs are told of a gap.

    It also shows that the other tests would notice: the same clients, the same counters.
    """
    settings = {"ECAN_DURABILITY": durability}
    report = await kill(
        tmp_path, deaths=3, sessions=20, lives=(100,), settings=settings, may_lose=True
    )

    assert report.lost > 0
    assert report.gaps > 0
