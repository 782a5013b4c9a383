"""``ecan loadtest``: load on a running server, measured and checked from outside.

A coordinator (`run`) starts generator processes (`generator`) that play a `plan` on real
WebSockets (`wire`, `user`), check every promise they can see (`checks`) and count latencies
from the intended send time (`schedule`, `counts`). `result`, `report` and `compare` say what
came out; `capacity` searches the most that still meets an objective (`slo`).

Only `ecan.cli` calls this. It is a black box: it knows the wire's codes and the client of the
admin socket, and nothing of the server. Plans written in Python import `Plan`, `Call`,
`Phase`, `Chaos` and `User` from here.
"""

from ecan.loadtest.plan import Call, Chaos, Phase, Plan, PlanError
from ecan.loadtest.user import User

__all__ = ["Call", "Chaos", "Phase", "Plan", "PlanError", "User"]
