"""The plans that come with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecan.loadtest.plan import Call, Plan, make_phases

if TYPE_CHECKING:
    from ecan.loadtest.user import User

_DEBUG = "debug methods (ECAN_DEBUG_METHODS=1) for the calls named debug.*; without, the others"
_TALK = "Could you have a look at the numbers of last week? I put them where we said. "
_MESSAGE = {"text": _TALK}


async def _login_storm(user: User) -> None:
    """Connect, log in, look around, log out, go."""
    if await user.connect():
        reply = await user.login()
        if reply.ok:
            await user.call("session.info")
            await user.logout()
    user.close()


async def _reconnect_storm(user: User) -> None:
    """The network dies, the browser comes back and asks for what it missed."""
    await user.reconnect()


PLANS: dict[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan(
            name="ping",
            doc="ping in a session: the way of a frame and nothing else.",
            calls=(Call(method="ping"),),
            phases=make_phases(200, 30, ramp_s=5),
            slo="p99<50ms,errors<0.1%",
        ),
        Plan(
            name="chat",
            doc="People who talk: messages, pushes to tabs, answers that stream, uploads.",
            needs=_DEBUG,
            calls=(
                Call(method="echo", params={"text": _TALK}, weight=50),
                Call(
                    method="debug.push",
                    params={"method": "chat.message", "params": _MESSAGE},
                    weight=25,
                ),
                Call(method="debug.stream", params={"n": 5, "delay": 0.02}, weight=10),
                Call(
                    method="debug.incr", params={"key": "messages"}, counter="messages", weight=10
                ),
                Call(method="echo", params={"name": "photo"}, payload_bytes=65536, weight=1),
                Call(method="session.info", weight=4),
            ),
            phases=make_phases(200, 30, ramp_s=5),
            slo="p99<250ms,errors<0.1%",
        ),
        Plan(
            name="tasks",
            doc="Work of different length: reads, durable writes, waits, blocking calls.",
            needs=_DEBUG,
            calls=(
                Call(method="debug.state_get", params={"key": "tasks"}, weight=40),
                Call(
                    method="debug.state_set",
                    params={"key": "board", "value": {"title": _TALK, "done": False}},
                    weight=20,
                ),
                Call(method="debug.incr", params={"key": "tasks"}, counter="tasks", weight=20),
                Call(method="debug.sleep", params={"seconds": 0.05}, weight=10),
                Call(method="debug.block", params={"seconds": 0.02}, weight=5),
                Call(method="session.info", weight=5),
            ),
            phases=make_phases(100, 30, ramp_s=5),
            slo="p99<500ms,errors<0.1%",
        ),
        Plan(
            name="counter",
            doc="One durable write after the other; every value and the totals are verified.",
            needs="debug methods (ECAN_DEBUG_METHODS=1)",
            calls=(Call(method="debug.incr", params={"key": "load"}, counter="load"),),
            phases=make_phases(200, 30, ramp_s=5),
            slo="p99<100ms,errors<0.1%,violations<=0",
        ),
        Plan(
            name="login-storm",
            doc="Everybody comes at once: connect, log in, look around, log out.",
            needs="accounts (--user, or --signup where signing up is open); a login costs the"
            " server a password hash, and ECAN_LOGIN_RATE_LIMIT bounds them",
            scenario=_login_storm,
            connected=False,
            users=200,
            phases=make_phases(5, 20),
            slo="errors<1%",
        ),
        Plan(
            name="reconnect-storm",
            doc="Connections die and come back: connect, resume.",
            scenario=_reconnect_storm,
            users=200,
            phases=make_phases(100, 20, ramp_s=5),
            slo="p99<1s,errors<0.1%",
        ),
        Plan(
            name="idle-crowd",
            doc="Many who do next to nothing; shows what an open session costs.",
            calls=(Call(method="ping", weight=4), Call(method="session.keep", weight=1)),
            users=1000,
            phases=make_phases(20, 30),
            slo="p99<100ms,errors<0.1%",
        ),
    )
}
"""By name. Those without ``needs`` use what every server has."""
