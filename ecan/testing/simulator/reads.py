"""The reading side of the simulated store, and what may be wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from ecan.errors import StoreUnavailableError
from ecan.testing.simulator.chance import delay_s

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from random import Random

    from ecan.store import (
        DocumentPage,
        DocumentRow,
        Ended,
        Expiring,
        LetterRow,
        Order,
        SessionPage,
        SessionRow,
        SlotPage,
        Snapshot,
    )
    from ecan.testing.simulator.disk import Disk
    from ecan.testing.simulator.loop import SimulatedLoop
    from ecan.testing.simulator.trace import Trace

USUAL_S = 0.004
"""An fsync."""

SLOW = 60
"""Times slower, when it is slow."""


@attrs.define
class Faults:
    """What is wrong with the store.

    Attributes:
        broken: nothing can be written.
        unreadable: nothing can be read either.
        slow: everything takes much longer.
        at_once: it is a volatile store, which never lets anybody wait.
    """

    broken: bool = False
    unreadable: bool = False
    slow: bool = False
    at_once: bool = False


class Reads:
    """Reads what has landed; takes its time, and may fail."""

    def __init__(
        self, disk: Disk, loop: SimulatedLoop, random: Random, faults: Faults, trace: Trace
    ) -> None:
        self._disk = disk
        self._loop = loop
        self._random = random
        self._faults = faults
        self._trace = trace

    def _delay_s(self) -> float:
        return delay_s(self._random, USUAL_S * (SLOW if self._faults.slow else 1))

    def _may_read(self) -> None:
        if self._faults.unreadable:
            self._trace.count("store.unreadable")
            raise StoreUnavailableError("the disk cannot be read")

    async def _read(self, what: str) -> None:
        self._may_read()
        if not self._faults.at_once:
            await passed(self._loop, self._delay_s())
        self._may_read()
        self._trace.add("store.read", what)

    async def load(self, sid: str) -> Snapshot | Ended | None:
        """See `SessionStore.load`."""
        await self._read(sid)
        return await self._disk.memory.load(sid)

    async def count(self) -> int:
        """See `SessionStore.count`."""
        await self._read("count")
        return await self._disk.memory.count()

    async def of_user(self, user_id: int) -> list[SessionRow]:
        """See `SessionStore.of_user`."""
        await self._read(f"sessions of user {user_id}")
        return await self._disk.memory.of_user(user_id)

    async def sids_of_user(self, user_id: int) -> Sequence[str]:
        """See `SessionStore.sids_of_user`."""
        await self._read(f"ids of user {user_id}")
        return await self._disk.memory.sids_of_user(user_id)

    async def sessions(
        self,
        limit: int,
        cursor: str | None = None,
        *,
        user_id: int | None = None,
        failed: bool | None = None,
    ) -> SessionPage:
        """See `SessionStore.sessions`."""
        await self._read("sessions")
        return await self._disk.memory.sessions(limit, cursor, user_id=user_id, failed=failed)

    async def slots(self, names: Sequence[str], limit: int, cursor: str | None = None) -> SlotPage:
        """See `SessionStore.slots`."""
        await self._read("slots")
        return await self._disk.memory.slots(names, limit, cursor)

    async def count_by_user(self) -> dict[int, int]:
        """See `SessionStore.count_by_user`."""
        await self._read("sessions by user")
        return await self._disk.memory.count_by_user()

    async def expiring(self, now_at: float, timeout_s: float, limit: int) -> Expiring:
        """See `SessionStore.expiring`."""
        await self._read("expiring")
        return await self._disk.memory.expiring(now_at, timeout_s, limit)

    async def document(self, user_id: int, collection: str, key: str) -> DocumentRow | None:
        """See `SessionStore.document`."""
        await self._read(f"document {user_id} {collection}/{key}")
        return await self._disk.memory.document(user_id, collection, key)

    async def documents(
        self,
        user_id: int,
        collection: str,
        *,
        prefix: str = "",
        order: Order = "key",
        cursor: str | None = None,
        limit: int = 100,
    ) -> DocumentPage:
        """See `SessionStore.documents`."""
        await self._read(f"documents {user_id} {collection}")
        return await self._disk.memory.documents(
            user_id, collection, prefix=prefix, order=order, cursor=cursor, limit=limit
        )

    async def letters(self, limit: int, before: str | None = None) -> Sequence[LetterRow]:
        """See `SessionStore.letters`."""
        await self._read("letters")
        return await self._disk.memory.letters(limit, before)

    async def letter(self, crash_id: str) -> LetterRow | None:
        """See `SessionStore.letter`."""
        await self._read("letter")
        return await self._disk.memory.letter(crash_id)

    async def letter_count(self) -> int:
        """See `SessionStore.letter_count`."""
        return await self._disk.memory.letter_count()


async def passed(loop: SimulatedLoop, seconds: float) -> None:
    """Wait so long."""
    woken = loop.create_future()
    loop.call_later(seconds, _wake, woken)
    await woken


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():  # who waited may have been cancelled
        woken.set_result(None)
