"""Two connections to the server that come back by themselves: looks, and events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ecan.admin.client import AsyncClient, ClientError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

RETRY_S = 1.0
ANSWER_S = 10.0


class Feed:
    """Asks and listens for as long as it is run.

    Args:
        path: of the socket.
        every_s: from look to look.
    """

    def __init__(self, path: Path, every_s: float) -> None:
        self.path = path
        self.every_s = every_s
        self._poke = asyncio.Event()

    def poke(self) -> None:
        """Look now."""
        self._poke.set()

    async def look(
        self, look: Callable[[AsyncClient], Awaitable[None]], lost: Callable[[str], None]
    ) -> None:
        """Call ``look`` with a connection every so often; ``lost`` says why there is none."""
        while True:
            try:
                async with AsyncClient(self.path, ANSWER_S) as client:
                    while True:
                        self._poke.clear()
                        await look(client)
                        await self._wait(self.every_s)
            except ClientError as error:
                lost(str(error))
            await self._wait(RETRY_S)

    async def listen(self, heard: Callable[[dict[str, Any]], None]) -> None:
        """Call ``heard`` for each event."""
        while True:
            try:
                async with AsyncClient(self.path, ANSWER_S) as client:
                    async for event in client.watch("events.watch"):
                        heard(event)
            except ClientError:
                # `look` says so.
                pass
            await asyncio.sleep(RETRY_S)

    async def command(self, name: str, params: dict[str, Any]) -> Any:
        """One command on a connection of its own; a slow one delays no look."""
        async with AsyncClient(self.path, ANSWER_S) as client:
            return await client.call(name, params)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._poke.wait()
        except TimeoutError:
            pass
