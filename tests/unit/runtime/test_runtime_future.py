"""LoopFuture: settled from anywhere, awaited without blocking."""

import asyncio
import queue
import threading

import pykka
import pytest

from ecan.runtime.future import LoopFuture


async def test_await_lets_the_loop_run_until_another_thread_settles():
    """The loop turns while the future waits; pykka's own would block it."""
    future = LoopFuture()
    turned = threading.Event()
    waiting = asyncio.create_task(_await(future))

    def settle():
        assert turned.wait(10)
        future.set("done")

    thread = threading.Thread(target=settle)
    thread.start()
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(turned.set)
    assert await asyncio.wait_for(waiting, 10) == "done"
    thread.join()


async def _await(future):
    return await future


async def test_several_readers_get_the_value_and_later_ones_too():
    """Any number of awaits, before and after."""
    future = LoopFuture()
    readers = [asyncio.create_task(_await(future)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not future.done()
    future.set(7)
    assert await asyncio.gather(*readers) == [7, 7, 7]
    assert await future == 7
    assert future.get() == 7, "a settled future does not block, so get() is allowed"
    assert future.exception() is None


async def test_a_cancelled_reader_does_not_disturb_the_others():
    """A time-out of one asker leaves the future usable."""
    future = LoopFuture()
    reader, other = (asyncio.create_task(_await(future)) for _ in range(2))
    await asyncio.sleep(0)
    reader.cancel()
    future.set(1)
    assert await other == 1
    with pytest.raises(asyncio.CancelledError):
        await reader


async def test_get_on_the_loop_is_refused_with_the_fix():
    """Blocking the loop would stop every session."""
    with pytest.raises(RuntimeError, match="await"):
        LoopFuture().get(timeout=1)


def test_get_blocks_another_thread_until_it_is_settled():
    """Threads without a loop wait for the value."""
    future = LoopFuture()
    thread = threading.Thread(target=future.set, args=(3,))
    thread.start()
    assert future.get(timeout=10) == 3
    thread.join()


def test_get_times_out_as_pykka_does():
    """pykka.Timeout, also with no time at all."""
    with pytest.raises(pykka.Timeout, match="0 seconds"):
        LoopFuture().get(timeout=0)


def test_exception_being_handled_is_taken():
    """set_exception() without arguments works from an except block."""
    future = LoopFuture()
    try:
        raise KeyError("gone")
    except KeyError:
        future.set_exception()
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            future.get()
    assert len(caught.traceback) < 6, "tracebacks of readers must not pile up"


def test_exception_may_be_given_as_type_only():
    """As sys.exc_info allows; the same object is raised each time."""
    future = LoopFuture()
    future.set_exception((ValueError, None, None))
    assert isinstance(future.exception(), ValueError)
    assert future.exception() is future.exception()


def test_no_exception_at_all_is_a_type_error():
    """set_exception() outside of an except block."""
    future = LoopFuture()
    future.set_exception()
    with pytest.raises(TypeError, match="without an exception"):
        future.get()


def test_settling_twice_is_refused():
    """queue.Full, as pykka's own future says."""
    future = LoopFuture()
    future.set(1)
    with pytest.raises(queue.Full):
        future.set(2)
    with pytest.raises(queue.Full):
        future.set_exception((ValueError, ValueError(), None))
    with pytest.raises(queue.Full):
        future.set_get_hook(lambda _: 3)
    assert future.get() == 1


def test_lazy_futures_compute_in_get():
    """map and friends work off the loop, as in pykka."""
    future = LoopFuture()
    doubled = future.map(lambda x: x * 2)
    future.set(4)
    assert doubled.get(timeout=1) == 8
    with pytest.raises(queue.Full):
        doubled.set(1)


async def test_lazy_futures_are_not_awaited():
    """Their hook blocks; the error names the way out."""
    with pytest.raises(RuntimeError, match="await the futures it came from"):
        await LoopFuture().map(str)


def test_a_closed_loop_that_waited_does_not_trouble_the_settler():
    """Nobody is there any more; set() returns."""
    future = LoopFuture()
    loop = asyncio.new_event_loop()
    coroutine = _await(future)
    task = loop.create_task(coroutine)
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    thread = threading.Thread(target=future.set, args=(1,))
    thread.start()
    thread.join()
    assert future.get() == 1
