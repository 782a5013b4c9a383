"""Every setting of the server: one table, from which parsing, help and docs are made.

`load` and `load_client` are the only readers of the process's environment. `Settings` is
frozen; `LiveSettings` alone changes the few that can (`settings.set` of the admin socket).
Anyone may import this; it knows nothing but `ecan.errors`.
"""

from ecan.config.check import CheckedSetting, Finding, check, check_environment
from ecan.config.example import env_example
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
    "CheckedSetting",
    "ClientEnvironment",
    "Finding",
    "LiveSettings",
    "LoginRateLimit",
    "Network",
    "RateLimit",
    "Settings",
    "SettingsError",
    "check",
    "check_environment",
    "describe_settings",
    "env_example",
    "load",
    "load_client",
    "markdown_table",
]
