"""The plan of the soak on a server that leaks."""

from __future__ import annotations

import attrs

from benchmarks import soak_plan
from ecan.loadtest.user import User


async def scenario(user: User) -> None:
    """A visit, and the leak."""
    await soak_plan.scenario(user)
    await user.call("leak.all")


PLAN = attrs.evolve(soak_plan.PLAN, name="leaking", scenario=scenario)
