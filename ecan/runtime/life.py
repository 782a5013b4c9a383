"""How an actor on a loop starts, fails and ends.

Half of `LoopActor`, which adds how mail is handled; see there for the semantics.

An end closes the door at once: the ref says dead, the mailbox is detached. What
still runs is cancelled, and the last hook (`on_stop` or `on_failure`) is called
once, when it has unwound; so an actor never does two things at a time.
"""

from __future__ import annotations

import abc
import asyncio
import contextvars
import functools
import itertools
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import pykka
from pykka._envelope import Envelope  # PYKKA: private; pinned by a contract test
from pykka.messages import _ActorStop

from ecan.runtime.future import LoopFuture
from ecan.runtime.mailbox import Mailbox
from ecan.runtime.ref import LoopActorRef
from ecan.runtime.stop_flag import StopFlag

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["ActorLife", "Outcome"]

logger = logging.getLogger("ecan.runtime")

_numbers = itertools.count(1)

Outcome: TypeAlias = tuple[Any, BaseException | None]


class ActorLife(pykka.Actor):
    """The life of a `LoopActor`; not to be subclassed by others."""

    registered: ClassVar[bool] = True
    """Whether it is listed in pykka's ActorRegistry, a list searched linearly:
    0.2 ms to leave among 10 000. Session actors are in our own directory instead."""

    logs_failures: ClassVar[bool] = True
    """Off for actors whose supervisor logs their failures, knowing more of them."""

    stop_grace_s: ClassVar[float] = 1.0
    """How long an end waits for a cancelled task that does not unwind."""

    # Defaults on the class keep idle actors small.
    _running: set[asyncio.Task[Outcome]] | None = None
    _held: bool = False
    _scheduled: bool = False
    _ended: bool = False
    _finish: Callable[[], None] | None = None
    _grace: asyncio.TimerHandle | None = None

    def __init__(
        self,
        *_args: Any,
        mailbox: Mailbox | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        **_kwargs: Any,
    ) -> None:
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._context = contextvars.Context()
        self._left: list[Any] = []
        self._owns_mailbox = mailbox is None
        if mailbox is None:
            mailbox = self._create_actor_inbox()
        # PYKKA: in place of its `__init__`, whose random urn, Event of 1.2 KB and ref cost
        # 10 µs and would be replaced. The ref copies the others, so it comes last.
        self.actor_urn = f"urn:ecan:{next(_numbers)}"
        self.actor_stopped = StopFlag()  # type: ignore[assignment]  # has all that is used of it
        self._mailbox = self.actor_inbox = mailbox
        self._actor_ref = LoopActorRef(self)

    # -- pykka's hooks for new actor types -------------------------------------

    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> pykka.ActorRef[Self]:
        """Make an actor and let it run.

        `on_start` is called in its first turn; messages sent before wait.

        Returns:
            Its ref, a `LoopActorRef`.

        Raises:
            RuntimeError: no loop was given and none runs here; or the loop is
                closed; or the mailbox is still read by a living actor.
        """
        if cls.registered:
            return super().start(*args, **kwargs)
        actor = cls(*args, **kwargs)
        actor._start_actor_loop()
        return actor.actor_ref

    def begin(self) -> None:
        """Let an actor run that was made by its constructor; `start` does both."""
        self._start_actor_loop()

    def halt(self) -> None:
        """Stop now: the door is closed when this returns. Runs on: the loop."""
        self._stop()

    @staticmethod
    def _create_actor_inbox() -> Mailbox:
        return Mailbox()

    @staticmethod
    def _create_future() -> LoopFuture[Any]:
        return LoopFuture()

    def _start_actor_loop(self) -> None:
        self._scheduled = True  # mail must not start a drain before on_start has run
        try:
            self._mailbox.attach(self._wake, self._loop)
        except RuntimeError:
            self._forget()
            raise
        if not self._owns_mailbox:
            # RACE: another thread found the previous incarnation alive, it ended,
            # then the stop was queued. It must not stop this one.
            _answer(self._mailbox.remove_control(_is_stop), "")
        try:
            if asyncio._get_running_loop() is self._loop:  # noqa: SLF001  documented
                self._loop.call_soon(self._begin, context=self._context)
            else:
                self._loop.call_soon_threadsafe(self._begin, context=self._context)
        except RuntimeError:  # the loop is closed
            self._close()
            raise

    def _begin(self) -> None:
        try:
            self.on_start()
        except BaseException as error:  # noqa: BLE001  the fence
            self._fail(error)
            return
        self._scheduled = False
        self._resume()

    @abc.abstractmethod
    def _wake(self) -> None:
        """Schedule a turn; called on the loop when mail has come."""

    @abc.abstractmethod
    def _resume(self) -> None:
        """Schedule a turn if there is mail to read."""

    # -- failing and ending ----------------------------------------------------

    def _on_error(self, error: BaseException, reply_to: LoopFuture[Any] | None) -> None:
        if reply_to is None:
            self._fail(error)
        elif isinstance(error, Exception):
            reply_to.set_exception((type(error), error, error.__traceback__))
        else:
            _answer_dead(reply_to, f"{self} failed with {type(error).__name__}", error)
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        exc_info = (type(error), error, error.__traceback__)
        self._handle_failure(*exc_info)
        self._end(functools.partial(self._guarded, self.on_failure, *exc_info))

    def _stop(self) -> None:
        """PYKKA: stop now, without handling the rest of the mailbox."""
        self._stop_for(None)

    def _stop_for(self, reply_to: LoopFuture[Any] | None) -> None:
        if reply_to is not None:
            self._left.append(Envelope(_ActorStop(), reply_to))
        self._end(functools.partial(self._guarded, self.on_stop))

    def _handle_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Log a failure and leave; every failure of the actor comes through here.

        PYKKA: the one choke point (on_start, messages, on_stop, on_failure).
        """
        if self.logs_failures:
            logger.error(
                "actor.failed %s",
                self,
                exc_info=(exception_type, exception_value, traceback),  # type: ignore[arg-type]  # None as sys.exc_info may be
            )
        self._close()

    def _close(self) -> None:
        """Say that it is dead and stop reading; nobody can send to it from here on."""
        if self.actor_stopped.is_set():
            return
        self._forget()
        if self._owns_mailbox:
            self._left.extend(self._mailbox.close())
        else:
            self._mailbox.detach()
            self._left.extend(self._mailbox.remove_control(_is_stop))

    def _forget(self) -> None:
        self._ended = True
        if self.registered:
            pykka.ActorRegistry.unregister(self.actor_ref)
        self.actor_stopped.set()

    def _end(self, finish: Callable[[], None]) -> None:
        if self._finish is not None:
            return
        self._close()
        self._finish = finish
        if self._running is not None:
            for task in self._running:
                task.cancel()
            self._grace = self._loop.call_later(
                self.stop_grace_s, self._give_up, context=self._context
            )
        self._try_finish()

    def _try_finish(self) -> None:
        """Call the last hook, once, when nothing runs any more."""
        finish = self._finish
        if finish is None or self._running is not None:
            return
        self._finish = _nothing
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        finish()
        left, self._left = self._left, []
        _answer(left, f"{self} stopped before handling the message")

    def _give_up(self) -> None:
        logger.warning("actor.stuck %s does not unwind; ended without its task", self)
        self._running = None
        self._try_finish()

    def _unwound(self, error: BaseException, reply_to: LoopFuture[Any] | None) -> None:
        if reply_to is not None:
            _answer_dead(reply_to, f"{self} stopped while handling the message", error)
        if not isinstance(error, asyncio.CancelledError):
            logger.error("actor.unwind_failed %s", self, exc_info=error)

    def _guarded(self, hook: Callable[..., None], *args: Any) -> None:
        try:
            hook(*args)
        except BaseException as error:  # noqa: BLE001  the fence
            self._handle_failure(type(error), error, error.__traceback__)


def _nothing() -> None:
    """Stand for a last hook that was called."""


def _is_stop(item: object) -> bool:
    return type(item) is Envelope and type(item.message) is _ActorStop


def _answer(items: list[Any], why: str) -> None:
    """Answer the askers among what will not be handled: stops with yes, others why not."""
    for item in items:
        if type(item) is Envelope and item.reply_to is not None:
            if _is_stop(item):
                item.reply_to.set(None)
            else:
                _answer_dead(item.reply_to, why)


def _answer_dead(reply_to: pykka.Future[Any], why: str, cause: BaseException | None = None) -> None:
    dead = pykka.ActorDeadError(why)
    dead.__cause__ = cause
    reply_to.set_exception((pykka.ActorDeadError, dead, None))
