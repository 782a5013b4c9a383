"""Columns and lines that `ecan ops` and `ecan top` have in common."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
from rich.text import Text

from ecan.admin.render import Column, age, clean, millis, rate, size, state, when

if TYPE_CHECKING:
    from collections.abc import Container


def session_columns(now: float, *, mark: str = "", stuck: Container[str] = ()) -> list[Column]:
    """Of `sessions.list`; `ecan top` shows the same.

    Args:
        now: UTC timestamp.
        mark: title of the column they are sorted by; it is never left out.
        stuck: sids of sessions whose state is shown as such.
    """
    columns = [
        Column("SID", lambda row: row["sid"]),
        Column("USER", lambda row: row["user"], flexible=True),
        Column("STATE", lambda row: session_state(row, stuck)),
        Column("TABS", lambda row: str(row["tabs"]), "right", rank=2),
        Column("INC", lambda row: str(row["incarnation"]), "right", rank=6),
        Column("RESTARTS", lambda row: str(row["restarts"]), "right", rank=3),
        Column("QUEUE", lambda row: str(row["queue"]), "right"),
        Column("RUNNING", running_words, flexible=True, least=18),
        Column("REQ/S", lambda row: rate(row["requests_s"]), "right", rank=1),
        Column("REQUESTS", lambda row: f"{row['requests']:,}", "right", rank=5),
        Column("STATE SIZE", lambda row: size(row["state_bytes"]), "right", rank=4),
        Column("IDLE", lambda row: age(row["idle_s"]), "right"),
        Column("AGE", lambda row: age(now - row["created_at"]), "right", rank=7),
    ]
    return [
        attrs.evolve(column, title=column.title + "▾", rank=0) if column.title == mark else column
        for column in columns
    ]


def session_state(row: dict[str, Any], stuck: Container[str] = ()) -> Text:
    """Its state, that it is paused, that it is stuck."""
    text = Text("STUCK", "bold white on red") if row["sid"] in stuck else state(row["state"])
    if row.get("paused"):
        text.append(" paused", "yellow")
    return text


def running_words(row: dict[str, Any]) -> str:
    """What it runs, and since when."""
    return f"{clean(row['running'])} {age(row['running_s'])}" if row.get("running") else "-"


def letter_columns(now: float) -> list[Column]:
    """Of `deadletters.list`; `ecan top` shows the same."""
    return [
        Column("ID", lambda row: row["id"]),
        Column("WHEN", lambda row: when(row["at"], now)),
        Column("SID", lambda row: row["sid"]),
        Column("USER", lambda row: row["user"], flexible=True, rank=2),
        Column("METHOD", lambda row: row["method"], flexible=True),
        Column("INC", lambda row: str(row["incarnation"]), "right", rank=3),
        Column("REQUEST", lambda row: row["request_id"], flexible=True, rank=4),
        Column("ERROR", lambda row: row["error"], flexible=True),
    ]


def method_columns() -> list[Column]:
    """Of `methods.list`; `ecan top` shows the same."""
    return [
        Column("METHOD", lambda row: row["method"], flexible=True),
        Column("CALLS", lambda row: f"{row['calls']:,}", "right"),
        Column("ERRORS", lambda row: _alarm(row["errors"], "yellow"), "right"),
        Column("CRASHES", lambda row: _alarm(row["crashes"], "bold red"), "right"),
        Column("P50 MS", lambda row: millis(row["p50_ms"]), "right"),
        Column("P99 MS", lambda row: millis(row["p99_ms"]), "right"),
        Column("QUEUE P99", lambda row: millis(row["queue_p99_ms"]), "right", rank=1),
        Column(
            "SUSPENDED",
            lambda row: Text(clean(row["suspended"]), "yellow") if row["suspended"] else "-",
            flexible=True,
        ),
    ]


def _alarm(count: int, style: str) -> Text:
    return Text(f"{count:,}", style if count else "")


def event_line(event: dict[str, Any], now: float) -> Text:
    """One event of `events.watch`."""
    kind = event.get("kind", "?")
    line = Text.assemble(
        (when(event.get("at"), now), "dim"),
        "  ",
        (clean(kind), event_style(kind)),
        "  ",
        clean(event.get("sid") or ""),
        no_wrap=True,
    )
    for name, value in event.items():
        if name not in {"kind", "at", "sid"}:
            line.append(f"  {clean(name)}=", "dim")
            line.append(
                clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
            )
    return line


def event_style(kind: str) -> str:
    """Red for what is wrong, yellow for what was done about it."""
    if any(word in kind for word in ("crash", "fail", "stuck", "stall", "trouble", "lost")):
        return "bold red"
    if any(word in kind for word in ("restart", "suspend", "kill", "drain", "limit")):
        return "yellow"
    return "cyan"
