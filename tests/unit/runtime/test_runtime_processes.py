"""ProcessLane with real processes; and what runs inside them."""

import asyncio
import multiprocessing
import operator
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ecan.runtime import process_worker
from ecan.runtime.process_worker import serve, serve_requests
from ecan.runtime.processes import (
    ProcessDied,
    ProcessFailure,
    ProcessLane,
    ProcessRenewedError,
    _Owner,
)


@pytest.fixture
async def lane():
    lane = ProcessLane(max_processes=2)
    yield lane
    await lane.stop()
    assert lane.processes == 0
    assert multiprocessing.active_children() == []


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_result_comes_from_another_process_which_is_used_again(lane):
    """Started when first needed, and only once."""
    assert lane.processes == 0
    job = lane.run(os.getpid)
    pid = await job.future
    assert pid != os.getpid() and job.started
    assert await lane.run(os.getpid).future == pid
    assert lane.processes == 1


async def test_exception_comes_back_as_text(lane):
    """Type, message and remote traceback; the process is used again."""
    with pytest.raises(ProcessFailure) as caught:
        await lane.run(operator.truediv, 1, 0).future
    assert caught.value.type_name == "ZeroDivisionError"
    assert caught.value.message == "division by zero"
    assert "Traceback" in caught.value.remote_traceback
    with pytest.raises(ProcessFailure, match="SystemExit: 3"):
        await lane.run(sys.exit, 3).future
    assert await lane.run(abs, -1).future == 1


async def test_what_does_not_pickle_fails_its_job_only(lane):
    """A lambda on the way there, a lock on the way back."""
    with pytest.raises(ProcessFailure, match=r"(?i)pickle"):
        await lane.run(lambda: 1).future
    with pytest.raises(ProcessFailure, match=r"(?i)pickle"):
        await lane.run(threading.Lock).future
    assert await lane.run(abs, -1).future == 1
    assert lane.processes == 1


async def test_renewed_lane_runs_what_has_not_begun_in_fresh_processes(lane):
    """What runs finishes where it is; what waits is handed in again, by whoever knows how."""
    await asyncio.gather(*(lane.run(time.sleep, 0.3).future for _ in range(2)))
    before = await lane.run(os.getpid).future
    running = [lane.run(time.sleep, 0.5) for _ in range(2)]
    await until(lambda: lane.queued == 0)
    waiting = lane.run(abs, -1)
    lane.renew()
    with pytest.raises(ProcessRenewedError):
        await waiting.future
    assert not waiting.started
    assert [await job.future for job in running] == [None, None]
    pids = {await lane.run(os.getpid).future for _ in range(4)}
    assert before not in pids
    assert lane.processes == 2


async def test_renewed_while_its_process_starts(lane, monkeypatch):
    """That process may import either code; the job is handed in again."""
    start = _Owner._alive_process

    def start_and_renew(self):
        started = start(self)
        monkeypatch.setattr(_Owner, "_alive_process", start)
        lane.renew()
        return started

    monkeypatch.setattr(_Owner, "_alive_process", start_and_renew)
    with pytest.raises(ProcessRenewedError):
        await lane.run(abs, -1).future
    assert await lane.run(abs, -1).future == 1


async def test_job_knows_the_cpu_time_it_took(lane):
    """Sleeping takes none."""
    job = lane.run(sum, range(3_000_000))
    await job.future
    asleep = lane.run(time.sleep, 0.05)
    await asleep.future
    assert job.cpu_s > 0.01 > asleep.cpu_s


async def test_process_that_dies_fails_only_its_own_job(lane):
    """os._exit in one, the other goes on, and the lane starts another."""
    other = lane.run(time.sleep, 0.5)
    dying = lane.run(os._exit, 7)
    with pytest.raises(ProcessDied) as caught:
        await dying.future
    assert caught.value.exitcode == 7
    assert await other.future is None
    assert await lane.run(abs, -1).future == 1


async def test_idle_process_that_died_is_replaced(lane):
    """The next job does not notice."""
    pid = await lane.run(os.getpid).future
    os.kill(pid, signal.SIGKILL)
    # Not alive() here: a zombie leader whose threads still exit cannot be reaped yet.
    await until(lambda: multiprocessing.active_children() == [])
    assert await lane.run(os.getpid).future != pid


async def test_kill_running(lane):
    """SIGKILL for the process; the lane starts another."""
    pid = await lane.run(os.getpid).future
    job = lane.run(time.sleep, 600)
    await until(lambda: job.started)
    job.kill()
    with pytest.raises(ProcessDied) as caught:
        await job.future
    assert caught.value.exitcode == -signal.SIGKILL
    job.kill()
    assert await lane.run(os.getpid).future != pid


async def test_kill_while_its_process_starts(lane, monkeypatch):
    """There is no process to kill yet; the job must not run all the same."""
    start = _Owner._alive_process

    def start_and_be_killed(self):
        started = start(self)
        self.job.kill()
        return started

    monkeypatch.setattr(_Owner, "_alive_process", start_and_be_killed)
    job = lane.run(time.sleep, 600)
    with pytest.raises(ProcessDied):
        await asyncio.wait_for(job.future, 60)


async def test_waiting_jobs_wait_in_order_and_can_be_killed(lane):
    """They never run, and their futures are cancelled."""
    running = [lane.run(time.sleep, 0.5) for _ in range(2)]
    await until(lambda: lane.queued == 0)
    job, cancelled, last = (lane.run(abs, -n) for n in (1, 2, 3))
    job.kill()
    cancelled.future.cancel()
    assert job.future.cancelled() and not job.started
    assert lane.queued == 2
    assert await last.future == 3
    await asyncio.gather(*(r.future for r in running))
    assert lane.processes == 2


async def test_cancelled_future_discards_the_result(lane):
    """The process answers into nothing, and is used again."""
    job = lane.run(time.sleep, 0.05)
    await until(lambda: job.started)
    job.future.cancel()
    assert await lane.run(abs, -1).future == 1
    await until(lambda: lane.idle == lane.processes)


async def test_stop_kills_what_runs_and_cancels_what_waits():
    """After it no process is left, and nothing new is taken."""
    lane = ProcessLane(max_processes=1)
    pid = await lane.run(os.getpid).future
    running, waiting = lane.run(time.sleep, 600), lane.run(abs, -1)
    await until(lambda: running.started)
    await lane.stop()
    assert waiting.future.cancelled()
    assert isinstance(running.future.exception(), ProcessDied)
    assert not alive(pid)
    with pytest.raises(RuntimeError, match="stopped"):
        lane.run(abs, -1)
    await lane.stop()


async def test_loop_turns_while_a_process_starts(lane):
    """Spawning takes a tenth of a second and more, in a thread."""
    job, count = lane.run(abs, -1), 0
    while not job.future.done():
        await asyncio.sleep(0.001)
        count += 1
    assert count > 5


async def test_default_size_is_the_number_of_cpus():
    """And costs nothing until it is used."""
    lane = ProcessLane()
    assert lane.max_processes == os.cpu_count()
    await lane.stop()


async def test_process_that_does_not_leave_is_killed(lane, monkeypatch):
    """SIGSTOP: it cannot read EOF."""
    pid = await lane.run(os.getpid).future
    os.kill(pid, signal.SIGSTOP)
    await lane.stop()
    assert not alive(pid)


def test_answer_for_a_closed_loop_is_dropped():
    """The thread leaves quietly."""
    owners = []

    async def scenario():
        lane = ProcessLane(max_processes=1)
        job = lane.run(time.sleep, 0.2)
        while not job.started:
            await asyncio.sleep(0.001)
        owners.append((lane, job._owner))

    asyncio.run(scenario())
    lane, owner = owners[0]
    pause = threading.Event()
    while owner.job is not None or lane.idle != 1:
        pause.wait(0.005)
    with lane._changed:
        lane._stopping = True
        lane._changed.notify_all()
    while multiprocessing.active_children():
        pause.wait(0.005)


PARENT = """
import asyncio, os, sys, time
from ecan.runtime.processes import ProcessLane
async def main():
    lane = ProcessLane(2)
    print(await lane.run(os.getpid).future, flush=True)
    lane.run(time.sleep, 600), lane.run(time.sleep, 600)
    while lane.queued or len(lane._owners) < 2 or not all(o._process for o in lane._owners):
        await asyncio.sleep(0.01)
    print(*[o._process.pid for o in lane._owners], flush=True)
    await asyncio.sleep(600)
if __name__ == "__main__":
    asyncio.run(main())
"""


def test_no_orphan_after_the_parents_kill_9(tmp_path):
    """Both leave, though both are in the middle of a job of ten minutes."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    with parent:
        parent.stdout.readline()
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(map(alive, pids))
        parent.send_signal(signal.SIGKILL)
        parent.wait(30)
    pause, deadline = threading.Event(), time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < deadline:
        pause.wait(0.01)
    assert not any(map(alive, pids))


# -- inside the worker, in this process -----------------------------------------


@pytest.fixture
def leaving(monkeypatch):
    """Collects exit codes instead of exiting, and leaves signals alone."""
    codes = queue.SimpleQueue()
    monkeypatch.setattr(process_worker.os, "_exit", codes.put)
    monkeypatch.setattr(process_worker.signal, "signal", lambda *_: None)
    monkeypatch.setattr(process_worker, "_LEAVE_S", 0)
    return codes


def test_worker_answers_until_eof(leaving):
    """Then it leaves, and a stray thread would not keep it."""
    ours, theirs = multiprocessing.Pipe()
    thread = threading.Thread(target=serve, args=(theirs,))
    thread.start()
    ours.send((operator.add, (1, 2)))
    assert ours.recv()[:3] == (3, None, None)
    ours.send((operator.add, (1,)))
    assert ours.recv().error[0] == "TypeError"
    ours.send((threading.Lock, ()))
    assert "pickle" in ours.recv().error[1]
    ours.close()
    thread.join(30)
    assert leaving.get(timeout=30) == 0
    theirs.close()


def test_worker_leaves_at_once_when_the_parent_dies_during_a_call(leaving):
    """Nobody wants the result."""
    ours, theirs = multiprocessing.Pipe()
    gate = threading.Event()
    requests, working = queue.SimpleQueue(), threading.Event()
    working.set()
    ours.close()
    process_worker._read(theirs, requests, working)
    assert leaving.get(timeout=30) == 1
    gate.set()
    theirs.close()


def test_worker_whose_parent_died_before_the_answer_returns():
    """The pipe is broken; there is nothing left to do."""
    ours, theirs = multiprocessing.Pipe()
    requests = queue.SimpleQueue()
    import pickle

    requests.put(pickle.dumps((abs, (-1,))))
    ours.close()
    serve_requests(theirs, requests, threading.Event())
    theirs.close()
