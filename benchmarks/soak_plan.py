"""The plan of the soak: people who come, work, lose their connection, stay away, come back."""

from __future__ import annotations

import os
from typing import Any

from ecan.loadtest import Chaos, Plan

AWAY_S = 6.0
"""Longer than the soak lets a session without a tab stay in memory."""

LEAKING = bool(os.environ.get("SOAK_LEAK"))
"""For the test that a leak is found."""

PLAN = Plan(
    name="soak",
    doc="Work of all kinds, logins and logouts, lost connections, crashes; sessions come and go.",
    users=240,
    chaos=Chaos(crash=0.004, cut_s=0.5, freeze_s=0.1, freeze_for_s=1.0),
)


async def scenario(user: Any) -> None:
    """One visit; the same user comes again after some ten seconds."""
    if user.state.get("out"):
        await _log_in(user)
        return
    chance = user.random.random()
    if chance < 0.03:
        await user.logout()
        await _log_in(user)
    elif chance < 0.06:
        await user.reconnect()
    elif chance < 0.10:
        user.cut()
        await user.think(AWAY_S)
        await user.connect()
    await _work(user)


async def _log_in(user: Any) -> None:
    user.close()
    user.state["out"] = not (await user.connect() and (await user.login()).ok)


async def _work(user: Any) -> None:
    for _ in range(user.random.randrange(1, 5)):
        chance = user.random.random()
        if chance < 0.3:
            await user.call("echo", {"text": "x" * user.random.randrange(2000)})
        elif chance < 0.6:
            await user.incr("visits")
        elif chance < 0.75:
            await user.call(
                "debug.state_set", {"key": "board", "value": ["y" * user.random.randrange(4000)]}
            )
        elif chance < 0.85:
            await user.call("debug.push", {"method": "news", "params": {"text": "z" * 200}})
        elif chance < 0.92:
            await user.stream("debug.stream", {"n": 5, "delay": 0.01})
        elif chance < 0.96:
            await user.call("debug.block", {"seconds": 0.01})
        else:
            await user.call("session.info")
    if LEAKING:
        await user.call("leak.some")
