"""Plans by name, from TOML files and from Python files."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ecan.loadtest import units
from ecan.loadtest.builtin import PLANS
from ecan.loadtest.plan import Call, Chaos, Phase, Plan, PlanError, make_phases

if TYPE_CHECKING:
    from collections.abc import Callable


def _times(value: Any) -> tuple[float, ...]:
    return tuple(units.seconds(item) for item in (value if isinstance(value, list) else [value]))


_PLAN_KEYS: dict[str, Callable[[Any], Any]] = {
    "name": str,
    "doc": str,
    "needs": str,
    "users": int,
    "slo": str,
    "connected": bool,
    "timeout": units.seconds,
}
_CALL_KEYS: dict[str, Callable[[Any], Any]] = {
    "method": str,
    "params": lambda value: value,
    "weight": float,
    "payload_bytes": int,
    "counter": str,
}
_PHASE_KEYS: dict[str, Callable[[Any], Any]] = {
    "name": str,
    "for": units.seconds,
    "rate": units.rate,
    "to": units.rate,
    "measured": bool,
}
_CHAOS_KEYS: dict[str, Callable[[Any], Any]] = {
    "crash": units.share,
    "cut": units.rate,
    "freeze": units.rate,
    "freeze_for": units.seconds,
    "kill_at": _times,
    "drain_at": _times,
}
_RENAMED = {
    "timeout": "timeout_s",
    "for": "seconds",
    "to": "end_rate",
    "cut": "cut_s",
    "freeze": "freeze_s",
    "freeze_for": "freeze_for_s",
    "kill_at": "kill_at_s",
    "drain_at": "drain_at_s",
}


def find_plan(name: str) -> Plan:
    """A plan that comes with it, or one in a file ``.toml`` or ``.py``.

    Raises:
        PlanError: there is none, or it is wrong.
    """
    if name in PLANS:
        return PLANS[name]
    path = Path(name)
    if path.suffix not in {".toml", ".py"}:
        close = difflib.get_close_matches(name, PLANS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise PlanError(
            f"no plan {name!r}{hint} There are {', '.join(PLANS)}, and files .toml or .py."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"cannot read {name}: {error}") from None
    return parse_toml(text, path.stem) if path.suffix == ".toml" else _load_python(path)


# -- TOML ------------------------------------------------------------------------------


def parse_toml(text: str, name: str = "plan") -> Plan:
    """A plan in TOML; docs/operators/loadtest.md shows one.

    Raises:
        PlanError: names what is wrong and where.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"{name}: {error}") from None
    tables = {
        "calls": [_table(row, _CALL_KEYS, "call", Call) for row in _rows(data, "call")],
        "phases": [_table(row, _PHASE_KEYS, "phase", Phase) for row in _rows(data, "phase")],
        "chaos": _table(data.pop("chaos", {}), _CHAOS_KEYS, "chaos", Chaos),
    }
    simple: dict[str, Any] = {
        key: data.pop(key) for key in ("rate", "for", "ramp", "warm_up") if key in data
    }
    if simple:
        if tables["phases"]:
            raise PlanError(f"{name}: give either [[phase]] tables or rate, for, ramp, warm_up")
        tables["phases"] = list(_simple_phases(simple, name))
    plan: Plan = _table({"name": name, **data}, _PLAN_KEYS, "plan", Plan, **tables)
    return check(plan)


def _simple_phases(data: dict[str, Any], name: str) -> tuple[Phase, ...]:
    try:
        rate = units.rate(data["rate"]) if "rate" in data else None
        return make_phases(
            rate,
            units.seconds(data.get("for", 30)),
            units.seconds(data.get("ramp", 0)),
            units.seconds(data.get("warm_up", 0)),
        )
    except ValueError as error:
        raise PlanError(f"{name}: {error}") from None


def _rows(data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    rows = data.pop(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise PlanError(f"write each {key} as a table [[{key}]]")
    return rows


def _table(
    row: dict[str, Any], keys: dict[str, Callable[[Any], Any]], what: str, cls: type, **more: Any
) -> Any:
    if not isinstance(row, dict):
        raise PlanError(f"{what} must be a table")
    values: dict[str, Any] = {}
    for key, value in row.items():
        if key not in keys:
            close = difflib.get_close_matches(key, keys, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it may have {', '.join(keys)}"
            raise PlanError(f"{what}: no key {key!r}; {hint}")
        try:
            values[_RENAMED.get(key, key)] = keys[key](value)
        except (ValueError, TypeError) as error:
            raise PlanError(f"{what}: {key}: {error}") from None
    try:
        return cls(**values, **more)
    except (ValueError, TypeError) as error:
        message = str(error.args[0] if error.args else error).replace("__init__()", what)
        raise PlanError(f"{what}: {message}") from None


# -- Python ----------------------------------------------------------------------------


def _load_python(path: Path) -> Plan:
    """``PLAN = Plan(...)``; a coroutine function ``scenario(user)`` beside it is its scenario."""
    spec = importlib.util.spec_from_file_location(f"ecan_loadtest_plan_{path.stem}", path)
    assert spec is not None  # noqa: S101 - the name ends in .py
    assert spec.loader is not None  # noqa: S101 - as above
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is somebody else's code
        raise PlanError(f"{path}: {type(error).__name__}: {error}") from error
    scenario = getattr(module, "scenario", None)
    if scenario is not None and not inspect.iscoroutinefunction(scenario):
        raise PlanError(f"{path}: scenario must be a coroutine function: async def scenario(user)")
    plan = getattr(module, "PLAN", None)
    if plan is None and scenario is not None:
        doc = (inspect.getdoc(scenario) or "").partition("\n")[0]
        plan = Plan(name=path.stem, doc=doc, phases=make_phases(10, 30))
    if not isinstance(plan, Plan):
        raise PlanError(f"{path}: it defines neither PLAN = Plan(...) nor async def scenario(user)")
    if scenario is not None and plan.scenario is None:
        plan = attrs.evolve(plan, scenario=scenario)
    return check(plan)


def check(plan: Plan) -> Plan:
    """The plan, if it makes sense.

    Raises:
        PlanError: it does not.
    """
    if bool(plan.calls) == bool(plan.scenario):
        raise PlanError(f"{plan.name}: it needs either calls or a scenario")
    if not plan.connected and plan.scenario is None:
        raise PlanError(f"{plan.name}: calls need users that are connected")
    return plan
