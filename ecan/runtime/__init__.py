"""The machine room: actors, mailboxes, futures, clocks, threads and processes.

The only package that knows pykka's private hooks (each marked ``PYKKA:``, all
pinned by ``tests/contract/test_pykka_hooks.py``). Called by `ecan.actors`, the
gateway (which offers into mailboxes) and the composition root.

It must not know sessions, frames, stores or settings: a mailbox carries items
with a size, an actor handles messages, and what they mean is said above.
"""

from ecan.runtime.actor import LoopActor
from ecan.runtime.clock import Clock, Handle, LoopClock
from ecan.runtime.future import LoopFuture
from ecan.runtime.garbage import GarbageKeeper, Look
from ecan.runtime.huge_pages import HugePages
from ecan.runtime.loop import run_fenced
from ecan.runtime.mailbox import Mail, Mailbox, MailboxFullError
from ecan.runtime.processes import (
    ProcessDied,
    ProcessFailure,
    ProcessJob,
    ProcessLane,
    ProcessRenewedError,
)
from ecan.runtime.ref import LoopActorRef
from ecan.runtime.stacks import task_stack
from ecan.runtime.watchdog import Stall, StallWatchdog
from ecan.runtime.workers import Job, WorkerFailure, WorkerThreads, set_switch_interval

__all__ = [
    "Clock",
    "GarbageKeeper",
    "Handle",
    "HugePages",
    "Job",
    "Look",
    "LoopActor",
    "LoopActorRef",
    "LoopClock",
    "LoopFuture",
    "Mail",
    "Mailbox",
    "MailboxFullError",
    "ProcessDied",
    "ProcessFailure",
    "ProcessJob",
    "ProcessLane",
    "ProcessRenewedError",
    "Stall",
    "StallWatchdog",
    "WorkerFailure",
    "WorkerThreads",
    "run_fenced",
    "set_switch_interval",
    "task_stack",
]
