"""A soak of minutes instead of half an hour: nothing grows, and what would is found.

Latencies are not judged: other tests run beside it.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.soak import grown, soak
from benchmarks.soak_report import print_soak, write_soak

RATE = 15.0
CUT = {"DISCONNECTED", "NOT_CONNECTED", "CONNECT_FAILED", "RESUME_REFUSED"}
"""Logins, logouts and resumes whose connection was cut are not sent again.

A session that is gone would be P11 broken.
"""

HERE = Path(__file__).parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def test_nothing_grows_in_a_server_that_is_used(tmp_path: Path, capsys: Any) -> None:
    """Memory, handles, tasks, threads and sessions stay; no promise is broken, nothing fails."""
    result = await soak(75, rate=RATE, judge_times=False, slack=2.0, stream=io.StringIO())
    print_soak(result)
    assert result["checks"]["counts"] == {}
    assert result["checks"]["scenario_errors"] == {}
    assert set(result["total"]["errors"]) <= CUT
    assert grown(result) == []
    assert "(not judged)" in capsys.readouterr().out

    page, data = write_soak(result, tmp_path)
    assert json.loads(data.read_text())["samples"] == result["samples"]
    text = page.read_text()
    assert "Everything that is judged stays flat." in text
    assert "http" not in text.replace("http://www.w3.org", "")


async def test_leaks_are_found(capsys: Any) -> None:
    """A handler that keeps memory, handles, tasks and threads: each of them is named."""
    result = await soak(
        30,
        rate=RATE,
        judge_times=False,
        slack=2.0,
        plan_ref=HERE / "leaking_plan.py",
        handlers="tests.fault.leaks",
        stream=io.StringIO(),
    )
    print_soak(result)
    assert {
        "resident memory",
        "blocks of Python's allocator",
        "handles",
        "tasks",
        "threads",
    } <= set(grown(result))
    assert "sessions" not in grown(result)
    assert "GROWS" in capsys.readouterr().out
