"""Objectives like ``p99<50ms,errors<0.1%``: read, judge. Pure.

A term is ``[METHOD:]MEASURE OP BOUND``. Measures: ``p50`` … ``p99.99``, ``mean``, ``max``
(latency from the intended time), ``errors``, ``dropped`` (shares), ``rate`` (answers a
second), ``violations`` (promises broken).
"""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any

import attrs

from ecan.loadtest import units

if TYPE_CHECKING:
    from collections.abc import Callable

_TERM = re.compile(
    r"(?:(?P<method>[\w.()-]+):)?"
    r"(?P<measure>p\d{1,2}(?:\.\d+)?|p100|mean|max|errors|dropped|rate|violations)"
    r"\s*(?P<op><=|>=|<|>)\s*(?P<bound>[\d.]+\s*[a-zµ%/]*)",
    re.IGNORECASE,
)
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SHARES = frozenset({"errors", "dropped"})


class SloError(ValueError):
    """It cannot be read; ``str`` is a line for people. Exit code 2."""


@attrs.frozen
class Term:
    """One condition; ``bound`` in milliseconds, shares of one, or as it is."""

    text: str
    method: str | None
    measure: str
    op: str
    bound: float

    @property
    def is_latency(self) -> bool:
        """It bounds a latency."""
        return self.measure[0] in "pm"

    def holds(self, value: float) -> bool:
        """Whether a measured value meets it."""
        return _OPERATORS[self.op](value, self.bound)

    def show(self, value: float | None) -> str:
        """A measured value in the term's unit."""
        if value is None:
            return "nothing measured"
        if self.is_latency:
            return units.show_ms(value)
        return f"{value * 100:.3g} %" if self.measure in _SHARES else units.show_count(value)


@attrs.frozen
class Verdict:
    """A term, what was measured, and whether it holds."""

    term: Term
    value: float | None
    ok: bool

    def dump(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "term": self.term.text,
            "op": self.term.op,
            "bound": self.term.bound,
            "measured": self.value,
            "shown": self.term.show(self.value),
            "ok": self.ok,
        }


def parse(text: str) -> tuple[Term, ...]:
    """Read an objective; an empty one has no terms.

    Raises:
        SloError: names the term.

    >>> [(t.measure, t.op, t.bound) for t in parse("p99<50ms, errors<0.1%")]
    [('p99', '<', 50.0), ('errors', '<', 0.001)]
    """
    terms = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _TERM.fullmatch(part)
        if match is None:
            raise SloError(f"{part!r} is no objective; write for example p99<50ms or errors<0.1%")
        measure = match["measure"].lower()
        try:
            bound = _bound(measure, match["bound"])
        except ValueError as error:
            raise SloError(f"{part!r}: {error}") from None
        terms.append(Term(part, match["method"], measure, match["op"], bound))
    return tuple(terms)


def _bound(measure: str, text: str) -> float:
    if measure in _SHARES:
        return units.share(text)
    if measure == "rate":
        return units.rate(text)
    if measure == "violations":
        return float(text)
    if not re.search(r"[a-zµ]", text):
        raise ValueError("give a unit, for example 50ms")
    return units.seconds(text) * 1000


def judge(terms: tuple[Term, ...], measure: Callable[[Term], float | None]) -> list[Verdict]:
    """Each term's verdict; what was not measured is not met."""
    verdicts = []
    for term in terms:
        value = measure(term)
        verdicts.append(Verdict(term, value, value is not None and term.holds(value)))
    return verdicts
