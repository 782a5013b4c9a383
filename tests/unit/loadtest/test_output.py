"""What comes out: the result, the page, the terminal, the comparison, the live screen."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import attrs
import pytest

from ecan.loadtest import sampling, slo, tables
from ecan.loadtest.builtin import PLANS
from ecan.loadtest.capacity import make_point
from ecan.loadtest.compare import CompareError, compare, read_result
from ecan.loadtest.counts import Counts
from ecan.loadtest.live import Live
from ecan.loadtest.local_server import LocalServer
from ecan.loadtest.plan import Chaos, make_phases, split_at_events
from ecan.loadtest.recorder import ITERATION, RECONNECT, Recorder
from ecan.loadtest.report import make_capacity_report, make_report, write_capacity, write_report
from ecan.loadtest.result import Raw, make_result
from ecan.loadtest.summary import print_capacity, print_result

PLAN = attrs.evolve(
    PLANS["chat"],
    phases=split_at_events(make_phases(50, 8, ramp_s=2), [(6, "kill -9")]),
    chaos=Chaos(kill_at_s=[6]),
)


def done(scale: float = 1.0, broken: bool = False, lag_s: float = 0.001) -> dict[str, Any]:
    """What a generator process tells, with latencies around a millisecond times ``scale``."""
    recorder = Recorder(3)
    for phase in range(3):
        for i in range(400):
            method = ("echo", "debug.incr")[i % 2]
            recorder.sent(phase, method)
            total = 0.001 * scale * (1 + i / 100)
            meta = {"queue_ms": 0.1, "run_ms": 0.2, "commit_ms": 0.3, "incarnation": 1}
            recorder.ok(phase, method, total, 0.0001, meta)
        recorder.sent(phase, ITERATION)
        recorder.ok(phase, ITERATION, 0.5)
    recorder.ok(2, "echo", 1.0, 0.9, {"replayed": True})
    recorder.sent(2, RECONNECT)
    recorder.ok(2, RECONNECT, 0.7)
    recorder.error(2, "echo", "BUSY")
    recorder.error(2, "debug.incr_then_crash", "HANDLER_CRASHED", expected=True)
    recorder.drop(1)
    recorder.close(1006)
    lag, late = Counts(), Counts()
    lag.add(lag_s)
    late.add(0.0001)
    violations: dict[str, Any] = {"counts": {}, "examples": [], "ordered": 400}
    if broken:
        example = {"promise": "P2", "session": "user <1>", "what": "request 1 after & 2"}
        violations = {"counts": {"P2": 2}, "examples": [example], "ordered": 400}
    return {
        **recorder.dump(),
        "violations": violations,
        "lost_sessions": int(broken),
        "compared": 3,
        "withheld_crashes": int(broken),
        "scenario_errors": {"KeyError": 1} if broken else {},
        "traceback": "Traceback <x>" if broken else "",
        "health": {"lag": lag.dump(), "cpu_s": 1.0, "wall_s": 5.0},
        "lateness": late.dump(),
        "cpu_s": 1.0,
        "wall_s": 10.0,
        "rss_kib": 40_000,
    }


def rows(seconds: int = 10) -> list[dict[str, Any]]:
    return [
        {
            "second": second, "sent": 50, "ok": 49, "errors": second % 2, "dropped": 0,
            "connected": 50, "under_way": 1, "violations": 0,
            "p50_ms": None if second == 7 else 1.0, "p90_ms": 2.0, "p99_ms": 4.0 + second, "max_ms": 9.0,
            **({} if second == 7 else {"server": {"cpu": 0.1 * second, "rss_bytes": 50 * 2**20, "metrics": METRICS}}),
        }
        for second in range(1, seconds + 1)
    ]  # fmt: skip


def result(objective: str = "p99<50ms,errors<1%", **more: Any) -> dict[str, Any]:
    return make_result(
        Raw(
            plan=PLAN,
            dones=[done(**more), done(**more)],
            rows=rows(),
            events=[{"at_s": 6.0, "what": "kill -9"}, {"at_s": 6.6, "what": "ready again"}],
            started_at="2026-11-25T09:00:00+00:00",
            played_s=10.0,
            objective=slo.parse(objective),
            max_lag_s=0.02,
            facts={
                "url": "ws://127.0.0.1:1/ws", "sessions": "the admin socket", "started_by_us": True,
                "seed": 1, "notes": ["A note <here>."], "server_log": "a line",
            },
        )
    )  # fmt: skip


METRICS = {"ecan_commits_total": 1234.0, "process_resident_memory_bytes": 2.0**20}


class Strict(HTMLParser):
    """Fails on tags that are not closed in order, and collects what would be fetched."""

    VOID = frozenset({"meta", "br", "line", "rect", "path", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.fetched += [v for k, v in attrs if k in {"src", "href", "xlink:href"} and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def checked(page: str) -> str:
    parser = Strict()
    parser.feed(page)
    assert parser.open == []
    assert parser.fetched == []
    assert "url(" not in page
    assert "http" not in re.sub(r"http://127\S*", "", page.replace("ws://127", ""))
    return page


def test_phases_and_methods_are_summed_up() -> None:
    """Measured phases make the total; pseudo-methods are in no total; parts add up."""
    found = result()
    assert [p["measured"] for p in found["phases"]] == [False, True, True]
    # two processes, two measured phases of 400, one replay more
    assert found["total"]["ok"] == 2 * (2 * 400 + 1)
    assert found["total"]["replayed"] == 2
    assert found["total"]["errors"] == {"BUSY": 2}
    assert found["total"]["dropped"] == 2
    assert found["phases"][2]["around"][RECONNECT]["ok"] == 2
    assert found["connections"] == {"1006": 2}
    parts = found["methods"]["debug.incr"]["parts"]
    means = {name: part["mean_ms"] for name, part in parts.items()}
    assert means.pop("total") == pytest.approx(sum(means.values()), rel=0.01)
    assert json.loads(json.dumps(found)) == found


def test_verdicts() -> None:
    """Good; objective missed; promise broken; generator overloaded; nothing sent."""
    assert result()["verdict"] == {"ok": True, "reasons": []}
    assert result("p50<0.1ms")["verdict"]["reasons"] == [
        "objective missed: p50<0.1ms (measured 3 ms)"
    ]
    reasons = result(broken=True)["verdict"]["reasons"]
    assert reasons[0] == "promises broken: P2 4 times"
    assert "KeyError" in reasons[1]
    (reason,) = result(lag_s=0.5)["verdict"]["reasons"]
    assert reason.startswith("the run is invalid: generator 1: its loop was 500 ms late")


@pytest.mark.parametrize(
    ("term", "ok"),
    [
        ("echo:p99<100ms", True),
        ("p90<1ms", False),
        ("p97.5<1s", True),
        ("mean<1s", True),
        ("max<1h", True),
        ("rate>10", True),
        ("dropped<5%", True),
        ("nobody:p99<1s", False),
        ("debug.incr_then_crash:p99<1s", False),
        ("violations<=0", True),
    ],
)
def test_objectives_find_their_values(term: str, ok: bool) -> None:
    """Of everything and of one method; what was not there is not met."""
    assert result(term)["slo"][0]["ok"] is ok


def test_page_is_whole_and_fetches_nothing() -> None:
    """Every section is there, markup is closed and escaped, no resource is external."""
    page = checked(make_report(result()))
    for words in (
        "Objective", "Latency over time", "Requests a second", "Errors and dropped", "Server CPU",
        "Server memory", "Latency by percentile", "Where the time goes", "What clients saw",
        "hold after kill -9", "ready again", "BUSY", "P12", "not seen by this plan", "What the server counted", "1,234", "The generator itself", "A note &lt;here&gt;",
        "no coordinated omission", "prefers-color-scheme:dark", "End of the server's log",
    ):  # fmt: skip
        assert words in page, words
    bad = checked(make_report(result("p50<0.1ms", broken=True)))
    assert "user &lt;1&gt;" in bad
    assert "request 1 after &amp; 2" in bad
    assert "Traceback &lt;x&gt;" in bad


def test_page_of_a_run_without_anything() -> None:
    """Nothing was answered, nobody looked at the server: still a page."""
    empty = done()
    fresh = Recorder(3).dump()
    raw = Raw(
        plan=PLAN, dones=[{**empty, **fresh}], rows=[], events=[], started_at="2026", played_s=0.0,
        objective=slo.parse("p99<1s"), max_lag_s=0.02,
        facts={"url": "", "sessions": "", "started_by_us": False, "seed": 1, "notes": []},
    )  # fmt: skip
    found = make_result(raw)
    checked(make_report(found))
    assert found["verdict"]["reasons"] == [
        "objective missed: p99<1s (measured nothing measured)",
        "nothing was sent in the measured phases",
    ]


def test_comparison_shows_both_and_the_ratio(tmp_path, capsys) -> None:
    """--compare: old, new, ratio; on the page the old line; what was different is said."""
    old, new = result(), result(scale=2.0)
    new["plan"] = {**new["plan"], "users": 7, "chaos": []}
    new["machine"] = {**new["machine"], "cpus": 64}
    new["phases"] = [{**phase, "target_rate": 99.0} for phase in new["phases"]]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    found = compare(new, read_result(path))
    assert found["rows"][0]["cells"]["p50"]["ratio"] == pytest.approx(2.0, rel=0.01)
    assert found["server"]["cpu"]["ratio"] == 1.0
    assert [c.partition(":")[0] for c in found["caveats"]] == [
        "another users", "another chaos", "another rate", "another cpus",
    ]  # fmt: skip
    page = checked(make_report(new, found))
    assert "p99 before" in page
    assert "all before" in page
    print_result(new, found)
    out = capsys.readouterr().out
    assert "p50 ratio" in out
    assert "careful: another users: 50 before, now 7" in out
    assert result(lag_s=1.0)["generator"]["valid"] is False
    assert "is invalid" in compare(old, result(lag_s=1.0))["caveats"][0]


@pytest.mark.parametrize("text", ["no json", "[]", '{"format": "other"}'])
def test_what_cannot_be_compared(tmp_path, text: str) -> None:
    """A file that is no result."""
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(CompareError):
        read_result(path)


def test_files_get_their_names(tmp_path) -> None:
    """Plan and time, or what was asked for, made safe."""
    html, data = write_report(result(), tmp_path)
    assert (html.name, data.name) == ("chat-2026-11-25T090000.html", "chat-2026-11-25T090000.json")
    html, _ = write_report(result(), tmp_path / "new", "a b/c", compare(result(), result()))
    assert html.name == "a-b-c.html"
    assert "comparison" in json.loads((tmp_path / "new" / "a-b-c.json").read_text())


def test_terminal_summary(capsys) -> None:
    """Numbers, promises, the verdict; brackets where few values lie beyond a percentile."""
    print_result(result("p50<0.1ms", broken=True), None)
    out = capsys.readouterr().out
    for words in (
        "hold after kill -9",
        "(",
        "BROKEN",
        "MISSED p50<0.1ms",
        "NOT GOOD",
        "BUSY 2",
        "dropped: 2",
    ):
        assert words in out


def test_capacity_page(tmp_path, capsys) -> None:
    """The curve, every try, the best; and a search that found nothing."""
    points = [make_point(load, result(scale=load / 50)) for load in (50.0, 100.0, 800.0)]
    assert [p.ok for p in points] == [True, True, False]
    assert points[2].margin > 1
    broken = make_point(50, result(broken=True))
    assert (broken.ok, broken.facts["reasons"]) == (False, ["promises broken"])
    missed = make_point(50, result("rate>1k,nobody:p50<1s,errors<=0"))
    assert missed.margin == float("inf")
    found: dict[str, Any] = {
        "kind": "rate", "plan": "ping", "users": 5, "hold_s": 3.0, "objective": "p99<50ms",
        "best": 100.0, "ended": "800 did not.",
        "points": [{"load": p.load, "ok": p.ok, "valid": p.valid, **p.facts} for p in points],
    }  # fmt: skip
    page = checked(make_capacity_report(found))
    for words in (
        "100 requests/s meet p99&lt;50ms",
        "Latency by requests/s",
        "Server CPU",
        "missed",
    ):
        assert words in page
    nothing = {**found, "best": 0, "kind": "sessions", "points": []}
    assert "Nothing that was tried" in checked(make_capacity_report(nothing))
    assert write_capacity(found, tmp_path)[0].name == "capacity-ping.html"
    print_capacity(found)
    print_capacity(nothing)
    assert "none sessions" in capsys.readouterr().out


def test_live_screen_on_a_terminal_and_in_a_log() -> None:
    """Redrawn in place on a terminal; a line a second elsewhere; notes stay."""
    sample = {"cpu": 0.5, "rss_bytes": 2**26}
    screen = io.StringIO()
    live = Live(screen, PLAN, terminal=True)
    live.progress("connecting …")
    for row in rows(3):
        live.second({**row, "violations": row["second"] - 1}, sample, "hold")
    live.note("6.0 s: server: kill -9")
    live.second(rows(4)[3], {}, "hold")
    live.close()
    text = screen.getvalue()
    assert text.count("Ctrl-C ends it") == 4
    assert "2 broken" in text
    assert "not on this machine" in text
    assert "CPU 50 %, RSS 64 MiB" in text
    log = io.StringIO()
    live = Live(log, PLAN)
    live.progress("not shown")
    live.second({**rows(1)[0], "violations": 2}, sample, "ramp")
    live.close()
    (line,) = log.getvalue().splitlines()
    assert "1s/10s ramp | sent 50/s | ok 49/s | p50 1 ms" in line
    assert line.endswith("VIOLATIONS 2")
    assert "\x1b" not in line


async def test_sampler_without_a_server_and_with_a_wrong_address() -> None:
    """No process, no scrape: nothing is shown, and the trouble is known."""
    assert sampling.read_proc(2**30) is None
    nobody = sampling.Sampler(lambda: None, "http://127.0.0.1:9/metrics")
    assert await nobody.sample() == {}
    assert "cannot scrape" in (nobody.problem or "")
    wrong = sampling.Sampler(lambda: None, "file:///etc/passwd")
    assert await wrong.sample() == {}
    assert "http://" in (wrong.problem or "")
    text = 'process_cpu_seconds_total 3.5\n# HELP x\necan_sessions{state="a"} bad\n'
    assert sampling.parse_metrics(text) == {"process_cpu_seconds_total": 3.5}


def test_server_of_our_own_is_apart_from_a_real_one() -> None:
    """The environment may change its settings, but not where it lives."""
    server = LocalServer({"ECAN_DATA_DIR": "/data", "ECAN_WS_PORT": "1", "ECAN_RATE_LIMIT": "5"})
    env = server.environment()
    assert env["ECAN_DATA_DIR"] == str(server.folder)
    assert (env["ECAN_WS_PORT"], env["ECAN_WS_HOST"]) == ("0", "127.0.0.1")
    assert env["ECAN_RATE_LIMIT"] == "5"
    assert server.durable
    assert not LocalServer({"ECAN_DURABILITY": "off"}).durable
    assert server.log_tail() == ""
    assert server.pid is None


def test_closed_loop_says_what_it_hides() -> None:
    """The page of a closed loop warns of coordinated omission."""
    found = result()
    found["plan"] = {**found["plan"], "loop": "closed"}
    found["phases"] = [{**phase, "target_rate": None} for phase in found["phases"]]
    page = checked(make_report(found))
    assert "coordinated omission" in page
    assert "hide that" in page
    assert tables.comparison(None) == ""
