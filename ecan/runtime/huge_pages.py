"""Keeps the heap of a big process in huge pages (ADR 18).

A request of one session among 100 000 finds its few objects on pages of 4 KiB whose
addresses the CPU no longer has at hand (TLB). In pages of 2 MiB the whole heap needs some
hundred of them. The kernel makes such a page of a range of memory when asked to
(`MADV_COLLAPSE`, Linux 6.1): it copies 512 small pages into a large one, and nothing else
changes for whoever uses that memory.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from ecan.runtime.process_memory import HUGE_BYTES, ProcessMemory

if TYPE_CHECKING:
    from ecan.runtime.clock import Clock, Handle

__all__ = ["HugePages"]

MIN_BYTES = 128 << 20
"""A smaller process gains nothing that could be measured."""

LOOK_EVERY_S = 10.0
GROWTH = 1.25
PASS_EVERY_S = 600.0
"""A pass is due when the process has grown by a quarter, else after so long."""

PAUSE_S = 0.005
PAUSE = 4.0
"""After each range, at least so long, and so many times as long as the range took: while it is
collapsed (0.6 ms; 6 ms in a virtual machine whose host has yet to find the memory) whoever
needs something in it, or a new page of memory, waits. Hence no low priority for the thread:
another process on its CPU made it hold up the loop for 130 ms at worst instead of 28."""

MAX_REFUSED = 8
"""Ranges in a row for which the kernel had no memory; each time it searched for some."""

NO_MEMORY = (errno.ENOMEM, errno.EBUSY)
"""No free huge page; the control group has no room for one."""

NOT_NOW = (*NO_MEMORY, errno.EAGAIN, errno.EMFILE, errno.ENFILE)
"""Says nothing about the kernel. The last two: no file of `/proc` can be opened."""

PROBES = 3
"""A page of the probe that the kernel is just moving looks like a kernel that cannot do it."""

STOP_S = 1.0

logger = logging.getLogger("ecan.runtime")


class HugePages:
    """The process's heap in huge pages, from `start` to `stop`. At most one a process.

    It looks at the size every ten seconds. When the process has become big, or bigger by a
    quarter, a pass goes over all of the heap, in a thread of its own, with a pause after each
    range.

    INVARIANT: only a range of which the process has every page already, but for a few
    (`process_memory.MAX_HOLES`), and shares none, is collapsed. So the process hardly becomes
    bigger (at most 3 %, not 1 % was measured); the stack of a thread, which is in use at one
    end only, stays as it is; and what a forked child shares is not copied. What the process
    gives back between the look and the collapse, some microseconds, costs 2 MiB at most.

    Where it cannot work (an older kernel, another system, an administrator who said
    ``never``) the first pass finds out, says so in the log, and there is no second.

    Args:
        clock: for the looks.
        memory: None for this process's.

    Attributes:
        bytes: that the last pass found in huge pages or put there.

    Runs on: the loop.
    """

    def __init__(self, clock: Clock, memory: ProcessMemory | None = None) -> None:
        self.bytes = 0
        self._clock = clock
        self._memory = memory or ProcessMemory()
        self._timer: Handle | None = None
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._one_pass = threading.Lock()
        self._works: bool | None = None
        self._passed_bytes = 0
        self._passed_mono = 0.0

    def start(self) -> None:
        """Look from now on."""
        self._stopped.clear()
        self._timer = self._clock.call_later(LOOK_EVERY_S, self._look)

    def stop(self) -> None:
        """Look no more; a pass that runs ends after the range it is at. Twice is fine."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._thread is not None:
            self._thread.join(STOP_S)
            self._thread = None

    def pass_now(self) -> int:
        """A pass without pauses, in this thread, if the process is big enough for one.

        For measurements, of what would be after a while by itself.

        Returns:
            `bytes`.
        """
        resident = self._resident_bytes()
        if resident >= MIN_BYTES:
            self._passed(resident)
            self._pass(None)
        return self.bytes

    def _look(self) -> None:
        resident = self._resident_bytes()
        if self._works is False:
            self._timer = None
            return
        self._timer = self._clock.call_later(LOOK_EVERY_S, self._look)
        running = self._thread is not None and self._thread.is_alive()
        if not running and resident >= MIN_BYTES and self._is_due(resident):
            self._passed(resident)
            self._thread = threading.Thread(
                target=self._pass, args=(PAUSE_S,), name="ecan-huge-pages", daemon=True
            )
            self._thread.start()

    def _resident_bytes(self) -> int:
        """0 when switched off."""
        if self._works is False:
            return 0
        try:
            return self._memory.resident_bytes()
        except OSError as error:
            self._failed(error)
            return 0

    def _is_due(self, resident: int) -> bool:
        return (
            resident >= self._passed_bytes * GROWTH
            or self._clock.mono() - self._passed_mono >= PASS_EVERY_S
        )

    def _passed(self, resident: int) -> None:
        self._passed_bytes = resident
        self._passed_mono = self._clock.mono()

    # -- on the thread of a pass -------------------------------------------------------

    def _pass(self, pause_s: float | None) -> None:
        with self._one_pass:
            try:
                if self._may():
                    self._collapse(pause_s)
            except OSError as error:
                self._failed(error)

    def _may(self) -> bool:
        refusal = self._memory.refusal()
        if refusal is None and self._works is None:
            error = self._probe()
            if error in NOT_NOW:
                return False
            if error == 0:
                self._works = True
            else:
                refusal = f"MADV_COLLAPSE: {os.strerror(error)}"
        if refusal is not None:
            self._switch_off(refusal)
        return refusal is None

    def _probe(self) -> int:
        error = 0
        for _ in range(PROBES):
            error = self._memory.probe()
            if error in (0, *NOT_NOW):
                break
        return error

    def _collapse(self, pause_s: float | None) -> None:
        began = time.perf_counter()
        huge = refused = 0
        with self._memory.open_pagemap() as pagemap:
            for address in self._memory.ranges():
                if self._stopped.is_set():
                    return
                if not self._memory.is_full(address, pagemap):
                    continue
                started = time.perf_counter()
                error = self._memory.collapse(address)
                took_s = time.perf_counter() - started
                huge += error == 0
                refused = refused + 1 if error in NO_MEMORY else 0
                if refused == MAX_REFUSED:
                    break
                if pause_s is not None:
                    self._stopped.wait(max(pause_s, took_s * PAUSE))
        self.bytes = huge * HUGE_BYTES
        logger.debug("huge_pages.passed: %d ranges in %.1f s", huge, time.perf_counter() - began)

    def _failed(self, error: OSError) -> None:
        if error.errno not in NOT_NOW:
            self._switch_off(str(error))

    def _switch_off(self, reason: str) -> None:
        self._works = False
        logger.info("huge_pages.off (%s)", reason)
