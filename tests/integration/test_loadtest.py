"""The load harness against a server with known faults, and against the real one."""

from __future__ import annotations

import asyncio
import io
import json
import math
import time
from pathlib import Path
from typing import Any

import attrs
import pytest

from ecan.cli.loadtest import Flags, run
from ecan.config import parsers
from ecan.loadtest import slo
from ecan.loadtest.builtin import PLANS
from ecan.loadtest.counts import Counts
from ecan.loadtest.generator import Generator, Job
from ecan.loadtest.live import Live
from ecan.loadtest.plan import Call, Chaos, Phase, Plan, PlanError, make_phases
from ecan.loadtest.run import Options, Runner
from ecan.loadtest.wire import Address, Wire, WireError
from ecan.testing import running_app
from ecan.testing.app import ADMIN_PASSWORD
from tests.integration.loadtest_kit import FakeServer, fake_server

ACCURACY = 0.02
PERCENTILES = (50, 75, 90, 95, 99, 99.9)


def job(
    url: str, plan: str = "counter", seconds: float = 0.5, rate: float = 60, **more: Any
) -> Job:
    phases = [attrs.asdict(phase) for phase in make_phases(rate, seconds)]
    accounts = [("u", "p")] * more.get("users", 3)
    given: dict[str, Any] = {"users": 3, "phases": phases, "accounts": accounts, "timeout_s": 5.0}
    ordered = ["debug.incr", "echo"]
    return Job(plan=plan, url=url, **{**given, "ordered": ordered, **more})


async def play(todo: Job) -> dict[str, Any]:
    """A generator in this process; what it has to tell at the end."""
    told: list[dict[str, Any]] = []
    generator = Generator(todo, told.append)
    await generator.connect()
    await generator.run(time.monotonic())
    done: dict[str, Any] = told[-1]["done"]
    assert {"tick"} == set(told[-2])
    return done


def runner(fake: FakeServer, plan_ref: str = "ping", **more: Any) -> Runner:
    stream = io.StringIO()
    options = Options(plan_ref=plan_ref, url=fake.url, account=("u", "p"), **more)
    return Runner(options, Live(stream, PLANS["ping"]))


def at_percentile(values: list[float], percentile: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(percentile / 100 * len(ordered)) - 1)]


# -- accuracy --------------------------------------------------------------------------


@pytest.mark.slow
async def test_percentiles_are_those_the_server_served() -> None:
    """Every percentile is within 2 % of the latencies that were injected, as the server saw them.

    A machine that is too busy makes the run invalid, and says so; then another one counts.
    """
    plan = attrs.evolve(PLANS["ping"], users=20, phases=make_phases(200, 6))
    for attempt in range(4):
        async with fake_server() as fake:
            fake.lognormal(seed=attempt)
            result = await runner(fake, max_lag_s=0.005).run(plan)
            served = [seconds * 1000 for seconds in fake.served]
        if result["generator"]["valid"]:
            break
    else:
        pytest.skip("the machine is too busy for a valid run")
    latency = result["methods"]["ping"]["parts"]["total"]
    assert (len(served), latency["n"]) == (1200, 1200)
    off = {f"p{p:g}": latency[f"p{p:g}"] / at_percentile(served, p) - 1 for p in PERCENTILES}
    assert {name: error for name, error in off.items() if abs(error) > ACCURACY} == {}


@pytest.mark.slow
async def test_freeze_shows_in_an_open_loop_and_hides_in_a_closed_one() -> None:
    """Two seconds of silence: p99.9 from the intended time has them; a closed loop's p90 does not."""
    shapes = {"open": (100.0, 20), "closed": (None, 2)}
    found: dict[str, tuple[float, dict[str, Any]]] = {}
    for name, (rate, users) in shapes.items():
        async with fake_server() as fake:
            fake.delay = lambda: 0.005
            plan = attrs.evolve(PLANS["ping"], users=users, phases=make_phases(rate, 6))
            testing = runner(fake)
            going = asyncio.create_task(testing.run(plan))
            while not fake.served:
                await asyncio.sleep(0.02)
            frozen_s = await fake.freeze(1.0, 2.0)
            result = await going
            found[name] = (frozen_s * 1000, result["total"]["parts"])
    frozen_ms, parts = found["open"]
    assert parts["total"]["p99.9"] >= 0.9 * frozen_ms
    assert parts["total"]["p90"] >= 0.5 * frozen_ms
    assert parts["network"]["p99.9"] >= 0.9 * frozen_ms, "the server's doing, not the generator's"
    frozen_ms, parts = found["closed"]
    assert parts["total"]["max_ms"] >= 0.9 * frozen_ms
    assert parts["total"]["p90"] < 0.5 * frozen_ms


async def test_several_processes_are_merged(tmp_path: Path) -> None:
    """Two generators: every arrival once, all histograms in one."""
    async with fake_server() as fake:
        plan = attrs.evolve(PLANS["counter"], users=6, phases=make_phases(100, 2))
        result = await runner(fake, "counter", processes=2, seed=3).run(plan)
    total = result["total"]
    assert (total["sent"], total["ok"], total["dropped"]) == (200, 200, 0)
    assert total["parts"]["total"]["n"] == 200
    assert result["plan"]["processes"] == len(result["generator"]["processes"]) == 2
    assert result["checks"]["compared"] == 6
    assert result["checks"]["counts"] == {}
    assert sum(fake.counts.values()) == 200


async def test_totals_are_asked_of_the_method_that_the_plan_names(tmp_path: Path) -> None:
    """P10: an application's own counters are verified with its own method."""
    path = tmp_path / "shop.py"
    path.write_text(
        "from ecan.loadtest.plan import Call, Plan, make_phases\n"
        "call = Call(method='debug.incr', params={'key': 'n'}, counter='n', read_back='shop.total')\n"
        "PLAN = Plan(name='shop', doc='Counts.', calls=(call,), phases=make_phases(60, 0.5))\n"
    )
    async with fake_server() as fake:
        done = await play(job(fake.url, str(path)))
    asked = [request["method"] for request in fake.requests]
    assert (asked.count("shop.total"), asked.count("debug.state_get")) == (3, 0)
    assert done["compared"] == 3
    assert done["violations"]["counts"] == {}


# -- promises ----------------------------------------------------------------------------


async def test_server_that_keeps_its_promises_is_not_accused() -> None:
    """No violation where there is none; totals are compared."""
    async with fake_server() as fake:
        done = await play(job(fake.url))
    assert done["violations"]["counts"] == {}
    assert done["compared"] == 3
    assert done["stats"][0]["debug.incr"]["ok"] == 30


async def test_second_answer_is_seen() -> None:
    """P3: a request is answered twice."""
    async with fake_server() as fake:
        fake.twist = lambda _request, reply: [reply, reply]
        done = await play(job(fake.url))
    assert done["violations"]["counts"] == {"P3": 30}


async def test_answer_to_nothing_is_seen() -> None:
    """P3: an answer to a request that was never sent."""
    async with fake_server() as fake:

        def twist(request: dict[str, Any], reply: dict[str, Any]) -> list[dict[str, Any]]:
            return [reply, {**reply, "id": request["id"][:-10] + "0000099999"}]

        fake.twist = twist
        done = await play(job(fake.url))
    assert done["violations"]["counts"] == {"P3": 30}


async def test_doubled_effect_is_seen() -> None:
    """P10: a counter is added to twice, and the total at the end is too high."""
    async with fake_server() as fake:

        def twist(request: dict[str, Any], reply: dict[str, Any]) -> list[dict[str, Any]]:
            session = request["meta"]["session_id"]
            if reply["result"] == 5:
                fake.counts[session] += 1
            return [reply]

        fake.twist = twist
        done = await play(job(fake.url))
    assert done["violations"]["counts"] == {"P10": 3}
    assert "the total is 11, after 10 successes" in done["violations"]["examples"][0]["what"]


async def test_lost_effect_is_seen() -> None:
    """P10: a value comes twice, for the server forgot one."""
    async with fake_server() as fake:

        def twist(request: dict[str, Any], reply: dict[str, Any]) -> list[dict[str, Any]]:
            session = request["meta"]["session_id"]
            if reply["result"] == 10:
                fake.counts[session] -= 5
            return [reply]

        fake.twist = twist
        done = await play(job(fake.url))
    assert done["violations"]["counts"] == {"P10": 3}


async def test_wrong_order_is_seen() -> None:
    """P2: an answer overtakes the one before."""
    async with fake_server() as fake:
        delays = iter([0.2] + [0.0] * 100)
        fake.delay = lambda: next(delays)
        done = await play(job(fake.url, users=1))
    assert set(done["violations"]["counts"]) <= {"P2", "P10"}
    assert done["violations"]["counts"]["P2"] == 1


async def test_hole_in_pushes_and_incarnation_going_back_are_seen() -> None:
    """P12, and an incarnation that is smaller than the one before."""
    async with fake_server() as fake:

        def twist(request: dict[str, Any], reply: dict[str, Any]) -> list[dict[str, Any]]:
            count = reply["result"]
            seq = count if count < 5 else count + 1  # 5 is missing
            push = {
                "id": f"p-{seq}",
                "type": "request",
                "method": "x",
                "meta": {"seq": seq, "epoch": "e"},
            }
            reply["meta"]["incarnation"] = 2 if count == 7 else 1
            return [push, reply]

        fake.twist = twist
        done = await play(job(fake.url))
    assert done["violations"]["counts"] == {"P12": 3, "incarnation": 12}
    assert done["pushes"] == 30


async def test_no_answer_at_all_is_seen() -> None:
    """P3: the connection stands, nothing comes: the request is lost, and that is a broken promise."""
    async with fake_server() as fake:
        fake.twist = lambda _request, _reply: []
        done = await play(job(fake.url, timeout_s=0.3, rate=20, users=2))
    assert done["violations"]["counts"] == {"P3": 10}
    assert done["stats"][0]["debug.incr"]["errors"] == {"NO_ANSWER": 10}


async def test_garbage_is_seen() -> None:
    """A frame that is no JSON object of the contract is a violation, not the harness's end."""
    async with fake_server() as fake:
        fake.twist = lambda _request, reply: [{"no": "type"}, reply]
        done = await play(job(fake.url))
    assert done["violations"]["counts"] == {"frames": 30}


# -- arrivals and connections ---------------------------------------------------------------


async def test_arrivals_without_room_are_dropped_and_counted() -> None:
    """A scenario whose users are all busy: arrivals are dropped, not delayed in silence."""
    async with fake_server() as fake:
        fake.delay = lambda: 0.4
        done = await play(job(fake.url, "reconnect-storm", users=1, rate=40))
    kept = done["stats"][0]["(iteration)"]["sent"]
    assert kept + done["dropped"][0] == 20


async def test_cut_connection_comes_back_and_sends_again() -> None:
    """What was under way when the connection died is sent again and answered once."""
    async with fake_server() as fake:
        fake.delay = lambda: 0.05
        chaos = attrs.asdict(Chaos(cut_s=10, freeze_s=5, freeze_for_s=0.05))
        done = await play(job(fake.url, chaos=chaos, seconds=1))
    assert done["closes"]["1006"] == done["stats"][0]["(reconnect)"]["ok"] >= 5
    assert done["stats"][0]["debug.incr"]["ok"] == 60
    assert done["stats"][0]["debug.incr"]["errors"] == {}


async def test_connection_on_purpose_comes_in_place_of_the_one_by_itself(tmp_path: Path) -> None:
    """A scenario that connects while its user is coming back: one resume, not two beside each other."""
    path = tmp_path / "impatient.py"
    path.write_text(
        "async def scenario(user):\n"
        "    user.lose_connection()\n"
        "    await user.think(0.01)\n"
        "    await user.connect()\n"
        "    await user.call('ping')\n"
        "    await user.think(0.1)\n"
    )
    async with fake_server() as fake:
        done = await play(job(fake.url, str(path), users=2, rate=10, seconds=1))
    asked = [request["method"] for request in fake.requests]
    assert done["stats"][0]["ping"]["ok"] == 10
    assert asked.count("session.resume") == 10
    assert done["violations"]["counts"] == {}


async def test_session_that_ends_is_told_apart() -> None:
    """A close code that says not to come back: the session is lost; with a durable server P11 is broken."""
    async with fake_server() as fake:

        async def end_them() -> None:
            while not fake.served:
                await asyncio.sleep(0.01)
            for ws in list(fake.connections):
                await ws.close(4501)

        ending = asyncio.create_task(end_them())
        done = await play(job(fake.url, durable=True))
        await ending
    assert done["lost_sessions"] == done["violations"]["counts"]["P11"] == 3
    assert done["closes"] == {"4501": 3}


async def test_stop_ends_early_with_a_result() -> None:
    """Ctrl-C: what there is becomes the result."""
    async with fake_server() as fake:
        testing = runner(fake)
        plan = attrs.evolve(PLANS["ping"], users=2, phases=make_phases(20, 300))
        going = asyncio.create_task(testing.run(plan))
        while len(fake.served) < 10:
            await asyncio.sleep(0.02)
        testing.stop()
        result = await going
    assert result["plan"]["seconds"] == 300
    assert result["plan"]["played_s"] < 300
    assert result["total"]["ok"] >= 10


async def test_what_a_server_lacks_is_left_out_or_said() -> None:
    """Calls the server does not know are dropped from a mix; a plan of nothing else is refused."""
    async with fake_server() as fake:
        plan = attrs.evolve(PLANS["chat"], users=2, phases=make_phases(20, 1))
        result = await runner(fake, "chat").run(plan)
        assert set(result["methods"]) <= {"echo", "session.info", "debug.incr"}
        assert "debug.stream" in result["facts"]["notes"][0]
        lonely = Plan(name="x", calls=[Call(method="nobody.knows")], phases=make_phases(5, 1))
        with pytest.raises(PlanError, match=r"nobody\.knows"):
            await runner(fake).run(lonely)
        with pytest.raises(PlanError, match="--start"):
            await runner(fake).run(attrs.evolve(plan, chaos=Chaos(kill_at_s=[1])))
        with pytest.raises(PlanError, match="--crash"):
            await runner(fake).run(attrs.evolve(plan, chaos=Chaos(crash=0.1)))


async def test_wire_says_what_is_not_there() -> None:
    """Nobody listens; it is no WebSocket; the address is none."""
    address = Address.parse("ws://127.0.0.1:9/ws")
    with pytest.raises(WireError):
        await Wire.connect(address, print, print)  # type: ignore[arg-type]
    async with running_app() as app:
        wrong = Address.parse(app.url.replace("/ws", "/health"))
        with pytest.raises(WireError, match=r"no WebSocket there: HTTP/1\.1"):
            await Wire.connect(wrong, print, print)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ws://"):
        Address.parse("http://127.0.0.1/")


# -- the real server ------------------------------------------------------------------------


def settings() -> dict[str, Any]:
    return {
        "login_rate_limit": parsers.login_rate_limit("0"),
        "rate_limit": parsers.rate_limit("0"),
        "signup_open": True,
    }


@pytest.mark.parametrize("plan", ["chat", "tasks", "ping", "idle-crowd", "counter"])
async def test_mixes_that_come_with_it(plan: str) -> None:
    """Every mix plays against the real server, without errors and with promises kept."""
    async with running_app(**settings()) as app:
        accounts = [("admin", ADMIN_PASSWORD)] * 4
        done = await play(job(app.url, plan, users=4, accounts=accounts, seconds=1.5))
    assert done["violations"]["examples"] == []
    errors = {m: s["errors"] for m, s in done["stats"][0].items() if s["errors"]}
    assert errors == {}
    assert sum(s["ok"] for s in done["stats"][0].values()) == 90


@pytest.mark.parametrize("plan", ["login-storm", "reconnect-storm"])
async def test_storms_that_come_with_it(plan: str) -> None:
    """Storms: whole scenarios, connection and all."""
    async with running_app(**settings()) as app:
        accounts = [("admin", ADMIN_PASSWORD)] * 8
        done = await play(job(app.url, plan, users=8, accounts=accounts, seconds=1.5, rate=6))
    stats = done["stats"][0]
    assert done["violations"]["counts"] == {}
    assert done["scenario_errors"] == {}
    assert {m: s["errors"] for m, s in stats.items() if s["errors"]} == {}
    assert stats["(iteration)"]["ok"] == 9
    if plan == "login-storm":
        assert {stats[m]["ok"] for m in ("(connect)", "login", "session.info", "logout")} == {9}


async def test_chaos_on_the_real_server_breaks_no_promise() -> None:
    """Crashes, cuts and frozen readers at once: counters stay right, nothing is answered twice."""
    chaos = attrs.asdict(Chaos(crash=0.05, cut_s=4, freeze_s=2, freeze_for_s=0.2))
    async with running_app(**settings()) as app:
        accounts = [("admin", ADMIN_PASSWORD)] * 6
        todo = job(app.url, users=6, accounts=accounts, seconds=2, chaos=chaos, timeout_s=20.0)
        done = await play(todo)
    assert done["violations"]["examples"] == []
    assert done["stats"][0]["debug.incr_then_crash"]["expected"]["HANDLER_CRASHED"] > 0
    assert done["stats"][0]["debug.incr"]["errors"] == {}
    assert done["compared"] == 6


async def test_scenario_in_a_python_file(tmp_path: Path) -> None:
    """Log in, stream, count, think, hold, reconnect, close; a failing run is reported."""
    path = tmp_path / "shop.py"
    path.write_text(
        "from ecan.loadtest import Phase, Plan\n"
        "PLAN = Plan(name='shop', users=2, phases=[Phase(name='p', seconds=1, rate=4)])\n"
        "async def scenario(user):\n"
        "    parts = await user.stream('debug.stream', {'n': 3})\n"
        "    assert len(parts) == 3, parts\n"
        "    assert (await user.incr('cart')).ok\n"
        "    reply = await user.call('debug.crash_not', expect='METHOD_NOT_FOUND')\n"
        "    assert reply.code == 'METHOD_NOT_FOUND'\n"
        "    await user.think(0.01)\n"
        "    await user.hold(0.01)\n"
        "    assert await user.reconnect()\n"
        "    user.state['runs'] = user.state.get('runs', 0) + 1\n"
        "    if user.state['runs'] == 2:\n"
        "        raise RuntimeError('on purpose')\n"
    )
    async with running_app(**settings()) as app:
        accounts = [("admin", ADMIN_PASSWORD)] * 2
        done = await play(job(app.url, str(path), users=2, accounts=accounts, seconds=1, rate=4))
    assert done["violations"]["examples"] == []
    assert done["scenario_errors"] == {"RuntimeError": 2}
    assert "on purpose" in done["traceback"]
    stats = done["stats"][0]
    assert stats["(iteration)"]["ok"] == 2
    assert stats["debug.crash_not"]["expected"] == {"METHOD_NOT_FOUND": 4}
    assert done["compared"] == 2


@pytest.mark.slow
def test_whole_command_kills_the_server_it_started(tmp_path: Path, capsys: Any) -> None:
    """P10, P11: kill -9 and a drain in the plan; every answer comes, every total is right."""
    flags = Flags(
        start=True, rate="40", duration="9s", kill_at=["2s"], drain_at=["5s"], sessions=8,
        crash="1%", cut="0.5", out=tmp_path, name="kill", slo="errors<1%,violations<=0", max_lag="5s",
    )  # fmt: skip
    code = run("counter", flags)
    out, err = capsys.readouterr()
    data = json.loads((tmp_path / "kill.json").read_text())
    assert data["checks"]["examples"] == []
    assert code == 0, out + err
    assert [event["what"] for event in data["events"]] == [
        "kill -9", "ready again", "drain", "ready again",
    ]  # fmt: skip
    names = [phase["name"] for phase in data["phases"]]
    assert names == ["hold", "hold after kill -9", "hold after drain"]
    assert data["checks"]["compared"] == 8
    assert data["phases"][1]["around"]["(reconnect)"]["ok"] >= 8
    assert any(row.get("server", {}).get("rss_bytes") for row in data["timeline"])
    assert "kill -9" in (tmp_path / "kill.html").read_text()
    assert "promises: kept, as far as" in out


@pytest.mark.slow
def test_commands_that_find_the_capacity(tmp_path: Path, capsys: Any) -> None:
    """The search runs real tries and draws its curve; here the objective cannot be met."""
    flags = Flags(
        start=True, duration="1s", sessions=4, out=tmp_path, name="cap", slo="p50<0.001ms",
        find_capacity=[], rate="2", max_lag="5s",
    )  # fmt: skip
    assert run("ping", flags) == 1
    data = json.loads((tmp_path / "cap.json").read_text())
    assert data["best"] == 0
    assert {point["load"] for point in data["points"]} == {2.0, 1.0}
    assert "Capacity" in (tmp_path / "cap.html").read_text()
    assert "Not even the least load" in capsys.readouterr().out


def test_command_says_what_is_wrong(tmp_path: Path, capsys: Any) -> None:
    """Usage is 2, no server is 3; one line each."""
    nobody = "ws://127.0.0.1:9/ws"
    account: dict[str, Any] = {"url": nobody, "user": "u", "password_stdin": True}
    cases: list[tuple[str, Flags, int, str]] = [
        ("chatt", Flags(), 2, "did you mean chat?"),
        ("ping", Flags(slo="fast"), 2, "'fast' is no objective"),
        ("ping", Flags(rate="many"), 2, "not a rate"),
        ("ping", Flags(users=3, rate="5"), 2, "closed loop"),
        ("ping", Flags(processes=0), 2, "--processes"),
        ("ping", Flags(url="ws://example.org/ws"), 2, "another machine"),
        ("ping", Flags(url=nobody, user="u"), 2, "no terminal"),
        ("ping", Flags(compare=tmp_path / "no.json"), 2, "cannot read"),
        ("ping", Flags(url=nobody, admin_socket=tmp_path / "no.sock"), 3, "cannot reach"),
        ("ping", Flags(url=nobody), 3, "cannot reach the server"),
    ]  # fmt: skip
    del account
    for plan, flags, code, words in cases:
        assert run(plan, flags) == code, words
        assert words in capsys.readouterr().err


def test_objective_reaches_the_command_line() -> None:
    """The built-in plans' own objectives can be read."""
    assert all(slo.parse(plan.slo) for plan in PLANS.values())
    assert Counts().percentiles_ms() == []
    assert Phase(name="x", seconds=1).last_rate == 0.0
