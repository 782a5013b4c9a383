"""What must never be written down: secrets in params, logs and dead letters (P16)."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

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

MIN_SECRET_CHARS = 4
"""Shorter texts are not looked for: they are found in everything."""


@functools.lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret, in whatever style it is written.

    >>> is_secret_name("new_password"), is_secret_name("sessionId"), is_secret_name("sid")
    (True, True, False)
    """
    plain = name.lower().replace("_", "").replace("-", "")
    return any(part in plain for part in _SECRET_PARTS)


def secret_values(value: Any, depth: int = 0) -> set[str]:
    """What stands in the secret fields of a JSON value, as text; not what is very short.

    >>> secret_values({"username": "ann", "auth": [{"Password": "hunter2"}]})
    {'hunter2'}
    """
    found: set[str] = set()
    if depth > _MAX_DEPTH:
        return found
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= _texts(inner) if is_secret_name(str(key)) else secret_values(inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            found |= secret_values(inner, depth + 1)
    return found


def _texts(value: Any, depth: int = 0) -> set[str]:
    if depth > _MAX_DEPTH or value is None or isinstance(value, bool):
        return set()
    if isinstance(value, dict | list | tuple):
        inners = value.values() if isinstance(value, dict) else value
        return set().union(*(_texts(inner, depth + 1) for inner in inners))
    text = str(value)
    return {text} if len(text) >= MIN_SECRET_CHARS else set()


def scrub(value: Any, secrets: Collection[str]) -> Any:
    """A copy of a value of a log line without these texts, however they are quoted.

    What is neither text, number nor JSON becomes its repr, without them as well.

    >>> scrub({"error": "no account for 'hunter2'"}, {"hunter2"})
    {'error': "no account for '[redacted]'"}
    """
    if isinstance(value, str):
        for secret in sorted(secrets, key=len, reverse=True):
            for form in _forms(secret):
                value = value.replace(form, REDACTED)
        return value
    if value is None or isinstance(value, bool | int | float):
        return REDACTED if str(value) in secrets else value
    if isinstance(value, dict):
        return {scrub(str(key), secrets): scrub(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(inner, secrets) for inner in value]
    return scrub(repr(value), secrets)


def _forms(secret: str) -> set[str]:
    if secret.isascii() and secret.isalnum():
        return {secret}
    return {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]}


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
