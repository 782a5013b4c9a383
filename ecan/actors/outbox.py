"""Pushes with sequence numbers, and replies nobody was there for: kept for resume (P12). Pure."""

from __future__ import annotations

import secrets
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from ecan.store import ReplyRow

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_FRAMES = 1000
MAX_BYTES = 2**20
"""Of pushes, and as much of replies."""


class Missed(NamedTuple):
    """What a resuming tab has not seen.

    Attributes:
        frames: in order.
        gap: (first, last) sequence numbers that are gone for good, or None.
    """

    frames: list[bytes]
    gap: tuple[int, int] | None


class Outbox:
    """The last pushes of one session, and its replies that no tab took.

    INVARIANT: a number is given to one push only, for as long as the epoch is the same.
    """

    __slots__ = ("_frames", "_nbytes", "_replies", "_replies_nbytes", "epoch", "seq")

    def __init__(
        self,
        epoch: str | None = None,
        seq: int = 0,
        frames: Iterable[tuple[int, bytes]] = (),
        replies: Iterable[ReplyRow] = (),
    ) -> None:
        self.epoch = epoch or secrets.token_hex(4)
        self.seq = seq
        self._frames: deque[tuple[int, bytes]] | None = None
        self._nbytes = 0
        self._replies: dict[str, ReplyRow] | None = None
        self._replies_nbytes = 0
        for number, frame in frames:
            self._keep(number, frame)
        for reply in replies:
            self.keep_reply(reply)

    # -- pushes ------------------------------------------------------------------------

    def add(self, frame: bytes) -> None:
        """Keep a push that was encoded with number ``seq + 1``."""
        self.seq += 1
        self._keep(self.seq, frame)

    def _keep(self, number: int, frame: bytes) -> None:
        if self._frames is None:
            self._frames = deque()
        self._frames.append((number, frame))
        self._nbytes += len(frame)
        while len(self._frames) > MAX_FRAMES or self._nbytes > MAX_BYTES:
            self._nbytes -= len(self._frames.popleft()[1])

    # -- replies -----------------------------------------------------------------------

    def reply_row(self, request_id: str, frame: bytes, pushes: int = 0) -> ReplyRow:
        """A reply at its place: behind the last push, and ``pushes`` more."""
        return ReplyRow(request_id=request_id, seq=self.seq + pushes, frame=frame)

    def keep_reply(self, reply: ReplyRow) -> None:
        """No tab was there to take it."""
        if self._replies is None:
            self._replies = {}
        before = self._replies.pop(reply.request_id, None)
        if before is not None:
            self._replies_nbytes -= len(before.frame)
        self._replies[reply.request_id] = reply
        self._replies_nbytes += len(reply.frame)
        while len(self._replies) > MAX_FRAMES or self._replies_nbytes > MAX_BYTES:
            oldest = self._replies.pop(next(iter(self._replies)))
            self._replies_nbytes -= len(oldest.frame)

    def drop_reply(self, request_id: str) -> bool:
        """It was answered after all; False if it was not kept."""
        reply = self._replies.pop(request_id, None) if self._replies else None
        if reply is None:
            return False
        self._replies_nbytes -= len(reply.frame)
        return True

    @property
    def replies(self) -> tuple[ReplyRow, ...]:
        """The kept replies, oldest first."""
        return tuple(self._replies.values()) if self._replies else ()

    # -- resume ------------------------------------------------------------------------

    def missed(self, last_seq: int | None, epoch: str | None) -> Missed:
        """What a tab has to be sent.

        Args:
            last_seq: the last number it saw; None: a new tab, which missed nothing.
            epoch: the epoch of that number; another one means its numbers are void.
        """
        if last_seq is None:
            return Missed([], None)
        if epoch is not None and epoch != self.epoch:
            # What it saw cannot be told from what it missed: all before is a gap.
            frames = _merged(list(self._frames or ()), self.replies)
            return Missed(frames, (1, self.seq - len(self._frames or ())))
        last_seq = min(max(last_seq, 0), self.seq)
        kept = [(number, frame) for number, frame in self._frames or () if number > last_seq]
        gone = self.seq - last_seq - len(kept)
        frames = _merged(kept, self.replies)
        return Missed(frames, (last_seq + 1, last_seq + gone) if gone else None)

    def take_replies(self) -> tuple[ReplyRow, ...]:
        """Hand the kept replies out, once."""
        taken = self.replies
        self._replies = None
        self._replies_nbytes = 0
        return taken

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self._nbytes + self._replies_nbytes


def _merged(pushes: list[tuple[int, bytes]], replies: tuple[ReplyRow, ...]) -> list[bytes]:
    """In the order they were made: a reply comes right behind the push it followed."""
    if not replies:
        return [frame for _, frame in pushes]
    items = [(number, 0, frame) for number, frame in pushes]
    items += [(reply.seq, 1, reply.frame) for reply in replies]
    return [frame for _, _, frame in sorted(items, key=lambda item: item[:2])]
