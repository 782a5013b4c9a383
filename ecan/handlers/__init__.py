"""The work: one module per domain, and what authors of handlers need.

A handler sees a context and its params; it never imports actors, the gateway or a
store. `HANDLERS` of each module is its table; nothing registers by being imported.
"""

from ecan.errors import HandlerError
from ecan.handlers.context import (
    ConnectionContext,
    HandlerContext,
    User,
    UserContext,
    get_handler_context,
)
from ecan.handlers.registry import Final, Kind, MethodSpec, Registry, Scope, handler

__all__ = [
    "ConnectionContext",
    "Final",
    "HandlerContext",
    "HandlerError",
    "Kind",
    "MethodSpec",
    "Registry",
    "Scope",
    "User",
    "UserContext",
    "get_handler_context",
    "handler",
]
