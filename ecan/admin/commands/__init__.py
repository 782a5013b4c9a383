"""The commands of the admin socket, one module for each group, by the names of the table.

A command is ``async def command(port: AdminPort, params: ...) -> Any``: what it answers is
JSON, what it raises becomes an error. Only the dispatcher calls them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecan.admin.commands import handlers, letters, methods, queue, server, sessions, settings, users

if TYPE_CHECKING:
    from ecan.admin.ports import Function

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Function] = {
    **server.COMMANDS,
    **sessions.COMMANDS,
    **queue.COMMANDS,
    **letters.COMMANDS,
    **methods.COMMANDS,
    **handlers.COMMANDS,
    **settings.COMMANDS,
    **users.COMMANDS,
}
