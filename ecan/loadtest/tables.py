"""The tables of the reports, as HTML. Pure."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from ecan.loadtest.checks import PROMISES
from ecan.loadtest.summary import COLUMNS, trusted
from ecan.loadtest.units import show_bytes, show_count, show_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

LATENCY_NOTE = {
    "open": "Latency counts from the intended send time, so waiting that the server caused is in"
    " it (no coordinated omission). Only successes have a latency. Percentiles in italics have"
    " fewer than ten requests beyond them.",
    "closed": "A closed loop sends only when the answer before has come: while the server is slow"
    " nothing is sent, and these percentiles hide that (coordinated omission). Percentiles in"
    " italics have fewer than ten requests beyond them.",
}

PHASE_COLUMNS = ("p50", "p90", "p99", "p99.9", "max_ms")

SPLIT = (
    ("late", "waiting to be sent", "from the intended time to the write, reconnects included"),
    ("network", "network and the rest", "wire, kernel, gateway, and the commit if it is not told"),
    ("queue", "queue", "in the session's mailbox"),
    ("run", "run", "in the handler"),
    ("commit", "commit", "until the change was durable"),
)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML; a whole ``<td`` is taken as it is. A head that begins with < is left."""
    if not rows:
        return ""
    top = "".join(
        f'<th class="left">{cell.removeprefix("<")}</th>' if cell[:1] == "<" else f"<th>{cell}</th>"
        for cell in head
    )
    body = "".join(
        "<tr>" + "".join(c if c.startswith("<td") else f"<td>{c}</td>" for c in row) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'


def _left(text: str) -> str:
    return f'<td class="left">{html.escape(text)}</td>'


def _wrap(text: str) -> str:
    return f'<td class="wrap">{html.escape(text)}</td>'


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.3g} %"


def _latency(row: dict[str, Any], columns: Sequence[str] = COLUMNS) -> list[str]:
    latency = row["parts"]["total"]
    return [
        show_ms(latency.get(key))
        if trusted(key, latency["n"]) or latency.get(key) is None
        else f'<td class="few">{show_ms(latency[key])}</td>'
        for key in columns
    ]


def _error_cell(row: dict[str, Any]) -> str:
    count = sum(row["errors"].values())
    return f'<td class="bad">{show_count(count)}</td>' if count else "0"


def verdict(result: dict[str, Any]) -> str:
    """Good or not, and why."""
    if result["verdict"]["ok"]:
        words = "Objective met, promises kept." if result["slo"] else "Promises kept."
        return f'<div class="verdict ok">{words}</div>'
    reasons = "".join(f"<li>{html.escape(r)}</li>" for r in result["verdict"]["reasons"])
    return f'<div class="verdict bad">Not good<ul>{reasons}</ul></div>'


def objective(result: dict[str, Any]) -> str:
    """Each term."""
    rows = [
        [
            _left(row["term"]),
            html.escape(row["shown"]),
            '<td class="ok">met</td>' if row["ok"] else '<td class="bad">missed</td>',
        ]
        for row in result["slo"]
    ]
    return _table(["objective", "measured", ""], rows)


def methods(result: dict[str, Any]) -> str:
    """Percentiles of each method in the measured phases."""
    head = ["method", "sent", "ok/s", "errors", *(c.removesuffix("_ms") for c in COLUMNS)]
    rows = [
        [
            _left(name),
            show_count(row["sent"]),
            show_count(row["rate"]),
            _error_cell(row),
            *_latency(row),
        ]
        for name, row in [("all", result["total"]), *result["methods"].items()]
    ]
    return _table(head, rows)


def split(result: dict[str, Any]) -> str:
    """The mean of each part as a bar, with p50 and p99."""
    rows = []
    for name, row in result["methods"].items():
        parts = {key: row["parts"].get(key) or {"n": 0} for key, _, _ in SPLIT}
        if not parts["run"]["n"]:
            continue
        whole = sum(part.get("mean_ms", 0.0) for part in parts.values()) or 1.0
        bar = "".join(
            f'<i class="i{i}" style="width:{part["mean_ms"] / whole * 100:.2f}%"></i>'
            for i, part in enumerate(parts.values(), 1)
            if part["n"]
        )
        cells = [
            "-"
            if not part["n"]
            else f"{show_ms(part['p50'])} <span class=soft>/ {show_ms(part['p99'])}</span>"
            for part in parts.values()
        ]
        rows.append([_left(name), f'<td class="left"><div class="split">{bar}</div></td>', *cells])
    if not rows:
        return ""
    keys = "".join(
        f'<span class="key s{i}" title="{html.escape(why)}">{html.escape(label)}</span>'
        for i, (_, label, why) in enumerate(SPLIT, 1)
    )
    head = ["method", "<mean", "waiting", *(key for key, _, _ in SPLIT[1:])]
    note = '<p class="soft small">The bar is the mean; the columns are p50 / p99 of each part.</p>'
    return f'<p class="soft small legend">{keys}</p>{_table(head, rows)}{note}'


def phases(result: dict[str, Any]) -> str:
    """What clients saw in each phase."""
    head = [
        "phase", "rate", "sent", "errors", "dropped", "replayed", "reconnects",
        *(c.removesuffix("_ms") for c in PHASE_COLUMNS),
    ]  # fmt: skip
    rows = []
    for phase in result["phases"]:
        name = phase["name"] + ("" if phase["measured"] else " (not measured)")
        back = phase["around"].get("(reconnect)")
        rows.append(
            [
                _left(name),
                _target(phase),
                show_count(phase["sent"]),
                _error_cell(phase),
                show_count(phase["dropped"]),
                show_count(phase["replayed"]),
                show_count(back["ok"]) if back else "0",
                *_latency(phase, PHASE_COLUMNS),
            ]
        )
    return _table(head, rows) + _events(result)


def _target(phase: dict[str, Any]) -> str:
    if phase["target_rate"] is None:
        return "closed"
    first = show_count(phase["target_rate"])
    if phase["end_rate"] in {None, phase["target_rate"]}:
        return f"{first}/s"
    return f"{first} → {show_count(phase['end_rate'])}/s"


def _events(result: dict[str, Any]) -> str:
    words = [f"{e['at_s']:.1f} s: {html.escape(e['what'])}" for e in result["events"]]
    return f'<p class="soft small">Server: {"; ".join(words)}.</p>' if words else ""


def errors(result: dict[str, Any]) -> str:
    """Codes by phase and method, and how connections ended."""
    rows = []
    for phase in result["phases"]:
        rows += [
            [_left(phase["name"]), _left(code), show_count(count), _left(kind)]
            for kind, codes in (("", phase["errors"]), ("asked for", phase["expected"]))
            for code, count in sorted(codes.items(), key=lambda pair: -pair[1])
        ]
    text = _table(["phase", "<code", "count", "<"], rows)
    closes = result["connections"]
    if closes:
        words = ", ".join(f"{code}: {count}" for code, count in sorted(closes.items()))
        words = f"Connections that ended under a user, by close code: {words}."
        text += f'<p class="soft small">{words}</p>'
    return text


def checks(result: dict[str, Any]) -> str:
    """Every promise that was looked at."""
    found = result["checks"]
    rows = []
    for name, words in PROMISES.items():
        count = found["counts"].get(name, 0)
        state = '<td class="ok">kept</td>'
        if count:
            state = f'<td class="bad">broken {count} times</td>'
        elif name in found["unseen"]:
            state = '<td class="few">not seen by this plan</td>'
        rows.append([_left(f"{name}  {words}" if name.startswith("P") else words), state])
    text = _table(["promise", ""], rows)
    text += (
        f'<p class="soft small">Looked at: every answer, {show_count(found["ordered"])} in order,'
        f" {show_count(found['pushes'])} pushes,"
        f" {show_count(found['pending_frames'])} stream frames,"
        f" {show_count(found['compared'])} totals of counters at the end."
    )
    if found["lost_sessions"]:
        text += f" Sessions that ended under their users: {found['lost_sessions']}."
    if found["withheld_crashes"]:
        text += (
            f" Crashes withheld, for a fourth in a minute fails a session:"
            f" {found['withheld_crashes']}."
        )
    text += "</p>"
    if found["examples"]:
        examples = [
            [_left(e["promise"]), _left(e["session"]), _wrap(e["what"])] for e in found["examples"]
        ]
        text += _table(["promise", "session", "what was seen"], examples)
    if found["traceback"]:
        text += f"<p>The scenario failed:</p><pre>{html.escape(found['traceback'])}</pre>"
    return text


def server(result: dict[str, Any]) -> str:
    """What the server's own metrics said in the first second and in the last."""
    scrapes = [m for row in result["timeline"] if (m := row.get("server", {}).get("metrics"))]
    if not scrapes:
        return ""
    first, last = scrapes[0], scrapes[-1]
    rows = []
    for name, end in sorted(last.items()):
        begin = first.get(name, 0.0)
        show = show_bytes if name.endswith("_bytes") else show_count
        change = f"{show(end - begin)}" if name.endswith("_total") else ""
        rows.append([_left(name), show(begin), show(end), change])
    return _table(["metric", "first", "last", "in between"], rows)


def generator(result: dict[str, Any]) -> str:
    """Whether the generator is to be trusted, and what it costs."""
    gen = result["generator"]
    state = (
        '<td class="ok">yes</td>'
        if gen["valid"]
        else f'<td class="bad">no: {html.escape("; ".join(gen["reasons"]))}</td>'
    )
    lag = f"p50 {show_ms(gen['lag'].get('p50'))}, p99 {show_ms(gen['lag'].get('p99'))}"
    rows = [
        [_left("kept up"), state],
        [_left("its loop woke up late"), f"{lag} (allowed {show_ms(gen['max_lag_ms'])})"],
        [
            _left("requests left late, by its own doing"),
            f"p50 {show_ms(gen['late'].get('p50'))}, p99 {show_ms(gen['late'].get('p99'))}",
        ],
        [
            _left("CPU of each process"),
            ", ".join(f"{p['cpu'] * 100:.0f} %" for p in gen["processes"]),
        ],
        [_left("CPU a request"), f"{gen['cpu_us_per_request'] or 0:.0f} µs"],
        [_left("memory"), show_bytes(gen["rss_bytes"])],
    ]
    return _table(["", ""], rows)


def facts(result: dict[str, Any]) -> str:
    """What it was run on and with."""
    plan, fact, machine = result["plan"], result["facts"], result["machine"]
    calls = ", ".join(f"{call['method']} ({call['weight']:g})" for call in plan["calls"])
    rows = {
        "server": fact["url"] + (" (started for this test)" if fact["started_by_us"] else ""),
        "sessions from": fact["sessions"],
        "calls (weight)": calls or "a scenario",
        "chaos": "; ".join(plan["chaos"]) or "none",
        "planned": f"{plan['seconds']:g} s, played {plan['played_s']:g} s",
        "machine of the generators": f"{machine['system']}, {machine['cpus']} CPUs,"
        f" Python {machine['python']}, load {machine['load_1min']}",
        "seed": str(fact["seed"]),
        "ecan": result["version"],
    }
    text = "".join(f"<dt>{k}</dt><dd>{html.escape(v)}</dd>" for k, v in rows.items())
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in fact["notes"])
    log = fact.get("server_log", "")
    more = f"<p class=soft>End of the server's log:</p><pre>{html.escape(log)}</pre>" if log else ""
    return f"{notes}<dl>{text}</dl>{more}"


def comparison(found: dict[str, Any] | None) -> str:
    """Before, now and the ratio."""
    if found is None:
        return ""
    names = {"rate": "ok/s", "p50": "p50", "p99": "p99", "p99.9": "p99.9", "errors": "errors"}
    head = ["method", *(f"{label}: now / before" for label in names.values())]
    rows = [
        [_left(row["name"]), *(_ratio_cell(key, row["cells"][key]) for key in names)]
        for row in found["rows"]
    ]
    text = _table(head, rows)
    server = found["server"]
    if server["cpu"]["new"] is not None and server["cpu"]["old"] is not None:
        text += (
            f'<p class="soft small">Server: CPU {_percent(server["cpu"]["old"])} before,'
            f" {_percent(server['cpu']['new'])} now; memory"
            f" {show_bytes(server['rss_bytes']['old'] or 0)} before,"
            f" {show_bytes(server['rss_bytes']['new'] or 0)} now.</p>"
        )
    if found["caveats"]:
        items = "".join(f"<li>{html.escape(text)}</li>" for text in found["caveats"])
        text += '<p class="soft small">Be careful, this was not the same:</p>'
        text += f'<ul class="soft small">{items}</ul>'
    return text


def _ratio_cell(key: str, cell: dict[str, float | None]) -> str:
    show = {"rate": show_count, "errors": _percent}.get(key, show_ms)
    old, new = ("-" if cell[k] is None else show(cell[k] or 0.0) for k in ("old", "new"))
    ratio = cell["ratio"]
    both = f'<span class="soft small">{old} → {new}</span>'
    if ratio is None:
        return f"-<br>{both}"
    # A tenth is noise on most machines.
    worse, better = (ratio > 1.1, ratio < 0.9) if key != "rate" else (ratio < 0.9, ratio > 1.1)  # noqa: PLR2004
    style = "bad" if worse else "ok" if better else ""
    return f'<td class="{style}"><b>{ratio:.2f}</b><br>{both}</td>'


def points(found: dict[str, Any]) -> str:
    """Every try of a search for the capacity."""
    rows = [
        [
            _left(show_count(point["load"])),
            '<td class="ok">met</td>' if point["ok"] else '<td class="bad">missed</td>',
            show_count(point["rate"]),
            show_ms(point["p50_ms"]),
            show_ms(point["p99_ms"]),
            _percent(point["error_share"]),
            _percent(point["cpu"]),
            "-" if point["rss_bytes"] is None else show_bytes(point["rss_bytes"]),
            _wrap("; ".join(point["reasons"])),
        ]
        for point in found["points"]
    ]
    unit = "requests/s" if found["kind"] == "rate" else "sessions"
    return _table(
        [unit, "objective", "ok/s", "p50", "p99", "errors", "CPU", "memory", "<why"], rows
    )
