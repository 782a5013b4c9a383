"""The mixed load of a soak: what people do in half an hour, and what happens to them.

Every user is idle for longer than the server of a soak keeps idle sessions in memory, so
each visit begins with an activation.
"""

from __future__ import annotations

from ecan.loadtest.plan import Chaos, Plan, make_phases
from ecan.loadtest.user import User

TEXT = "Could you have a look at the numbers of last week? I put them where we said. "
AWAY_S = 4.0
"""Longer than a session without a connection stays in memory."""

USERS_PER_RATE = 8.0
"""Users for each visit a second: the seconds between two visits of one."""


async def _look_around(user: User) -> None:
    await user.call("session.info")
    await user.call("debug.state_get", {"key": "board"})
    await user.call("ping")


async def _work(user: User) -> None:
    await user.call("debug.state_set", {"key": "board", "value": {"title": TEXT}})
    await user.incr("visits")
    await user.call("debug.incr", {"key": "board"}, expect="NOT_A_NUMBER")


async def _talk(user: User) -> None:
    await user.call("echo", {"text": TEXT})
    await user.call("debug.push", {"method": "chat.message", "params": {"text": TEXT}, "count": 3})
    await user.stream("debug.stream", {"n": 5, "delay": 0.02})


async def _upload(user: User) -> None:
    await user.call("echo", {"name": "photo", "data": "x" * 65536})


async def _wait(user: User) -> None:
    await user.call("debug.block", {"seconds": 0.02})
    await user.call("debug.sleep", {"seconds": 0.05})


async def _come_back(user: User) -> None:
    await user.reconnect()
    await user.call("ping")


async def _go_away(user: User) -> None:
    user.close()
    await user.think(AWAY_S)
    await user.connect()
    await user.incr("visits")


async def _log_out(user: User) -> None:
    user.state["out"] = True
    await user.logout()
    user.close()
    await _log_in(user)


async def _log_in(user: User) -> None:
    if await user.connect():
        user.state["out"] = not (await user.login()).ok


VISITS = {
    _look_around: 30,
    _work: 25,
    _talk: 15,
    _upload: 3,
    _wait: 10,
    _come_back: 6,
    _go_away: 6,
    _log_out: 5,
}


async def scenario(user: User) -> None:
    """One visit."""
    if user.state.get("out"):
        await _log_in(user)
    elif not user.connected:
        await user.connect()
    (visit,) = user.random.choices(list(VISITS), weights=list(VISITS.values()))
    await visit(user)


CHAOS = Chaos(crash=0.01, cut_s=0.5, freeze_s=0.2, freeze_for_s=1.0)

PLAN = Plan(
    name="soak",
    doc="Visits, uploads, streams, blocking calls, logins and logouts, absences, cuts, crashes.",
    needs="debug methods",
    scenario=scenario,
    chaos=CHAOS,
    users=400,
    phases=make_phases(50, 1800),
    slo="errors<0.1%,violations<=0,dropped<0.1%",
)
