"""What must never be written down: secrets in params, logs and dead letters (P16)."""

from __future__ import annotations

from typing import Any

REDACTED = "[redacted]"

_SECRET_PARTS = (
    "password",
    "passwd",
    "token",
    "sessionid",
    "secret",
    "authorization",
    "apikey",
    "credential",
    "cookie",
)

_MAX_DEPTH = 20


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret, in whatever style it is written.

    >>> is_secret_name("new_password"), is_secret_name("sessionId"), is_secret_name("sid")
    (True, True, False)
    """
    plain = name.lower().replace("_", "").replace("-", "")
    return any(part in plain for part in _SECRET_PARTS)


def redact(value: Any, depth: int = 0) -> Any:
    """A copy of a JSON value with every secret field replaced.

    >>> redact({"username": "ann", "auth": [{"Password": "x"}]})
    {'username': 'ann', 'auth': [{'Password': '[redacted]'}]}
    """
    if depth > _MAX_DEPTH:
        return REDACTED
    if isinstance(value, dict):
        return {
            key: REDACTED if is_secret_name(str(key)) else redact(inner, depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(inner, depth + 1) for inner in value]
    return value
