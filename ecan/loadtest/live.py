"""What is seen while it runs: a screen that redraws on a terminal, else a line a second."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, TextIO

from ecan.loadtest.units import show_bytes, show_count, show_ms

if TYPE_CHECKING:
    from ecan.loadtest.plan import Plan

_BLOCKS = " ▁▂▃▄▅▆▇█"
_BAR_CELLS = 40
_BOLD, _DIM, _RED, _GREEN, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[0m"
_CLEAR_LINE = "\x1b[2K"
_CLEAR_BELOW = "\x1b[J"
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"


def sparkline(values: list[float], cells: int) -> str:
    """The last values as blocks, the largest full.

    >>> sparkline([0, 1, 2, 4], 10)
    ' ▂▄█'
    """
    shown = values[-cells:]
    top = max(shown, default=0.0)
    if not top:
        return " " * len(shown)
    return "".join(_BLOCKS[round(value / top * (len(_BLOCKS) - 1))] for value in shown)


class Live:
    """Writes to a terminal or a log.

    Args:
        stream: usually stderr.
        plan: as it is played.
        terminal: redraw instead of adding lines; None: look at the stream.
    """

    def __init__(self, stream: TextIO, plan: Plan, *, terminal: bool | None = None) -> None:
        self._stream, self._plan = stream, plan
        self._terminal = stream.isatty() if terminal is None else terminal
        self._drawn = 0
        self._rates: list[float] = []
        self._latencies: list[float] = []
        self._sums = {"sent": 0, "ok": 0, "errors": 0, "dropped": 0}

    def note(self, text: str) -> None:
        """A line that stays."""
        self._erase()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def progress(self, text: str) -> None:
        """A line that the next one replaces, on a terminal; else nothing."""
        if self._terminal:
            self._erase()
            self._stream.write(f"{_CLEAR_LINE}{text}\n")
            self._drawn = 1
            self._stream.flush()

    def second(self, row: dict[str, Any], sample: dict[str, Any], phase: str) -> None:
        """A second is over."""
        for key in self._sums:
            self._sums[key] += row[key]
        self._rates.append(row["ok"])
        self._latencies.append(row["p99_ms"] or 0.0)
        if self._terminal:
            self._draw(self._screen(row, sample, phase))
        else:
            self._stream.write(self._line(row, sample, phase) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Leave the last screen standing."""
        if self._terminal and self._drawn:
            self._drawn = 0
            self._stream.write(_SHOW)
            self._stream.flush()

    # -- forms -------------------------------------------------------------------------

    def _line(self, row: dict[str, Any], sample: dict[str, Any], phase: str) -> str:
        cells = [
            f"{row['second']:4d}s/{self._plan.seconds:g}s {phase}",
            f"sent {row['sent']}/s",
            f"ok {row['ok']}/s",
            f"p50 {show_ms(row['p50_ms'])}",
            f"p99 {show_ms(row['p99_ms'])}",
            f"max {show_ms(row['max_ms'])}",
            f"errors {row['errors']}",
            f"dropped {row['dropped']}",
            f"under way {row['under_way']}",
        ]
        cells += _server(sample)
        if row["violations"]:
            cells.append(f"VIOLATIONS {row['violations']}")
        return " | ".join(cells)

    def _screen(self, row: dict[str, Any], sample: dict[str, Any], phase: str) -> list[str]:
        width = min(shutil.get_terminal_size().columns, 110)
        done = min(1.0, row["second"] / self._plan.seconds)
        full = round(done * _BAR_CELLS)
        left = max(0.0, self._plan.seconds - row["second"])
        room = max(10, width - 40)
        bad = _RED if row["errors"] or row["dropped"] else ""
        violations = row["violations"]
        bar = f"{'█' * full}{_DIM}{'░' * (_BAR_CELLS - full)}{_RESET}"
        errors, dropped = self._sums["errors"], self._sums["dropped"]
        kept = f"{_RED}{violations} broken" if violations else f"{_GREEN}kept so far"
        latency = f"p50 {show_ms(row['p50_ms'])}  {_BOLD}p99 {show_ms(row['p99_ms'])}{_RESET}"
        rows = {
            "rate": f"{_BOLD}{row['ok']:>8,}/s{_RESET} of {row['sent']:,}/s"
            f"  {_DIM}{sparkline(self._rates, room)}{_RESET}",
            "latency": f"{latency}  max {show_ms(row['max_ms'])}",
            "p99": f"{_DIM}{sparkline(self._latencies, room)}{_RESET}",
            "errors": f"{bad}{row['errors']}/s, {show_count(errors)} so far{_RESET}",
            "dropped": f"{bad}{row['dropped']}/s, {show_count(dropped)} so far{_RESET}",
            "users": f"{row['connected']:,} connected, {row['under_way']:,} requests under way",
            "promises": f"{kept}{_RESET}",
            "server": ", ".join(_server(sample)) or f"{_DIM}not on this machine{_RESET}",
        }
        hint = f"{_DIM}Ctrl-C ends it and writes the report{_RESET}"
        return [
            f"{_BOLD}{self._plan.name}{_RESET}  {phase}   {hint}",
            f"{bar} {done * 100:3.0f} %   {row['second']:.0f} s, {left:.0f} s left",
            *(f"{name:9} {text}" for name, text in rows.items()),
        ]

    def _draw(self, lines: list[str]) -> None:
        self._erase()
        self._stream.write(_HIDE + "".join(f"{_CLEAR_LINE}{line}\n" for line in lines) + _SHOW)
        self._stream.flush()
        self._drawn = len(lines)

    def _erase(self) -> None:
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}F{_CLEAR_BELOW}")
            self._drawn = 0


def _server(sample: dict[str, Any]) -> list[str]:
    cells = []
    if "cpu" in sample:
        cells.append(f"CPU {sample['cpu'] * 100:.0f} %")
    if "rss_bytes" in sample:
        cells.append(f"RSS {show_bytes(sample['rss_bytes'])}")
    return cells
