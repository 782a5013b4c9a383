"""Pushes with sequence numbers, kept for tabs that come back (P12). Pure."""

from __future__ import annotations

import secrets
from collections import deque
from typing import NamedTuple

MAX_FRAMES = 1000
MAX_BYTES = 2**20


class Missed(NamedTuple):
    """What a resuming tab has not seen.

    Attributes:
        frames: in order.
        gap: (first, last) sequence numbers that are gone for good, or None.
    """

    frames: list[bytes]
    gap: tuple[int, int] | None


class Outbox:
    """The last pushes of one session."""

    __slots__ = ("_frames", "_nbytes", "epoch", "seq")

    def __init__(
        self, epoch: str | None = None, seq: int = 0, frames: list[tuple[int, bytes]] | None = None
    ) -> None:
        self.epoch = epoch or secrets.token_hex(4)
        self.seq = seq
        self._frames: deque[tuple[int, bytes]] | None = None
        self._nbytes = 0
        for number, frame in frames or ():
            self._keep(number, frame)

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

    def missed(self, last_seq: int | None, epoch: str | None) -> Missed:
        """What a tab has to be sent.

        Args:
            last_seq: the last number it saw; None: a new tab, which missed nothing.
            epoch: the epoch of that number; another one means its numbers are void.
        """
        if last_seq is None:
            return Missed([], None)
        if epoch is not None and epoch != self.epoch:
            last_seq = 0
        last_seq = min(max(last_seq, 0), self.seq)
        frames = [frame for number, frame in self._frames or () if number > last_seq]
        gone = self.seq - last_seq - len(frames)
        return Missed(frames, (last_seq + 1, last_seq + gone) if gone else None)

    def frames(self) -> list[tuple[int, bytes]]:
        """All kept pushes, oldest first, for a snapshot."""
        return list(self._frames or ())

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self._nbytes
