"""The loop that no handler can end."""

import asyncio
import gc
import sys

import pytest
import uvloop

from ecan.runtime import run_fenced


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_p5_exit_in_another_task_reaches_its_awaiter_and_not_the_loop(factory) -> None:
    """SystemExit and KeyboardInterrupt of tasks and callbacks leave the main coroutine running."""

    async def leave() -> None:
        sys.exit(3)

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def main() -> str:
        with pytest.raises(SystemExit):
            await asyncio.gather(leave(), asyncio.sleep(0))
        asyncio.get_running_loop().call_soon(interrupt)
        await asyncio.sleep(0.01)
        return "alive"

    assert run_fenced(main(), factory) == "alive"
    gc.collect()


def test_exit_of_the_main_coroutine_is_its_own() -> None:
    """What main raises comes out, SystemExit too."""

    async def main() -> None:
        sys.exit(4)

    with pytest.raises(SystemExit, match="4"):
        run_fenced(main(), asyncio.new_event_loop)
