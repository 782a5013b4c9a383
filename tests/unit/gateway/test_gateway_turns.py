"""Turns: so many calls in each turn of the loop, in order."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial

from ecan.gateway.turns import Turns


async def test_with_room_it_is_done_at_once():
    done = []
    line = Turns(asyncio.get_running_loop(), 2)
    line.take(partial(done.append, 1))
    line.take(partial(done.append, 2))
    assert done == [1, 2]
    line.take(partial(done.append, 3))
    assert done == [1, 2]


async def test_so_many_in_a_turn_and_in_order(turns):
    done = []
    line = Turns(asyncio.get_running_loop(), 3)

    def one(number):
        done.append((turns.turn, number))

    for number in range(20):
        line.take(partial(one, number))
    while len(done) < 20:
        await asyncio.sleep(0)
    assert [number for _, number in done] == list(range(20))
    assert max(Counter(turn for turn, _ in done).values()) == 3
    for _ in range(3):
        await asyncio.sleep(0)
    line.take(partial(one, 20))
    assert done[-1][1] == 20, "room again"


async def test_who_comes_while_others_wait_waits_behind_them():
    done = []
    line = Turns(asyncio.get_running_loop(), 1)

    def again(number):
        done.append(number)
        if number < 3:
            line.take(partial(again, number + 10))

    for number in (1, 2, 3):
        line.take(partial(again, number))
    while len(done) < 5:
        await asyncio.sleep(0)
    assert done == [1, 11, 2, 3, 12]


async def test_who_has_waited_long_enough_needs_no_room(turns):
    """Else those who may pass at once would keep the others waiting for as long as they like."""
    done = []
    line = Turns(asyncio.get_running_loop(), 1, 0.05)

    def one(number):
        done.append((turns.turn, number))

    for number in range(10):
        line.take(partial(one, number))
    await asyncio.sleep(0)
    assert len(done) < 5
    time.sleep(0.06)
    line.take(partial(one, 10))
    while len(done) < 11:
        await asyncio.sleep(0)
    assert [number for _, number in done] == list(range(11))
    each_turn = Counter(turn for turn, _ in done)
    assert max(each_turn.values()) >= 6


async def test_one_that_fails_does_not_hold_the_others():
    done, told = [], []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    line = Turns(loop, 1)
    line.take(partial(done.append, 1))
    line.take(partial(int, "no number"))
    line.take(partial(done.append, 2))
    while len(done) < 2:
        await asyncio.sleep(0)
    assert [type(error) for error in told] == [ValueError]
    loop.set_exception_handler(None)
