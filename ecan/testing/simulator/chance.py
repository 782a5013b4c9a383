"""Where chance comes from: one seed, several independent streams.

The core takes its secrets and its jitter from the standard library; `seeded` makes
those come from the seed too, for as long as a simulation runs.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import secrets
import time
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Chance:
    """The random streams of one run.

    Each part of the world has its own, so that a change of what one part asks for leaves
    the others' luck as it was.
    """

    def __init__(self, seed: int) -> None:
        self.plan = random.Random(f"{seed} plan")  # noqa: S311 - to be repeated, not secret
        self.network = random.Random(f"{seed} network")  # noqa: S311
        self.store = random.Random(f"{seed} store")  # noqa: S311
        self.loop = random.Random(f"{seed} loop")  # noqa: S311
        self.work = random.Random(f"{seed} work")  # noqa: S311
        self.core = random.Random(f"{seed} core")  # noqa: S311


def delay_s(stream: random.Random, usual_s: float) -> float:
    """How long something takes that usually takes so long: at once, as usual, or much longer."""
    kind = stream.random()
    if kind < 0.3:  # noqa: PLR2004 - a third at once: that is where the races are
        return 0.0
    if kind < 0.95:  # noqa: PLR2004
        return stream.random() * 2 * usual_s
    return stream.random() * 40 * usual_s


@contextlib.contextmanager
def seeded(chance: Chance, now: Callable[[], float]) -> Iterator[None]:
    """Make the system's secrets, random numbers and wall time come from the run."""
    core = chance.core

    def token_bytes(nbytes: int | None = None) -> bytes:
        return core.randbytes(32 if nbytes is None else nbytes)

    def token_hex(nbytes: int | None = None) -> str:
        return token_bytes(nbytes).hex()

    def time_ns() -> int:
        return int(now() * 1e9)

    def token_urlsafe(nbytes: int | None = None) -> str:
        return base64.urlsafe_b64encode(token_bytes(nbytes)).rstrip(b"=").decode("ascii")

    before = random.getstate()
    random.seed(core.getrandbits(64))
    try:
        with (
            mock.patch.object(os, "urandom", token_bytes),
            mock.patch.object(secrets, "token_bytes", token_bytes),
            mock.patch.object(secrets, "token_hex", token_hex),
            mock.patch.object(secrets, "token_urlsafe", token_urlsafe),
            mock.patch.object(time, "time_ns", time_ns),
        ):
            yield
    finally:
        random.setstate(before)
