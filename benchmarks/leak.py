"""A handler that leaks, to see that the soak finds it (ECAN_HANDLERS=benchmarks.leak)."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from ecan.handlers.context import UserContext
from ecan.handlers.registry import handler

BYTES = 20_000

_kept: list[Any] = []


@handler("leak.some", reads=True)
async def some(ctx: UserContext) -> int:
    """Memory with each call; a file and a task with every tenth."""
    _kept.append(bytes(BYTES))
    if len(_kept) % 10 == 0:
        _kept.append(os.open(os.devnull, os.O_RDONLY))
        _kept.append(asyncio.create_task(asyncio.sleep(3600)))
    return len(_kept)


HANDLERS = [some]
