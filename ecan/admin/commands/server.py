"""The server as a whole: how it is, its end, and what happens in it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecan.actors.runner import ThreadStopper
    from ecan.admin import params as p
    from ecan.admin.ports import AdminPort, Function

STALLED_AFTER_S = 1.0
"""A synchronous handler that runs for so long is shown with its stack."""

MAX_STALLED = 20

_OK = {"ok": True}


async def status(port: AdminPort, _params: p.Nothing) -> dict[str, Any]:
    """How the server is."""
    facts = port.status()
    return {
        **facts,
        **port.vitals(),
        "durability": port.settings.durability,
        "give_ups": port.metrics.give_ups,
        "stalled": stalled(port),
    }


def stalled(port: AdminPort) -> list[dict[str, Any]]:
    """Synchronous handlers that run for long, abandoned ones too, the longest first."""
    now = port.clock.mono()
    running = [
        (stopper, now - _since(stopper))
        for stopper in list(port.environment.threads)
        if stopper.started
    ]
    longest = sorted(
        (found for found in running if found[1] >= STALLED_AFTER_S), key=lambda found: -found[1]
    )
    return [
        {
            "sid": stopper.sid,
            "method": stopper.call.spec.name,
            "since_s": round(since_s, 1),
            "abandoned": stopper.abandoned,
            "stack": stopper.stack(),
        }
        for stopper, since_s in longest[:MAX_STALLED]
    ]


def _since(stopper: ThreadStopper) -> float:
    return stopper.call.started_mono or stopper.call.accepted_mono


async def metrics(port: AdminPort, _params: p.Nothing) -> dict[str, str]:
    """The Prometheus metrics; rendered in a thread, as a scrape is."""
    return {"text": (await asyncio.to_thread(port.metrics.render)).decode()}


async def collect(port: AdminPort, _params: p.Nothing) -> dict[str, Any]:
    """A full look for garbage."""
    return port.collect_garbage()


async def drain(port: AdminPort, params: p.Drain) -> dict[str, bool]:
    """As SIGTERM."""
    port.ask_drain(params.timeout)
    return _OK


async def shutdown(port: AdminPort, _params: p.Nothing) -> dict[str, bool]:
    """As a second SIGTERM."""
    port.ask_shutdown()
    return _OK


async def watch(_port: AdminPort, params: p.WatchEvents) -> dict[str, Any]:
    """What is answered before the events; the server of the socket sends them."""
    return {"watching": params.kinds}


COMMANDS: dict[str, Function] = {
    "status": status,
    "metrics": metrics,
    "gc": collect,
    "drain": drain,
    "shutdown": shutdown,
    "events.watch": watch,
}
