"""Who may log in: accounts, passwords, limits of attempts, and the methods around them.

The composition root makes one `AccountService`, starts it before the gateway and
runs its `watch`; handlers reach it as ``ctx.server.accounts``. Nothing here knows of
sessions but through `ecan.handlers.ports` and the ``revoke`` it is given.
"""

from ecan.handlers.accounts.passwords import Passwords
from ecan.handlers.accounts.service import AccountService
from ecan.handlers.accounts.throttle import LoginThrottle

__all__ = ["AccountService", "LoginThrottle", "Passwords"]
