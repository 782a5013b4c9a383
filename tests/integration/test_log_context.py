"""What a handler's log lines would say, seen from within handlers of a running server."""

from __future__ import annotations

from ecan.actors.log_context import log_facts, log_secrets
from ecan.testing import running_app

HANDLERS = """
from ecan.actors.log_context import log_facts, log_secrets
from ecan.handlers.registry import Scope, handler


def _seen():
    return {"facts": log_facts(), "hidden": sorted(log_secrets())}


@handler("seen.async")
async def in_the_loop(ctx, params: dict) -> dict:
    return _seen()


@handler("seen.thread")
def in_a_thread(ctx, params: dict) -> dict:
    return _seen()


@handler("seen.lobby", scope=Scope.CONNECTION)
async def lobby(ctx, params: dict) -> dict:
    return _seen()


HANDLERS = [in_the_loop, in_a_thread, lobby]
"""


async def test_handlers_know_whose_lines_they_write(no_task_left, tmp_path, monkeypatch):
    """On the loop, in a thread, before login; outside of handlers there is nothing to say."""
    (tmp_path / "log_seen.py").write_text(HANDLERS, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    async with running_app(handlers=("log_seen",)) as app:
        async with app.client() as stranger:
            seen = await stranger.call("seen.lobby", {"api_key": "hidden-1"}, id="r-0")
            assert seen == {
                "facts": {"method": "seen.lobby", "request_id": "r-0"},
                "hidden": ["hidden-1"],
            }
        async with app.logged_in() as client:
            session = client.session
            secrets = sorted([session["session_id"], session["token"], "hidden-2"])
            for method in ("seen.async", "seen.thread", "seen.lobby"):
                seen = await client.call(method, {"deep": [{"pin_token": "hidden-2"}]}, id=method)
                assert seen["facts"] == {
                    "sid": client.login_result["sid"],
                    "incarnation": 1,
                    "method": method,
                    "request_id": method,
                }
                assert seen["hidden"] == secrets
    assert log_facts() == {}
    assert log_secrets() == set()
