"""The biography of a session and a dead letter, as pages."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ecan.admin.render import Column, age, clean, pairs, rate, size, state, table, when

if TYPE_CHECKING:
    from collections.abc import Sequence


def biography(
    row: dict[str, Any], now: float, width: int, *, running_first: bool = False
) -> list[Text]:
    """Who it is, what it does now, what happened to it.

    Args:
        row: answer of `sessions.show`.
        now: UTC timestamp.
        width: of the page.
        running_first: for a small pane: what it runs is not below the edge.
    """
    running = _running(row.get("running"))
    if running and running_first:
        lines = [*running, Text(""), *_head(row, now, width)]
    elif running:
        lines = [*_head(row, now, width), Text(""), *running]
    else:
        lines = _head(row, now, width)
    for title, part in (
        ("beside it", _overlapping(row.get("overlapping") or [], width)),
        (f"queue ({len(row['queue'])})", queue_rows(row["queue"], width)),
        ("tabs", _tabs(row["tabs"], now, width)),
        ("state", _slots(row["slots"], width)),
        ("budget", _budget(row.get("budget") or {}, width)),
        ("crashes", _happened(row["crashes"], now, width, ("crash_id", "method", "error"))),
        ("errors", _happened(row["errors"], now, width, ("method", "code", "message"))),
        ("transitions", _happened(row["transitions"], now, width, ("event", "state", "note"))),
    ):
        if part:
            lines += [Text(""), Text(title.upper(), "bold"), *part]
    return lines


def _head(row: dict[str, Any], now: float, width: int) -> list[Text]:
    by = row.get("created_by")
    origin = " from " + ", ".join(filter(None, map(clean, by.values()))) if by else ""
    outbox = row["outbox"]
    zombies = f", {row['zombies']} threads of earlier ones" if row.get("zombies") else ""
    shown = state(row["state"])
    if row.get("paused"):
        shown.append(" paused", "yellow")
    return pairs(
        [
            ("session", Text(clean(row["sid"]), "bold")),
            ("user", clean(row["user"])),
            ("state", shown),
            ("incarnation", f"{row['incarnation']} ({row['restarts']} restarts){zombies}"),
            ("created", f"{when(row['created_at'], now)}{origin}"),
            ("idle", f"{age(row['idle_s'])}, expires in {age(row['expires_in_s'])}"),
            ("requests", f"{row['requests']:,}, {rate(row['requests_s'])} a second"),
            ("answers", f"{_count(row['ledger'])} kept for retries"),
            (
                "to resend",
                f"{outbox['replies']} replies, {size(outbox['bytes'])}; last push {outbox['seq']}",
            ),
            ("store", f"{clean(row['store'])}, durability {clean(row['durability'])}"),
        ],
        width,
    )


def _count(value: Any) -> str:
    """Of a list, or a number that was counted already."""
    return f"{value:,}" if isinstance(value, int) else clean(json.dumps(value))


def _running(running: dict[str, Any] | None) -> list[Text]:
    if not running:
        return []
    head = Text.assemble(
        ("RUNNING ", "bold"),
        (clean(running["method"]), "bold yellow"),
        f" for {age(running['age_s'])} (request {clean(running['id'])})",
    )
    return [head, *stack_lines(running.get("stack"))]


def _overlapping(calls: list[dict[str, Any]], width: int) -> list[Text]:
    if not calls:
        return []
    columns = [
        Column("REQUEST", lambda row: row["id"], flexible=True),
        Column("METHOD", lambda row: row["method"], flexible=True),
        Column("AGE", lambda row: age(row["age_s"]), "right"),
    ]
    return table(columns, calls, width)


def stack_lines(stack: str | Sequence[str] | None) -> list[Text]:
    """A stack, indented."""
    text = stack if isinstance(stack, str) else "\n".join(stack or ())
    return [
        Text("  " + line.rstrip(), no_wrap=True)
        for line in clean(text, lines=True).split("\n")
        if line.strip()
    ]


def queue_rows(queue: list[dict[str, Any]], width: int) -> list[Text]:
    """What waits; empty when nothing does."""
    if not queue:
        return []
    columns = [
        Column("REQUEST", lambda row: row["id"], flexible=True),
        Column("METHOD", lambda row: row["method"], flexible=True),
        Column("AGE", lambda row: age(row["age_s"]), "right"),
        Column("SIZE", lambda row: size(row["bytes"]), "right"),
    ]
    return table(columns, queue, width)


def _tabs(tabs: list[dict[str, Any]], now: float, width: int) -> list[Text]:
    if not tabs:
        return []
    columns = [
        Column("TAB", lambda row: row["id"]),
        Column("ADDRESS", lambda row: row["address"] or "-"),
        Column("SINCE", lambda row: when(row["connected_at"], now)),
        Column("BEHIND", lambda row: size(row["backlog_bytes"]), "right"),
        Column("USER AGENT", lambda row: row["user_agent"] or "-", flexible=True),
    ]
    return table(columns, tabs, width)


def _slots(slots: dict[str, int], width: int) -> list[Text]:
    if not slots:
        return []
    columns = [
        Column("SLOT", lambda item: item[0], flexible=True),
        Column("SIZE", lambda item: size(item[1]), "right"),
    ]
    return table(columns, sorted(slots.items(), key=lambda item: -item[1]), width)


def _budget(budget: dict[str, dict[str, Any]], width: int) -> list[Text]:
    if not budget:
        return []

    def amount(name: str, value: float | None) -> str:
        if value is None:
            return "-"
        return size(value) if "bytes" in name else f"{value:,.1f}".removesuffix(".0")

    def used(item: tuple[str, dict[str, Any]]) -> Text:
        name, row = item
        style = ""
        for limit, colour in (("soft", "yellow"), ("hard", "bold red")):
            if row.get(limit) is not None and row["used"] >= row[limit]:
                style = colour
        return Text(amount(name, row["used"]), style)

    columns = [
        Column("OF", lambda item: item[0]),
        Column("USED", used, "right"),
        Column("SOFT", lambda item: amount(item[0], item[1].get("soft")), "right"),
        Column("HARD", lambda item: amount(item[0], item[1].get("hard")), "right"),
    ]
    return table(columns, list(budget.items()), width)


def _happened(
    rows: list[dict[str, Any]], now: float, width: int, names: tuple[str, ...]
) -> list[Text]:
    """Newest first, whatever order they came in."""
    if not rows:
        return []
    columns = [Column("WHEN", lambda row: when(row["at"], now))]
    columns += [
        Column(
            name.upper().replace("_", " "),
            functools.partial(_fact, name),
            flexible=name in {"error", "message", "note", "method"},
        )
        for name in names
    ]
    return table(columns, sorted(rows, key=lambda row: -row["at"]), width)


def _fact(name: str, row: dict[str, Any]) -> str | Text:
    value = row.get(name)
    if name == "state" and value:
        return state(value)
    return "" if value is None else str(value)


def letter(row: dict[str, Any], now: float, _width: int) -> list[Text]:
    """What crashed, with what, where."""
    lines = pairs(
        [
            ("dead letter", Text(clean(row["id"]), "bold")),
            ("when", when(row["at"], now)),
            (
                "session",
                f"{clean(row['sid'])} of {clean(row['user'])}, incarnation {row['incarnation']}",
            ),
            ("request", f"{clean(row['method'])} ({clean(row['request_id'])})"),
            ("error", Text(clean(row["error"]), "bold red")),
        ]
    )
    lines += _block("params", row.get("params"))
    lines += [Text(""), Text("TRACEBACK", "bold"), *stack_lines(row.get("traceback"))]
    lines += _block("context before", row.get("context"))
    return lines


def _block(title: str, value: Any) -> list[Text]:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    body = [Text("  " + line) for line in clean(text, lines=True).split("\n")]
    return [Text(""), Text(title.upper(), "bold"), *body]
