"""Text of one variable to its value; every parser raises ValueError when it does not fit."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_PASSWORD_CHARS = 1024
"""Argon2 reads all of it; nobody has a longer one."""

_UNIT_S = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_UNIT_BYTES = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


class BadValueError(ValueError):
    """A value a parser refuses; a message replaces the table's words for what is allowed."""


@attrs.frozen
class RateLimit:
    """Requests of one session: ``rate_per_s`` on average, ``burst`` at once. A rate of 0 is off."""

    rate_per_s: float
    burst: int


@attrs.frozen
class LoginRateLimit:
    """Logins of one user or address: ``count`` in ``per_s`` seconds. A count of 0 is off."""

    count: int
    per_s: float


def whole(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers from ``low`` to ``high``."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise BadValueError
        return int(text)

    return parse


def one_of(*allowed: str) -> Callable[[str], str]:
    """A parser of words; case does not matter."""

    def parse(text: str) -> str:
        for choice in allowed:
            if text.lower() == choice.lower():
                return choice
        raise BadValueError

    return parse


def switch(*, on: tuple[str, ...], off: tuple[str, ...]) -> Callable[[str], bool]:
    """A parser of two-way choices."""
    known = {**dict.fromkeys(on, True), **dict.fromkeys(off, False)}

    def parse(text: str) -> bool:
        if text.lower() not in known:
            raise BadValueError
        return known[text.lower()]

    return parse


def parse_duration(text: str) -> float:
    """Seconds of ``30``, ``500ms``, ``30s``, ``15m``, ``24h`` or ``7d``.

    >>> parse_duration("15m")
    900.0
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h|d)?", text.strip().lower())
    if match is None:
        raise BadValueError
    return float(match[1]) * _UNIT_S[match[2] or ""]


def duration(low: float = 0.001) -> Callable[[str], float]:
    """A parser of durations of at least ``low`` seconds."""

    def parse(text: str) -> float:
        seconds = parse_duration(text)
        if seconds < low:
            raise BadValueError
        return seconds

    return parse


def parse_size(text: str) -> int:
    """Bytes of ``1048576``, ``512KiB`` or ``1MiB``.

    >>> parse_size("1MiB")
    1048576
    """
    match = re.fullmatch(r"([0-9]{1,12})\s*(b|kib|mib|gib)?", text.strip().lower())
    if match is None:
        raise BadValueError
    return int(match[1]) * _UNIT_BYTES[match[2] or ""]


def max_frame(text: str) -> int:
    """Bytes from 1 KiB to 64 MiB."""
    size = parse_size(text)
    if not 1 << 10 <= size <= 1 << 26:
        raise BadValueError
    return size


def rate_limit(text: str) -> RateLimit:
    """``100``, ``100/s``, ``100/200`` (rate/burst), ``0``; without a burst it is twice the rate."""
    match = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]{1,6})?)(?:/(?:s|([0-9]{1,7})))?", text.lower())
    if match is None:
        raise BadValueError
    rate = float(match[1])
    burst = int(match[2]) if match[2] else max(1, round(2 * rate))
    if rate and burst < 1:
        raise BadValueError
    return RateLimit(rate, burst if rate else 0)


@attrs.frozen
class Budget:
    """What a session may use: it is warned at ``soft`` and held back at ``hard``."""

    soft: float
    hard: float


def budget(amount: Callable[[str], float]) -> Callable[[str], Budget | None]:
    """A parser of ``soft/hard``, or ``off``; ``amount`` reads each of the two."""

    def parse(text: str) -> Budget | None:
        if text.lower() == "off":
            return None
        soft, slash, hard = text.partition("/")
        if not slash:
            raise BadValueError
        found = Budget(amount(soft), amount(hard))
        if not 0 < found.soft <= found.hard:
            raise BadValueError
        return found

    return parse


def login_rate_limit(text: str) -> LoginRateLimit:
    """``5/min``, ``10/s``, ``100/h`` or ``0``."""
    if text == "0":
        return LoginRateLimit(0, 60.0)
    match = re.fullmatch(r"([1-9][0-9]{0,6})/(s|min|m|h)", text.lower())
    if match is None:
        raise BadValueError
    return LoginRateLimit(int(match[1]), {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}[match[2]])


def split_list(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated list."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def origins(text: str) -> tuple[str, ...]:
    """Web origins, as browsers send them; ``*`` swallows all others."""
    origins = split_list(text)
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s@]+", origin):
            raise BadValueError
    return ("*",) if "*" in origins else tuple(origin.lower() for origin in origins)


def networks(text: str) -> tuple[Network, ...]:
    """IP addresses and networks."""
    return tuple(ipaddress.ip_network(part, strict=False) for part in split_list(text))


def modules(text: str) -> tuple[str, ...]:
    """Dotted names of Python modules."""
    modules = split_list(text)
    if not all(part.isidentifier() for name in modules for part in name.split(".")):
        raise BadValueError
    return modules


def store(text: str) -> str:
    """``memory``, or ``sqlite`` with or without a path."""
    kind, _, path = text.partition(":")
    kind = kind.lower()
    if kind in ("redis", "rediss"):
        raise BadValueError(
            "the redis store is not available in this version; allowed: memory, sqlite[:path]"
        )
    if kind == "memory" and not path:
        return kind
    if kind != "sqlite":
        raise BadValueError
    return f"{kind}:{path}" if path else kind


def password(text: str) -> str:
    """Any password up to `MAX_PASSWORD_CHARS`."""
    if len(text) > MAX_PASSWORD_CHARS:
        raise BadValueError
    return text
