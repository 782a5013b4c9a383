"""What every session store must do; each store passes this same suite.

Another store joins with one line in `STORES`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import attrs
import pytest

from ecan.errors import ConflictError, IdUsedError, StoreError
from ecan.store import (
    Commit,
    DocumentCheck,
    DocumentPage,
    DocumentRow,
    DocumentWrite,
    Ended,
    Expiring,
    Facts,
    LedgerRow,
    LetterRow,
    MemoryStore,
    PushRow,
    ReplyRow,
    SessionPage,
    SessionRow,
    SessionStore,
    Snapshot,
    TokenRow,
)
from ecan.store import rows as limits
from ecan.store.rows import id_hash
from ecan.store.sqlite import SqliteStore

STORES = {
    "memory": lambda _folder: MemoryStore(),
    "sqlite-commit": lambda folder: SqliteStore(folder / "s.sqlite3"),
    "sqlite-interval": lambda folder: SqliteStore(folder / "s.sqlite3", durability="interval"),
    "sqlite-off": lambda folder: SqliteStore(folder / "s.sqlite3", durability="off"),
}


@pytest.fixture(params=STORES)
async def store(request, tmp_path) -> AsyncIterator[SessionStore]:
    """An open store, empty."""
    made = STORES[request.param](tmp_path)
    await made.open()
    yield made
    await made.close()


def facts(last_active_at: float = 1001.5, **others) -> Facts:
    return Facts(last_active_at=last_active_at, **others)


def row(sid: str = "s1", **changes) -> SessionRow:
    defaults = {
        "sid": sid,
        "key": sid.encode() * 8,
        "user": {"user_id": 7, "username": "ann", "role": "user"},
        "created_at": 1000.0,
        "incarnation": 1,
        "epoch": "e1",
        "facts": facts(),
    }
    return SessionRow(**{**defaults, **changes})


def snapshot(sid: str = "s1", **changes) -> Snapshot:
    return Snapshot(**{"row": row(sid), **changes})


def answer(request_id: str) -> LedgerRow:
    return LedgerRow(request_id=request_id, fingerprint=b"f", frame=b"{}", at=1002.0)


def letter(n: int = 1, **changes) -> LetterRow:
    defaults = {
        "crash_id": f"c{n}",
        "at": 1000.0 + n,
        "sid": "s1",
        "user_id": 7,
        "username": "ann",
        "method": "debug.crash",
        "request_id": f"r{n}",
        "incarnation": 2,
        "params": b'{"a":1}',
        "error": "ValueError: ü",
        "traceback": "Traceback\n…",
        "context": {"cart": b"\x00\xff", "n": b""},
    }
    return LetterRow(**{**defaults, **changes})


def put(key: str, data: bytes = b"1", collection: str = "notes") -> DocumentWrite:
    return DocumentWrite(collection=collection, key=key, data=data)


def drop(key: str, collection: str = "notes") -> DocumentWrite:
    return DocumentWrite(collection=collection, key=key, data=None)


def check(key: str | None, version: int, collection: str = "notes") -> DocumentCheck:
    return DocumentCheck(collection=collection, key=key, version=version)


async def commit(store: SessionStore, sid: str = "s1", incarnation: int = 1, **changes) -> None:
    """A commit may be done at once or later."""
    landing = store.commit(Commit(sid=sid, incarnation=incarnation, **changes))
    if landing is not None:
        await landing


async def write(store: SessionStore, *writes: DocumentWrite, user_id: int = 7) -> None:
    await commit(store, user_id=user_id, documents=writes)


async def keys(store: SessionStore, **how) -> list[str]:
    page = await store.documents(7, "notes", **how)
    return [document.key for document in page.documents]


async def all_pages(store: SessionStore, limit: int, **how) -> list[str]:
    found, cursor = [], None
    while True:
        page = await store.documents(7, "notes", cursor=cursor, limit=limit, **how)
        found += [document.key for document in page.documents]
        cursor = page.cursor
        if cursor is None:
            return found
        assert len(page.documents) == limit


# -- sessions ----------------------------------------------------------------------------


async def test_it_has_a_name_and_no_trouble(store: SessionStore) -> None:
    assert store.name in {"memory", "sqlite", "redis"}
    assert store.trouble is None


async def test_what_is_created_is_loaded(store: SessionStore) -> None:
    """A snapshot comes back as it was, a stranger's is not there."""
    made = snapshot(
        row=row(facts=facts(5.5, keep_until_at=9.5, restarts=2, failed=True)),
        slots={"a": b"1"},
        tokens=(TokenRow(digest=b"t1", expires_at=5000.0),),
        ledger=(answer("r1"),),
        used=(id_hash("old"), id_hash("older")),
        pushes=(PushRow(seq=1, frame=b"p"),),
        replies=(ReplyRow(request_id="r1", seq=1, frame=b"{}"),),
        seq=1,
    )
    await store.create(made)

    assert await store.load("s1") == made
    assert await store.load("s2") is None
    assert await store.count() == 1


async def test_a_commit_changes_what_it_names_and_nothing_else(store: SessionStore) -> None:
    """P4: slots are set and deleted, the answer and the pushes appended, others untouched."""
    tokens = (TokenRow(digest=b"t1", expires_at=5000.0),)
    await store.create(snapshot(slots={"keep": b"0", "old": b"1", "set": b"2"}, tokens=tokens))
    await store.create(snapshot("s2", slots={"set": b"9"}))
    pushes = (PushRow(seq=1, frame=b"p1"), PushRow(seq=2, frame=b"p2"))
    slots = {"old": None, "set": b"3", "new": b"4"}
    await commit(store, slots=slots, answer=answer("r1"), pushes=pushes)

    assert await store.load("s1") == snapshot(
        slots={"keep": b"0", "set": b"3", "new": b"4"},
        tokens=tokens,
        ledger=(answer("r1"),),
        pushes=pushes,
        seq=2,
    )
    assert await store.load("s2") == snapshot("s2", slots={"set": b"9"})


async def test_commits_of_a_session_land_in_order(store: SessionStore) -> None:
    """Many at once, none awaited in between: the last value and all numbers are there."""
    await store.create(snapshot())
    landing = [
        store.commit(
            Commit(
                sid="s1",
                incarnation=1,
                slots={"n": str(n).encode()},
                answer=answer(f"r{n}"),
                pushes=(PushRow(seq=n, frame=b"p%d" % n),),
            )
        )
        for n in range(1, 51)
    ]
    for landed in landing:
        if landed is not None:
            await landed

    loaded = await store.load("s1")
    assert loaded.slots == {"n": b"50"}
    assert [push.seq for push in loaded.pushes] == list(range(1, 51))
    assert [entry.request_id for entry in loaded.ledger] == [f"r{n}" for n in range(1, 51)]
    assert loaded.seq == 50


async def test_tokens_are_replaced_as_a_whole(store: SessionStore) -> None:
    """P15: after a commit with tokens only those are left."""
    await store.create(snapshot(tokens=(TokenRow(digest=b"t1", expires_at=1.0),)))
    fresh = (TokenRow(digest=b"t2", expires_at=6000.0), TokenRow(digest=b"t3", expires_at=1.0))
    await commit(store, tokens=fresh)
    assert (await store.load("s1")).tokens == fresh

    await commit(store, tokens=())
    assert (await store.load("s1")).tokens == ()


async def test_facts_are_replaced_as_a_whole(store: SessionStore) -> None:
    await store.create(snapshot())
    changed = facts(2000.0, keep_until_at=3000.0, restarts=4, failed=True)
    await commit(store, facts=changed)
    await commit(store, slots={"a": b"1"})
    assert (await store.load("s1")).row == row(facts=changed)


async def test_the_highest_incarnation_is_kept(store: SessionStore) -> None:
    """A late commit of an earlier one does not take it back, also among others at once."""
    await store.create(snapshot())
    await commit(store, incarnation=4)
    await commit(store, incarnation=2, slots={"late": b"1"})
    loaded = await store.load("s1")
    assert (loaded.row.incarnation, loaded.slots) == (4, {"late": b"1"})


async def test_pushes_are_bounded(store: SessionStore) -> None:
    """P12: of 1100 pushes the last 1000 are kept, at once or one by one."""
    await store.create(snapshot())
    pushes = tuple(PushRow(seq=n, frame=b"p") for n in range(1, 1101))
    await commit(store, pushes=pushes)
    loaded = await store.load("s1")
    assert [push.seq for push in loaded.pushes] == list(range(101, 1101))

    for n in range(1101, 1171):
        await commit(store, pushes=(PushRow(seq=n, frame=b"p"),))
    loaded = await store.load("s1")
    assert [push.seq for push in loaded.pushes] == list(range(171, 1171))
    assert loaded.seq == 1170


async def test_kept_replies_come_back_until_they_are_handed_out(store: SessionStore) -> None:
    """P12: handing out forgets those from before, not the one of the same commit."""
    replies = [ReplyRow(request_id=f"r{n}", seq=n, frame=b"%d" % n) for n in range(6)]
    await store.create(snapshot(replies=(replies[0],)))
    await commit(store, replies=(replies[1], replies[2]))
    await commit(store, replies=(replies[3],))
    assert (await store.load("s1")).replies == tuple(replies[:4])

    await commit(store, handed_out=True, replies=(replies[4],))
    await commit(store, replies=(replies[5],))
    assert (await store.load("s1")).replies == tuple(replies[4:])

    await commit(store, handed_out=True)
    assert (await store.load("s1")).replies == ()


async def test_kept_replies_are_bounded(store: SessionStore) -> None:
    await store.create(snapshot())
    for first in range(0, limits.MAX_REPLY_ROWS + 20, 10):
        replies = [ReplyRow(request_id=f"r{n}", seq=0, frame=b"") for n in range(first, first + 10)]
        await commit(store, replies=tuple(replies))
    kept = (await store.load("s1")).replies
    assert (len(kept), kept[0].request_id) == (limits.MAX_REPLY_ROWS, "r20")


async def test_a_session_made_again_is_another_one(store: SessionStore) -> None:
    """Nothing of the first is left, not even the request ids it used."""
    await store.create(snapshot(slots={"old": b"1"}, ledger=(answer("r1"),), used=(1,)))
    made = snapshot(row=row(incarnation=3), slots={"new": b"2"}, seq=9)
    await store.create(made)
    assert await store.load("s1") == made

    await commit(store, incarnation=3, answer=answer("r1"))
    assert (await store.load("s1")).ledger == (answer("r1"),)


async def test_what_is_loaded_is_a_copy(store: SessionStore) -> None:
    """Changing a loaded snapshot changes nothing in the store."""
    await store.create(snapshot(slots={"a": b"1"}))
    loaded = await store.load("s1")
    loaded.slots["a"] = b"2"

    assert (await store.load("s1")).slots == {"a": b"1"}
    assert attrs.evolve(loaded, slots={}) != loaded


# -- answers -----------------------------------------------------------------------------


async def fill(store: SessionStore, answers: int, first: int = 0) -> None:
    for n in range(first, first + answers):
        await commit(store, answer=answer(f"r{n}"))


@pytest.mark.parametrize("extra", [0, 1, limits.LEDGER_SLACK, limits.LEDGER_SLACK + 1, 200])
async def test_the_ledger_has_the_newest_answers_and_hashes_of_the_others(
    store: SessionStore, extra: int
) -> None:
    """P10: whenever the store trims, what is loaded has 256 answers and knows of the rest."""
    await store.create(snapshot())
    await fill(store, limits.MAX_LEDGER_ROWS + extra)

    loaded = await store.load("s1")
    newest = [f"r{n}" for n in range(extra, limits.MAX_LEDGER_ROWS + extra)]
    assert [entry.request_id for entry in loaded.ledger] == newest
    assert loaded.used == tuple(id_hash(f"r{n}") for n in range(extra))


async def test_an_id_older_than_the_ledger_is_refused_with_all_of_its_commit(
    store: SessionStore,
) -> None:
    """P10: nothing of it is applied; the commits around it land."""
    await store.create(snapshot())
    await fill(store, limits.MAX_LEDGER_ROWS + limits.LEDGER_SLACK + 1)
    before = await store.load("s1")
    for old in ("r0", "r1"):
        with pytest.raises(IdUsedError):
            await commit(
                store,
                incarnation=9,
                slots={"a": b"1"},
                answer=answer(old),
                pushes=(PushRow(seq=1, frame=b""),),
                facts=facts(9999.0),
                letter=letter(),
                user_id=7,
                documents=(put("k"),),
            )
    assert await store.load("s1") == before
    assert await store.letter_count() == 0
    assert await store.document(7, "notes", "k") is None

    await commit(store, answer=answer("new"), slots={"a": b"2"})
    assert (await store.load("s1")).slots == {"a": b"2"}


async def test_used_ids_that_came_with_the_session_are_refused(store: SessionStore) -> None:
    await store.create(snapshot(used=(id_hash("old"),)))
    with pytest.raises(IdUsedError):
        await commit(store, answer=answer("old"))
    assert (await store.load("s1")).ledger == ()


async def test_ids_are_used_per_session(store: SessionStore) -> None:
    await store.create(snapshot(used=(id_hash("old"),)))
    await store.create(snapshot("s2"))
    await commit(store, "s2", answer=answer("old"))
    assert (await store.load("s2")).ledger == (answer("old"),)


async def test_at_most_so_many_hashes_are_loaded_the_newest(store: SessionStore) -> None:
    """All of them are refused nevertheless."""
    used = tuple(range(limits.MAX_USED_LOADED))
    await store.create(snapshot(used=(id_hash("oldest"), *used)))
    assert (await store.load("s1")).used == used
    with pytest.raises(IdUsedError):
        await commit(store, answer=answer("oldest"))


# -- ends --------------------------------------------------------------------------------


async def test_a_deleted_session_is_gone_and_its_reason_is_known(store: SessionStore) -> None:
    """A late commit does not bring it back, and nothing else of that commit happens."""
    await store.create(snapshot())
    await store.create(snapshot("s2"))
    assert await store.delete("s1", "logout") is True
    await commit(
        store,
        slots={"a": b"1"},
        answer=answer("r1"),
        letter=letter(),
        user_id=7,
        checks=(check("k", 99),),
        documents=(put("k"),),
    )

    assert await store.load("s1") == Ended(reason="logout")
    assert await store.count() == 1
    assert await store.of_user(7) == [row("s2")]
    assert await store.letter_count() == 0
    assert await store.document(7, "notes", "k") is None


async def test_the_last_reason_is_kept_also_of_a_session_that_never_was(
    store: SessionStore,
) -> None:
    assert await store.delete("s1", "killed") is False
    assert await store.load("s1") == Ended(reason="killed")
    assert await store.delete("s1", "idle") is False
    assert await store.load("s1") == Ended(reason="idle")


async def test_a_session_made_after_its_end_is_there(store: SessionStore) -> None:
    await store.delete("s1", "killed")
    await store.create(snapshot())
    assert await store.load("s1") == snapshot()


async def test_reasons_are_bounded(store: SessionStore, monkeypatch) -> None:
    """The newest are kept."""
    for module in ("memory", "sqlite_sessions"):
        monkeypatch.setattr(f"ecan.store.{module}.MAX_ENDED", 5)
    for n in range(8):
        await store.delete(f"s{n}", "idle")
    known = [await store.load(f"s{n}") is not None for n in range(8)]
    assert known == [False] * 3 + [True] * 5


# -- many sessions -----------------------------------------------------------------------


async def test_sessions_of_a_user_oldest_first(store: SessionStore) -> None:
    """With their facts as committed."""
    for n, user_id in enumerate([7, 8, 7, 7]):
        user = {"user_id": user_id, "username": "x"}
        await store.create(snapshot(row=row(f"s{n}", user=user, created_at=1000.0 - n)))
    await commit(store, "s2", incarnation=5, facts=facts(3000.0, restarts=1))
    await store.delete("s0", "logout")

    found = await store.of_user(7)
    assert [session.sid for session in found] == ["s3", "s2"]
    assert found[1].facts == facts(3000.0, restarts=1)
    assert found[1].incarnation == 5
    assert await store.of_user(9) == []
    assert set(await store.sids_of_user(7)) == {"s3", "s2"}
    assert not await store.sids_of_user(9)


async def idle(store: SessionStore, **sessions: Facts) -> None:
    for sid, fact in sessions.items():
        await store.create(snapshot(row=row(sid, facts=fact)))


async def test_nothing_expires_in_an_empty_store(store: SessionStore) -> None:
    assert await store.expiring(1e9, 1.0, 10) == Expiring(sids=(), next_at=None)


async def test_idle_sessions_the_longest_first_and_when_the_next_one_will_be(
    store: SessionStore,
) -> None:
    await idle(store, a=facts(30.0), b=facts(10.0), c=facts(20.0), d=facts(90.0))
    assert await store.expiring(19.9, 10.0, 10) == Expiring(sids=(), next_at=20.0)
    assert await store.expiring(20.0, 10.0, 10) == Expiring(sids=("b",), next_at=30.0)
    assert await store.expiring(45.0, 10.0, 10) == Expiring(sids=("b", "c", "a"), next_at=100.0)
    assert await store.expiring(500.0, 10.0, 10) == Expiring(
        sids=("b", "c", "a", "d"), next_at=None
    )


async def test_with_more_than_the_limit_the_next_one_is_there_already(
    store: SessionStore,
) -> None:
    await idle(store, a=facts(10.0), b=facts(20.0), c=facts(30.0))
    assert await store.expiring(100.0, 10.0, 2) == Expiring(sids=("a", "b"), next_at=40.0)
    assert await store.expiring(100.0, 10.0, 3) == Expiring(sids=("a", "b", "c"), next_at=None)


async def test_a_session_is_held_until_its_time(store: SessionStore) -> None:
    """Then it has been idle since its last activity, however long ago."""
    await idle(store, held=facts(10.0, keep_until_at=100.0), a=facts(50.0))
    first = await store.expiring(70.0, 10.0, 10)
    assert first.sids == ("a",)
    assert 70.0 < first.next_at <= 100.0
    await store.delete("a", "idle")
    assert await store.expiring(70.0, 10.0, 10) == Expiring(sids=(), next_at=100.0)
    assert await store.expiring(100.0, 10.0, 10) == Expiring(sids=("held",), next_at=None)
    loaded = await store.load("held")
    assert loaded.row.facts == facts(10.0, keep_until_at=100.0)


async def test_a_held_session_may_be_idle_for_the_usual_time_too(store: SessionStore) -> None:
    """Whichever is later; the next time is never in the past."""
    await idle(store, held=facts(95.0, keep_until_at=100.0))
    found = await store.expiring(101.0, 10.0, 10)
    assert found == Expiring(sids=(), next_at=105.0)
    assert (await store.expiring(105.0, 10.0, 10)).sids == ("held",)


async def test_activity_puts_the_end_off_and_facts_may_go_back(store: SessionStore) -> None:
    """A clock that was set back, a hold that was given up: what was committed last counts."""
    await idle(store, a=facts(10.0), b=facts(11.0, keep_until_at=900.0))
    await commit(store, "a", facts=facts(50.0))
    assert await store.expiring(40.0, 20.0, 10) == Expiring(sids=(), next_at=70.0)
    await commit(store, "a", facts=facts(5.0))
    await commit(store, "b", facts=facts(11.0))
    assert await store.expiring(40.0, 20.0, 10) == Expiring(sids=("a", "b"), next_at=None)
    await commit(store, "b", facts=facts(11.0, keep_until_at=60.0))
    assert await store.expiring(40.0, 20.0, 10) == Expiring(sids=("a",), next_at=60.0)
    await store.delete("a", "idle")
    assert await store.expiring(60.0, 20.0, 10) == Expiring(sids=("b",), next_at=None)


# -- documents ---------------------------------------------------------------------------


async def test_documents_are_of_the_user_and_outlive_the_session(store: SessionStore) -> None:
    await store.create(snapshot())
    await write(store, put("a", b"1"), put("b", b"2"), put("a", b"3", "other"))
    await store.delete("s1", "logout")

    assert await store.document(7, "notes", "a") == DocumentRow(key="a", data=b"1", version=1)
    assert await store.document(7, "notes", "b") == DocumentRow(key="b", data=b"2", version=2)
    assert await store.document(7, "other", "a") == DocumentRow(key="a", data=b"3", version=1)
    assert await store.document(8, "notes", "a") is None
    assert await store.document(7, "notes", "c") is None


async def test_no_version_is_used_twice(store: SessionStore) -> None:
    """The collection counts its changes, also when all documents are gone."""
    await store.create(snapshot())
    await write(store, put("a"), put("a"), put("b"))
    assert (await store.document(7, "notes", "a")).version == 2
    await write(store, drop("a"), drop("b"))
    assert await store.documents(7, "notes") == DocumentPage(documents=(), version=5, cursor=None)
    await write(store, put("a"))
    assert (await store.document(7, "notes", "a")).version == 6


async def test_deleting_what_is_not_there_changes_nothing(store: SessionStore) -> None:
    await store.create(snapshot())
    await write(store, drop("a"))
    assert (await store.documents(7, "notes")).version == 0


async def test_writes_of_a_commit_are_applied_in_order(store: SessionStore) -> None:
    await store.create(snapshot())
    await write(store, put("a", b"1"), drop("a"), put("a", b"2"), put("b"), drop("b"))
    page = await store.documents(7, "notes")
    assert page.documents == (DocumentRow(key="a", data=b"2", version=3),)


async def test_checks_that_hold_let_a_commit_land(store: SessionStore) -> None:
    """0: there was none, of a document or a collection."""
    await store.create(snapshot())
    await commit(
        store,
        user_id=7,
        checks=(check("a", 0), check(None, 0), check(None, 0, "never")),
        documents=(put("a"),),
        slots={"n": b"1"},
    )
    await commit(
        store,
        user_id=7,
        checks=(check("a", 1), check(None, 1)),
        documents=(put("a"),),
        slots={"n": b"2"},
    )
    assert (await store.load("s1")).slots == {"n": b"2"}
    assert (await store.document(7, "notes", "a")).version == 2


@pytest.mark.parametrize(
    "stale", [check("a", 0), check("a", 2), check("gone", 2), check("new", 1), check(None, 2)]
)
async def test_a_check_that_fails_refuses_all_of_its_commit(
    store: SessionStore, stale: DocumentCheck
) -> None:
    await store.create(snapshot())
    await write(store, put("a"), put("gone"), drop("gone"))
    before = await store.load("s1")
    with pytest.raises(ConflictError):
        await commit(
            store,
            user_id=7,
            checks=(check("a", 1), stale),
            documents=(put("b"),),
            slots={"n": b"1"},
            answer=answer("r1"),
            letter=letter(),
        )
    assert await store.load("s1") == before
    assert await keys(store) == ["a"]
    assert await store.letter_count() == 0

    await commit(store, answer=answer("r1"))  # the id was not used
    assert (await store.load("s1")).ledger == (answer("r1"),)


async def test_checks_alone_may_be_committed(store: SessionStore) -> None:
    """A handler that only read: was it true at one moment?"""
    await store.create(snapshot())
    await write(store, put("a"))
    await commit(store, user_id=7, checks=(check("a", 1),))
    with pytest.raises(ConflictError):
        await commit(store, user_id=7, checks=(check("a", 7),))


async def test_of_commits_that_read_the_same_one_lands(store: SessionStore) -> None:
    """All at once, of several sessions: the first wins, the others hear of the conflict."""
    for n in range(5):
        await store.create(snapshot(f"s{n}"))

    def racing(n: int):
        return commit(
            store,
            f"s{n}",
            user_id=7,
            checks=(check("a", 0),),
            documents=(put("a", b"%d" % n),),
            slots={"won": b"1"},
        )

    landing = [racing(n) for n in range(5)]
    outcomes = []
    for landed in landing:
        try:
            outcomes.append(await landed)
        except ConflictError:
            outcomes.append("conflict")
    assert outcomes == [None] + ["conflict"] * 4
    assert (await store.document(7, "notes", "a")).data == b"0"
    won = [bool((await store.load(f"s{n}")).slots) for n in range(5)]
    assert won == [True] + [False] * 4


async def test_pages_in_every_order(store: SessionStore) -> None:
    """Keys by code point; age by the first put, which a put again does not change."""
    await store.create(snapshot())
    names = ["b", "a", "", "ü", "z", "Z", "a\x00", "\U0001f600", "\uffff", "a%", "a_"]
    await write(store, *[put(name) for name in names])
    await write(store, put("b", b"again"), put("z", b"again"))
    await write(store, drop("a"), put("a"))
    aged = [name for name in names if name != "a"] + ["a"]

    assert await keys(store) == sorted(names)
    assert await keys(store, order="-key") == sorted(names, reverse=True)
    assert await keys(store, order="oldest") == aged
    assert await keys(store, order="newest") == aged[::-1]
    for limit in (1, 2, 3, len(names), len(names) + 1):
        assert await all_pages(store, limit) == sorted(names)
        assert await all_pages(store, limit, order="-key") == sorted(names, reverse=True)
        assert await all_pages(store, limit, order="oldest") == aged
        assert await all_pages(store, limit, order="newest") == aged[::-1]


@pytest.mark.parametrize("order", ["key", "-key", "oldest", "newest"])
@pytest.mark.parametrize(
    "prefix", ["", "a", "a%", "a_", "a\x00", "\U0010ffff", "a\U0010ffff", "\ud7ff", "none", "Ä"]
)
async def test_a_prefix_is_text_not_a_pattern(store: SessionStore, prefix: str, order: str) -> None:
    """With every character there is, also the last one, in every order and over pages."""
    await store.create(snapshot())
    names = [
        "a", "ab", "a%", "a%b", "axb", "a_", "a_b", "a\x00", "a\x00b", "b", "A", "Äb",
        "\U0010ffff", "\U0010ffff\U0010ffffz", "a\U0010ffff", "a\U0010ffffb", "\ud7ff1", "\ue000",
    ]  # fmt: skip
    await write(store, *[put(name) for name in names])

    expected = [name for name in names if name.startswith(prefix)]
    if order in {"key", "-key"}:
        expected.sort()
    if order in {"-key", "newest"}:
        expected.reverse()
    assert await all_pages(store, 2, prefix=prefix, order=order) == expected


async def test_a_page_that_ends_the_collection_says_so(store: SessionStore) -> None:
    """With the version of the collection, whatever the page shows of it."""
    await store.create(snapshot())
    await write(store, put("a"), put("b"))
    assert (await store.documents(7, "notes", limit=2)).cursor is None
    page = await store.documents(7, "notes", limit=1, prefix="a")
    assert (page.cursor, page.version) == (None, 2)
    page = await store.documents(7, "notes", limit=1)
    assert page.cursor is not None
    await write(store, drop("b"))
    page = await store.documents(7, "notes", limit=1, cursor=page.cursor)
    assert page == DocumentPage(documents=(), version=3, cursor=None)


@pytest.mark.parametrize(
    ("order", "prefix", "cursor"),
    [
        ("oldest", "", "a"), ("newest", "", ""), ("oldest", "", "-1"), ("oldest", "", "1.5"),
        ("newest", "", "٣"), ("oldest", "", "9" * 30), ("key", "b", "a"), ("-key", "ab", "a"),
    ],
)  # fmt: skip
async def test_a_cursor_that_is_none_of_ours_is_refused(
    store: SessionStore, order: str, prefix: str, cursor: str
) -> None:
    with pytest.raises(ValueError, match="cursor"):
        await store.documents(7, "notes", order=order, prefix=prefix, cursor=cursor)


async def test_a_page_has_at_least_one_place(store: SessionStore) -> None:
    with pytest.raises(ValueError, match="limit"):
        await store.documents(7, "notes", limit=0)


# -- dead letters ------------------------------------------------------------------------


async def test_a_dead_letter_comes_with_its_commit(store: SessionStore) -> None:
    """P9: it outlives the session, and is there until it is discarded."""
    await store.create(snapshot())
    await commit(store, letter=letter(), answer=answer("r1"))
    await store.delete("s1", "logout")

    assert await store.letter("c1") == letter()
    assert await store.letter_count() == 1
    assert await store.discard_letter("c1") is True
    assert await store.discard_letter("c1") is False
    assert await store.letter("c1") is None
    assert await store.letter_count() == 0


async def test_letters_are_paged_newest_first(store: SessionStore) -> None:
    """By when they came, whatever their clock says."""
    await store.create(snapshot())
    for n in range(5):
        await commit(store, letter=letter(n, at=1000.0 - n))

    assert [found.crash_id for found in await store.letters(2)] == ["c4", "c3"]
    assert [found.crash_id for found in await store.letters(2, before="c3")] == ["c2", "c1"]
    assert list(await store.letters(10, before="c1")) == [letter(0, at=1000.0)]
    assert list(await store.letters(10, before="c0")) == []
    assert list(await store.letters(10, before="unknown")) == []
    assert list(await store.letters(0)) == []


async def test_letters_are_bounded(store: SessionStore, monkeypatch) -> None:
    for module in ("memory", "sqlite_letters"):
        monkeypatch.setattr(f"ecan.store.{module}.MAX_LETTERS", 5)
    await store.create(snapshot())
    for n in range(8):
        await commit(store, letter=letter(n))
    assert await store.letter_count() == 5
    assert [found.crash_id for found in await store.letters(10)] == ["c7", "c6", "c5", "c4", "c3"]


# -- its life ----------------------------------------------------------------------------


async def test_closing_twice_is_fine(store: SessionStore) -> None:
    await store.close()
    await store.close()


async def test_what_it_refuses_is_a_store_error() -> None:
    """So that whoever commits needs to know one tree."""
    assert issubclass(ConflictError, StoreError)
    assert issubclass(IdUsedError, StoreError)


# -- listing ------------------------------------------------------------------------------


async def pages(store, limit, **filters) -> list[list[str]]:
    """All pages of a listing, as public ids."""
    found, cursor = [], None
    while True:
        page = await store.sessions(limit, cursor, **filters)
        found.append([r.sid for r in page.rows])
        cursor = page.cursor
        if cursor is None:
            return found


async def test_sessions_by_page(store):
    """Every session once, by public id, whatever the order they were made in."""
    for sid in ("s3", "s1", "s5", "s2", "s4"):
        await store.create(snapshot(sid))

    assert await pages(store, 2) == [["s1", "s2"], ["s3", "s4"], ["s5"]]
    assert await pages(store, 5) == [["s1", "s2", "s3", "s4", "s5"]]
    assert (await store.sessions(1, "s4")).rows == (row("s5"),)


async def test_a_page_of_no_sessions(store):
    """Nothing, and nothing behind it."""
    assert await store.sessions(10) == SessionPage(rows=(), cursor=None)


async def test_sessions_are_listed_as_committed(store):
    """The page has the facts of the commits before it."""
    await store.create(snapshot())
    landing = store.commit(Commit(sid="s1", incarnation=4, facts=facts(2000.0, failed=True)))

    page = await store.sessions(10)

    assert page.rows == (row(incarnation=4, facts=facts(2000.0, failed=True)),)
    if landing is not None:
        await landing


async def test_a_cursor_may_be_any_text(store):
    """The page goes on behind it, so sessions are found by the beginning of their id."""
    for sid in ("abc", "abd", "b"):
        await store.create(snapshot(sid))

    assert [r.sid for r in (await store.sessions(2, "ab")).rows] == ["abc", "abd"]


async def test_sessions_of_one_user_by_page(store):
    """Others are not on the page and do not count for its limit."""
    other = {"user_id": 8, "username": "bob", "role": "user"}
    for n in range(6):
        user = other if n % 2 else row().user
        await store.create(snapshot(row=row(f"s{n}", user=user)))

    assert await pages(store, 2, user_id=8) == [["s1", "s3"], ["s5"]]
    assert await store.count_by_user() == {7: 3, 8: 3}


async def test_failed_sessions_by_page(store):
    """Those that were given up, those that were not, or both."""
    for n in range(4):
        await store.create(snapshot(row=row(f"s{n}", facts=facts(failed=n < 2))))

    assert await pages(store, 1, failed=True) == [["s0"], ["s1"]]
    assert await pages(store, 9, failed=False) == [["s2", "s3"]]
    assert await pages(store, 9, failed=True, user_id=8) == [[]]


async def test_an_ended_session_is_not_listed(store):
    """Deleted is gone, from the counts too."""
    await store.create(snapshot("s1"))
    await store.create(snapshot("s2"))
    await store.delete("s1", "killed")

    assert await pages(store, 9) == [["s2"]]
    assert await store.count_by_user() == {7: 1}


async def test_a_page_needs_a_limit(store):
    """None is a mistake of the caller."""
    with pytest.raises(ValueError, match="limit"):
        await store.sessions(0)


# -- slots of all sessions ---------------------------------------------------------------


async def all_slots(store, names, limit) -> tuple[list, int]:
    found, pages, cursor = [], 0, None
    while pages == 0 or cursor is not None:
        page = await store.slots(names, limit, cursor)
        assert len(page.sessions) <= limit
        found += page.sessions
        pages, cursor = pages + 1, page.cursor
    return found, pages


async def test_slots_of_all_sessions_come_in_pages_by_public_id(store):
    """Sessions without such a slot are left out, their other slots too."""
    for n in (3, 1, 2, 5, 4):
        await store.create(snapshot(f"s{n}", slots={"other": b"0"}))
        if n != 4:
            await commit(store, f"s{n}", slots={"cart": b"%d" % n})
    await commit(store, "s5", slots={"more": b"6"})
    found, pages = await all_slots(store, ["cart", "more"], 2)
    assert found == [
        ("s1", {"cart": b"1"}),
        ("s2", {"cart": b"2"}),
        ("s3", {"cart": b"3"}),
        ("s5", {"cart": b"5", "more": b"6"}),
    ]
    assert pages == 3


async def test_slots_are_read_as_committed_before(store):
    """What was committed before the question is in the answer, durable or not."""
    await store.create(snapshot("s1", slots={"cart": b"1", "gone": b"1"}))
    landing = store.commit(
        Commit(sid="s1", incarnation=1, slots={"cart": b"2", "gone": None, "new": b"3"})
    )
    page = await store.slots(["cart", "gone", "new"], 10)
    assert page.sessions == (("s1", {"cart": b"2", "new": b"3"}),)
    assert page.cursor is None
    if landing is not None:
        await landing


async def test_a_page_of_slots_has_at_least_one(store):
    with pytest.raises(ValueError, match="at least 1"):
        await store.slots(["cart"], 0)
