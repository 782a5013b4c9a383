"""The file ``.env.example``, from the table of settings."""

from __future__ import annotations

import textwrap

from ecan.config.settings import describe_settings

_HEAD = """\
# Settings of eCan.ai Web, each with its default. Copy this to .env and change what you need:
# docker compose and systemd read it. `ecan config check` says what a file would do.
# Made by `ecan config example`.
"""

_WORDS = frozenset({"none", "same origin", "made and printed once", "off"})
"""Defaults that are words about a value; an unset variable means them."""


def env_example() -> str:
    """Every setting, commented out, with what it is and what it may be."""
    parts = [_HEAD]
    for row in describe_settings():
        words = textwrap.wrap(f"{row.doc} Allowed: {row.allowed}.", 96)
        default = "" if row.default in _WORDS or row.default.startswith("$") else row.default
        if default != row.default:
            words += [f"Default: {row.default}."]
        parts.append("".join(f"# {line}\n" for line in words) + f"#{row.env}={default}\n")
    return "\n".join(parts)
