"""Where a suspended coroutine is: its whole chain of awaits, not only its outermost frame."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from types import FrameType

MAX_FRAMES = 50

_FRAMES = ("cr_frame", "gi_frame", "ag_frame")
_AWAITS = ("cr_await", "gi_yieldfrom", "ag_await")


def task_stack(task: asyncio.Task[Any]) -> str:
    """Where a task is, as a traceback shows it; the innermost frame last.

    ``Task.get_stack`` gives only the outermost frame of a suspended coroutine.

    Runs on: the task's loop.
    """
    summary = traceback.StackSummary.extract(
        (frame, frame.f_lineno) for frame in _frames(task.get_coro())
    )
    return "".join(summary.format())


def _frames(awaited: Any) -> Iterator[FrameType]:
    for _ in range(MAX_FRAMES):
        if awaited is None:
            return
        frame = next((f for name in _FRAMES if (f := getattr(awaited, name, None))), None)
        if frame is not None:
            yield frame
        awaited = next((a for name in _AWAITS if (a := getattr(awaited, name, None))), None)
