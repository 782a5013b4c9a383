"""Every setting of the server: one table, from which parsing, help and docs are made.

`load` and `load_client` are the only readers of the process's environment. `Settings` is
frozen; `LiveSettings` alone changes the few that can (`settings.set` of the admin socket).
Anyone may import this; it knows nothing but `ecan.errors`.
"""

from ecan.config.live import LiveSettings
from ecan.config.parsers import LoginRateLimit, Network, RateLimit
from ecan.config.settings import (
    ClientEnvironment,
    Settings,
    SettingsError,
    describe_settings,
    load,
    load_client,
    markdown_table,
)

__all__ = [
    "ClientEnvironment",
    "LiveSettings",
    "LoginRateLimit",
    "Network",
    "RateLimit",
    "Settings",
    "SettingsError",
    "describe_settings",
    "load",
    "load_client",
    "markdown_table",
]
