"""Methods: how they do, and which are switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecan.errors import ReplyError
from ecan.protocol.codes import ErrorCode

if TYPE_CHECKING:
    from ecan.admin import params as p
    from ecan.admin.ports import AdminPort, Function
    from ecan.observability import Histogram

_OK = {"ok": True}

WHY = "an operator suspended it"


async def list_(port: AdminPort, _params: p.Nothing) -> dict[str, Any]:
    """Every method by name, those without a call too."""
    names = {spec.name for spec in port.registry} | set(port.metrics.methods)
    return {"methods": [_row(port, name) for name in sorted(names)]}


def _row(port: AdminPort, name: str) -> dict[str, Any]:
    figures = port.metrics.methods.get(name)
    counts = {} if figures is None else figures.by_status
    row: dict[str, Any] = {
        "method": name,
        "calls": sum(counts.values()),
        "errors": sum(counts.values()) - counts.get("success", 0),
        "crashes": counts.get("crashed", 0),
        "p50_ms": None,
        "p99_ms": None,
        "queue_p99_ms": None,
        "suspended": port.guard.suspended.get(name),
    }
    if figures is not None:
        row["p50_ms"] = _ms(figures.run, 0.5)
        row["p99_ms"] = _ms(figures.run, 0.99)
        row["queue_p99_ms"] = _ms(figures.queue, 0.99)
    return row


def _ms(histogram: Histogram, share: float) -> float:
    return round(histogram.quantile(share) * 1000, 3)


async def suspend(port: AdminPort, params: p.OneMethod) -> dict[str, bool]:
    """Refuse it."""
    if params.method not in port.registry:
        raise _no_method(params.method)
    port.guard.suspend(params.method, WHY)
    port.events.emit("method.suspended", method=params.method, why=WHY)
    return _OK


async def resume(port: AdminPort, params: p.OneMethod) -> dict[str, bool]:
    """Allow it."""
    if not port.guard.resume(params.method):
        if params.method not in port.registry:
            raise _no_method(params.method)
        raise ReplyError("NOT_SUSPENDED", f"{params.method} is not suspended.")
    port.events.emit("method.resumed", method=params.method)
    return _OK


def _no_method(name: str) -> ReplyError:
    return ReplyError(ErrorCode.METHOD_NOT_FOUND, f"There is no method {name!r}.")


COMMANDS: dict[str, Function] = {
    "methods.list": list_,
    "methods.suspend": suspend,
    "methods.resume": resume,
}
