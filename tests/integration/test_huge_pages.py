"""A real server whose heap becomes big, and what Linux says about its memory (ADR 18)."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest
from edge_kit import TIMEOUT_S, Process, free_port, http

from ecan.runtime.process_memory import ProcessMemory

HANDLERS = """
from ecan.handlers.registry import handler
from ecan.runtime import huge_pages

huge_pages.LOOK_EVERY_S = 0.1
HEAP = [b"%0100d" % number for number in range({count})]


@handler("heap.check")
async def check(ctx) -> int:
    return sum(int(text) == number for number, text in enumerate(HEAP))


HANDLERS = [check]
"""

PASSWORD = "correct horse battery"


def cannot() -> bool:
    memory = ProcessMemory()
    try:
        return memory.refusal() is not None or memory.probe() != 0
    except OSError:
        return True


async def figure(port: int) -> float:
    """The gauge as it is scraped."""
    text = (await http(f"http://127.0.0.1:{port}", "/metrics"))[2].decode()
    return float(re.search(r"^ecan_huge_pages_bytes (\S+)$", text, re.MULTILINE)[1])


@pytest.mark.skipif(
    not os.environ.get("CI") and cannot(), reason="this kernel has no MADV_COLLAPSE"
)
async def test_a_server_that_has_become_big(tmp_path):
    """Its heap goes into huge pages by itself, the metric says so, and nothing else changes."""
    count, port = 1_500_000, free_port()
    (tmp_path / "big.py").write_text(HANDLERS.format(count=count))
    settings = {"ECAN_HANDLERS": "big", "ECAN_ADMIN_PASSWORD": PASSWORD, "ECAN_METRICS_PORT": port}
    async with Process(tmp_path, **settings, ECAN_LOG_LEVEL="DEBUG") as process:
        async with asyncio.timeout(TIMEOUT_S):
            while not (told := await figure(port)):
                await asyncio.sleep(0.05)
        smaps = Path(f"/proc/{process.popen.pid}/smaps_rollup").read_text()
        huge = int(re.search(r"^AnonHugePages: +(\d+) kB$", smaps, re.MULTILINE)[1]) * 1024
        assert huge > 100e6
        assert abs(told - huge) < 0.1 * huge
        async with process.client() as client:
            await client.login("admin", PASSWORD)
            assert await client.call("heap.check") == count
        process.signal()
        assert await process.ended() == 0
    assert "huge_pages.passed" in process.err
    assert "huge_pages.off" not in process.err
