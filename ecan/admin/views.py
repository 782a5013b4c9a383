"""Every command's answer as a page for people: one function each, from result to lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
from rich.text import Text

from ecan.admin.biography import biography, letter, queue_rows, stack_lines
from ecan.admin.columns import letter_columns, method_columns, session_columns
from ecan.admin.render import (
    WIDE,
    Column,
    age,
    clean,
    millis,
    pairs,
    rate,
    size,
    state,
    table,
    when,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    View = Callable[[Any, "Paper"], list[Text]]


@attrs.frozen
class Paper:
    """What a page is made for.

    Attributes:
        now: UTC timestamp, for ages.
        width: of the terminal.
    """

    now: float
    width: int = WIDE


def view(command: str, result: Any, paper: Paper) -> list[Text]:
    """The lines to show for the answer of a command."""
    return VIEWS.get(command, _plain)(result, paper)


def _plain(result: Any, _paper: Paper) -> list[Text]:
    """An answer without a page of its own."""
    if result == {"ok": True}:
        return [Text("ok", "green")]
    if isinstance(result, dict) and all(_is_word(value) for value in result.values()):
        return pairs((name, clean(value)) for name, value in result.items())
    return [Text(clean(json.dumps(result, ensure_ascii=False, indent=2), lines=True))]


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _status(result: dict[str, Any], paper: Paper) -> list[Text]:
    rates = result["rates"]
    trouble = result.get("store_trouble")
    store = Text(f"{result['store']}, durability {result['durability']}")
    if trouble:
        store.append(f"  {clean(trouble)}", "bold red")
    sessions = Text("  ").join(
        Text.assemble(f"{count:,} ", state(name))
        for name, count in result["sessions"].items()
        if count
    )
    zombies = result["worker_zombies"]
    lines = pairs(
        [
            ("status", Text(result["status"], _health_style(result["status"]))),
            ("version", f"{clean(result['version'])}, pid {result['pid']}"),
            ("up", age(result["uptime_s"])),
            ("sessions", sessions if sessions.plain else "none"),
            ("connections", f"{result['connections']:,}"),
            (
                "a second",
                (
                    f"{rate(rates['frames_in_s'])} frames in, {rate(rates['requests_s'])} requests,"
                    f" {rate(rates['errors_s'])} errors"
                ),
            ),
            ("store", store),
            ("loop lag", f"{millis(result['loop_lag_ms'])} ms"),
            ("memory", size(result["rss_bytes"])),
            ("CPU", age(result["cpu_s"])),
            (
                "since start",
                (
                    f"{result['crashes']:,} crashes, {result['restarts']:,} restarts,"
                    f" {result['give_ups']:,} given up"
                ),
            ),
            ("dead letters", f"{result['dead_letters']:,}"),
            (
                "workers",
                f"{result['worker_threads']} threads"
                + (f", {zombies} of them abandoned" if zombies else ""),
            ),
        ]
    )
    for method, why in result["suspended_methods"].items():
        lines.append(Text(f"suspended: {clean(method)}: {clean(why)}", "yellow"))
    for stall in result["stalled"]:
        lines += stalled(stall)
    for stall in result.get("loop_stalls", ()):
        head = (
            f"the loop stood still for {stall['seconds']:.2f} s at {when(stall['at'], paper.now)}"
        )
        lines.append(Text(f"{head} {clean(stall['what'])}".rstrip(), "yellow"))
        lines += stack_lines(stall.get("stack"))
    return lines


def stalled(stall: dict[str, Any]) -> list[Text]:
    """A session that is stuck: since when, in which method, where."""
    what = "abandoned, still running" if stall.get("abandoned") else "stuck"
    head = f"{what} for {age(stall['since_s'])}: {clean(stall['sid'])} in {clean(stall['method'])}"
    return [Text(head, "bold red"), *stack_lines(stall.get("stack"))]


def _health_style(status: str) -> str:
    return {"healthy": "green", "ok": "green", "draining": "yellow"}.get(status, "bold red")


def _sessions(result: dict[str, Any], paper: Paper) -> list[Text]:
    rows = result["sessions"]
    lines = table(session_columns(paper.now), rows, paper.width) if rows else []
    if result.get("trouble"):
        lines.append(Text(f"Those at rest cannot be seen: {clean(result['trouble'])}", "bold red"))
    elif not rows:
        lines.append(Text("No sessions.", "dim"))
    return [*lines, *_more(len(rows), result)]


def _more(shown: int, result: dict[str, Any]) -> list[Text]:
    if not result.get("cursor"):
        return []
    total = result.get("total")
    of = f"{shown:,} of {total:,}" if total else f"{shown:,}"
    return [Text(f"{of}; more with --limit", "dim")]


def _created(result: dict[str, Any], paper: Paper) -> list[Text]:
    columns = [
        Column("SID", lambda row: row["sid"]),
        Column("SESSION ID", lambda row: row["session_id"]),
        Column("TOKEN", lambda row: row["token"]),
        Column("EXPIRES", lambda row: when(row["expires_at"], paper.now)),
    ]
    # Never cut: these are to be copied.
    return table(columns, result["sessions"])


def _queue(result: dict[str, Any], paper: Paper) -> list[Text]:
    running = result["running"]
    lines = pairs(
        [
            ("paused", Text("yes", "yellow") if result["paused"] else "no"),
            (
                "running",
                f"{clean(running['method'])} ({clean(running['id'])}) for {age(running['age_s'])}"
                if running
                else "nothing",
            ),
        ]
    )
    return [*lines, *queue_rows(result["queue"], paper.width)]


def _letters(result: dict[str, Any], paper: Paper) -> list[Text]:
    rows = result["letters"]
    if not rows:
        return [Text("No dead letters.", "dim")]
    lines = table(letter_columns(paper.now), rows, paper.width)
    return [*lines, *_more(len(rows), result)]


def _methods(result: dict[str, Any], paper: Paper) -> list[Text]:
    return table(method_columns(), result["methods"], paper.width)


def _reloaded(result: dict[str, Any], _paper: Paper) -> list[Text]:
    def words(names: Any) -> str:
        return clean(", ".join(names)) or "none"

    methods = result["methods"]
    moved = ", ".join(f"{slot}: {count}" for slot, count in result["migrated"].items())
    return pairs(
        [
            ("modules", words(result["reloaded"])),
            ("methods added", words(methods["added"])),
            ("changed", words(methods["changed"])),
            ("removed", words(methods["removed"])),
            ("slots migrated", clean(moved) or "none"),
        ]
    )


def _settings(result: dict[str, Any], paper: Paper) -> list[Text]:
    columns = [
        Column("NAME", lambda row: row["name"]),
        Column("VALUE", lambda row: _word(row["value"]), flexible=True),
        Column(
            "FROM", lambda row: Text(clean(row["from"]), "" if row["from"] == "default" else "cyan")
        ),
        Column("LIVE", lambda row: "yes" if row["live"] else "-"),
        Column("DEFAULT", lambda row: _word(row["default"]), flexible=True, rank=2),
        Column("", lambda row: row["doc"], flexible=True, rank=1),
    ]
    return table(columns, result["settings"], paper.width)


def _word(value: Any) -> str:
    return "-" if value is None or value == "" else str(value)


def _users(result: dict[str, Any], paper: Paper) -> list[Text]:
    columns = [
        Column("USER", lambda row: row["username"]),
        Column("ROLE", lambda row: row["role"]),
        Column("STATE", lambda row: Text("disabled", "red") if row["disabled"] else "ok"),
        Column("SESSIONS", lambda row: str(row["sessions"]), "right"),
        Column("CREATED", lambda row: when(row["created_at"], paper.now), rank=3),
        Column("LAST LOGIN", lambda row: when(row["last_login_at"], paper.now), rank=1),
        Column("NAME", lambda row: _word(row["name"]), flexible=True, rank=2),
        Column("EMAIL", lambda row: _word(row["email"]), flexible=True, rank=4),
    ]
    return table(columns, result["users"], paper.width)


def _replayed(result: dict[str, Any], _paper: Paper) -> list[Text]:
    good = result["status"] == "success"
    where = "in the session" if result["applied"] else "on a copy; the session is as it was"
    lines = [Text.assemble((result["status"], "green" if good else "bold red"), f" ({where})")]
    if result.get("redacted"):
        lines.append(
            Text("Its secrets had been removed: it may not have run as it once did.", "yellow")
        )
    error = result.get("error")
    if isinstance(error, dict):
        lines.append(Text(f"{clean(error.get('code'))}: {clean(error.get('message'))}", "bold red"))
        lines += stack_lines(error.get("traceback"))
        result = {**result, "error": error.get("details")}
    for name in ("result", "error", "pushes", "documents"):
        if result.get(name):
            lines += [Text(f"{name}:", "dim"), *_json_lines(result[name])]
    for slot, (before, after) in (result.get("slots") or {}).items():
        lines += [
            Text(f"slot {clean(slot)}:", "dim"),
            Text("  - " + _one_line(before), "red"),
            Text("  + " + _one_line(after), "green"),
        ]
    return lines


def _json_lines(value: Any) -> list[Text]:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    return [Text("  " + line) for line in clean(text, lines=True).split("\n")]


def _one_line(value: Any) -> str:
    return clean(json.dumps(value, ensure_ascii=False))


VIEWS: dict[str, View] = {
    "status": _status,
    "metrics": lambda result, _paper: [Text(result["text"].rstrip("\n"))],
    "sessions.list": _sessions,
    "sessions.show": lambda result, paper: biography(result, paper.now, paper.width),
    "sessions.create": _created,
    "queue.list": _queue,
    "deadletters.list": _letters,
    "deadletters.show": lambda result, paper: letter(result, paper.now, paper.width),
    "deadletters.replay": _replayed,
    "methods.list": _methods,
    "handlers.reload": _reloaded,
    "settings.get": _settings,
    "users.list": _users,
}
