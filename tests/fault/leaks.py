"""A method that leaks everything there is, to see that the soak finds it; only for tests."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from ecan.handlers.context import UserContext
from ecan.handlers.registry import handler

BYTES, BLOCKS = 40_000, 300
EACH_NTH = 2
"""Call with which a handle, a task and a thread are left, too."""

_kept: list[Any] = []


@handler("leak.all", reads=True)
async def leak_all(ctx: UserContext) -> int:
    """Memory with each call, a handle, a task and a thread with some."""
    _kept.append([bytes(BYTES), [object() for _ in range(BLOCKS)]])
    if len(_kept) % EACH_NTH == 0:
        _kept.append(os.open(os.devnull, os.O_RDONLY))
        _kept.append(asyncio.create_task(asyncio.Event().wait()))
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return len(_kept)


HANDLERS = [leak_all]
