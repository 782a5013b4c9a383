"""StallWatchdog with a loop that really blocks."""

import asyncio
import logging
import threading
import time

import pytest

from ecan.runtime import watchdog as module
from ecan.runtime.watchdog import Stall, StallWatchdog


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def watched(caplog):
    stalls = []
    dog = StallWatchdog(asyncio.get_running_loop(), on_stall=stalls.append)
    dog.start()
    await asyncio.sleep(0.03)
    yield dog, stalls
    dog.stop()
    thread = dog._thread
    await until(lambda: not thread.is_alive())


def block_for(seconds):
    time.sleep(seconds)


async def test_a_block_is_reported_once_when_noticed_and_once_when_it_ends(watched, caplog):
    """With label and stack of the culprit, and the whole duration at the end."""
    dog, stalls = watched
    with caplog.at_level(logging.WARNING, "ecan.runtime"):
        dog.current = "session s1 cart.add"
        block_for(0.3)
        dog.current = None
        # Seen although the loop has not turned since:
        assert "loop.stalled" in caplog.text and "session s1 cart.add" in caplog.text
        assert stalls == []
        await until(lambda: len(stalls) == 2)
    noticed, ended = stalls
    assert (noticed.ended, ended.ended) == (False, True)
    assert noticed.label == ended.label == "session s1 cart.add"
    assert "block_for" in noticed.stack
    assert 0.1 <= noticed.seconds < 0.3 <= ended.seconds
    assert "loop.resumed" in caplog.text


async def test_without_a_label_the_tasks_name_is_taken(watched):
    """asyncio knows what runs."""
    _, stalls = watched

    async def work():
        block_for(0.3)

    await asyncio.create_task(work(), name="the culprit")
    await until(lambda: len(stalls) == 2)
    assert stalls[0].label == "the culprit"


async def test_a_callback_without_task_has_no_label(watched):
    """The stack still says where."""
    _, stalls = watched
    asyncio.get_running_loop().call_soon(block_for, 0.3)
    await until(lambda: len(stalls) == 2)
    assert stalls[0].label is None and "block_for" in stalls[0].stack


async def test_a_loop_that_turns_is_left_alone(watched):
    """Twelve beats without a word."""
    _, stalls = watched
    await asyncio.sleep(0.3)
    assert [s for s in stalls if "block_for" in s.stack] == []


class Scripted:
    """Stands in for the stop event and the clock: one line of time per look."""

    def __init__(self, dog, script):
        self.dog, self.script = dog, iter(script)
        self.now = 0.0

    def wait(self, _):
        step = next(self.script, None)
        if step is None:
            return True
        self.now, beat = step
        if beat is not None:
            self.dog._beat_mono = beat
        return False

    def set(self):
        self.script = iter(())


def watch(script, monkeypatch, **options):
    loop = asyncio.new_event_loop()
    dog = StallWatchdog(loop, **options)
    scripted = Scripted(dog, script)
    dog._stopped = scripted
    monkeypatch.setattr(module.time, "monotonic", lambda: scripted.now)
    reports = []
    monkeypatch.setattr(dog, "_report", reports.append)
    dog._watch()
    monkeypatch.undo()
    loop.close()
    return [(round(r.seconds, 3), r.ended) for r in reports]


def test_threshold_and_end_exactly(monkeypatch):
    """Noticed when older than the threshold, once; ended at the next beat."""
    script = [(0.02, None), (0.05, None), (0.1, None), (0.11, None), (0.2, None), (0.25, 0.22)]
    expected = [(0.11, False), (0.22, True)]
    assert expected == watch([*script, (0.26, 0.24)], monkeypatch, interval_s=0.1)


def test_a_machine_that_slept_is_no_stall(monkeypatch):
    """The watcher overslept too: nobody here is to blame."""
    assert watch([(0.02, 0.01), (60.0, None), (60.02, 60.01)], monkeypatch) == []


def test_loop_closed_meanwhile(caplog):
    """The report is logged, and the watching ends."""
    loop = asyncio.new_event_loop()
    loop.close()
    dog = StallWatchdog(loop, on_stall=lambda _: None)
    dog._report(Stall("x", 1.0, "", ended=False))
    assert dog._stopped.is_set() and "loop.stalled" in caplog.text
    dog.stop()


def test_without_callback_it_only_logs(caplog):
    """A thread that is gone has no stack."""
    loop = asyncio.new_event_loop()
    dog = StallWatchdog(loop)
    dog._loop_thread_id = -1
    assert dog._stack() == ""
    dog._report(Stall("x", 1.0, "", ended=True))
    assert "loop.resumed" in caplog.text
    loop.close()


async def test_idle_watching_is_cheap():
    """DESIGN wants less than 1 % of a CPU; thread and beats together."""
    dog = StallWatchdog(asyncio.get_running_loop())
    dog.start()
    before = time.process_time()
    await asyncio.sleep(0.5)
    used = time.process_time() - before
    dog.stop()
    thread = dog._thread
    await until(lambda: not thread.is_alive())
    assert used < 0.1  # generous: other tests' threads count here too
    assert isinstance(thread, threading.Thread)
