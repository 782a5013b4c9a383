"""A server and a session that only remember what they were asked."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from ecan.config import Settings
from ecan.handlers.context import ConnectionContext, User, UserContext
from ecan.handlers.migrations import NO_MIGRATIONS
from ecan.handlers.registry import MethodSpec, Registry
from ecan.store import Commit, Facts, MemoryStore, SessionRow, Snapshot


class FakeSessions:
    def __init__(self) -> None:
        self.rows: dict[int, list[dict[str, Any]]] = {1: [{"sid": "s1"}, {"sid": "s2"}]}
        self.closed: list[tuple[str, str]] = []
        self.resumed: list[tuple[Any, Any, Any]] = []
        self.close_finds = True

    async def of_user(self, user_id: int) -> list[dict[str, Any]]:
        return self.rows.get(user_id, [])

    async def close(self, sid: str, reason: str) -> bool:
        self.closed.append((sid, reason))
        return self.close_finds

    async def resume(self, ctx: Any, last_seq: Any, epoch: Any) -> dict[str, Any]:
        self.resumed.append((ctx.session_id, last_seq, epoch))
        return {"status": "resumed"}

    def count(self) -> int:
        return 5


class FakeServer:
    def __init__(self, registry: Registry | None = None) -> None:
        self.settings = Settings(mode="web")
        self.registry = registry or Registry()
        self.sessions = FakeSessions()
        self.store = MemoryStore()
        self.accounts = None
        self.draining = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def status(self) -> dict[str, Any]:
        status = "draining" if self.draining else "healthy"
        return {"status": status, "sessions": 5, "methods": {"ping": 1}}

    def is_draining(self) -> bool:
        return self.draining


class FakeSession:
    sid = "s1"

    def __init__(self, store: MemoryStore, role: str = "user", user_id: int = 1) -> None:
        self.user = User(user_id=user_id, username="ann", role=role)
        self.store = store
        self.reads: list[tuple[str, str | None]] = []
        self.ended = ""
        self.kept: list[float | None] = []
        self.progressed: list[Any] = []

    def info(self, ctx: Any) -> dict[str, Any]:
        return {"sid": self.sid}

    def end(self, ctx: Any, reason: str) -> None:
        ctx.end_reason = reason
        self.ended = reason

    async def read_document(self, collection: str, key: str) -> Any:
        self.reads.append((collection, key))
        return await self.store.document(self.user.user_id, collection, key)

    async def read_documents(self, collection: str, **options: Any) -> Any:
        self.reads.append((collection, None))
        return await self.store.documents(self.user.user_id, collection, **options)

    def brief(self) -> dict[str, Any]:
        return {"tabs": 2, "incarnation": 3, "restarts": 1}

    def keep(self, seconds: float | None) -> dict[str, Any]:
        self.kept.append(seconds)
        return {"kept": seconds}

    def cancel(self, request_id: str) -> str:
        return "cancelling" if request_id == "running" else "unknown"

    def progress(self, ctx: Any, result: Any) -> None:
        self.progressed.append(result)

    async def call(self, ctx: Any, method: str, params: Any, timeout_s: float | None) -> Any:
        return [method, params, timeout_s]


def connection_ctx(server: FakeServer, method: str = "m") -> ConnectionContext:
    return ConnectionContext(
        server,  # type: ignore[arg-type]
        method,
        "1",
        address="127.0.0.1",
        user_agent="test",
        session_id="secret-id",
        token="secret-token",
    )


def user_ctx(
    server: FakeServer,
    committed: dict[str, bytes] | None = None,
    *,
    role: str = "user",
    user_id: int = 1,
    locked: str | None = None,
    reads: bool = False,
) -> UserContext:
    return UserContext(
        server,  # type: ignore[arg-type]
        SimpleNamespace(name="m", reads=reads, locked=locked, migrations=NO_MIGRATIONS),  # type: ignore[arg-type]
        "1",
        session=FakeSession(server.store, role, user_id),  # type: ignore[arg-type]
        slots=committed or {},
        incarnation=1,
        deadline_mono=0.0,
    )


async def committed(ctx: UserContext) -> None:
    """The documents of a request are in the store, as after its commit.

    Raises:
        ConflictError: what it read is no longer so.
    """
    user = ctx.user
    row = SessionRow(
        sid=f"of {user.user_id}",
        key=b"",
        user={"user_id": user.user_id, "username": user.username},
        created_at=0.0,
        incarnation=1,
        epoch="e",
        facts=Facts(last_active_at=0.0),
    )
    store = ctx.server.store  # type: ignore[attr-defined]
    await store.create(Snapshot(row=row))
    store.commit(
        Commit(
            sid=row.sid,
            incarnation=1,
            user_id=user.user_id,
            checks=ctx.documents.as_checks(),
            documents=ctx.documents.as_writes(),
        )
    )


def run(spec: MethodSpec, ctx: Any, params: Any = None) -> Any:
    """Call a handler as the server does: structure, then the function's own signature."""
    value = spec.structure(spec.without_credentials(params))
    args = [ctx] if spec.takes_context else []
    if spec.params_type is not None:
        args.append(value)
    return spec.function(*args)
