"""Actors that share one event loop, under pykka's interface.

Theory of operation. An idle actor is an object and a mailbox, nothing else: no
thread, no task. Mail wakes it, which schedules one ``call_soon(_drain)``; a
drain handles at most `throughput` items and then queues up behind the others.
A plain result ends an item. An awaitable result becomes a task, and until it is
done only the control lane is read::

            mail                         awaitable result
    IDLE ─────────▶ DRAINING ──────────────────────────────▶ BUSY (control lane only)
      ▲  no more mail │  ▲                                     │
      └───────────────┘  └───────────── task done ─────────────┘

    any ── stop, failure ──▶ ENDED: detached at once; what runs is cancelled;
                             on_stop or on_failure once it has unwound

PYKKA: `_actor_loop_running` is never used: a BaseException there, even the
CancelledError of one cancelled handler, stops all actors of the process.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pykka._envelope import Envelope  # PYKKA: private; pinned by a contract test
from pykka.messages import _ActorStop

from ecan.runtime.life import ActorLife, Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ecan.runtime.future import LoopFuture

__all__ = ["LoopActor"]

# asyncio holds tasks weakly: a task that waits for something only it refers to
# would be collected in the middle of its work.
_tasks: Final[set[asyncio.Task[Outcome]]] = set()


class LoopActor(ActorLife):
    """An actor drained by an event loop, in turns, only while mail waits.

    State owned: its mailbox if none was given, the task of the request it
    handles, its own `contextvars.Context` (a sender's request id must not leak
    into the receiver, nor from one message into another actor).

    Messages in: anything; override `on_receive`. Its result may be an awaitable:
    it runs as a task, one at a time, while control messages go on.

    A crash, as in pykka: an exception during an ask goes to the caller and the
    actor lives; during a tell or an offered item it stops the actor and calls
    `on_failure`. Unlike pykka: `on_failure` is also called when `on_start` fails
    (else no supervisor would learn of it); a BaseException that is no Exception
    (SystemExit, KeyboardInterrupt, CancelledError, GeneratorExit) fails this
    actor only, and an asker gets `pykka.ActorDeadError` caused by it, never the
    thing itself, which would end the asker's loop or look like its own
    cancellation.

    After its end the user lane of a mailbox that was given is left as it is, for
    the next incarnation; in an own mailbox waiting asks get ActorDeadError.

    Lifetime: the mailbox holds the actor from `start` until it ends, and a ref
    holds the mailbox; so whoever can send to a living actor keeps it.

    Args:
        mailbox: None makes one that ends with the actor.
        loop: where it runs; None takes the running loop.

    Runs on: the loop. `start` on any thread if ``loop`` is given.
    """

    throughput: ClassVar[int] = 16
    """Items handled a turn; the fairness of all actors is made of this."""

    # -- handling --------------------------------------------------------------

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._drain, context=self._context)

    def _resume(self) -> None:
        if not self._ended and self._mailbox.readable(self._running is None and not self._held):
            self._wake()

    def _drain(self) -> None:
        if self._ended:
            return
        take = self._mailbox.take
        for _ in range(self.throughput):
            item = take(self._running is None and not self._held)
            if item is None:
                self._scheduled = False
                return
            reply_to: LoopFuture[Any] | None = None
            try:
                if type(item) is Envelope:
                    reply_to = item.reply_to  # type: ignore[assignment]  # made by _create_future
                    message = item.message
                    if type(message) is _ActorStop:
                        self._stop_for(reply_to)
                        return
                    result = self._handle_receive(message)
                    message = None
                else:
                    result = self.on_receive(item)
                if result is not None and hasattr(result, "__await__"):
                    self._run(result, reply_to)
                elif reply_to is not None:
                    reply_to.set(result)
            except BaseException as error:  # noqa: BLE001  the fence
                self._on_error(error, reply_to)
            # Dropped before the next look into the mailbox: it may be large, it may
            # have a finaliser that sends mail, and a traceback may hold this frame.
            item = reply_to = message = result = None
            if self._ended:
                return
        self._scheduled = False
        self._resume()

    def handle_now(self, item: object) -> bool:
        """Handle an item at once, past the mailbox, if it would be the next one anyway.

        For the most frequent case, an idle actor: neither a place in the queue nor a
        turn of the loop is needed then. Semantics are those of an offered item.

        Returns:
            False if anything waits or runs; the item then has to be offered.

        Runs on: the loop, not from within this actor's own turn.
        """
        if self._scheduled or self._running is not None or self._held or self._ended:
            return False
        mailbox = self._mailbox  # looked into without a call: this runs for every request
        if mailbox._user is not None or mailbox._control is not None or mailbox.paused:  # noqa: SLF001  one unit
            return False
        self._scheduled = True  # mail that comes meanwhile waits for the end of this turn
        try:
            result = self._context.run(self.on_receive, item)
            if result is not None and hasattr(result, "__await__"):
                self._run(result, None)
        except BaseException as error:  # noqa: BLE001  the fence
            self._context.run(self._on_error, error, None)
        if not self._ended:
            self._scheduled = False
            # What ran may have sent mail, which the type checker does not know.
            if mailbox._user is not None or mailbox._control is not None:  # type: ignore[redundant-expr]  # noqa: SLF001
                self._resume()
        return True

    def _run(self, awaitable: Awaitable[Any], reply_to: LoopFuture[Any] | None) -> None:
        task = self._loop.create_task(
            _drive(awaitable), name=type(self).__name__, context=self._context
        )
        _tasks.add(task)
        if self._running is None:
            self._running = {task}
        else:  # control messages may have awaitable results while a request runs
            self._running.add(task)
        # A done callback, not the end of the task's coroutine: a task cancelled
        # before its first step never enters its coroutine.
        task.add_done_callback(
            functools.partial(self._finished, awaitable, reply_to), context=self._context
        )

    def _finished(
        self,
        awaitable: Awaitable[Any],
        reply_to: LoopFuture[Any] | None,
        task: asyncio.Task[Outcome],
    ) -> None:
        _tasks.discard(task)
        if self._running is not None:
            self._running.discard(task)
            if not self._running:
                self._running = None
        result: Any = None
        error: BaseException | None
        if task.cancelled():
            error = asyncio.CancelledError()
            if inspect.iscoroutine(awaitable):
                awaitable.close()  # it never ran; do not warn of that
        else:
            result, error = task.result()
        if error is None:
            if reply_to is not None:
                reply_to.set(result)
        elif self._ended:
            self._unwound(error, reply_to)
        else:
            self._on_error(error, reply_to)
        if self._ended:
            self._try_finish()
        elif not self._scheduled:
            # This is a turn of the loop of its own; no need to queue for another.
            self._scheduled = True
            self._drain()

    def hold(self) -> None:
        """Keep the user lane closed until `release`: a request runs elsewhere."""
        self._held = True

    def release(self) -> None:
        """Open the user lane again; twice is fine."""
        self._held = False
        self._resume()

    @property
    def held(self) -> bool:
        """Whether the actor itself keeps the user lane closed."""
        return self._held

    @property
    def busy(self) -> bool:
        """Whether an awaitable result is being run."""
        return self._running is not None


async def _drive(awaitable: Awaitable[Any]) -> Outcome:
    """Run one result to its end and hand back how it ended.

    Nothing is raised, because asyncio lets SystemExit and KeyboardInterrupt out of
    a task's step end the whole loop.
    """
    try:
        return await awaitable, None
    except GeneratorExit as error:
        if asyncio._get_running_loop() is None:  # noqa: SLF001  documented
            raise  # not the message's: the interpreter throws this coroutine away
        return None, error
    except BaseException as error:  # noqa: BLE001  the fence
        return None, error
