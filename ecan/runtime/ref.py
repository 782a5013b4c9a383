"""pykka's `ActorRef`, made safe to use on an event loop."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeVar

import pykka
from pykka.messages import _ActorStop  # PYKKA: what stop() sends

from ecan.runtime.future import LoopFuture

__all__ = ["LoopActorRef"]

A = TypeVar("A", bound=pykka.Actor)

_running_loop: Final = asyncio._get_running_loop  # noqa: SLF001  documented; None instead of raising


class LoopActorRef(pykka.ActorRef[A]):
    """A reference to a `LoopActor`: `tell`, `ask` and `stop` from any thread.

    What differs from pykka's: a blocking `ask` or `stop` on a loop's thread is
    refused before anything is sent (pykka would send, then block; the request
    would run although its sender got an error), and ``await ref.stop(block=False)``
    works. It holds the mailbox, and that holds the actor until it ends: whoever
    has a ref of a living actor can reach it.
    """

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """Send a message and get its reply.

        Args:
            message: anything.
            block: False returns a `LoopFuture` to await; True waits, which only a
                thread without a loop may do.
            timeout: seconds to wait when blocking.

        Raises:
            RuntimeError: blocking on a loop's thread; nothing was sent.
            MailboxFullError: no room; nothing was sent.
            pykka.ActorDeadError: it has ended, or ends before the reply.
            pykka.Timeout: no reply in time.
        """
        _refuse_blocking(block)
        try:
            future: LoopFuture[Any] = super().ask(message, block=False)  # type: ignore[assignment]
        except pykka.ActorDeadError:
            # RACE: it ended between pykka's look at the flag and the put.
            future = LoopFuture()
            future.set_exception()
        return future.get(timeout=timeout) if block else future

    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        """Ask the actor to stop, past all that waits in its mailbox.

        Args:
            block: False returns a `LoopFuture` of the result.
            timeout: seconds to wait when blocking.

        Returns:
            True when it has stopped, False when it was dead already.

        Raises:
            RuntimeError: blocking on a loop's thread; nothing was sent.
            pykka.Timeout: it has not stopped in time.
        """
        _refuse_blocking(block)
        asked: LoopFuture[None] = self.ask(_ActorStop(), block=False)
        stopped: LoopFuture[bool] = LoopFuture()
        asked.add_done_callback(
            lambda: stopped.set(not isinstance(asked.exception(), pykka.ActorDeadError))
        )
        return stopped.get(timeout=timeout) if block else stopped


def _refuse_blocking(block: bool) -> None:
    if block and _running_loop() is not None:
        raise RuntimeError("this would block the event loop: use `await` with block=False")
