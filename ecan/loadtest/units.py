"""Durations, rates and shares as people write them. Pure."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[a-zµ%/]*)", re.IGNORECASE)

SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
RATES = {"": 1.0, "/s": 1.0, "k": 1e3, "k/s": 1e3, "/m": 1 / 60, "/min": 1 / 60}


def _read(text: str, units: dict[str, float], what: str) -> float:
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match["unit"].lower() not in units:
        raise ValueError(f"{text!r} is not {what}")
    return float(match["number"]) * units[match["unit"].lower()]


def seconds(value: str | float) -> float:
    """A duration in seconds.

    Raises:
        ValueError: it is none.

    >>> seconds("500ms"), seconds("2m"), seconds(3)
    (0.5, 120.0, 3.0)
    """
    if isinstance(value, str):
        return _read(value, SECONDS, "a duration like 500ms, 30s or 2m")
    if value < 0:
        raise ValueError(f"{value!r} is not a duration")
    return float(value)


def rate(value: str | float) -> float:
    """Requests a second.

    >>> rate("2k"), rate("30/min"), rate(12.5)
    (2000.0, 0.5, 12.5)
    """
    if isinstance(value, str):
        return _read(value, RATES, "a rate like 200, 2k or 30/min")
    if value < 0:
        raise ValueError(f"{value!r} is not a rate")
    return float(value)


def share(value: str | float) -> float:
    """A share of one; text with or without % is in per cent, as is a number.

    >>> share("0.1%"), share(5)
    (0.001, 0.05)
    """
    if isinstance(value, str):
        value = _read(value, {"": 1.0, "%": 1.0}, "a share like 0.1%")
    if not 0 <= value <= 100:  # noqa: PLR2004 - per cent
        raise ValueError(f"{value!r} is not between 0 and 100 %")
    return value / 100


def show_ms(ms: float | None) -> str:
    """A latency with three digits.

    >>> show_ms(0.1234), show_ms(12.34), show_ms(12345.6), show_ms(None)
    ('0.123 ms', '12.3 ms', '12.3 s', '-')
    """
    if ms is None:
        return "-"
    if ms >= 1000:  # noqa: PLR2004 - a second
        return f"{ms / 1000:.3g} s" if ms < 1e6 else f"{ms / 1000:.0f} s"  # noqa: PLR2004
    return f"{ms:.3g} ms" if ms >= 1 else f"{ms:.3f} ms"


def show_count(value: float) -> str:
    """A count or rate that fits a column.

    >>> show_count(7), show_count(0.5), show_count(1234), show_count(1234567)
    ('7', '0.5', '1,234', '1,234,567')
    """
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004


def show_bytes(value: float) -> str:
    """A size in MiB or GiB.

    >>> show_bytes(52 * 2**20), show_bytes(3 * 2**30)
    ('52 MiB', '3.0 GiB')
    """
    mib = value / 2**20
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"  # noqa: PLR2004
