"""Which modules with handlers a server has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecan.handlers.registry import Registry, load_registry

if TYPE_CHECKING:
    from ecan.config import Settings

BUILT_IN = (
    "ecan.handlers.system",
    "ecan.handlers.accounts.methods",
    "ecan.handlers.session",
    "ecan.handlers.settings",
)
"""Modules with handlers of our own; `DEBUG` is one with ECAN_DEBUG_METHODS."""

DEBUG = "ecan.handlers.debug"


def built_in(config: Settings) -> tuple[str, ...]:
    """Our own modules with handlers, as configured."""
    return (*BUILT_IN, DEBUG) if config.debug_methods else BUILT_IN


def build_registry(config: Settings) -> Registry:
    """Every method of the server: ours, and those of ECAN_HANDLERS.

    Raises:
        ConfigError: a module does not import, or two methods have one name.
    """
    return load_registry([*built_in(config), *config.handlers])
