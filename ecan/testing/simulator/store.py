"""A store of sessions that takes its time, fails, and dies with the process.

Works as the SQLite store does: one batch at a time is written; it *lands* wholly or not
at all; later those who wait are *told*. Between the two a process may die: what landed
is durable although nobody knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from ecan.errors import StoreError, StoreUnavailableError
from ecan.testing.simulator.reads import USUAL_S, Faults, Reads, passed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from random import Random

    from ecan.store import Commit, Snapshot
    from ecan.testing.simulator.disk import Disk
    from ecan.testing.simulator.loop import SimulatedLoop
    from ecan.testing.simulator.model import Model
    from ecan.testing.simulator.trace import Trace


@attrs.define(eq=False)
class _Write:
    """Something to land, and who waits for it."""

    what: str
    land: Callable[[], Any]
    waiter: asyncio.Future[Any]
    commit: Commit | None = None
    outcome: Any = None


class SimulatedStore(Reads):
    """One process's way to the disk; a `SessionStore`."""

    name = "simulated"

    def __init__(
        self,
        disk: Disk,
        loop: SimulatedLoop,
        random: Random,
        faults: Faults,
        trace: Trace,
        model: Model,
    ) -> None:
        super().__init__(disk, loop, random, faults, trace)
        self._model = model
        self._queue: list[_Write] = []
        self._writing = False

    @property
    def trouble(self) -> str | None:
        """See `SessionStore.trouble`."""
        return "the disk is full" if self._faults.broken else None

    async def open(self) -> None:
        """See `SessionStore.open`."""
        await self._disk.memory.open()

    async def close(self) -> None:
        """See `SessionStore.close`."""
        while (self._queue or self._writing) and not self._faults.broken:
            await passed(self._loop, USUAL_S)

    # -- writing -----------------------------------------------------------------------

    async def create(self, snapshot: Snapshot) -> None:
        """See `SessionStore.create`."""
        await self._write(f"create {snapshot.row.sid}", lambda: self._disk.create(snapshot))

    async def delete(self, sid: str, reason: str) -> bool:
        """See `SessionStore.delete`."""
        ended: bool = await self._write(
            f"delete {sid} {reason}", lambda: self._disk.delete(sid, reason)
        )
        return ended

    async def discard_letter(self, crash_id: str) -> bool:
        """See `SessionStore.discard_letter`."""
        self._may_read()
        return await self._disk.memory.discard_letter(crash_id)

    def commit(self, commit: Commit) -> Awaitable[None] | None:
        """See `SessionStore.commit`."""
        if self._loop.dead:
            return self._loop.create_future()
        if self._faults.at_once and not self._faults.broken:
            try:
                self._disk.commit(commit)
            except StoreError as error:
                self._trace.add("store.conflict", f"{describe(commit)}: {type(error).__name__}")
                raise
            self._trace.add("store.landed", describe(commit))
            return None
        knows = self._faults.at_once or self._random.random() < 0.5  # noqa: PLR2004 - or finds out
        if self._faults.broken and knows:
            self._model.failures[commit.sid] += 1
            self._trace.add("store.refused", describe(commit))
            raise StoreUnavailableError("the disk is full")
        return self._write(describe(commit), lambda: self._disk.commit(commit), commit)

    def _write(
        self, what: str, land: Callable[[], Any], commit: Commit | None = None
    ) -> asyncio.Future[Any]:
        write = _Write(what, land, self._loop.create_future(), commit)
        # Nobody need wait for it: an exception that is not asked for is no mistake.
        write.waiter.add_done_callback(lambda done: done.cancelled() or done.exception())
        if not self._loop.dead:
            self._queue.append(write)
            self._go_on()
        return write.waiter

    def _go_on(self) -> None:
        if self._queue and not self._writing:
            self._writing = True
            self._loop.call_later(self._delay_s(), self._land)

    def _land(self) -> None:
        """A batch becomes durable, wholly or not at all."""
        size = self._random.randint(1, len(self._queue))
        batch, self._queue = self._queue[:size], self._queue[size:]
        self._disk.limbo = None
        if self._faults.broken and self._random.random() < 0.5:  # noqa: PLR2004 - ADR 9: nobody knows
            self._disk.limbo = [write.land for write in batch]
        for write in batch:
            if self._faults.broken:
                if write.commit is not None:
                    self._model.failures[write.commit.sid] += 1
                self._trace.add("store.failed", write.what)
                write.outcome = StoreUnavailableError("the disk is full")
                continue
            try:
                write.outcome = write.land()
            except StoreError as error:
                self._trace.add("store.conflict", f"{write.what}: {type(error).__name__}")
                write.outcome = error
            else:
                self._trace.add("store.landed", write.what)
        self._loop.call_later(self._delay_s(), self._tell, batch)

    def _tell(self, batch: list[_Write]) -> None:
        self._writing = False
        for write in batch:
            if write.waiter.done():
                continue
            if isinstance(write.outcome, StoreError):
                write.waiter.set_exception(write.outcome)
            else:
                write.waiter.set_result(write.outcome)
        self._go_on()


def describe(commit: Commit) -> str:
    """A commit in one line."""
    parts = [f"{commit.sid}#{commit.incarnation}"]
    if commit.slots:
        parts.append("slots " + ",".join(sorted(commit.slots)))
    if commit.answer is not None:
        parts.append(f"answer {commit.answer.request_id}")
    if commit.pushes:
        parts.append(f"pushes {commit.pushes[0].seq}-{commit.pushes[-1].seq}")
    if commit.documents:
        parts.append("documents " + ",".join(write.key for write in commit.documents))
    parts += [f"reply {reply.request_id}" for reply in commit.replies]
    parts += [name for name in ("handed_out", "letter", "tokens", "facts") if getattr(commit, name)]
    return " ".join(parts)
