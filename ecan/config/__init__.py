"""Every setting of the server: one table, from which parsing, help and docs are made.

`load` and `load_client` are the only readers of the process's environment. `Settings` is
frozen: what can change live has its own place (`settings.set` of the admin socket).
Anyone may import this; it knows nothing but `ecan.errors`.
"""

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
