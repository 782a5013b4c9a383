"""The mind: sessions as supervised actors.

`SessionService` is the door for the gateway and the admin socket. Everything here
runs on the loop, knows no sockets and no database, and takes its time from a `Clock`.
Start reading at `lifecycle` (the table of states), `cell` (what outlives a crash),
`session` (how a request runs) and `supervisor` (who restarts what).
"""

from ecan.actors.directory import Directory
from ecan.actors.environment import Environment
from ecan.actors.guard import PoisonGuard
from ecan.actors.sessions import SessionService

__all__ = ["Directory", "Environment", "PoisonGuard", "SessionService"]
