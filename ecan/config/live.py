"""Settings that can change while the server runs (`settings.set` of the admin socket)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecan.config.parsers import BadValueError, Budget, LoginRateLimit, RateLimit
from ecan.config.settings import fields
from ecan.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    import attrs

    from ecan.config.settings import Settings

HIDDEN = "[hidden]"

_UNITS = {1.0: "s", 60.0: "min", 3600.0: "h"}


class LiveSettings:
    """The one door by which the settings of a running server change.

    `Settings` are frozen for everybody who holds them. This writes into the server's own
    copy, so whoever reads an attribute of it reads the new value, at no cost. Only
    settings that are read where they are used, or that have a callback, are offered.

    Args:
        settings: the server's own; nobody else may hold it as a value.
        live: variables that can change, with what is to be done then, if anything.

    Runs on: the loop.
    """

    def __init__(self, settings: Settings, live: dict[str, Callable[[Any], object] | None]) -> None:
        self._settings = settings
        self._live = live
        self._changed: set[str] = set()

    def set(self, name: str, text: str) -> None:
        """Change a setting until the next start.

        Raises:
            ConfigError: there is none of that name, it cannot change now, or the value
                does not fit; the same words as at a start.
        """
        field = next((f for f in fields() if f.metadata["env"] == name), None)
        if field is None:
            raise ConfigError(name, text, "there is no such setting")
        row = field.metadata
        if name not in self._live:
            raise ConfigError(name, HIDDEN if row["secret"] else text, "needs a new start")
        try:
            value = row["parse"](text.strip())
        except ValueError as error:
            own_words = str(error) if isinstance(error, BadValueError) else ""
            raise ConfigError(name, text, own_words or f"must be {row['allowed']}") from None
        object.__setattr__(self._settings, field.name, value)
        self._changed.add(name)
        changed = self._live[name]
        if changed is not None:
            changed(value)

    def rows(self) -> list[dict[str, Any]]:
        """Every setting, as `settings.get` answers them."""
        return [self._row(field) for field in fields()]

    def _row(self, field: attrs.Attribute[Any]) -> dict[str, Any]:
        row, value = field.metadata, getattr(self._settings, field.name)
        name = row["env"]
        default: Any = field.default
        if hasattr(default, "takes_self"):
            default = default.factory(self._settings)
        if name in self._changed:
            source = "admin"
        else:
            source = "default" if value == default else "environment"
        shown = HIDDEN if row["secret"] and value is not None else text_of(field, value)
        return {
            "name": name,
            "value": re.sub(r"//.*@", f"//{HIDDEN}@", shown),
            "default": row["shown"] or text_of(field, default),
            "from": source,
            "live": name in self._live,
            "doc": row["doc"],
            "allowed": row["allowed"],
        }


def text_of(field: attrs.Attribute[Any], value: Any) -> str:  # noqa: PLR0911 - one for each type
    """A value as it could stand in the environment; empty for None."""
    if value is None:
        return "off" if field.metadata["allowed"].startswith("off") else ""
    if isinstance(value, Budget):
        return f"{value.soft:.15g}/{value.hard:.15g}"
    if isinstance(value, bool):
        first, _, second = field.metadata["allowed"].partition(" or ")
        return str(second if value else first)
    if isinstance(value, RateLimit):
        return f"{value.rate_per_s:g}/{value.burst}" if value.rate_per_s else "0"
    if isinstance(value, LoginRateLimit):
        return f"{value.count}/{_UNITS[value.per_s]}" if value.count else "0"
    if isinstance(value, float) and "duration" in field.metadata["allowed"]:
        return f"{value:g}s"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, Path):
        return str(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
