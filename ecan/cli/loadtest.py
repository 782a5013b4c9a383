# ruff: noqa: T201 - a command line prints
"""``ecan loadtest``: load a server, measure, check, report."""

from __future__ import annotations

import asyncio
import getpass
import importlib.util
import ipaddress
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

import attrs
import cyclopts
from cyclopts import Parameter

from ecan.admin.client import NoServerError, RefusedError
from ecan.config import load_client
from ecan.loadtest import Plan, PlanError, slo, units
from ecan.loadtest.builtin import PLANS
from ecan.loadtest.compare import CompareError, compare, read_result
from ecan.loadtest.fleet import FleetError
from ecan.loadtest.live import Live
from ecan.loadtest.local_server import LocalServer, StartError
from ecan.loadtest.plan import make_phases
from ecan.loadtest.plan_file import find_plan
from ecan.loadtest.run import Options, Runner
from ecan.loadtest.summary import print_capacity, print_result
from ecan.loadtest.wire import WireError

if TYPE_CHECKING:
    from typing import Any

_REFUSED, _USAGE, _NO_CONNECTION = 1, 2, 3
_DEFAULT_PLAN = "ping"
_CAPACITY_S = 8.0

_server = cyclopts.Group("The server", sort_key=1)
_load = cyclopts.Group("The load", sort_key=2)
_chaos = cyclopts.Group("Chaos", sort_key=3)
_outcome = cyclopts.Group("The outcome", sort_key=4)


def _option(group: cyclopts.Group, text: str) -> Parameter:
    return Parameter(group=group, help=text)


def _flag(group: cyclopts.Group, text: str) -> Parameter:
    """Without a ``--no-…``."""
    return Parameter(group=group, help=text, negative=(), show_default=False)


@Parameter(name="*")
@attrs.define(kw_only=True)
class Flags:
    """Everything that may be said beside the plan."""

    url: Annotated[
        str | None, _option(_server, "Of the server; else ECAN_URL, else this machine.")
    ] = None
    start: Annotated[
        bool,
        _flag(_server, "Start a server for the test, in a temporary folder, with debug methods."),
    ] = False
    admin_socket: Annotated[
        Path | None, _option(_server, "Make the sessions over this admin socket.")
    ] = None
    user: Annotated[
        str | None,
        _option(_server, "Log in as this user; with --admin-socket: make the sessions for them."),
    ] = None
    password_stdin: Annotated[
        bool, _flag(_server, "Read the password from the first line of stdin.")
    ] = False
    signup: Annotated[
        bool, _flag(_server, "Make accounts for the test (ECAN_SIGNUP=open) and log in.")
    ] = False
    metrics: Annotated[
        str | None, _option(_server, "Scrape these Prometheus metrics: http://HOST:PORT/metrics.")
    ] = None
    allow_remote: Annotated[
        bool, _flag(_server, "Allow a server on another machine. Ask its owner first.")
    ] = False

    rate: Annotated[str | None, _option(_load, "Arrivals a second, like 200 or 2k.")] = None
    duration: Annotated[
        str | None, Parameter(name="--for", group=_load, help="How long at that rate, like 60s.")
    ] = None
    ramp: Annotated[str | None, _option(_load, "How long to rise to it, not measured.")] = None
    warm_up: Annotated[
        str | None, _option(_load, "How long at that rate before it is measured.")
    ] = None
    users: Annotated[
        int | None,
        _option(_load, "Closed loop: so many users, each at once again. Hides waiting."),
    ] = None
    sessions: Annotated[int | None, _option(_load, "So many users in an open loop.")] = None
    processes: Annotated[int, _option(_load, "Generator processes, 1 to 64.")] = 1
    timeout: Annotated[
        str | None, _option(_load, "A request without an answer for so long is lost.")
    ] = None
    max_lag: Annotated[
        str, _option(_load, "A generator whose loop is later than this (p99) makes it invalid.")
    ] = "20ms"
    seed: Annotated[int, _option(_load, "Of chance: which call, who is cut off.")] = 1

    crash: Annotated[
        str | None, _option(_chaos, "Crash the session's actor with this share of requests: 1%.")
    ] = None
    cut: Annotated[str | None, _option(_chaos, "Cut so many connections a second.")] = None
    freeze: Annotated[str | None, _option(_chaos, "Freeze so many readers a second.")] = None
    kill_at: Annotated[
        list[str] | None, _flag(_chaos, "Kill -9 the server at this second (--start).")
    ] = None
    drain_at: Annotated[
        list[str] | None, _flag(_chaos, "Drain the server at this second (--start).")
    ] = None

    slo: Annotated[
        str | None, _option(_outcome, "The objective: 'p99<50ms,errors<0.1%'. Missed: exit 1.")
    ] = None
    compare: Annotated[
        Path | None, _option(_outcome, "The JSON file of an earlier run, to be held against.")
    ] = None
    out: Annotated[Path, _option(_outcome, "Folder of the report (HTML) and the data (JSON).")] = (
        Path("loadtest-results")
    )
    name: Annotated[str | None, _option(_outcome, "Of the files; else plan and time.")] = None
    find_capacity: Annotated[
        list[Literal["rate", "sessions"]] | None,
        Parameter(
            group=_outcome,
            consume_multiple=True,
            negative=(),
            help="Search the most that meets the objective: rate (if nothing is said) or sessions.",
        ),
    ] = None


def loadtest(
    plan: Annotated[
        str, Parameter(help="A plan by name (--plans lists them) or a file .toml or .py.")
    ] = _DEFAULT_PLAN,
    /,
    *,
    flags: Flags | None = None,
    plans: Annotated[
        bool, Parameter(negative=(), help="List the plans and what they need.")
    ] = False,
) -> int:
    """Load a server with open arrivals, check its promises, write a report.

    Latency counts from the intended send time. Exit codes: 0 done and objective met,
    1 objective missed, promise broken or run invalid, 2 usage, 3 cannot connect.
    """
    if plans:
        _list_plans()
        return 0
    return run(plan, flags or Flags())


def run(plan: str, flags: Flags) -> int:
    """The command; the exit code."""
    if importlib.util.find_spec("hdrh") is None:
        return _complain("it needs hdrhistogram: pip install 'ecan-web[load]'", _USAGE)
    try:
        chosen = adapt(find_plan(plan), flags)
        baseline = None if flags.compare is None else read_result(flags.compare)
        return asyncio.run(_main(plan, chosen, flags, baseline))
    except (PlanError, slo.SloError, CompareError, ValueError) as error:
        return _complain(str(error), _USAGE)
    except (FleetError, StartError, RefusedError) as error:
        return _complain(str(error), _REFUSED)
    except (asyncio.CancelledError, KeyboardInterrupt):
        return _complain("interrupted before it began", _REFUSED)
    except (WireError, NoServerError) as error:
        return _complain(f"cannot reach the server: {error}", _NO_CONNECTION)


def _complain(text: str, code: int) -> int:
    print(f"ecan loadtest: {text}", file=sys.stderr)
    return code


def _list_plans() -> None:
    for plan in PLANS.values():
        print(f"{plan.name:16} {plan.doc}")
        if plan.needs:
            print(f"{'':16} needs {plan.needs}")


def adapt(plan: Plan, flags: Flags) -> Plan:
    """The plan with what the command line says.

    Raises:
        ValueError: an option cannot be read.
        PlanError: options that do not go together.
    """
    if flags.users is not None and (flags.rate or flags.sessions):
        raise PlanError("--users is a closed loop; --rate and --sessions are for an open one")
    changes: dict[str, Any] = {}
    if any((flags.rate, flags.duration, flags.ramp, flags.warm_up, flags.users)):
        hold = plan.phases[-1]
        rate = hold.rate if flags.rate is None else units.rate(flags.rate)
        changes["phases"] = make_phases(
            None if flags.users is not None else rate,
            hold.seconds if flags.duration is None else units.seconds(flags.duration),
            0.0 if flags.ramp is None else units.seconds(flags.ramp),
            0.0 if flags.warm_up is None else units.seconds(flags.warm_up),
        )
    users = flags.users or flags.sessions
    if users is not None:
        changes["users"] = users
    if flags.timeout is not None:
        changes["timeout_s"] = units.seconds(flags.timeout)
    chaos: dict[str, Any] = {
        "crash": None if flags.crash is None else units.share(flags.crash),
        "cut_s": None if flags.cut is None else units.rate(flags.cut),
        "freeze_s": None if flags.freeze is None else units.rate(flags.freeze),
        "kill_at_s": flags.kill_at and [units.seconds(at) for at in flags.kill_at],
        "drain_at_s": flags.drain_at and [units.seconds(at) for at in flags.drain_at],
    }
    chaos = {key: value for key, value in chaos.items() if value is not None}
    changes["chaos"] = attrs.evolve(plan.chaos, **chaos)
    adapted = attrs.evolve(plan, **changes)
    if not adapted.phases:
        raise PlanError(f"{plan.name}: for how long, and how fast? Give --rate and --for")
    if flags.processes not in range(1, 65):
        raise PlanError("--processes must be 1 to 64")
    return adapted


def _check_local(url: str, allowed: bool) -> None:
    host = urlsplit(url).hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not (local or allowed):
        raise PlanError(f"{host} is another machine; if it is yours to load, add --allow-remote")


def _password(flags: Flags) -> str:
    if flags.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise PlanError("no terminal to ask for the password; use --password-stdin")
    return getpass.getpass(f"Password of {flags.user}: ")


async def _main(ref: str, plan: Plan, flags: Flags, baseline: dict[str, Any] | None) -> int:
    async with AsyncExitStack() as stack:
        server = None
        if flags.start:
            server = await stack.enter_async_context(LocalServer())
        url = flags.url or (server.url if server is not None else load_client().url)
        _check_local(url, flags.allow_remote)
        account = None
        if server is not None:
            account = ("load", server.password)
        elif flags.user is not None and flags.admin_socket is None:
            account = (flags.user, _password(flags))
        options = Options(
            plan_ref=ref,
            url=url,
            processes=flags.processes,
            server=server,
            admin_socket=server.admin_socket if server is not None else flags.admin_socket,
            admin_user="load" if server is not None else flags.user or "admin",
            account=account,
            sign_up=flags.signup,
            metrics_url=flags.metrics,
            objective=slo.parse(plan.slo if flags.slo is None else flags.slo),
            max_lag_s=units.seconds(flags.max_lag),
            seed=flags.seed,
        )
        live = Live(sys.stderr, plan)
        runner = Runner(options, live)
        _listen_for_the_end(runner)
        try:
            if flags.find_capacity is not None:
                return await _capacity(runner, plan, flags, live)
            result = await runner.run(plan)
        finally:
            live.close()
            await runner.clean_up()
        if server is not None:
            result["facts"]["server_log"] = server.log_tail()
    return _hand_over(result, flags, baseline)


def _listen_for_the_end(runner: Runner) -> None:
    """Ctrl-C or SIGTERM ends the run early; before it has begun, the command."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - we are in it

    def stop() -> None:
        if not runner.stop():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def _hand_over(result: dict[str, Any], flags: Flags, baseline: dict[str, Any] | None) -> int:
    from ecan.loadtest.report import write_report  # noqa: PLC0415 - only at the end

    comparison = None if baseline is None else compare(result, baseline)
    html, data = write_report(result, flags.out, flags.name, comparison)
    print_result(result, comparison)
    print(f"\nReport: {html}\nData:   {data}")
    return 0 if result["verdict"]["ok"] else _REFUSED


async def _capacity(runner: Runner, plan: Plan, flags: Flags, live: Live) -> int:
    from ecan.loadtest.capacity import search  # noqa: PLC0415 - only then
    from ecan.loadtest.report import write_capacity  # noqa: PLC0415 - only then

    kind = flags.find_capacity[0] if flags.find_capacity else "rate"
    hold_s = _CAPACITY_S if flags.duration is None else units.seconds(flags.duration)
    found = await search(runner, plan, kind, hold_s, live)
    html, data = write_capacity(found, flags.out, flags.name)
    print_capacity(found)
    print(f"\nReport: {html}\nData:   {data}")
    return 0 if found["best"] else _REFUSED
