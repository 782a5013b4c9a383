"""What one batch's commits set going does not all happen in one turn of the loop."""

from __future__ import annotations

import asyncio

from store_kit import change, opened, snapshot

from ecan.store.sqlite_queue import TELL_SLICE

SESSIONS = 3 * TELL_SLICE + 10


async def created(store):
    sids = [f"s{n}" for n in range(SESSIONS)]
    await asyncio.gather(*(store.create(snapshot(sid)) for sid in sids))
    return sids


async def test_who_waited_is_told_in_slices_and_in_order(path):
    """A push to everybody is one batch: others must get a turn between its answers."""
    turns = 0
    told: list[tuple[str, int]] = []

    def turn():
        nonlocal turns
        turns += 1
        loop.call_soon(turn)

    loop = asyncio.get_running_loop()
    async with opened(path) as store:
        sids = await created(store)
        loop.call_soon(turn)
        landing = [asyncio.ensure_future(store.commit(change(1, sid))) for sid in sids]
        for sid, future in zip(sids, landing, strict=True):
            future.add_done_callback(lambda _, sid=sid: told.append((sid, turns)))
        await asyncio.gather(*landing)
        await asyncio.sleep(0)
    assert [sid for sid, _ in told] == sids
    by_turn = {turn: [t for _, t in told].count(turn) for _, turn in told}
    assert max(by_turn.values()) <= TELL_SLICE
    assert len(by_turn) >= SESSIONS // TELL_SLICE


async def test_closing_leaves_nobody_untold(path):
    """Whoever waits when the store closes hears of it before it is closed."""
    async with opened(path) as store:
        sids = await created(store)
        landing = [asyncio.ensure_future(store.commit(change(1, sid))) for sid in sids]
    assert all(future.done() and future.exception() is None for future in landing)
