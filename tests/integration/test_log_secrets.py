"""P16: a whole life of sessions at DEBUG level, and no secret in anything the server wrote."""

from __future__ import annotations

import json
import re

import pytest

from ecan.admin.client import AsyncClient as AdminClient
from ecan.testing import Client, ReplyFailed
from ecan.testing.process import ServerProcess

HANDLERS = """
import logging

import structlog

from ecan.handlers.registry import Scope, handler

plain = logging.getLogger("shop.plain")
rich = structlog.get_logger("shop.rich")


def _write(secret):
    plain.warning("plain.line with %s", secret)
    rich.warning("rich.line", card=secret, params={"api_key": secret})
    try:
        raise ValueError(f"cannot use {secret}")
    except ValueError as error:
        plain.exception("plain.failed")
        rich.error("rich.failed", problem=error, exc_info=True)


@handler("shop.async")
async def in_the_loop(ctx, params: dict) -> None:
    _write(params["card_token"])


@handler("shop.thread")
def in_a_thread(ctx, params: dict) -> None:
    _write(params["card_token"])


@handler("shop.crash")
async def crash(ctx, params: dict) -> None:
    raise RuntimeError(f"the bank refused {params['card_token']!r}")


@handler("shop.lobby", scope=Scope.CONNECTION)
async def lobby(ctx, params: dict) -> None:
    _write(params["card_token"])
    raise RuntimeError(f"the bank refused {params['card_token']!r}")


HANDLERS = [in_the_loop, in_a_thread, crash, lobby]
"""

FIRST = "first-password-9d1"
SECOND = "second-password-7c2"
OTHERS = "others-password-5b3"
WRONG = "wrong-password-4e4"
QUOTED = "tok\"en\\with'quotes-6f5"
UNICODE = "geheim-äöü-8a6"


@pytest.fixture
def server(tmp_path, request):
    """A real server at DEBUG, with handlers that leak as much as they can."""
    (tmp_path / "leaky_shop.py").write_text(HANDLERS, "utf-8")
    env = {
        "ECAN_LOG_LEVEL": "DEBUG",
        "ECAN_LOG_FORMAT": request.param,
        "ECAN_HANDLERS": "leaky_shop",
        "ECAN_ADMIN_PASSWORD": FIRST,
        "ECAN_DEBUG_METHODS": "1",
        "ECAN_SIGNUP": "open",
        "ECAN_LOGIN_RATE_LIMIT": "0",
    }
    with ServerProcess(tmp_path, env) as process:
        yield process


async def _whole_life(server: ServerProcess) -> tuple[set[str], str]:
    """Do all there is; returns every secret, and what the admin socket showed."""
    secrets = {FIRST, SECOND, OTHERS, WRONG, QUOTED, UNICODE}
    async with Client(server.url) as client:
        for name, password in (("admin", WRONG), (WRONG, FIRST)):
            with pytest.raises(ReplyFailed, match="INVALID_CREDENTIALS"):
                await client.login(name, password)
        await client.call(
            "signup", {"username": "berta", "password": OTHERS, "email": "b@example.org"}
        )
        one = await client.login("admin", FIRST)
        secrets |= {one["session_id"], one["token"]}
        sid = one["sid"]
        await client.error("ping", token="no-such-token-3c7")
        secrets.add("no-such-token-3c7")
        changed = await client.call(
            "change_password", {"old_password": FIRST, "new_password": SECOND}
        )
        secrets.add(changed["token"])
        client.session["token"] = changed["token"]
        renewed = await client.call("refresh_token")
        secrets.add(renewed["token"])
        client.session["token"] = renewed["token"]
        for method in ("shop.async", "shop.thread"):
            for number, secret in enumerate((QUOTED, UNICODE)):
                await client.call(method, {"card_token": secret}, id=f"{method}-{number}")
        for secret in (QUOTED, UNICODE):
            assert (await client.error("shop.lobby", {"card_token": secret}))["code"] == (
                "HANDLER_CRASHED"
            )
            assert secret not in json.dumps(
                await client.error("shop.crash", {"card_token": secret}), ensure_ascii=False
            )
            await client.push("session.restarted")
        await client.error("no.such", {"password": OTHERS})
        await client.send_raw('{"password": "' + OTHERS)
        await client.send_raw(json.dumps({"id": 7, "type": "request", "token": OTHERS}))
        async with Client(server.url) as second:
            await second.resume(client.session, last_seq=0)
            with pytest.raises(ReplyFailed):
                await second.resume({**client.session, "token": "another-wrong-token-2d8"})
            secrets.add("another-wrong-token-2d8")
        shown = ""
        async with AdminClient(server.folder / "data" / "admin.sock") as admin:
            made = await admin.call("sessions.create", {"user": "berta", "count": 1})
            secrets |= {made["sessions"][0]["session_id"], made["sessions"][0]["token"]}
            await admin.call("users.add", {"username": "carla", "password": OTHERS, "role": "user"})
            await admin.call("users.passwd", {"username": "berta", "password": SECOND})
            shown += json.dumps(await admin.call("sessions.show", {"sid": sid}))
            shown += json.dumps(await admin.call("sessions.list"))
            letters = await admin.call("deadletters.list")
            shown += json.dumps(letters, ensure_ascii=False)
            for letter in letters["letters"]:
                found = await admin.call("deadletters.show", {"id": letter["id"]})
                shown += json.dumps(found, ensure_ascii=False)
            shown += (await admin.call("metrics"))["text"]
            assert len(letters["letters"]) == 2
        await client.call("logout")
    return secrets, shown


def _quoted(secret: str) -> set[str]:
    return {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]}


@pytest.mark.parametrize("server", ["json", "console"], indirect=True)
async def test_p16_no_secret_is_written(server):
    """P16: not in the log, not on stdout, not in what operators are shown."""
    secrets, shown = await _whole_life(server)
    assert server.stop() == 0
    written = "".join(server.output)
    for line in ("session.created", "session.crashed", "lobby.crashed", "rich.failed"):
        assert line in written
    assert written.count("plain.line with [redacted]") == 6
    found = {
        (where, secret)
        for where, text in (("log", written), ("admin", shown))
        for secret in secrets
        for form in _quoted(secret)
        if form in text
    }
    assert found == set()


@pytest.mark.parametrize("server", ["json"], indirect=True)
async def test_every_line_of_a_handler_says_whose_it_is(server):
    """stdlib and structlog, on the loop and in threads: sid, incarnation, method, request id."""
    async with Client(server.url) as client:
        login = await client.login("admin", FIRST)
        for method in ("shop.async", "shop.thread"):
            await client.call(method, {"card_token": QUOTED}, id=f"r-{method}")
        await client.error("shop.crash", {"card_token": QUOTED}, id="r-crash")
        await client.push("session.restarted")
        await client.call("logout")
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.output if line.startswith("{")]
    facts = {
        (line["logger"], line["event"].split(" ")[0], line["method"], line["request_id"])
        for line in lines
        if line["logger"].startswith("shop.")
        and (line["sid"], line["incarnation"]) == (login["sid"], 1)
    }
    assert facts == {
        (logger, event, method, f"r-{method}")
        for method in ("shop.async", "shop.thread")
        for logger, event in (
            ("shop.plain", "plain.line"),
            ("shop.plain", "plain.failed"),
            ("shop.rich", "rich.line"),
            ("shop.rich", "rich.failed"),
        )
    }
    of_sessions = [line for line in lines if line["event"].startswith("session.")]
    assert len(of_sessions) >= 4
    assert all({"sid", "incarnation"} <= line.keys() for line in of_sessions), of_sessions
    (crashed,) = [line for line in lines if line["event"] == "session.crashed"]
    assert (crashed["method"], crashed["request_id"]) == ("shop.crash", "r-crash")
    (loaded,) = [line for line in lines if line["event"] == "handlers.loaded"]
    assert {"login", "shop.thread"} <= set(loaded["methods"])
    assert not [line for line in lines if re.match(r"(frame|ping)", line["event"])]
