"""Where a suspended coroutine is."""

from __future__ import annotations

import asyncio

from ecan.runtime import task_stack


async def innermost(event):
    await event.wait()


async def stream(event):
    await innermost(event)
    yield 1


async def outermost(event):
    async for _ in stream(event):
        pass


async def test_the_whole_chain_of_awaits():
    """Outermost first, with the line of each."""
    event = asyncio.Event()
    task = asyncio.ensure_future(_middle(event))
    await asyncio.sleep(0)

    stack = task_stack(task)

    event.set()
    await task
    assert [line.split()[-1] for line in stack.splitlines() if line.startswith("  File")] == [
        "_middle",
        "innermost",
        "wait",
    ]
    assert "await event.wait()" in stack


async def _middle(event):
    await innermost(event)


async def test_an_async_generator_does_not_hide_everything():
    """At least who iterates over it is seen."""
    event = asyncio.Event()
    task = asyncio.ensure_future(outermost(event))
    await asyncio.sleep(0)

    assert "outermost" in task_stack(task)

    event.set()
    await task


async def test_a_task_that_is_done_is_nowhere():
    """Empty, no error."""
    task = asyncio.ensure_future(asyncio.sleep(0))
    await task

    assert task_stack(task) == ""
