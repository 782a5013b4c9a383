"""No block of README.md and deploy.md is forgotten: a test has it, or the reason is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.blocks import LEFT_OUT, NOT_RUN, PAGES, block, blocks, commands

HERE = Path(__file__).parent
TESTS = "\n".join(
    path.read_text("utf-8") for path in HERE.glob("test_*.py") if path != Path(__file__)
)


@pytest.mark.parametrize("key", blocks())
def test_every_block_is_run_by_a_test_or_its_reason_is_written(key):
    """A new block of the guide cannot go unproven in silence."""
    assert (f'"{key}"' in TESTS) is (key not in NOT_RUN)


def test_the_lists_name_what_is_there():
    """A reason for a block or a line that is gone is gone too, and no reason is empty."""
    assert set(NOT_RUN) <= set(blocks())
    text = "\n".join(blocks().values())
    assert all(beginning in text for beginning in LEFT_OUT)
    assert all(reason.strip() for reason in [*NOT_RUN.values(), *LEFT_OUT.values()])


def test_every_block_of_the_pages_is_found():
    """As many as there are fences; each page has some."""
    for page, path in PAGES.items():
        found = [key for key in blocks() if key.startswith(f"{page}/")]
        assert len(found) == path.read_text("utf-8").count("```sh\n") > 0


def test_what_is_replaced_must_be_there():
    """So that a page that changes fails its test."""
    with pytest.raises(AssertionError, match="has no 'docker fly' any more"):
        block("deploy/Docker/1", {"docker fly": "docker run"})
    with pytest.raises(KeyError):
        block("deploy/Docker/99")


def test_commands_are_whole():
    """A line that goes on is one command."""
    run, stop = commands("deploy/Docker/2", {"127.0.0.1:8765": "127.0.0.1:9000"})
    assert run.startswith("docker run -d -p 127.0.0.1:9000:8765 ")
    assert run.endswith(" ecan-web")
    assert stop.startswith("docker stop ecan-web ")
