"""How answers of the admin socket look: ages, sizes, times, tables; styled text of rich.

What a client sent (user agents, method names) is shown without its control characters:
they must not steer the operator's terminal.

>>> age(200), age(184000), size(1258291), rate(0.25), millis(12.34)
('3m', '2d 3h', '1.2 MiB', '0.2', '12')
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import attrs
from rich.cells import cell_len
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

WIDE = 100_000
"""Width of what is no terminal: nothing is cut."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_KIB = 1024
_THOUSAND = 1000

STATE_STYLES = {
    "active": "green",
    "starting": "cyan",
    "restarting": "yellow",
    "failed": "bold red",
    "passivating": "blue",
    "passivated": "blue",
    "closed": "dim",
}
_GAP = "  "


def age(seconds: float | None) -> str:
    """A duration in at most two units."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds:.1f}s" if seconds else "0s"
    if seconds < _MINUTE:
        return f"{int(seconds)}s"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)}m"
    if seconds < _DAY:
        return _two(int(seconds), _HOUR, "h", _MINUTE, "m")
    return _two(int(seconds), _DAY, "d", _HOUR, "h")


def _two(seconds: int, big: int, big_name: str, small: int, small_name: str) -> str:
    rest = seconds % big // small
    return f"{seconds // big}{big_name}" + (f" {rest}{small_name}" if rest else "")


def size(count: float | None) -> str:
    """Bytes, in the unit a person would take."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < _KIB:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KIB
    return f"{count:.1f} TiB"


def rate(per_second: float | None) -> str:
    """So many a second."""
    if per_second is None:
        return "-"
    return f"{per_second:.1f}" if per_second < 10 else f"{per_second:,.0f}"  # noqa: PLR2004


def millis(value: float | None) -> str:
    """A latency, without its unit."""
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"  # noqa: PLR2004


def when(at: float | str | None, now: float) -> str:
    """A timestamp or an ISO time in local time; with its date unless that is today's."""
    if at is None:
        return "-"
    moment = datetime.fromisoformat(at) if isinstance(at, str) else datetime.fromtimestamp(at, UTC)
    moment, today = moment.astimezone(), datetime.fromtimestamp(now).astimezone()
    if moment.date() == today.date():
        return moment.strftime("%H:%M:%S")
    return moment.strftime("%Y-%m-%d %H:%M")


def clean(value: Any, *, lines: bool = False) -> str:
    r"""Text of others without what steers a terminal.

    >>> clean("a\x1b[31mb\u202e\n")
    'a·[31mb··'
    """
    keep = "\n" if lines else ""
    return "".join(
        "    "
        if lines and character == "\t"
        else "·"
        if unicodedata.category(character)[0] == "C" and character not in keep
        else character
        for character in str(value)
    )


def state(name: str) -> Text:
    """A session's state in its colour."""
    return Text(clean(name), STATE_STYLES.get(name, ""))


def pairs(rows: Iterable[tuple[str, str | Text]], width: int = WIDE) -> list[Text]:
    """Names and values, the values in one column, cut at ``width``."""
    rows = list(rows)
    names = max((cell_len(name) for name, _ in rows), default=0)
    lines = [
        Text.assemble((name + " " * (names - cell_len(name)), "dim"), _GAP, value, no_wrap=True)
        for name, value in rows
    ]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


@attrs.frozen
class Column:
    """A column of a table.

    Attributes:
        title: in capitals.
        show: from a row to its cell; text of others is cleaned.
        align: of the cells and the title.
        flexible: cut with … when the terminal is narrow.
        least: width to which it may be cut.
        rank: columns of a high rank are left out first when it is narrower still; 0: never.
    """

    title: str
    show: Callable[[Any], str | Text]
    align: Literal["left", "right"] = "left"
    flexible: bool = False
    least: int = 8
    rank: int = 0


def table(columns: Sequence[Column], rows: Sequence[Any], width: int = WIDE) -> list[Text]:
    """Rows below a line of titles, aligned, as wide as they need, at most ``width``."""
    shown = [[_cell(column.show(row)) for row in rows] for column in columns]
    kept = list(zip(columns, shown, strict=True))
    while True:
        widths = [
            max([cell_len(column.title), *(cell.cell_len for cell in cells)])
            for column, cells in kept
        ]
        _squeeze(kept, widths, width)
        if _total(widths) <= width:
            break
        if (last := _least(kept)) is None:
            _squeeze(kept, widths, width, to_title=True)
            break
        kept.pop(last)
    heading = [Text(column.title, "bold") for column, _ in kept]
    columns_kept = [column for column, _ in kept]
    lines = [_row(columns_kept, heading, widths)]
    lines += [
        _row(columns_kept, [cells[index] for _, cells in kept], widths)
        for index in range(len(rows))
    ]
    return lines


def _cell(value: str | Text) -> Text:
    return value.copy() if isinstance(value, Text) else Text(clean(value))


def _total(widths: list[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _squeeze(
    kept: list[tuple[Column, list[Text]]],
    widths: list[int],
    width: int,
    *,
    to_title: bool = False,
) -> None:
    """Make the widest flexible column narrower until the table fits, within reason."""
    least = {
        index: max(0 if to_title else column.least, cell_len(column.title))
        for index, (column, _) in enumerate(kept)
        if column.flexible
    }
    while (excess := _total(widths) - width) > 0:
        order = sorted(
            (index for index in least if widths[index] > least[index]), key=widths.__getitem__
        )
        if not order:
            return
        widest = order[-1]
        next_one = widths[order[-2]] if len(order) > 1 else 0
        step = min(excess, max(1, widths[widest] - next_one))
        widths[widest] = max(least[widest], widths[widest] - step)


def _least(kept: list[tuple[Column, list[Text]]]) -> int | None:
    rank, index = max((column.rank, index) for index, (column, _) in enumerate(kept))
    return index if rank else None


def _row(columns: list[Column], cells: list[Text], widths: list[int]) -> Text:
    line = Text(no_wrap=True)
    for index, (column, cell, width) in enumerate(zip(columns, cells, widths, strict=True)):
        cell.truncate(width, overflow="ellipsis")
        padding = " " * (width - cell.cell_len)
        if index:
            line.append(_GAP)
        if column.align == "right":
            line.append(padding)
        line.append_text(cell)
        if column.align == "left" and index < len(columns) - 1:
            line.append(padding)
    return line
