"""A bounded mailbox with two lanes, which outlives the actor that reads it.

The user lane carries a session's requests, in order, bounded by count and by
bytes; a full one says so to the sender (back-pressure), nothing is dropped. The
control lane carries what must pass a long queue (cancel, ping, logout, stop);
it is always read first and has room of its own.

The mailbox belongs to the directory's cell. When an actor crashes, its
successor attaches to the same mailbox and goes on with the next request.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from pykka import ActorDeadError

# PYKKA: the envelope and the stop message are private; a contract test pins both.
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Mail", "Mailbox", "MailboxFullError"]

_running_loop: Final = asyncio._get_running_loop  # noqa: SLF001  documented; None instead of raising


class Mail(Protocol):
    """What may be offered: anything that knows its size."""

    @property
    def size_bytes(self) -> int:
        """Size in bytes; INVARIANT: never changes while the item is queued."""


class MailboxFullError(Exception):
    """There is no room: becomes the error reply BUSY.

    Attributes:
        depth: items in the lane that is full.
        nbytes: bytes in the user lane.
    """

    def __init__(self, depth: int, nbytes: int) -> None:
        super().__init__(f"mailbox full: {depth} items, {nbytes} bytes")
        self.depth = depth
        self.nbytes = nbytes


class Mailbox:
    """Two FIFO lanes, one reader.

    INVARIANT: a lane is None or has items (an empty deque is 760 bytes, which
    ten thousand idle sessions would pay twice).
    INVARIANT: `nbytes` is the sum of `size_bytes` over the offered items in the
    user lane; envelopes (tell and ask) count as items only.
    INVARIANT: whoever leaves mail in a lane the reader would read has woken the
    reader; so only the step from empty to not empty needs a wake-up.

    Args:
        max_items: bound of the user lane.
        max_bytes: bound of the user lane's offered items together.
        max_control: bound of `offer_control`; pykka's stop is not bounded.

    Runs on: the loop, except `put`, which any thread may call.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_control",
        "_lock",
        "_loop",
        "_user",
        "_wake",
        "max_bytes",
        "max_control",
        "max_items",
        "nbytes",
        "paused",
    )

    def __init__(
        self, max_items: int = 256, max_bytes: int = 4 * 2**20, max_control: int = 64
    ) -> None:
        self.max_items = max_items
        self.max_bytes = max_bytes
        self.max_control = max_control
        self.nbytes = 0
        self.paused = False
        self._user: deque[Any] | None = None
        self._control: deque[Any] | None = None
        self._wake: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        # Reentrant: the garbage collector may run a finaliser that sends here
        # while this thread is inside (queue.SimpleQueue exists for that reason).
        self._lock = threading.RLock()

    # -- sending ---------------------------------------------------------------

    def offer(self, item: Mail) -> None:
        """Put a request into the user lane.

        Raises:
            MailboxFullError: the count or the bytes would pass their bound;
                nothing was queued.
            pykka.ActorDeadError: the mailbox belonged to an actor that ended.
        """
        size = item.size_bytes
        with self._lock:
            lane = self._user
            if lane is None:
                if self.max_items < 1 or size > self.max_bytes or self._closed:
                    self._refuse(0)
                self._user = deque((item,))
                self.nbytes = size
            else:
                depth = len(lane)
                if depth >= self.max_items or self.nbytes + size > self.max_bytes:
                    self._refuse(depth)
                lane.append(item)
                self.nbytes += size
                return
        if self._wake is not None:
            self._wake()

    def offer_control(self, item: object) -> None:
        """Put a message into the control lane, past all requests.

        Raises:
            MailboxFullError: ``max_control`` messages wait there.
            pykka.ActorDeadError: the mailbox belonged to an actor that ended.
        """
        with self._lock:
            lane = self._control
            depth = 0 if lane is None else len(lane)
            if depth >= self.max_control or self._closed:
                self._refuse(depth)
            if lane is not None:
                lane.append(item)
                return
            self._control = deque((item,))
        if self._wake is not None:
            self._wake()

    def put(self, envelope: Envelope[Any], /) -> None:
        """Take an envelope from `ActorRef.tell`, `ask` or `stop`.

        A stop, and a message whose class has a truthy ``control_lane``, goes to
        the control lane whatever is queued there.

        Raises:
            MailboxFullError: the user lane has its count of items.
            pykka.ActorDeadError: the actor's own mailbox is closed, or the loop is.

        Runs on: any thread.
        """
        message = envelope.message
        control = isinstance(message, _ActorStop) or getattr(type(message), "control_lane", False)
        with self._lock:
            lane = self._control if control else self._user
            depth = 0 if lane is None else len(lane)
            if self._closed or (depth >= self.max_items and not control):
                self._refuse(depth)
            if lane is not None:
                lane.append(envelope)
                return
            if control:
                self._control = deque((envelope,))
            else:
                self._user = deque((envelope,))
            # RACE: read under the lock that appended. Read later, it could be the
            # wake of a successor that attached, saw the mail and woke already, or
            # None although the successor attached before the append.
            wake, loop = self._wake, self._loop
        if wake is None or loop is None:
            return
        if _running_loop() is loop:
            wake()
            return
        try:
            loop.call_soon_threadsafe(wake)
        except RuntimeError as error:  # the loop is closed: nobody will ever read this
            self._take_out(lambda item: item is envelope, control=bool(control))
            raise ActorDeadError("the actor's event loop is closed") from error

    def _refuse(self, depth: int) -> None:
        if self._closed:
            raise ActorDeadError("the actor that owned this mailbox has ended")
        raise MailboxFullError(depth, self.nbytes)

    # -- reading ---------------------------------------------------------------

    def take(self, user_lane_open: bool) -> Any | None:
        """Take the next item: control first, then users' if open and not paused.

        Returns:
            An offered item or a pykka `Envelope`; None when there is nothing to read.
        """
        with self._lock:
            lane = self._control
            if lane is not None:
                item = lane.popleft()
                if not lane:
                    self._control = None
                return item
            lane = self._user
            if lane is None or self.paused or not user_lane_open:
                return None
            item = lane.popleft()
            if not lane:
                self._user = None
            if type(item) is not Envelope:
                self.nbytes -= item.size_bytes
            return item

    def get(self) -> Any:
        """Take the next item, paused or not.

        Raises:
            queue.Empty: there is none (a loop cannot wait here).
        """
        with self._lock:
            paused, self.paused = self.paused, False
            item = self.take(user_lane_open=True)
            self.paused = paused
        if item is None:
            raise queue.Empty
        return item

    def empty(self) -> bool:
        """Say whether both lanes are empty."""
        return self._user is None and self._control is None

    def readable(self, user_lane_open: bool) -> bool:
        """Say whether `take` would give an item."""
        return self._control is not None or (
            user_lane_open and not self.paused and self._user is not None
        )

    # -- queue surgery (operators, expiry, cancel) -----------------------------

    def remove(self, predicate: Callable[[Any], bool]) -> list[Any]:
        """Take the items that match out of the user lane; the others keep their order."""
        return self._take_out(predicate, control=False)

    def remove_control(self, predicate: Callable[[Any], bool]) -> list[Any]:
        """Do what `remove` does, in the control lane."""
        return self._take_out(predicate, control=True)

    def _take_out(self, predicate: Callable[[Any], bool], *, control: bool) -> list[Any]:
        with self._lock:
            lane = self._control if control else self._user
            taken: list[Any] = []
            kept: deque[Any] = deque()
            for item in lane or ():
                (taken if predicate(item) else kept).append(item)
            if control:
                self._control = kept or None
            else:
                self._user = kept or None
                self.nbytes -= sum(i.size_bytes for i in taken if type(i) is not Envelope)
        return taken

    def clear(self) -> list[Any]:
        """Empty the user lane and return what was in it."""
        return self.remove(lambda _: True)

    def items(self) -> tuple[Any, ...]:
        """Return a snapshot of the user lane, oldest first."""
        with self._lock:
            return tuple(self._user or ())

    def oldest(self) -> Any | None:
        """Return the user lane's next item without taking it, or None."""
        with self._lock:
            return None if self._user is None else self._user[0]

    def __len__(self) -> int:
        """Number of items in the user lane."""
        lane = self._user
        return 0 if lane is None else len(lane)

    def __bool__(self) -> bool:
        """Be true even when empty: a mailbox is not a container to its holders."""
        return True

    # -- the reader ------------------------------------------------------------

    def pause(self) -> None:
        """Stop reading the user lane; it still takes mail up to its bounds."""
        self.paused = True

    def resume(self) -> None:
        """Read the user lane again."""
        self.paused = False
        if self._wake is not None and self._user is not None:
            self._wake()

    @property
    def attached(self) -> bool:
        """Whether an actor reads this mailbox."""
        return self._wake is not None

    def attach(self, wake: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Connect the actor that reads from now on; wakes it if there is mail.

        Args:
            wake: called on the loop when mail arrives in an empty lane. The mailbox
                holds it, and so the actor, until `detach`.
            loop: where ``wake`` is to be called.

        Raises:
            RuntimeError: another actor reads this mailbox.

        Runs on: any thread.
        """
        with self._lock:
            if self._wake is not None:
                raise RuntimeError("the mailbox is attached to an actor that has not ended")
            self._wake = wake
            self._loop = loop
            mail = not self.empty()
        if mail:
            if _running_loop() is loop:
                wake()
            else:
                loop.call_soon_threadsafe(wake)

    def detach(self) -> None:
        """Disconnect the actor; what is queued, and what comes, waits for the next."""
        with self._lock:
            self._wake = None
            self._loop = None

    def close(self) -> list[Any]:
        """Refuse mail for good and return what was queued, control lane first.

        For the mailbox of an actor without successor: a message that came after
        the last look into the queue would never be answered.
        """
        with self._lock:
            self._closed = True
            self.detach()
            return [*self.remove_control(lambda _: True), *self.clear()]
