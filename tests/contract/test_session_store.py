"""What every session store must do; each store passes this same suite."""

from __future__ import annotations

from collections.abc import AsyncIterator

import attrs
import pytest

from ecan.store import (
    Commit,
    LedgerRow,
    MemoryStore,
    PushRow,
    SessionRow,
    SessionStore,
    Snapshot,
    TokenRow,
)
from ecan.store.sqlite import SqliteStore

STORES = {
    "memory": lambda _folder: MemoryStore(),
    "sqlite": lambda folder: SqliteStore(folder / "sessions.sqlite3"),
}


@pytest.fixture(params=STORES)
async def store(request, tmp_path) -> AsyncIterator[SessionStore]:
    """An open store, empty."""
    made = STORES[request.param](tmp_path)
    await made.open()
    yield made
    await made.close()


def row(sid: str = "s1", **facts) -> SessionRow:
    defaults = {
        "sid": sid,
        "key": sid.encode() * 8,
        "user": {"user_id": 7, "username": "ann", "role": "user"},
        "created_at": 1000.0,
        "last_active_at": 1001.5,
        "incarnation": 1,
        "restarts": 0,
        "failed": False,
        "epoch": "e1",
    }
    return SessionRow(**{**defaults, **facts})


def snapshot(sid: str = "s1", **facts) -> Snapshot:
    defaults = {
        "row": row(sid),
        "seq": 0,
        "slots": {},
        "tokens": (TokenRow(digest=b"t1", expires_at=5000.0),),
        "ledger": (),
        "pushes": (),
    }
    return Snapshot(**{**defaults, **facts})


def answer(request_id: str) -> LedgerRow:
    return LedgerRow(request_id=request_id, fingerprint=b"f", frame=b"{}", at=1002.0)


def change(sid: str = "s1", **facts) -> Commit:
    defaults = {"sid": sid, "incarnation": 1, "slots": {}, "answer": None, "pushes": ()}
    return Commit(**{**defaults, **facts})


async def done(awaitable) -> None:
    """A commit may be done at once or later."""
    if awaitable is not None:
        await awaitable


async def test_what_is_created_is_loaded(store: SessionStore) -> None:
    """A snapshot comes back as it was, a stranger's is not there."""
    made = snapshot(
        slots={"a": b"1"}, ledger=(answer("r1"),), pushes=(PushRow(seq=1, frame=b"p"),), seq=1
    )
    await store.create(made)

    assert await store.load("s1") == made
    assert await store.load("s2") is None
    assert await store.count() == 1


async def test_a_commit_changes_what_it_names_and_nothing_else(store: SessionStore) -> None:
    """P4: slots are set and deleted, the answer and the pushes appended, others untouched."""
    await store.create(snapshot(slots={"keep": b"0", "old": b"1", "set": b"2"}))
    await store.create(snapshot("s2", slots={"set": b"9"}))
    pushes = (PushRow(seq=1, frame=b"p1"), PushRow(seq=2, frame=b"p2"))
    await done(
        store.commit(
            change(
                slots={"old": None, "set": b"3", "new": b"4"}, answer=answer("r1"), pushes=pushes
            )
        )
    )

    loaded = await store.load("s1")
    assert loaded.slots == {"keep": b"0", "set": b"3", "new": b"4"}
    assert loaded.ledger == (answer("r1"),)
    assert loaded.pushes == pushes
    assert loaded.seq == 2
    assert loaded.tokens == snapshot().tokens
    assert (await store.load("s2")).slots == {"set": b"9"}


async def test_commits_of_a_session_land_in_order(store: SessionStore) -> None:
    """Many at once, none awaited in between: the last value and all numbers are there."""
    await store.create(snapshot())
    landing = [
        store.commit(
            change(
                slots={"n": str(n).encode()},
                answer=answer(f"r{n}"),
                pushes=(PushRow(seq=n, frame=b"p%d" % n),),
            )
        )
        for n in range(1, 51)
    ]
    for commit in landing:
        await done(commit)

    loaded = await store.load("s1")
    assert loaded.slots == {"n": b"50"}
    assert [push.seq for push in loaded.pushes] == list(range(1, 51))
    assert [entry.request_id for entry in loaded.ledger] == [f"r{n}" for n in range(1, 51)]
    assert loaded.seq == 50


async def test_tokens_are_replaced_as_a_whole(store: SessionStore) -> None:
    """P15: after a commit with tokens only those are left."""
    await store.create(snapshot())
    fresh = (TokenRow(digest=b"t2", expires_at=6000.0), TokenRow(digest=b"t3", expires_at=1.0))
    await done(store.commit(change(tokens=fresh)))
    assert (await store.load("s1")).tokens == fresh

    await done(store.commit(change(tokens=())))
    assert (await store.load("s1")).tokens == ()


async def test_save_replaces_everything(store: SessionStore) -> None:
    """What was there before a save and is not in it is gone."""
    await store.create(snapshot(slots={"old": b"1"}, ledger=(answer("r1"),)))
    saved = snapshot(row=row(incarnation=3, failed=True), slots={"new": b"2"}, seq=9)
    await store.save(saved)

    assert await store.load("s1") == saved


async def test_ledger_and_pushes_are_bounded(store: SessionStore) -> None:
    """P8: of 300 answers the last 256 are kept, of 1100 pushes the last 1000."""
    await store.create(snapshot())
    for n in range(300):
        await done(store.commit(change(answer=answer(f"r{n}"))))
    pushes = tuple(PushRow(seq=n, frame=b"p") for n in range(1, 1101))
    await done(store.commit(change(pushes=pushes)))

    loaded = await store.load("s1")
    assert [entry.request_id for entry in loaded.ledger] == [f"r{n}" for n in range(44, 300)]
    assert [push.seq for push in loaded.pushes] == list(range(101, 1101))
    assert loaded.seq == 1100


async def test_a_deleted_session_is_gone_and_stays_gone(store: SessionStore) -> None:
    """Deleting twice is fine, and a late commit does not bring it back."""
    await store.create(snapshot())
    await store.delete("s1")
    await store.delete("s1")
    await done(store.commit(change(slots={"a": b"1"})))

    assert await store.load("s1") is None
    assert await store.count() == 0


async def test_what_is_loaded_is_a_copy(store: SessionStore) -> None:
    """Changing a loaded snapshot changes nothing in the store."""
    await store.create(snapshot(slots={"a": b"1"}))
    loaded = await store.load("s1")
    loaded.slots["a"] = b"2"

    assert (await store.load("s1")).slots == {"a": b"1"}
    assert attrs.evolve(loaded, slots={}) != loaded
