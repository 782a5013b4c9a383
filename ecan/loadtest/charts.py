"""Charts as inline SVG, coloured by the page's own style. Pure."""

from __future__ import annotations

import html
import json
import math
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH, HEIGHT = 900, 270
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 12, 34
MAX_TICKS = 6
MAX_POINTS = 1200
"""Of one line; a longer run is thinned out, keeping each stretch's highest."""


@attrs.frozen
class Line:
    """One series; None is a gap. ``style`` is a class of the page's style: s1 … s6, old."""

    name: str
    ys: Sequence[float | None]
    style: str
    area: bool = False


@attrs.frozen
class Band:
    """A shaded stretch with a name."""

    start: float
    end: float
    name: str
    faint: bool = False


@attrs.frozen
class Mark:
    """A vertical line with a name."""

    at: float
    name: str


@attrs.frozen(kw_only=True)
class Axis:
    """How numbers become places.

    Attributes:
        low, high: the ends.
        log: logarithmic.
        show: a number in words.
        ticks: where to label; empty: at round numbers.
    """

    low: float
    high: float
    log: bool = False
    show: Callable[[float], str] = attrs.field(default=lambda value: f"{value:g}")
    ticks: tuple[float, ...] = ()

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high one."""
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            return (math.log10(max(value, self.low)) - low) / (high - low)
        return (value - self.low) / (self.high - self.low)

    def labels(self) -> list[float]:
        """Where to label."""
        if self.ticks:
            return [tick for tick in self.ticks if self.low <= tick <= self.high * 1.0001]
        return log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high)


def ticks(low: float, high: float, most: int = MAX_TICKS) -> list[float]:
    """Round numbers between two others.

    >>> ticks(0, 97)
    [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    span = max(high - low, 1e-12)
    raw = span / most
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of each decade; only the decades when there are many.

    >>> log_ticks(0.5, 30)
    [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)  # noqa: PLR2004 - else they crowd
    found = [step * 10.0**decade for decade in decades for step in steps]
    return [float(f"{value:.3g}") for value in found if low * 0.999 <= value <= high * 1.001]


def log_axis(values: Sequence[float | None], show: Callable[[float], str]) -> Axis:
    """An axis that holds these values."""
    known = [value for value in values if value]
    low, high = (min(known), max(known)) if known else (1.0, 10.0)
    return Axis(low=low / 1.3, high=max(high * 1.3, low * 4), log=True, show=show)


def linear_axis(values: Sequence[float | None], show: Callable[[float], str]) -> Axis:
    """From 0 to a little above these values."""
    return Axis(low=0.0, high=max([v for v in values if v], default=1.0) * 1.08, show=show)


def thin(xs: Sequence[float], ys: Sequence[float | None]) -> list[tuple[float, float | None]]:
    """At most `MAX_POINTS`; of each stretch the highest stays, so that no spike is lost."""
    pairs = list(zip(xs, ys, strict=True))
    step = -(-len(pairs) // MAX_POINTS)
    if step <= 1:
        return pairs
    chunks = (pairs[i : i + step] for i in range(0, len(pairs), step))
    return [max(chunk, key=lambda pair: -1.0 if pair[1] is None else pair[1]) for chunk in chunks]


def chart(
    title: str,
    xs: Sequence[float],
    lines: Sequence[Line],
    x: Axis,
    y: Axis,
    bands: Sequence[Band] = (),
    marks: Sequence[Mark] = (),
) -> str:
    """A figure: title, legend, SVG, and its data for the readout under the pointer."""

    def px(value: float) -> float:
        return LEFT + x.place(value) * (WIDTH - LEFT - RIGHT)

    def py(value: float) -> float:
        return HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM)

    parts = [*_bands(bands, px), *_grid(x, y, px, py), *_marks(marks, px)]
    for line in lines:
        parts += _line(thin(xs, line.ys), line, px, py)
    legend = "".join(
        f'<span class="key {line.style}">{html.escape(line.name)}</span>' for line in lines
    )
    data: dict[str, Any] = {
        "x": [round(px(value), 1) for value in xs],
        "label": [x.show(value) for value in xs],
        "lines": [
            {
                "name": line.name,
                "style": line.style,
                "text": ["" if v is None else y.show(v) for v in line.ys],
            }
            for line in lines
        ],
    }
    readable = json.dumps(data, separators=(",", ":")) if len(xs) <= MAX_POINTS else "null"
    return (
        f'<figure class="chart"><figcaption>{html.escape(title)}<span class="legend">{legend}'
        f'</span></figcaption><div class="plot"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{html.escape(title)}">{"".join(parts)}'
        f'<line class="cross" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/></svg>'
        f'<div class="tip" hidden></div></div>'
        f'<script type="application/json">{readable.replace("<", chr(92) + "u003c")}</script>'
        "</figure>"
    )


def _grid(
    x: Axis, y: Axis, px: Callable[[float], float], py: Callable[[float], float]
) -> list[str]:
    parts = []
    for value in y.labels():
        at = py(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        )
        parts.append(
            f'<text class="y" x="{LEFT - 8}" y="{at + 4:.1f}">{html.escape(y.show(value))}</text>'
        )
    for value in x.labels():
        at = px(value)
        bottom = HEIGHT - BOTTOM
        parts.append(
            f'<line class="tick" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 5}"/>'
        )
        parts.append(
            f'<text class="x" x="{at:.1f}" y="{bottom + 20}">{html.escape(x.show(value))}</text>'
        )
    return parts


def _bands(bands: Sequence[Band], px: Callable[[float], float]) -> list[str]:
    parts = []
    for number, band in enumerate(bands):
        left, right = px(band.start), px(band.end)
        style = "band faint" if band.faint else f"band b{number % 2}"
        parts.append(
            f'<rect class="{style}" x="{left:.1f}" y="{TOP}" width="{max(0.0, right - left):.1f}"'
            f' height="{HEIGHT - TOP - BOTTOM}"><title>{html.escape(band.name)}</title></rect>'
        )
        if right - left > 7 * len(band.name):
            parts.append(
                f'<text class="bandname" x="{left + 6:.1f}" y="{TOP + 13}">'
                f"{html.escape(band.name)}</text>"
            )
    return parts


def _marks(marks: Sequence[Mark], px: Callable[[float], float]) -> list[str]:
    parts = []
    for number, mark in enumerate(marks):
        at = px(mark.at)
        below = TOP + 28 + 13 * (number % 3)
        parts.append(
            f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            f'<text class="mark" x="{at + 4:.1f}" y="{below}">{html.escape(mark.name)}</text>'
        )
    return parts


def _line(
    points: list[tuple[float, float | None]],
    line: Line,
    px: Callable[[float], float],
    py: Callable[[float], float],
) -> list[str]:
    """Paths between gaps; a point that stands alone is a dot."""
    parts = []
    run: list[str] = []
    ends: list[float] = []

    def flush() -> None:
        if len(run) == 1:
            cx, cy = run[0].split(",")
            parts.append(f'<circle class="{line.style}" cx="{cx}" cy="{cy}" r="2.5"/>')
        elif run:
            path = "M" + "L".join(run)
            if line.area:
                floor = HEIGHT - BOTTOM
                closed = f"{path}L{ends[-1]:.1f},{floor}L{ends[0]:.1f},{floor}Z"
                parts.append(f'<path class="area {line.style}" d="{closed}"/>')
            parts.append(f'<path class="line {line.style}" d="{path}"/>')
        run.clear()
        ends.clear()

    for x, y in points:
        if y is None:
            flush()
        else:
            ends.append(px(x))
            run.append(f"{px(x):.1f},{py(y):.1f}")
    flush()
    return parts
