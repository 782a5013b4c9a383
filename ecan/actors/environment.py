"""What every session's actor shares: handed down by the composition root, never imported."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from ecan.actors.budgets import Budgets
from ecan.observability import EventBus

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ecan.actors.call import Call
    from ecan.actors.cell import Cell
    from ecan.actors.runner import ThreadStopper
    from ecan.config import Settings
    from ecan.handlers.ports import Server
    from ecan.protocol.frames import Peer
    from ecan.runtime import Clock, ProcessLane, StallWatchdog, WorkerThreads
    from ecan.store import SessionStore


class Observer(Protocol):
    """Where finished requests are counted."""

    def __call__(self, call: Call, status: str) -> None:
        """Count one answered request."""


@attrs.define(eq=False)
class Environment:
    """The world of a session's actor.

    Attributes:
        tell_supervisor: puts a message into the supervisor's mailbox; loop only.
        describe: what `session.info` says of a cell to a tab.
        expires_in_s: seconds until the session is closed as idle.
        observe: counts an answered request.
        events: what happens, for operators who watch.
        threads: handlers in worker threads, abandoned ones too.
        budgets: what a session may use.
    """

    loop: asyncio.AbstractEventLoop
    clock: Clock
    settings: Settings
    store: SessionStore
    server: Server
    workers: WorkerThreads
    processes: ProcessLane
    watchdog: StallWatchdog
    observe: Observer
    tell_supervisor: Callable[[Any], None]
    describe: Callable[[Cell, Peer | None], dict[str, Any]]
    expires_in_s: Callable[[Cell], float]
    _thread_id: int = attrs.field(init=False)
    events: EventBus = attrs.field(
        default=attrs.Factory(lambda self: EventBus(self.clock.now), takes_self=True)
    )
    threads: set[ThreadStopper] = attrs.field(factory=set)
    budgets: Budgets = attrs.field(
        default=attrs.Factory(lambda self: Budgets(self.settings, self.events), takes_self=True)
    )

    def __attrs_post_init__(self) -> None:
        self._thread_id = threading.get_ident()

    def on_loop(self, function: Callable[..., None], *args: Any) -> None:
        """Run a function on the loop, now if this is its thread, else soon."""
        if threading.get_ident() == self._thread_id:
            function(*args)
        else:
            self.loop.call_soon_threadsafe(function, *args)
