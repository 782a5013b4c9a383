"""Requests without a session: what goes wrong in their handlers."""

from __future__ import annotations

import asyncio

import attrs
import pytest

from ecan.errors import HandlerError
from ecan.handlers.context import ConnectionContext
from ecan.handlers.registry import Scope, handler
from ecan.testing import running_app


@attrs.frozen
class Params:
    how: str


@handler("test.inline", scope=Scope.CONNECTION, inline=True)
def inline(ctx: ConnectionContext, params: Params) -> object:
    return misbehave(params.how)


@handler("test.async", scope=Scope.CONNECTION)
async def wait(ctx: ConnectionContext, params: Params) -> object:
    await asyncio.sleep(0)
    return misbehave(params.how)


@handler("test.bare", scope=Scope.CONNECTION)
async def bare(ctx: ConnectionContext) -> str:
    return ctx.address


def misbehave(how):
    if how == "exit":
        raise SystemExit("out of here")
    if how == "crash":
        raise ZeroDivisionError("a secret of ours")
    if how == "declared":
        raise HandlerError("NOT_TODAY", "Come back tomorrow.")
    if how == "unsendable":
        return object()
    return {"sid": "abc"}


@pytest.fixture
async def client(no_task_left):
    async with running_app() as server:
        for function in (inline, wait, bare):
            server.app.registry.add(function)
        async with server.client() as client:
            yield client


@pytest.mark.parametrize("method", ["test.inline", "test.async"])
@pytest.mark.parametrize("how", ["crash", "exit", "unsendable"])
async def test_a_crash_before_login_is_answered_and_ends_nothing(client, method, how):
    """P5, P17: HANDLER_CRASHED with a crash id, nothing of the exception; the connection lives."""
    error = await client.error(method, {"how": how})

    assert error["code"] == "HANDLER_CRASHED"
    assert set(error["details"]) == {"crash_id"}
    assert "secret" not in str(error) and "Traceback" not in str(error)
    assert (await client.call("ping"))["pong"]


@pytest.mark.parametrize("method", ["test.inline", "test.async"])
async def test_a_declared_error_is_given_as_it_is(client, method):
    """A handler's own error has its own code."""
    error = await client.error(method, {"how": "declared"})

    assert (error["code"], error["outcome"]) == ("NOT_TODAY", "ran")


@pytest.mark.parametrize("method", ["test.inline", "test.async"])
async def test_the_sid_of_a_result_is_in_its_meta(client, method):
    """A login's reply names the session in meta as later ones do."""
    reply = await client.request(method, {"how": "fine"})

    assert reply["meta"]["sid"] == "abc"
    assert reply["meta"]["replayed"] is False


async def test_a_handler_without_params(client):
    """It knows where its client is."""
    assert await client.call("test.bare") == "127.0.0.1"
