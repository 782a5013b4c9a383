"""Runs the process's event loop, so that nobody but the main coroutine can end it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["run_fenced"]

T = TypeVar("T")

logger = logging.getLogger("ecan.runtime")


def run_fenced(
    main: Coroutine[Any, Any, T], loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> T:
    """Run the main coroutine to its end, whatever happens in other tasks and callbacks.

    asyncio lets SystemExit and KeyboardInterrupt out of a task's step, and with them
    the loop ends: one ``sys.exit()`` in a task that some handler started would end the
    server (P5). The task has recorded the exception by then, so whoever awaits it gets
    it; the loop is simply entered again.

    Returns:
        What ``main`` returns.

    Raises:
        BaseException: what ``main`` raises, SystemExit included.
    """
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        loop = runner.get_loop()
        task = loop.create_task(main, name="main")
        while True:
            try:
                return loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as error:
                if task.done():
                    raise
                logger.error("loop.exit_refused %r in a task or callback", error)  # noqa: TRY400
