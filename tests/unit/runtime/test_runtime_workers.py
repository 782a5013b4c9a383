"""WorkerThreads with real threads; events, no durations."""

import asyncio
import contextvars
import sys
import threading

import pytest

from ecan.runtime import workers
from ecan.runtime.workers import WorkerFailure, WorkerThreads, set_switch_interval

variable = contextvars.ContextVar("variable", default="empty")


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
async def pool():
    pool = WorkerThreads(max_threads=4, idle_s=30)
    yield pool
    pool.stop()
    await until(lambda: pool.threads == 0)


async def test_result_and_exception_come_back(pool):
    """As the function returned or raised them."""
    job = pool.run(divmod, 7, 2)
    assert await job.future == (3, 1)
    assert job.started
    with pytest.raises(ZeroDivisionError):
        await pool.run(divmod, 7, 0).future


def throw(error):
    raise error


@pytest.mark.parametrize(
    "error",
    [
        StopIteration(3),
        SystemExit(1),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        GeneratorExit(),
    ],
    ids=lambda e: type(e).__name__,
)
async def test_what_a_future_cannot_carry_is_wrapped(pool, error):
    """The loop and the awaiting task survive it, and so does the thread."""
    with pytest.raises(WorkerFailure) as caught:
        await pool.run(throw, error).future
    assert caught.value.cause is error and caught.value.__cause__ is error
    assert await pool.run(abs, -1).future == 1
    assert pool.threads == 1


async def test_threads_grow_only_when_none_is_idle(pool):
    """One after the other needs one thread; at once needs as many, up to the bound."""
    for _ in range(5):
        await pool.run(abs, -1).future
        assert (pool.threads, pool.idle) == (1, 1)
    gate = threading.Event()
    jobs = [pool.run(gate.wait, 30) for _ in range(6)]
    await until(lambda: pool.queued == 2)
    assert (pool.threads, pool.idle) == (4, 0)
    assert [job.started for job in jobs].count(False) == 2
    gate.set()
    assert await asyncio.gather(*(job.future for job in jobs)) == [True] * 6


async def test_idle_threads_beyond_the_core_leave():
    """A burst of blocked handlers does not leave its threads for ever."""
    pool = WorkerThreads(max_threads=8, core=2, idle_s=0.01)
    gate = threading.Event()
    jobs = [pool.run(gate.wait, 30) for _ in range(8)]
    gate.set()
    await asyncio.gather(*(job.future for job in jobs))
    await until(lambda: pool.threads == 2 and pool.idle == 2)
    pool.stop()
    await until(lambda: pool.threads == 0)


async def test_context_is_the_given_one_or_empty(pool):
    """Nothing leaks from job to job through a thread's own context."""
    variable.set("the caller's")
    context = contextvars.Context()
    context.run(variable.set, "given")
    assert await pool.run(variable.get, context=context).future == "given"
    await pool.run(variable.set, "left behind").future
    assert await pool.run(variable.get).future == "empty"


async def test_abandoned_before_the_start_never_runs(pool):
    """It leaves the queue."""
    gate, ran = threading.Event(), []
    blocking = [pool.run(gate.wait, 30) for _ in range(4)]
    job = pool.run(ran.append, 1)
    cancelled = pool.run(ran.append, 2)
    job.abandon()
    job.abandon()
    cancelled.future.cancel()
    assert not job.started and job.future.cancelled()
    assert pool.queued == 1
    gate.set()
    await asyncio.gather(*(b.future for b in blocking))
    await until(lambda: pool.queued == 0)
    cancelled.abandon()
    assert ran == [] and pool.zombies == 0


async def test_abandoned_while_running_is_a_zombie_until_it_returns(pool):
    """Its outcome, even an exception, is discarded without a word."""
    gate, started = threading.Event(), threading.Event()

    def stuck():
        started.set()
        gate.wait(30)
        raise KeyError

    job = pool.run(stuck)
    await until(started.is_set)
    assert job.started and "stuck" in job.stack()
    job.abandon()
    job.abandon()
    assert pool.zombies == 1 and job.future.cancelled()
    gate.set()
    await until(lambda: pool.zombies == 0)
    assert job.stack() == ""
    job.abandon()
    assert pool.zombies == 0


async def test_cancelled_await_discards_the_result(pool):
    """The thread goes on; its result finds a cancelled future."""
    gate, started = threading.Event(), threading.Event()

    def wait():
        started.set()
        gate.wait(30)

    job = pool.run(wait)
    await until(started.is_set)
    job.future.cancel()
    gate.set()
    await until(lambda: pool.idle == 1)
    await asyncio.sleep(0)
    assert job.future.cancelled()


async def test_many_results_share_one_wake_up(pool, monkeypatch):
    """Results that come while the loop is busy cost one write to its self-pipe."""
    loop, signals = asyncio.get_running_loop(), []
    real = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *a: (signals.append(a), real(*a)))
    finished = threading.Semaphore(0)
    jobs = [pool.run(finished.release) for _ in range(100)]
    for _ in jobs:
        assert finished.acquire(timeout=30)
    while len(pool._done) < 100:  # the loop is kept busy on purpose
        pass
    assert len(signals) <= 4
    await asyncio.gather(*(job.future for job in jobs))


async def test_stop_cancels_what_waits_and_takes_no_more():
    """Running functions finish; nobody waits for them."""
    pool = WorkerThreads(max_threads=1)
    gate, started = threading.Event(), threading.Event()

    def wait():
        started.set()
        gate.wait(30)

    running, waiting = pool.run(wait), pool.run(abs, -1)
    await until(started.is_set)
    pool.stop()
    assert waiting.future.cancelled()
    with pytest.raises(RuntimeError, match="stopped"):
        pool.run(abs, -1)
    gate.set()
    await running.future
    await until(lambda: pool.threads == 0)


async def test_threads_do_not_keep_the_process():
    """A zombie must not hang the exit: all are daemons, named for ps and py-spy."""
    pool = WorkerThreads(name="test-worker")
    thread = await pool.run(threading.current_thread).future
    assert thread.daemon and thread.name == "test-worker-1"
    pool.stop()
    await until(lambda: pool.threads == 0)


async def test_system_without_threads(pool, monkeypatch):
    """Without any thread the job is refused; with some it waits for one."""

    def refuse(*_args, **_kwargs):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(workers.threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            pool.run(abs, -1)
    assert (pool.threads, pool.queued) == (0, 0)
    gate = threading.Event()
    first = pool.run(gate.wait, 30)
    with monkeypatch.context() as patch:
        patch.setattr(workers.threading.Thread, "start", refuse)
        second = pool.run(abs, -2)
    assert pool.threads == 1
    gate.set()
    assert await first.future and await second.future == 2


def test_result_for_a_closed_loop_is_dropped():
    """The thread neither dies loudly nor keeps results."""
    gate, started = threading.Event(), threading.Event()
    found = []

    async def scenario():
        pool = WorkerThreads()
        found.append(pool)

        def wait():
            started.set()
            gate.wait(30)

        job = pool.run(wait)
        while not started.is_set():
            await asyncio.sleep(0.001)
        return job

    asyncio.run(scenario())
    gate.set()
    pool = found[0]
    pause = threading.Event()
    while pool.idle != 1:
        pause.wait(0.001)
    assert not pool._done
    pool.stop()


def test_switch_interval():
    """0.5 ms, so that CPU-bound threads do not hold the loop for 5."""
    before = sys.getswitchinterval()
    try:
        set_switch_interval()
        assert sys.getswitchinterval() == pytest.approx(0.0005)
    finally:
        sys.setswitchinterval(before)
