"""Handlers change on the disk while a server works: nobody loses a request or a session (ADR 12)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from ecan.admin.client import AsyncClient, RefusedError
from ecan.config.parsers import LoginRateLimit, RateLimit
from ecan.errors import ReloadError
from ecan.testing import ADMIN_PASSWORD, Client, running_app
from ecan.testing.process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

_numbers = itertools.count(1)

TIMEOUT_S = 20.0

SHOP = """
import asyncio
import threading
import attrs
from ecan.handlers import UserContext, handler

GATE = threading.Event()
VERSION = {version}


@attrs.define
class Cart:
    {field}: int = 0


@attrs.frozen
class Add:
    n: int


@handler("shop.version", inline=True, reads=True)
def version(ctx: UserContext) -> int:
    return VERSION

@handler("shop.add")
async def add(ctx: UserContext, params: Add) -> list[int]:
    ctx.slot("cart", Cart).{field} += params.n
    return [VERSION, ctx.slot("cart", Cart).{field}]

@handler("shop.look", reads=True)
def look(ctx: UserContext) -> int:
    return ctx.slot("cart", Cart).{field}

@handler("shop.wait")
def wait(ctx: UserContext) -> int:
    GATE.wait(20)
    ctx.state["waited"] = VERSION
    return VERSION

@handler("shop.compute", isolation="process")
def compute(params: Add) -> list[int]:
    import time
    time.sleep(params.n / 1000)
    return [VERSION, params.n]

{more}
HANDLERS = [version, add, look, wait, compute{names}]
"""

TO_CENTS = """
from ecan.handlers.migrations import SlotMigrations

def to_cents(cart):
    if cart["price"] == 13:
        raise ValueError("unlucky")
    return {"cents": cart["price"] * 100}

MIGRATIONS = {"cart": SlotMigrations(to_cents, to=Cart)}
"""


class Shop:
    """An author's module on the disk."""

    def __init__(self, folder: Path) -> None:
        self.name = f"shop{next(_numbers)}"
        self.path = folder / f"{self.name}.py"
        self.write(1)

    def write(self, version: int, field: str = "price", more: str = "", names: str = "") -> None:
        text = SHOP.replace("{more}", textwrap.dedent(more))
        for name, value in (("version", version), ("field", field), ("names", names)):
            text = text.replace("{" + name + "}", str(value))
        self.path.write_text(text)

    @property
    def module(self) -> Any:
        return sys.modules[self.name]


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Shop(tmp_path)
    yield made
    sys.modules.pop(made.name, None)


@pytest.fixture
async def server(shop, no_task_left):
    free = {"rate_limit": RateLimit(0, 0), "login_rate_limit": LoginRateLimit(0, 60)}
    async with running_app(handlers=(shop.name,), **free) as app:
        yield app


async def session(client: Client) -> Client:
    await client.login("admin", ADMIN_PASSWORD)
    return client


@contextlib.asynccontextmanager
async def sessions(server, count):
    """So many clients, each with a session."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(server.client()) for _ in range(count)]
        yield [await session(client) for client in clients]


async def test_under_load_no_request_is_lost_and_later_ones_run_the_new_code(server, shop):
    """Each client sees the old code, then the new, never back; every request is answered once."""
    seen: dict[int, list[int]] = {}
    stop = asyncio.Event()

    async def work(n: int) -> None:
        async with server.client() as client:
            await session(client)
            seen[n] = []
            while not stop.is_set():
                seen[n].append(await client.call("shop.version"))
                seen[n].append((await client.call("shop.add", {"n": 1}))[0])
            assert client.strays == []
            assert await client.call("shop.look") == sum(1 for _ in seen[n]) // 2

    workers = [asyncio.create_task(work(n)) for n in range(8)]
    for version in (2, 3, 4):
        await asyncio.sleep(0.3)
        shop.write(version)
        answer = await server.app.reload_handlers()
        assert answer["reloaded"] == [shop.name]
    async with asyncio.timeout(TIMEOUT_S):
        while not all(4 in versions for versions in seen.values()):
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(*workers)
    for versions in seen.values():
        assert versions == sorted(versions)
        assert set(versions) <= {1, 2, 3, 4}


async def test_running_and_queued_requests_finish_on_the_code_they_were_accepted_with(server, shop):
    async with server.client() as client:
        await session(client)
        old = shop.module
        running = await client.start("shop.wait")
        queued = await client.start("shop.add", {"n": 1})
        async with asyncio.timeout(TIMEOUT_S):
            while not any(cell.actor and cell.actor.busy for cell in server.app.directory):
                await asyncio.sleep(0.01)
            while not any(len(cell.mailbox) for cell in server.app.directory):
                await asyncio.sleep(0.01)
        shop.write(2)
        await server.app.reload_handlers()
        later = await client.start("shop.add", {"n": 1})
        assert shop.module is not old
        old.GATE.set()
        assert (await running)["result"] == 1
        assert (await queued)["result"] == [1, 1]
        assert (await later)["result"] == [2, 2]


async def test_methods_come_and_go_and_discover_follows(server, shop):
    async with server.client() as client:
        await session(client)
        more = """
        @handler("shop.new", inline=True)
        def new(ctx: UserContext) -> str:
            return "new"
        """
        shop.write(2, more=more, names=", new")
        answer = await server.app.reload_handlers()
        assert answer["methods"]["added"] == ["shop.new"]
        assert await client.call("shop.new") == "new"
        shop.write(3)
        answer = await server.app.reload_handlers()
        assert answer["methods"] == {
            "added": [],
            "changed": ["shop.add", "shop.compute", "shop.look", "shop.version", "shop.wait"],
            "removed": ["shop.new"],
        }
        assert (await client.error("shop.new"))["code"] == "METHOD_NOT_FOUND"
        names = [m["name"] for m in (await client.call("rpc.discover"))["methods"]]
        assert "shop.add" in names
        assert "shop.new" not in names
        assert await server.app.reload_handlers() == {
            "reloaded": [],
            "methods": {"added": [], "changed": [], "removed": []},
            "migrated": {},
        }


async def test_a_broken_module_changes_nothing_and_says_why(server, shop):
    async with server.client() as client:
        await session(client)
        shop.write(2, more="nowhere.to_be_found\n")
        with pytest.raises(ReloadError) as caught:
            await server.app.reload_handlers()
        assert caught.value.details["file"] == str(shop.path)
        assert "NameError" in caught.value.details["error"]
        assert await client.call("shop.version") == 1
        assert await client.call("shop.compute", {"n": 1}) == [1, 1]
        shop.write(2)
        await server.app.reload_handlers()
        assert await client.call("shop.version") == 2


async def test_process_handlers_run_the_new_code_after_a_reload(server, shop):
    """What a process has begun finishes on the old one; what waited runs on the new one."""
    lane = server.app.processes
    async with sessions(server, lane.max_processes + 3) as clients:
        warm = [await c.start("shop.compute", {"n": 300}) for c in clients]
        await asyncio.gather(*warm)
        futures = [await c.start("shop.compute", {"n": 500}) for c in clients]
        async with asyncio.timeout(TIMEOUT_S):
            while lane.queued < 3:
                await asyncio.sleep(0.01)
        shop.write(2)
        await server.app.reload_handlers()
        versions = sorted([(await future)["result"][0] for future in futures])
        assert versions == [1] * lane.max_processes + [2] * 3
        assert await clients[0].call("shop.compute", {"n": 1}) == [2, 1]


async def test_a_waiting_process_request_that_fits_no_more_is_refused(server, shop):
    lane = server.app.processes
    async with sessions(server, lane.max_processes + 1) as clients:
        await asyncio.gather(*[await c.start("shop.compute", {"n": 300}) for c in clients])
        futures = [await c.start("shop.compute", {"n": 500}) for c in clients]
        async with asyncio.timeout(TIMEOUT_S):
            while lane.queued < 1:
                await asyncio.sleep(0.01)
        shop.write(2)
        shop.path.write_text(shop.path.read_text().replace("    n: int", "    n: int\n    m: int"))
        await server.app.reload_handlers()
        replies = [await future for future in futures]
        refused = [reply["error"] for reply in replies if reply["status"] == "error"]
        assert [error["code"] for error in refused] == ["INVALID_PARAMS"]
        assert refused[0]["outcome"] == "not_run"


async def test_a_slot_whose_type_changed_is_migrated_in_memory_and_at_rest(server, shop):
    async with server.client() as active, server.client() as resting:
        for client, price in ((await session(active), 3), (await session(resting), 5)):
            assert await client.call("shop.add", {"n": price}) == [1, price]
        await resting.close()
        sid = resting.login_result["sid"]
        await server.app.sessions.steer(sid, "passivate")
        shop.write(2, field="cents", more=TO_CENTS)
        answer = await server.app.reload_handlers()
        assert answer["migrated"] == {"cart": 2}
        assert await active.call("shop.look") == 300
        assert await active.call("shop.add", {"n": 1}) == [2, 301]
        assert await active.call("shop.look") == 301
        async with server.client() as back:
            await back.resume(resting.session)
            assert await back.call("shop.add", {"n": 1}) == [2, 501]
            assert await back.call("shop.add", {"n": 1}) == [2, 502]


async def test_a_rehearsal_that_fails_changes_nothing_and_names_the_sessions(server, shop):
    async with server.client() as good, server.client() as bad:
        for client, price in ((await session(good), 3), (await session(bad), 13)):
            await client.call("shop.add", {"n": price})
        shop.write(2, field="cents", more=TO_CENTS)
        with pytest.raises(ReloadError) as caught:
            await server.app.reload_handlers()
        sid = bad.login_result["sid"]
        assert caught.value.details == {
            "problems": [
                {
                    "sid": sid,
                    "slot": "cart",
                    "error": "state slot 'cart': migration 1 failed: ValueError: unlucky",
                }
            ],
            "failed": 1,
        }
        assert sid in str(caught.value)
        assert await good.call("shop.add", {"n": 1}) == [1, 4]
        assert await bad.call("shop.add", {"n": 1}) == [1, 14]
        assert (await server.app.reload_handlers())["migrated"] == {"cart": 2}
        assert await bad.call("shop.add", {"n": 1}) == [2, 1401]


async def test_a_crash_after_a_migration_rolls_it_back_with_the_rest(server, shop):
    more = """
    @handler("shop.crash")
    async def crash(ctx: UserContext) -> None:
        ctx.slot("cart", Cart).cents += 1
        raise RuntimeError("after the migration")
    """
    async with server.client() as client:
        await session(client)
        await client.call("shop.add", {"n": 3})
        shop.write(2, field="cents", more=TO_CENTS + textwrap.dedent(more), names=", crash")
        await server.app.reload_handlers()
        assert (await client.error("shop.crash"))["code"] == "HANDLER_CRASHED"
        assert await client.call("shop.add", {"n": 1}) == [2, 301]


async def test_a_concurrent_request_of_old_code_that_meets_a_new_slot_may_try_again(server, shop):
    more = """
    OPEN = asyncio.Event()

    @handler("shop.peek", concurrent=True)
    async def peek(ctx: UserContext) -> int:
        await OPEN.wait()
        return ctx.slot("cart", Cart).{field}
    """
    shop.write(1, more=more, names=", peek")
    await server.app.reload_handlers()
    async with server.client() as client:
        await session(client)
        await client.call("shop.add", {"n": 3})
        event = shop.module.OPEN
        peek = await client.start("shop.peek", id="peek")
        await client.call("shop.look")
        shop.write(2, field="cents", more=TO_CENTS + textwrap.dedent(more), names=", peek")
        await server.app.reload_handlers()
        await client.call("shop.add", {"n": 1})
        event.set()
        error = (await peek)["error"]
        assert (error["code"], error["details"]) == ("BUSY", {"reason": "reloaded"})
        shop.module.OPEN.set()
        assert await client.call("shop.peek", id="peek") == 301


async def test_reloads_at_once_take_turns(server, shop):
    shop.write(2)
    answers = await asyncio.gather(*(server.app.reload_handlers() for _ in range(3)))
    assert [answer["reloaded"] for answer in answers] == [[shop.name], [], []]


async def test_watchers_hear_of_a_reload(server, shop):
    from ecan.observability.events import Watcher

    watcher = Watcher(lambda: None, ("handlers.",))
    server.app.environment.events.add(watcher)
    shop.write(2)
    await server.app.reload_handlers()
    (event,) = watcher.take()
    assert (event["kind"], event["reloaded"]) == ("handlers.reloaded", [shop.name])


async def test_operators_reload_over_the_admin_socket(server, shop):
    """The answer of a refusal says why, in words and for programs."""
    async with server.admin() as operator:
        shop.write(2)
        assert (await operator.call("handlers.reload"))["reloaded"] == [shop.name]
        shop.write(3, more="nowhere.to_be_found\n")
        with pytest.raises(RefusedError) as refused:
            await operator.call("handlers.reload")
        assert "NameError" in refused.value.error["message"]
        assert refused.value.error["data"]["details"]["file"] == str(shop.path)


async def test_killed_after_a_reload_with_one_session_migrated_nothing_is_mixed(tmp_path):
    """The same by a reload of the running server: kill -9 right behind the first migration."""
    shop = Shop(tmp_path)
    env = {"ECAN_HANDLERS": shop.name, "ECAN_ADMIN_PASSWORD": ADMIN_PASSWORD}
    process = ServerProcess(tmp_path, env)
    sessions = []
    with process:
        async with Client(process.url) as one, Client(process.url) as two:
            for client, price in ((one, 3), (two, 5)):
                await session(client)
                await client.call("shop.add", {"n": price})
                sessions.append(client.session)
            shop.write(2, field="cents", more=TO_CENTS)
            async with AsyncClient(tmp_path / "data" / "admin.sock") as operator:
                answer = await operator.call("handlers.reload")
            assert answer["migrated"] == {"cart": 2}
            assert await one.call("shop.add", {"n": 1}) == [2, 301]
            process.kill()
    with process:
        for number, cents in enumerate((302, 501)):
            async with Client(process.url) as client:
                await client.resume(sessions[number])
                assert await client.call("shop.add", {"n": 1}) == [2, cents]


async def test_killed_between_two_migrations_every_slot_has_one_form(tmp_path):
    """Newer code by restart, kill -9 when one of two sessions is migrated, restart."""
    shop = Shop(tmp_path)
    env = {
        "ECAN_HANDLERS": shop.name,
        "ECAN_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    process = ServerProcess(tmp_path, env)
    sessions = []
    with process:
        for price in (3, 5):
            async with Client(process.url) as client:
                await session(client)
                await client.call("shop.add", {"n": price})
                sessions.append(client.session)
    shop.write(2, field="cents", more=TO_CENTS)
    with process:
        async with Client(process.url) as client:
            await client.resume(sessions[0])
            assert await client.call("shop.add", {"n": 1}) == [2, 301]
    with process:
        for number, cents in enumerate((302, 501)):
            async with Client(process.url) as client:
                await client.resume(sessions[number])
                assert await client.call("shop.add", {"n": 1}) == [2, cents]
