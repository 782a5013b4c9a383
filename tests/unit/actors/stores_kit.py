"""A store for tests: the one in memory, with commits and calls that wait or fail as told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import attrs

from ecan.errors import StoreUnavailableError
from ecan.store import Commit, MemoryStore


def has_answer(commit: Commit) -> bool:
    """Commits of requests; notices, facts and incarnations are none."""
    return commit.answer is not None


def everything(commit: Commit) -> bool:
    """Every commit."""
    return True


def begins(incarnation: int) -> Callable[[Commit], bool]:
    """The first commit of an incarnation, which makes its number durable."""
    return lambda commit: commit.incarnation == incarnation and commit.facts is not None


@attrs.define(eq=False)
class Held:
    """A commit on its way to the disk."""

    commit: Commit
    landing: asyncio.Future[None]

    def land(self) -> None:
        """It is durable, once those before it are."""
        if not self.landing.done():
            self.landing.set_result(None)

    def fail(self, error: Exception | None = None) -> None:
        """The disk refuses."""
        self.landing.set_exception(error or StoreUnavailableError("disk full"))


class KitStore(MemoryStore):
    """The memory store, until told otherwise.

    Commits that ``holds`` picks land when the test says so; those of the same session
    that come behind them land after them, as the protocol has it.

    Attributes:
        fail: names of methods that raise.
        wait: methods that wait for an event first, by name.
        holds: which commits wait; None: none.
        held: they, in the order of the calls.
        committed: what has landed, in order.
        error: makes what ``fail`` raises.
    """

    name = "memory"

    def __init__(self, holds: Callable[[Commit], bool] | None = None) -> None:
        super().__init__()
        self.fail: set[str] = set()
        self.wait: dict[str, asyncio.Event] = {}
        self.holds = holds
        self.held: list[Held] = []
        self.committed: list[Commit] = []
        self.error: Callable[[str], Exception] = StoreUnavailableError
        self._last: dict[str, asyncio.Task[None]] = {}
        self._creating: dict[str, asyncio.Event] = {}

    # -- commits -----------------------------------------------------------------------

    def commit(self, commit: Commit) -> Any:
        if "commit" in self.fail:
            raise self.error("commit refused")
        before = self._last.get(commit.sid)
        if before is not None and before.done():
            before = None
        if before is None and not (self.holds is not None and self.holds(commit)):
            return self._land(commit)
        landing = asyncio.get_running_loop().create_future()
        held = Held(commit, landing)
        if self.holds is not None and self.holds(commit):
            self.held.append(held)
        else:
            held.land()
        self._last[commit.sid] = asyncio.ensure_future(self._land_later(held, before))
        return self._last[commit.sid]

    def _land(self, commit: Commit) -> None:
        super().commit(commit)
        self.committed.append(commit)

    async def _land_later(self, held: Held, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        await held.landing
        self._land(held.commit)

    def release(self) -> None:
        """From now on commits land at once, those on their way too."""
        self.holds = None
        for held in self.held:
            held.land()

    def answers(self) -> list[str]:
        """Request ids whose answers have landed."""
        return [commit.answer.request_id for commit in self.committed if commit.answer is not None]

    # -- all else ----------------------------------------------------------------------

    async def _pass(self, name: str) -> None:
        if name in self.wait:
            await self.wait[name].wait()
        if name in self.fail:
            raise self.error(f"{name} refused")

    async def create(self, snapshot: Any) -> None:
        sid = snapshot.row.sid
        created = self._creating[sid] = asyncio.Event()
        try:
            await self._pass("create")
            await super().create(snapshot)
        finally:
            del self._creating[sid]
            created.set()

    async def load(self, sid: str) -> Any:
        snapshot = await super().load(sid)
        await self._pass("load")
        return snapshot

    async def delete(self, sid: str, reason: str) -> bool:
        if sid in self._creating:  # as every store: what comes behind lands behind
            await self._creating[sid].wait()
        if sid in self._last and not self._last[sid].done():
            await asyncio.wait([self._last[sid]])
        await self._pass("delete")
        return await super().delete(sid, reason)

    async def of_user(self, user_id: int) -> Any:
        await self._pass("of_user")
        return await super().of_user(user_id)

    async def sids_of_user(self, user_id: int) -> Any:
        await self._pass("sids_of_user")
        return await super().sids_of_user(user_id)

    async def expiring(self, now_at: float, timeout_s: float, limit: int) -> Any:
        found = await super().expiring(now_at, timeout_s, limit)
        await self._pass("expiring")
        return found

    async def document(self, user_id: int, collection: str, key: str) -> Any:
        await self._pass("document")
        return await super().document(user_id, collection, key)

    async def documents(self, user_id: int, collection: str, **options: Any) -> Any:
        await self._pass("documents")
        return await super().documents(user_id, collection, **options)
