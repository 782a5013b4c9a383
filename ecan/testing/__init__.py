"""Helpers for tests of the server and of handlers; shipped, so that authors have them too.

`running_app` starts a whole server in this process; `Client` talks to it; `FakeClock`
is time that a test moves.
"""

from ecan.testing.app import ADMIN_PASSWORD, USER_PASSWORD, RunningApp, running_app
from ecan.testing.client import Client, ReplyFailed
from ecan.testing.clock import FakeClock

__all__ = [
    "ADMIN_PASSWORD",
    "USER_PASSWORD",
    "Client",
    "FakeClock",
    "ReplyFailed",
    "RunningApp",
    "running_app",
]
