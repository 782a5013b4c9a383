"""Property: commits in groups do what commits one by one do.

The same random work, thrown at the SQLite store in batches that nobody waits for in
between, and at the memory store in order: equal outcomes, equal states.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_kit import snapshot

from ecan.store import (
    Commit,
    DocumentCheck,
    DocumentWrite,
    Expiring,
    Facts,
    LedgerRow,
    LetterRow,
    MemoryStore,
    ReplyRow,
    TokenRow,
)
from ecan.store import rows as limits
from ecan.store.sqlite import SqliteStore

SIDS = st.sampled_from(["s1", "s2", "s3"])
KEYS = st.sampled_from(["", "a", "ab", "b", "\U0010ffff"])
COLLECTIONS = st.sampled_from(["notes", "tasks"])
SMALL = st.integers(0, 9)
BYTES = st.binary(max_size=3)
TIMES = st.integers(0, 50).map(float)
USER = 7

facts = st.builds(
    Facts, last_active_at=TIMES, keep_until_at=TIMES, restarts=SMALL, failed=st.booleans()
)
tokens = st.lists(st.builds(TokenRow, digest=BYTES, expires_at=TIMES), max_size=2).map(tuple)
letters = st.builds(
    LetterRow,
    crash_id=SMALL.map(str), at=TIMES, sid=SIDS, user_id=SMALL, username=KEYS, method=KEYS,
    request_id=KEYS, incarnation=SMALL, params=BYTES, error=KEYS, traceback=KEYS,
    context=st.dictionaries(KEYS, BYTES, max_size=2),
)  # fmt: skip
commits = st.builds(
    Commit,
    sid=SIDS,
    incarnation=SMALL,
    slots=st.dictionaries(KEYS, st.none() | BYTES, max_size=3),
    answer=st.none()
    | st.builds(
        LedgerRow, request_id=st.integers(0, 25).map(str), fingerprint=BYTES, frame=BYTES, at=TIMES
    ),
    tokens=st.none() | tokens,
    facts=st.none() | facts,
    replies=st.lists(st.builds(ReplyRow, request_id=KEYS, seq=SMALL, frame=BYTES), max_size=2).map(
        tuple
    ),
    handed_out=st.booleans(),
    letter=st.none() | letters,
    user_id=st.just(USER),
    checks=st.lists(
        st.builds(
            DocumentCheck, collection=COLLECTIONS, key=st.none() | KEYS, version=st.integers(0, 3)
        ),
        max_size=1,
    ).map(tuple),
    documents=st.lists(
        st.builds(DocumentWrite, collection=COLLECTIONS, key=KEYS, data=st.none() | BYTES),
        max_size=3,
    ).map(tuple),
)
creates = st.builds(
    lambda sid, fact, used: snapshot(
        sid, row=attrs.evolve(snapshot(sid).row, facts=fact), used=used
    ),
    SIDS, facts, st.lists(st.integers(0, 25).map(str).map(limits.id_hash), unique=True).map(tuple),
)  # fmt: skip
works = st.one_of(
    commits,
    commits,
    commits.map(lambda commit: attrs.evolve(commit, checks=(), documents=(), letter=None)),
    st.tuples(st.just("create"), creates),
    st.tuples(st.just("delete"), SIDS, KEYS),
    st.tuples(st.just("load"), SIDS),
    st.tuples(st.just("document"), st.just(USER), COLLECTIONS, KEYS),
    st.tuples(st.just("expiring"), TIMES, TIMES, SMALL),
    st.tuples(st.just("of_user"), st.just(USER)),
    st.tuples(st.just("sids_of_user"), st.just(USER)),
    st.tuples(st.just("letters"), SMALL, st.none() | SMALL.map(str)),
    st.tuples(st.just("discard_letter"), SMALL.map(str)),
    st.tuples(st.just("count")),
)
pages = st.tuples(
    COLLECTIONS, KEYS, st.sampled_from(["key", "-key", "oldest", "newest"]), st.integers(1, 3)
)


async def outcome(store, work):
    try:
        if isinstance(work, Commit):
            landing = store.commit(work)
            return await landing if landing is not None else None
        name, *arguments = work
        found = await getattr(store, name)(*arguments)
        if isinstance(found, Expiring):  # when the next one may be is a bound, not a value
            now_at, _, limit = arguments
            assert len(found.sids) == limit or found.next_at is None or found.next_at > now_at
            return found.sids, found.next_at is None
        if name == "sids_of_user":
            return set(found)
        return list(found) if name == "letters" else found
    except AssertionError:
        raise
    except Exception as error:
        return type(error)


async def state(store, how):
    collection, prefix, order, limit = how
    page = await store.documents(USER, collection, prefix=prefix, order=order, limit=limit)
    more = page.cursor and await store.documents(
        USER, collection, prefix=prefix, order=order, limit=limit, cursor=page.cursor
    )
    loaded = [await store.load(sid) for sid in ("s1", "s2", "s3")]
    return loaded, page, more, list(await store.letters(99)), await store.letter_count()


@pytest.mark.parametrize("trimmed_after", [0, 3])
@settings(max_examples=50, deadline=None)
@given(st.lists(works, min_size=1, max_size=30), pages)
def test_groups_do_what_one_after_the_other_does(trimmed_after, work, how):
    """Also with a ledger of five answers, which is trimmed all the time."""

    async def main(folder):
        memory, durable = MemoryStore(), SqliteStore(Path(folder) / "s.sqlite3")
        await durable.open()
        try:
            expected = [await outcome(memory, each) for each in work]
            # Tasks start in order, and each queues its work before it first waits.
            actual = await asyncio.gather(*[outcome(durable, each) for each in work])
            assert actual == expected
            assert await state(durable, how) == await state(memory, how)
        finally:
            await durable.close()
        again = SqliteStore(Path(folder) / "s.sqlite3")
        await again.open()
        try:
            assert await state(again, how) == await state(memory, how)
        finally:
            await again.close()

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        for module in ("memory", "sqlite_sessions", "sqlite_commits"):
            patch.setattr(f"ecan.store.{module}.MAX_LEDGER_ROWS", 5)
            patch.setattr(f"ecan.store.{module}.MAX_REPLY_ROWS", 3)
        patch.setattr("ecan.store.sqlite_commits.LEDGER_SLACK", trimmed_after)
        asyncio.run(main(folder))
