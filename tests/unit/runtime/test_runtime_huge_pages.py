"""The heap in huge pages: what is collapsed, what is left alone, when, and when not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import logging
import mmap
import os
import re
import threading
import time
import warnings
from pathlib import Path

import pytest

from ecan.runtime import HugePages, huge_pages, process_memory
from ecan.runtime.process_memory import (
    HUGE_BYTES,
    MAX_HOLES,
    PAGE_BYTES,
    PAGES,
    ProcessMemory,
)
from ecan.testing.clock import FakeClock

MB = 1 << 20
WAIT_S = 30.0


def _cannot() -> bool:
    try:
        return ProcessMemory().refusal() is not None or ProcessMemory().probe() != 0
    except OSError:
        return True


# In CI they run, and fail where it does not work: nobody would notice that they are skipped.
real_memory = pytest.mark.skipif(
    not os.environ.get("CI") and _cannot(), reason="this kernel has no MADV_COLLAPSE"
)


class Recorded(ProcessMemory):
    """The real one, and what was collapsed."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[int, int] = {}

    def collapse(self, address: int) -> int:
        self.errors[address] = super().collapse(address)
        return self.errors[address]


class Simulated(ProcessMemory):
    """As big as a test says, with ranges that are none; `answer` is called for each."""

    def __init__(self, ranges: int = 3, proc=Path("/proc/self"), policy=None, answer=lambda: 0):
        super().__init__(proc, *([policy] if policy else []))
        self.resident = 1024 * MB
        self.count = ranges
        self.asked: list[int] = []
        self.answer = answer
        self.probes: list[int] = []
        self.passes = 0
        self.refuses: str | None = None

    def resident_bytes(self) -> int:
        return self.resident

    def refusal(self) -> str | None:
        return self.refuses

    def probe(self) -> int:
        return self.probes.pop(0) if self.probes else 0

    @contextlib.contextmanager
    def open_pagemap(self):
        self.passes += 1
        yield -1

    def ranges(self):
        yield from range(0, self.count * HUGE_BYTES, HUGE_BYTES)

    def is_full(self, address: int, pagemap: int) -> bool:
        return True

    def collapse(self, address: int) -> int:
        self.asked.append(address)
        return self.answer()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def small(monkeypatch):
    """The process of the tests is big enough."""
    monkeypatch.setattr(huge_pages, "MIN_BYTES", 1)


@pytest.fixture
def make(clock, monkeypatch):
    """Started ones, which are stopped; whatever memory they get."""
    monkeypatch.setattr(huge_pages, "PAUSE_S", 0.0)
    monkeypatch.setattr(huge_pages, "PAUSE", 0.0)
    made = []

    def make(memory):
        made.append(HugePages(clock, memory))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.stop()
        assert one._thread is None
    assert not [one for one in threading.enumerate() if one.name == "ecan-huge-pages"]


@pytest.fixture
def look(clock):
    """The next look, and the end of the pass that it begins."""

    def look(one: HugePages, seconds: float = huge_pages.LOOK_EVERY_S) -> None:
        clock.advance(seconds)
        if one._thread is not None:
            one._thread.join(WAIT_S)
            assert not one._thread.is_alive()

    return look


def in_huge_pages() -> int:
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"^AnonHugePages: +(\d+) kB$", rollup, re.MULTILINE)[1]) * 1024


def lines(caplog) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "ecan.runtime"]


@contextlib.contextmanager
def mapped(ranges: int):
    """Memory of our own: the address of its first range, and a pagemap."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with (
        mmap.mmap(-1, (ranges + 1) * HUGE_BYTES, flags=flags) as own,
        ProcessMemory().open_pagemap() as pagemap,
    ):
        view = ctypes.c_char.from_buffer(own)
        address = process_memory._up(ctypes.addressof(view))
        del view
        yield address, pagemap


def write(address: int, pages: int) -> None:
    ctypes.memset(address, 1, pages * PAGE_BYTES)


def there(address: int, pagemap: int) -> int:
    """Pages of a range that are in memory."""
    entries = os.pread(pagemap, PAGES * 8, address // PAGE_BYTES * 8)
    return sum(byte >> 7 for byte in entries[7::8])


# -- real memory ---------------------------------------------------------------------------


@real_memory
def test_the_heap_ends_up_in_huge_pages(make, look, small):
    """Python's objects are, nothing of them is changed, and the process is hardly bigger."""
    heap = [b"%0100d" % number for number in range(1_000_000)]  # 140 MB
    before, resident = in_huge_pages(), ProcessMemory().resident_bytes()
    one = make(None)
    look(one)
    grown = in_huge_pages() - before
    assert grown > 60 * MB
    assert one.bytes >= grown
    assert ProcessMemory().resident_bytes() - resident < 0.04 * one.bytes + 2 * MB
    assert all(int(text) == number for number, text in enumerate(heap))


@real_memory
def test_only_ranges_that_are_full_are_collapsed(make, look, small):
    """Neither what is half there, nor what was only read, nor what is not there at all."""
    memory = Recorded()
    with mapped(6) as (address, pagemap):
        full, nearly, holes, half, read, nothing = (address + n * HUGE_BYTES for n in range(6))
        write(full, PAGES)
        write(nearly, PAGES - MAX_HOLES)
        write(holes, PAGES - MAX_HOLES - 1)
        write(half, PAGES // 2)
        for page in range(PAGES):
            ctypes.string_at(read + page * PAGE_BYTES, 1)
        assert there(read, pagemap) == PAGES  # the page of zeros, 512 times
        ours = (full, nearly, holes, half, read, nothing)
        before = [there(one, pagemap) for one in ours]
        look(make(memory))
        assert [memory.errors.get(one) for one in ours] == [0, 0, None, None, None, None]
        assert [there(one, pagemap) for one in ours] == [PAGES, PAGES, *before[2:]]


@real_memory
def test_stacks_of_threads_are_left_alone(make, look, small):
    """They are private, without a name and big, as the heap is, but in use at one end only."""
    memory, done, running = Recorded(), threading.Event(), threading.Event()
    before = set(memory.ranges())
    size = threading.stack_size(26 * MB)  # which no cached stack has
    try:
        thread = threading.Thread(target=lambda: (running.set(), done.wait()))
        thread.start()
    finally:
        threading.stack_size(size)
    assert running.wait(WAIT_S)
    try:
        stack = set(memory.ranges()) - before
        assert len(stack) >= 12
        heap = [b"%0100d" % number for number in range(100_000)]  # there is something to do
        look(make(memory))
        assert memory.errors
        assert stack & set(memory.errors) == set()
        del heap
    finally:
        done.set()
        thread.join()


@real_memory
def test_what_a_forked_child_shares_is_not_copied(make, look, small):
    """It would be there twice then."""
    memory = Recorded()
    with mapped(2) as (address, _):
        write(address, PAGES)
        ours, its = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # there are threads: 3.12 warns
            child = os.fork()
        if child == 0:
            os.close(its)
            os.read(ours, 1)
            os._exit(0)
        os.close(ours)
        try:
            write(address + HUGE_BYTES, PAGES)
            look(make(memory))
        finally:
            os.close(its)
            os.waitpid(child, 0)
        assert address not in memory.errors
        assert memory.errors[address + HUGE_BYTES] == 0


@real_memory
def test_a_pass_over_what_is_huge_already(make, look, small):
    """Nothing is done, and it counts as before."""
    memory = Recorded()
    with mapped(4) as (address, _):
        write(address, 4 * PAGES)
        one = make(memory)
        look(one)
        first, before = one.bytes, in_huge_pages()
        assert first >= 4 * HUGE_BYTES
        look(one, huge_pages.PASS_EVERY_S)
        assert one.bytes >= first - 4 * MB
        assert abs(in_huge_pages() - before) <= 4 * MB


# -- what the kernel shows -------------------------------------------------------------------

MAPS = """\
10000000-10400000 r-xp 00000000 fe:00 26933                              /usr/bin/python3.11
20000000-20400000 rw-p 00000000 fe:00 26933                              /usr/bin/python3.11
30100000-30500000 rw-p 00000000 00:00 0                                  [heap]
40000000-40400000 rw-s 00000000 00:01 1029                               /dev/zero (deleted)
48000000-48400000 rw-s 00000000 00:00 0
50000000-50400000 rw-p 00000000 00:00 0
60000000-60400000 ---p 00000000 00:00 0
70100000-70300000 rw-p 00000000 00:00 0
80000000-80200000 rw-p 00000000 00:00 0                                  [anon:cpython:pymalloc]
7f0000000000-7f0000400000 rw-p 00000000 00:00 0                          [stack]
"""


def test_which_ranges_could_be_heap(tmp_path):
    """Aligned and whole ones of private anonymous memory that can be written."""
    (tmp_path / "maps").write_text(MAPS)
    assert list(ProcessMemory(tmp_path).ranges()) == [
        0x30200000,
        0x50000000,
        0x50200000,
        0x80000000,
    ]


@pytest.fixture
def policy(tmp_path):
    """The administrator's folder."""
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    (tmp_path / "hpage_pmd_size").write_text("2097152\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "refused"),
    [
        ("enabled", "always [madvise] never\n", None),
        ("enabled", "[always] madvise never\n", None),
        ("enabled", "always madvise [never]\n", "enabled is never"),
        ("hpage_pmd_size", "33554432\n", "huge pages are not of 2 MiB"),
    ],
)
def test_what_the_administrator_and_the_machine_say(policy, name, content, refused):
    """The kernel would collapse in spite of `never`: for us it is a no."""
    (policy / name).write_text(content)
    said = ProcessMemory(policy=policy).refusal()
    assert said is None if refused is None else said.endswith(refused)


def test_pages_of_another_size(policy, monkeypatch):
    """ARM with 64 KiB."""
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 65536}.__getitem__)
    assert ProcessMemory(policy=policy).refusal() == "pages are not of 4 KiB"


# -- switched off ------------------------------------------------------------------------------


def is_off(one: HugePages, memory, clock, look, caplog, reason: str) -> None:
    """One line says so, nothing was collapsed, and nothing is looked at again."""
    caplog.set_level(logging.INFO, "ecan.runtime")
    for _ in range(3):
        look(one, huge_pages.PASS_EVERY_S)
    (line,) = lines(caplog)
    assert line.startswith("huge_pages.off (")
    assert reason in line
    assert memory is None or memory.asked == []
    assert clock.next_due_mono is None
    assert one.bytes == one.pass_now() == 0
    assert len(lines(caplog)) == 1


def test_never(make, look, clock, caplog):
    """The administrator said no."""
    memory = Simulated()
    memory.refuses = "enabled is never"
    is_off(make(memory), memory, clock, look, caplog, "enabled is never")


def test_a_kernel_that_does_not_know_how(make, look, clock, caplog):
    """Before 6.1, gVisor; or PR_SET_THP_DISABLE."""
    memory = Simulated()
    memory.probes = [errno.EINVAL] * huge_pages.PROBES
    is_off(make(memory), memory, clock, look, caplog, "MADV_COLLAPSE: Invalid argument")


def test_another_system(make, look, clock, caplog, tmp_path):
    """Without /proc."""
    is_off(make(ProcessMemory(tmp_path)), None, clock, look, caplog, "statm")


def test_a_kernel_without_huge_pages(make, look, clock, caplog, tmp_path, small):
    """There is no such folder."""
    is_off(make(ProcessMemory(policy=tmp_path)), None, clock, look, caplog, "hpage_pmd_size")


@real_memory
def test_the_real_probe_of_a_process_that_must_not(monkeypatch):
    """The kernel says EINVAL after PR_SET_THP_DISABLE, and that is no thread's but the process's."""
    prctl = ctypes.CDLL(None).prctl
    set_thp_disable = 41
    assert prctl(set_thp_disable, 1, 0, 0, 0) == 0
    try:
        assert ProcessMemory().probe() == errno.EINVAL
    finally:
        assert prctl(set_thp_disable, 0, 0, 0, 0) == 0
    assert ProcessMemory().probe() == 0


def test_a_probe_that_fails_by_chance(make, look, caplog):
    """A page that is just being moved says EINVAL too; no memory says nothing of the kernel."""
    caplog.set_level(logging.INFO, "ecan.runtime")
    memory = Simulated()
    memory.probes = [errno.EINVAL, errno.EINVAL, 0]
    one = make(memory)
    look(one)
    assert one.bytes == 3 * HUGE_BYTES
    memory = Simulated()
    memory.probes = [errno.ENOMEM]
    one = make(memory)
    look(one)
    assert one.bytes == 0
    look(one, huge_pages.PASS_EVERY_S)
    assert one.bytes == 3 * HUGE_BYTES
    assert lines(caplog) == []


def test_no_file_can_be_opened_now(make, look, caplog):
    """A server at its limit of open files goes on later."""
    caplog.set_level(logging.INFO, "ecan.runtime")
    memory = Simulated()
    one = make(memory)

    def full() -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    memory.answer = full
    look(one)
    memory.answer = lambda: 0
    look(one, huge_pages.PASS_EVERY_S)
    assert one.bytes == 3 * HUGE_BYTES
    assert lines(caplog) == []


def test_ranges_that_cannot_be_collapsed_are_passed_over(make, look):
    """What was unmapped meanwhile, is locked, is being moved."""
    answers = iter([errno.EINVAL, 0, errno.EAGAIN, errno.ENOMEM, 0, errno.EBUSY, 0])
    memory = Simulated(7, answer=lambda: next(answers))
    one = make(memory)
    look(one)
    assert len(memory.asked) == 7
    assert one.bytes == 3 * HUGE_BYTES


def test_a_machine_without_free_memory_is_not_searched_on_and_on(make, look):
    """The pass ends; the next one tries again."""
    memory = Simulated(100, answer=lambda: errno.ENOMEM)
    one = make(memory)
    look(one)
    assert len(memory.asked) == huge_pages.MAX_REFUSED
    look(one, huge_pages.PASS_EVERY_S)
    assert len(memory.asked) == 2 * huge_pages.MAX_REFUSED


@pytest.mark.parametrize("error", [0, errno.EAGAIN, errno.EINVAL])
def test_a_machine_with_little_free_memory_is(make, look, error):
    """It is those in a row that count, and other errors do not."""
    answers = itertools.cycle([errno.ENOMEM, errno.EBUSY, error])
    memory = Simulated(100, answer=lambda: next(answers))
    look(make(memory))
    assert len(memory.asked) == 100


# -- when --------------------------------------------------------------------------------------


def test_when_a_pass_is_due(make, look):
    """Big enough, and grown by a quarter or ten minutes later."""
    memory = Simulated()
    one = make(memory)
    passes = []
    for resident in (100, 127, 128, 159, 160, 199, 150, 199, 201):
        memory.resident = resident * MB
        look(one)
        passes.append(memory.passes)
    assert passes == [0, 0, 1, 1, 2, 2, 2, 2, 3]
    look(one, huge_pages.PASS_EVERY_S - 11)
    assert memory.passes == 3
    look(one, 11)
    assert memory.passes == 4
    memory.resident = 100 * MB
    look(one, 2 * huge_pages.PASS_EVERY_S)
    assert memory.passes == 4


def test_one_pass_at_a_time(make, clock):
    """Also when the process has grown meanwhile."""
    go_on, at_work = threading.Event(), threading.Semaphore(0)

    def answer() -> int:
        at_work.release()
        go_on.wait(WAIT_S)
        return 0

    memory = Simulated(1, answer=answer)
    one = make(memory)
    clock.advance(10)
    assert at_work.acquire(timeout=WAIT_S)
    first = one._thread
    for _ in range(3):
        memory.resident *= 2
        clock.advance(huge_pages.PASS_EVERY_S)
        assert one._thread is first
    assert not at_work.acquire(timeout=0.05)
    go_on.set()
    first.join(WAIT_S)
    clock.advance(10)  # what has grown is not forgotten
    assert at_work.acquire(timeout=WAIT_S)


def test_stop_ends_a_pass_at_once(make, clock, monkeypatch):
    """In its pause; what was not counted to the end is not told."""
    monkeypatch.setattr(huge_pages, "PAUSE_S", 3600.0)
    begun = threading.Event()
    memory = Simulated(100, answer=lambda: begun.set() or 0)
    one = make(memory)
    clock.advance(10)
    assert begun.wait(WAIT_S)
    thread = one._thread
    began = time.monotonic()
    one.stop()
    assert time.monotonic() - began < huge_pages.STOP_S
    assert not thread.is_alive()
    assert len(memory.asked) == 1
    assert one.bytes == 0
    assert clock.next_due_mono is None


def test_pauses_are_as_long_as_the_work_needs(make, look, monkeypatch):
    """So that whoever waits for memory never waits for most of the time."""
    monkeypatch.setattr(huge_pages, "PAUSE_S", 0.005)
    monkeypatch.setattr(huge_pages, "PAUSE", 4.0)
    took = iter([0.0, 0.02])
    memory = Simulated(2, answer=lambda: time.sleep(next(took)) or 0)
    one = make(memory)
    pauses = []
    monkeypatch.setattr(one._stopped, "wait", pauses.append)
    look(one)
    quick, slow = pauses
    assert quick == 0.005
    assert slow >= 0.08


def test_a_pass_now(make, look, monkeypatch):
    """In this thread, without pauses, for whoever measures; if the process is big enough."""
    monkeypatch.setattr(huge_pages, "PAUSE_S", 3600.0)
    memory = Simulated()
    one = make(memory)
    memory.resident = huge_pages.MIN_BYTES - 1
    assert one.pass_now() == 0
    memory.resident = huge_pages.MIN_BYTES
    assert one.pass_now() == 3 * HUGE_BYTES
    assert one._thread is None
    look(one)
    assert memory.passes == 1  # it was one, so the next is due later


def test_stopping_twice_and_starting_again(clock, look):
    """Or without a start."""
    memory = Simulated()
    one = HugePages(clock, memory)
    one.stop()
    one.start()
    one.stop()
    one.stop()
    clock.advance(huge_pages.PASS_EVERY_S)
    assert memory.passes == 0
    one.start()
    look(one)
    assert one.bytes == 3 * HUGE_BYTES
    one.stop()
