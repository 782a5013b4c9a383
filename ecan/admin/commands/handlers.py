"""Handler modules, while the server runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecan.admin import params as p
    from ecan.admin.ports import AdminPort, Function


async def reload(port: AdminPort, _params: p.Nothing) -> dict[str, Any]:
    """Switch to the handlers as they are on the disk."""
    return await port.reload_handlers()


COMMANDS: dict[str, Function] = {"handlers.reload": reload}
