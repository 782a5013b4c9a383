"""Plans: units, phases, TOML and Python files, and what is said when they are wrong."""

from __future__ import annotations

import attrs
import pytest

from ecan.cli.loadtest import Flags, adapt, loadtest
from ecan.loadtest import units
from ecan.loadtest.builtin import PLANS
from ecan.loadtest.plan import Call, Chaos, Phase, Plan, PlanError, make_phases, split_at_events
from ecan.loadtest.plan_file import check, find_plan, parse_toml

SHOP = """
name = "shop"
users = 20
slo = "p99<100ms"
timeout = "10s"

[[phase]]
name = "morning"
rate = 10
to = "1k"
for = "1m"
measured = false

[[phase]]
name = "noon"
rate = "1k"
for = 30

[[call]]
method = "cart.add"
params = {item = 7}
weight = 3

[[call]]
method = "photo.upload"
payload_bytes = 100

[[call]]
method = "debug.incr"
params = {key = "n"}
counter = "n"

[chaos]
crash = 1
cut = "30/min"
freeze = 2
freeze_for = "500ms"
kill_at = ["70s", 80]
drain_at = 75
"""


def test_toml_plan_is_read_whole() -> None:
    """Every table and key of a TOML plan arrives."""
    plan = parse_toml(SHOP)
    assert (plan.name, plan.users, plan.slo, plan.timeout_s) == ("shop", 20, "p99<100ms", 10.0)
    assert plan.phases == (
        Phase(name="morning", seconds=60.0, rate=10.0, end_rate=1000.0, measured=False),
        Phase(name="noon", seconds=30.0, rate=1000.0),
    )
    assert [call.weight for call in plan.calls] == [3.0, 1.0, 1.0]
    assert plan.calls[1].full_params == {"data": "x" * 100}
    assert plan.chaos == Chaos(
        crash=0.01,
        cut_s=0.5,
        freeze_s=2.0,
        freeze_for_s=0.5,
        kill_at_s=(70.0, 80.0),
        drain_at_s=(75.0,),
    )
    assert plan.chaos.describe() == [
        "kill -9 at 70 s",
        "drain at 75 s",
        "kill -9 at 80 s",
        "crash 1 % of the requests",
        "cut 0.5 connections a second",
        "freeze 2 readers a second for 0.5 s",
    ]
    assert plan.seconds == 90.0


def test_short_form_of_phases() -> None:
    """rate, for, ramp and warm_up make the phases."""
    plan = parse_toml('rate = 5\nfor = "2s"\nramp = 1\nwarm_up = 3\n[[call]]\nmethod = "ping"')
    assert [(p.name, p.seconds, p.measured) for p in plan.phases] == [
        ("warm-up", 3.0, False),
        ("ramp", 1.0, False),
        ("hold", 2.0, True),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rate = ", "Invalid value"),
        ("usres = 5\n[[call]]\nmethod='x'", "did you mean users?"),
        ("zzz = 5\n[[call]]\nmethod='x'", "it may have name"),
        ("[[call]]\nmethod='x'\nweight=-1", "weight"),
        ("[[call]]\nweight=1", "method"),
        ("call = 5", "[[call]]"),
        ("chaos = 5\n[[call]]\nmethod='x'", "chaos must be a table"),
        ("[chaos]\ncrash = 300\n[[call]]\nmethod='x'", "0 and 100"),
        ("rate = 'fast'\n[[call]]\nmethod='x'", "'fast' is not a rate"),
        ("rate = 5\n[[phase]]\nname='a'\nfor=1\n[[call]]\nmethod='x'", "either"),
        ("users = 5", "either calls or a scenario"),
        ("connected = false\n[[call]]\nmethod='x'", "connected"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    """One line that says what and where."""
    with pytest.raises(PlanError) as caught:
        parse_toml(text)
    assert words in str(caught.value)


def test_plans_are_found_by_name_and_by_file(tmp_path) -> None:
    """Built-in ones, TOML, Python with PLAN, Python with nothing but a scenario."""
    assert find_plan("chat") is PLANS["chat"]
    toml = tmp_path / "a.toml"
    toml.write_text('[[call]]\nmethod = "ping"')
    assert find_plan(str(toml)).name == "a"
    plain = tmp_path / "visit.py"
    plain.write_text('async def scenario(user):\n    """Look around."""\n')
    assert (find_plan(str(plain)).name, find_plan(str(plain)).doc) == ("visit", "Look around.")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("x = 1", "neither PLAN"),
        ("1 / 0", "ZeroDivisionError"),
        ("def scenario(user): pass", "coroutine function"),
    ],
)
def test_python_plan_that_is_none(tmp_path, body: str, words: str) -> None:
    """What is wrong with the file, in a line."""
    path = tmp_path / "bad.py"
    path.write_text(body)
    with pytest.raises(PlanError, match=words):
        find_plan(str(path))


def test_plan_that_is_nowhere(tmp_path) -> None:
    """A name that is close, a name that is not, a file that is not there."""
    with pytest.raises(PlanError, match="did you mean ping"):
        find_plan("pingg")
    with pytest.raises(PlanError, match="There are ping, chat"):
        find_plan("zzzzzz")
    with pytest.raises(PlanError, match="cannot read"):
        find_plan(str(tmp_path / "no.toml"))


def test_built_in_plans_make_sense() -> None:
    """Each can be played, says what it does and what it needs."""
    for name, plan in PLANS.items():
        assert check(plan).name == name
        assert plan.doc.endswith(".")
        needs_debug = any(call.method.startswith("debug.") for call in plan.calls)
        assert ("debug" in plan.needs) == needs_debug
    assert {*PLANS} >= {"chat", "tasks", "ping", "login-storm", "reconnect-storm", "idle-crowd"}


def test_mix_without_what_the_server_lacks() -> None:
    """Calls are dropped; a plan of nothing else is refused with the remedy."""
    left = PLANS["chat"].without({"debug.push", "debug.stream", "debug.incr"})
    assert {call.method for call in left.calls} == {"echo", "session.info"}
    with pytest.raises(PlanError, match="ECAN_DEBUG_METHODS=1"):
        PLANS["counter"].without({"debug.incr"})


def test_phases_are_split_where_the_server_is_hit() -> None:
    """Each event begins a phase with a name of its own; a ramp goes on at its rate."""
    ramp = Phase(name="ramp", seconds=10, rate=0, end_rate=100, measured=False)
    phases = split_at_events((ramp,), [(4, "drain"), (6, "kill -9"), (8, "kill -9")])
    assert [(p.name, p.seconds, p.rate, p.end_rate) for p in phases] == [
        ("ramp", 4, 0, 40.0),
        ("ramp after drain", 2, 40.0, 60.0),
        ("ramp after kill -9", 2, 60.0, 80.0),
        ("ramp after kill -9 (2)", 2, 80.0, 100),
    ]
    closed = split_at_events(make_phases(None, 10), [(5, "drain")])
    assert [p.rate for p in closed] == [None, None]


def test_command_line_wins_over_the_plan() -> None:
    """Each option changes its part, the rest stays."""
    flags = Flags(
        rate="2k", duration="1m", ramp="5s", warm_up="1s", sessions=7, timeout="9s", crash="2%",
        cut="3", freeze="1", kill_at=["4s"], drain_at=["5s"],
    )  # fmt: skip
    plan = adapt(PLANS["counter"], flags)
    assert [(p.name, p.rate, p.seconds) for p in plan.phases] == [
        ("warm-up", 2000.0, 1.0),
        ("ramp", 0.0, 5.0),
        ("hold", 2000.0, 60.0),
    ]
    assert (plan.users, plan.timeout_s, plan.closed) == (7, 9.0, False)
    assert plan.chaos.server_events == [(4.0, "kill -9"), (5.0, "drain")]
    assert adapt(PLANS["counter"], Flags()) == PLANS["counter"]
    closed = adapt(PLANS["ping"], Flags(users=3))
    assert (closed.closed, closed.users) == (True, 3)
    with pytest.raises(PlanError, match="for how long"):
        adapt(attrs.evolve(PLANS["ping"], phases=()), Flags())


def test_list_of_plans(capsys) -> None:
    """--plans shows each with what it needs."""
    assert loadtest(plans=True) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in PLANS)
    assert "ECAN_DEBUG_METHODS=1" in out


@pytest.mark.parametrize("text", ["", "5 apples", "-3s", "s"])
def test_what_is_no_duration(text: str) -> None:
    """It is named in the error."""
    with pytest.raises(ValueError, match="duration"):
        units.seconds(text)


def test_numbers_that_are_none() -> None:
    """Negative rates and durations, shares above all."""
    with pytest.raises(ValueError, match="rate"):
        units.rate(-1)
    with pytest.raises(ValueError, match="duration"):
        units.seconds(-1)
    with pytest.raises(ValueError, match="100 %"):
        units.share("101%")
    assert units.show_ms(2e6) == "2000 s"


def test_plan_keeps_tuples() -> None:
    """Lists from a Python plan become tuples: a plan is a value."""
    plan = Plan(name="x", calls=[Call(method="ping")], phases=[Phase(name="p", seconds=1)])
    assert plan == attrs.evolve(plan)
    assert isinstance(plan.calls, tuple)
