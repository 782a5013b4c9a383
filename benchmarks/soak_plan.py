"""The mixed load of a soak: what people do all day, and what happens to them.

Every user comes by each four seconds, which is longer than the server of a soak keeps an
idle session in memory, so most visits begin with an activation. Each ninth visit ends with
a logout: sessions live for 36 s on average, so that what grows with the age of a session
(its ledger, its biography) is in balance after the first two minutes.
"""

from __future__ import annotations

from ecan.loadtest.plan import Chaos, Plan, make_phases
from ecan.loadtest.user import User

TEXT = "Could you have a look at the numbers of last week? I put them where we said. "
VISITS_S = 50.0
"""Visits a second, of all users."""

BETWEEN_S = 4.0
"""Seconds between two visits of one user."""

AWAY_S = 3.0
"""Longer than a session without a connection stays in memory."""


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


async def _lose_connection(user: User) -> None:
    user.cut()
    await _come_back(user)


async def _go_away(user: User) -> None:
    user.close()
    await user.think(AWAY_S)
    await _come_back(user)


async def _come_back(user: User) -> None:
    user.state["away"] = True
    if await user.connect():
        user.state["away"] = False
        await user.incr("visits")


async def _log_out(user: User) -> None:
    user.state["out"] = True
    await user.logout()
    await _log_in(user)


async def _log_in(user: User) -> None:
    user.close()
    if await user.connect():
        # A server without a CPU says when to come again; the user does with the next visit.
        user.state["out"] = not (await user.login(expect="RATE_LIMITED")).ok


KINDS = {
    _look_around: 30,
    _work: 23,
    _talk: 15,
    _upload: 3,
    _wait: 6,
    _lose_connection: 6,
    _go_away: 6,
    _log_out: 11,
}


async def scenario(user: User) -> None:
    """One visit. What chaos took away comes back by itself; what the user ended does not."""
    if user.state.get("out"):
        await _log_in(user)
    elif user.state.get("away"):
        user.close()
        await _come_back(user)
    else:
        (visit,) = user.random.choices(list(KINDS), weights=list(KINDS.values()))
        await visit(user)


PLAN = Plan(
    name="soak",
    doc="Visits, uploads, streams, blocking calls, logins and logouts, absences, cuts, crashes.",
    needs="debug methods",
    scenario=scenario,
    chaos=Chaos(crash=0.01, cut_s=0.5, freeze_s=0.2, freeze_for_s=1.0),
    users=round(VISITS_S * BETWEEN_S),
    phases=make_phases(VISITS_S, 1800),
    slo="errors<0.1%,violations<=0,dropped<0.1%",
)
