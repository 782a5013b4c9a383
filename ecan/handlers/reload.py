"""Changed handlers are taken without losing a session: import, rehearse, switch (ADR 12)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import attrs

from ecan.errors import ReloadError, StoreError
from ecan.handlers.migrations import Rehearsal
from ecan.observability import get_logger

if TYPE_CHECKING:
    from ecan.handlers.migrations import Migrations
    from ecan.handlers.modules import HandlerModules
    from ecan.handlers.registry import Registry
    from ecan.runtime import ProcessLane, WorkerThreads
    from ecan.store import SessionStore

PAGE = 500
"""Sessions whose slots are rehearsed in one piece."""

PAGE_TIMEOUT_S = 30.0
"""Migrations that take longer for a page hang, or would be felt at every first touch."""

log = get_logger("ecan.handlers")


@attrs.frozen(kw_only=True)
class Reloaded:
    """What a reload did.

    Attributes:
        reloaded: modules that were imported anew.
        added, changed, removed: methods; changed ones run newly imported code.
        migrated: by slot, how many stored ones will be migrated when they are first touched.
    """

    reloaded: list[str] = attrs.field(factory=list)
    added: list[str] = attrs.field(factory=list)
    changed: list[str] = attrs.field(factory=list)
    removed: list[str] = attrs.field(factory=list)
    migrated: dict[str, int] = attrs.field(factory=dict)

    def as_answer(self) -> dict[str, Any]:
        """As the admin socket answers it."""
        return {
            "reloaded": self.reloaded,
            "methods": {"added": self.added, "changed": self.changed, "removed": self.removed},
            "migrated": self.migrated,
        }


class Reloader:
    """Takes changed handlers into a running server. Runs on: the loop."""

    def __init__(
        self,
        modules: HandlerModules,
        registry: Registry,
        store: SessionStore,
        workers: WorkerThreads,
        processes: ProcessLane,
    ) -> None:
        self._modules = modules
        self._registry = registry
        self._store = store
        self._workers = workers
        self._processes = processes
        processes.setup = modules.setup
        self._one_at_a_time = asyncio.Lock()

    async def reload(self) -> Reloaded:
        """Load what changed on the disk; later requests run it.

        Raises:
            ReloadError: why nothing was changed.
        """
        async with self._one_at_a_time:
            try:
                return await self._reload()
            except ReloadError as error:
                log.warning("handlers.not_reloaded", problem=str(error))
                raise

    async def _reload(self) -> Reloaded:
        fresh = self._modules.load()
        if fresh is None:
            return Reloaded()
        migrated = await self._rehearse(fresh.registry.migrations)
        # RACE: no await from here on: no request meets half of the switch.
        before = {spec.name: spec.function for spec in self._registry}
        fresh.install()
        self._registry.replace_by(fresh.registry)
        self._modules.installed(fresh)
        self._processes.renew(self._modules.setup)
        after = {spec.name: spec.function for spec in self._registry}
        done = Reloaded(
            reloaded=sorted(fresh.modules),
            added=sorted(after.keys() - before.keys()),
            changed=sorted(n for n in after if n in before and after[n] is not before[n]),
            removed=sorted(before.keys() - after.keys()),
            migrated=migrated,
        )
        log.info("handlers.reloaded", **done.as_answer())
        return done

    async def _rehearse(self, migrations: Migrations) -> dict[str, int]:
        """Migrate all stored slots into nothing; how many there are of each."""
        rehearsal = Rehearsal(migrations, self._registry.migrations)
        if not rehearsal.migrations.by_slot:
            return {}
        cursor: str | None = None
        while True:
            try:
                page = await self._store.slots(rehearsal.names, PAGE, cursor)
            except StoreError as error:
                raise ReloadError(f"the stored slots cannot be read: {error}", {}) from error
            await self._look_at(rehearsal, page.sessions)
            cursor = page.cursor
            if cursor is None:
                break
        if rehearsal.failed:
            problems = [attrs.asdict(problem) for problem in rehearsal.problems]
            first = rehearsal.problems[0]
            raise ReloadError(
                f"{rehearsal.failed} stored slots would not migrate; the first one is of session"
                f" {first.sid}: {first.error}",
                {"problems": problems, "failed": rehearsal.failed},
            )
        return rehearsal.behind

    async def _look_at(self, rehearsal: Rehearsal, sessions: Any) -> None:
        """In a thread: a step of the author's may hang."""
        job = self._workers.run(rehearsal.look_at, sessions)
        try:
            async with asyncio.timeout(PAGE_TIMEOUT_S):
                await job.future
        except TimeoutError:
            job.abandon()
            raise ReloadError(
                f"the migrations of {len(sessions)} sessions took longer than {PAGE_TIMEOUT_S:g} s",
                {},
            ) from None
