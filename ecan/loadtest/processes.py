"""The end of a child process of asyncio, pipes included."""

from __future__ import annotations

import asyncio
import contextlib


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill it if it still runs, wait for its end, let go of its pipes."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await process.wait()
    # RACE: the pipes are closed some turns after the end; if the loop is closed before
    # that, the transport complains from __del__ (python/cpython#114177).
    process._transport.close()  # type: ignore[attr-defined] # noqa: SLF001 - no public way
    await asyncio.sleep(0)
