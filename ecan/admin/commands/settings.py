"""Settings and the log's level, while the server runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecan.admin import params as p
    from ecan.admin.ports import AdminPort, Function

_OK = {"ok": True}


async def get(port: AdminPort, _params: p.Nothing) -> dict[str, Any]:
    """Every setting, secrets hidden."""
    return {"settings": port.live.rows()}


async def set_(port: AdminPort, params: p.SetSetting) -> dict[str, bool]:
    """Change one until the next start."""
    _set(port, params.name, params.value)
    return _OK


async def level(port: AdminPort, params: p.LogLevel) -> dict[str, str]:
    """Log more, or less."""
    before = port.settings.log_level
    _set(port, "ECAN_LOG_LEVEL", params.level)
    return {"level": params.level, "before": before}


def _set(port: AdminPort, name: str, value: str) -> None:
    port.live.set(name, value)
    # None of those that can change is a secret.
    port.events.emit("settings.changed", name=name, value=value)


COMMANDS: dict[str, Function] = {"settings.get": get, "settings.set": set_, "log.level": level}
