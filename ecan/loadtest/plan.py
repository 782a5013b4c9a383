"""What a load test does: calls and weights or a scenario, phases, chaos. Data, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ecan.loadtest.user import User

    Scenario = Callable[[User], Awaitable[None]]

TIMEOUT_S = 35.0
"""Above ECAN_REQUEST_TIMEOUT: by then the server has answered, if only with TIMEOUT."""

READ_BACK = "debug.state_get"
"""Answers the total of a counter, unless a call names another method."""


class PlanError(Exception):
    """The plan is wrong; ``str`` is a line for people. Exit code 2."""


@attrs.frozen(kw_only=True)
class Call:
    """One request of a mix.

    Attributes:
        method: of the request.
        params: of the request.
        weight: how often, relative to the other calls.
        payload_bytes: adds a param ``data`` of so many characters (an upload).
        counter: the result counts the successes of this call in its session, under this
            name; the harness verifies every value and the total (P10).
        read_back: a method that answers the total at the end, given ``{"key": counter}``.
    """

    method: str
    params: Any = None
    weight: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    payload_bytes: int = attrs.field(default=0, validator=attrs.validators.in_(range(2**24 + 1)))
    counter: str | None = None
    read_back: str = READ_BACK

    @property
    def full_params(self) -> Any:
        """Params with the payload."""
        if not self.payload_bytes:
            return self.params
        return {**(self.params or {}), "data": "x" * self.payload_bytes}


@attrs.frozen(kw_only=True)
class Phase:
    """A stretch of the plan.

    Attributes:
        name: in the report.
        seconds: how long.
        rate: arrivals a second at its beginning; None: closed loop, every user at once
            again.
        end_rate: at its end; None: as at its beginning.
        measured: counts for the headline, the objective and the generator's validity;
            warm-ups and ramps do not.
    """

    name: str
    seconds: float = attrs.field(validator=attrs.validators.gt(0))
    rate: float | None = None
    end_rate: float | None = None
    measured: bool = True

    @property
    def last_rate(self) -> float:
        """At its end; 0 in a closed loop."""
        return self.end_rate if self.end_rate is not None else self.rate or 0.0

    def rate_at(self, second: float) -> float:
        """So far into it."""
        first = self.rate or 0.0
        return first + (self.last_rate - first) * min(1.0, max(0.0, second / self.seconds))


@attrs.frozen(kw_only=True)
class Chaos:
    """What goes wrong on purpose.

    Attributes:
        crash: share of the arrivals that crash their session's actor instead (needs
            debug methods); at most three a minute and user, or the session fails (P6).
        cut_s: connections cut a second, without a closing handshake.
        freeze_s: readers frozen a second.
        freeze_for_s: for how long each.
        kill_at_s: seconds after the start at which the server is killed (kill -9) and
            started again; only one that the harness started.
        drain_at_s: the same with SIGTERM.
    """

    crash: float = attrs.field(
        default=0.0, validator=[attrs.validators.ge(0), attrs.validators.le(1)]
    )
    cut_s: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    freeze_s: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    freeze_for_s: float = attrs.field(default=2.0, validator=attrs.validators.ge(0))
    kill_at_s: tuple[float, ...] = attrs.field(default=(), converter=tuple)
    drain_at_s: tuple[float, ...] = attrs.field(default=(), converter=tuple)

    @property
    def server_events(self) -> list[tuple[float, str]]:
        """What happens to the server, in order."""
        events = [(at, "kill -9") for at in self.kill_at_s]
        return sorted(events + [(at, "drain") for at in self.drain_at_s])

    def describe(self) -> list[str]:
        """In words; empty if there is none."""
        words = [f"{name} at {at:g} s" for at, name in self.server_events]
        if self.crash:
            words.append(f"crash {self.crash * 100:g} % of the requests")
        if self.cut_s:
            words.append(f"cut {self.cut_s:g} connections a second")
        if self.freeze_s:
            words.append(f"freeze {self.freeze_s:g} readers a second for {self.freeze_for_s:g} s")
        return words


def _calls(value: Iterable[Call]) -> tuple[Call, ...]:
    return tuple(value)


def _phases(value: Iterable[Phase]) -> tuple[Phase, ...]:
    return tuple(value)


@attrs.frozen(kw_only=True)
class Plan:
    """A load test.

    Attributes:
        name: in the report.
        doc: one sentence: what it does.
        needs: what it needs of the server, in words, beyond what every server has.
        calls: a mix: each arrival is one of them, on the next user's connection.
        scenario: instead of a mix: a coroutine function, called with a `User` that is
            free; each arrival is one run of it.
        users: sessions.
        phases: one after the other.
        chaos: what goes wrong on purpose.
        connected: users have a session and a connection before it starts; else the
            scenario makes them.
        slo: the objective, if the command line gives none.
        timeout_s: a request that is not answered for so long counts as lost.
    """

    name: str
    doc: str = ""
    needs: str = ""
    calls: tuple[Call, ...] = attrs.field(default=(), converter=_calls)
    scenario: Scenario | None = None
    users: int = attrs.field(default=50, validator=attrs.validators.ge(1))
    phases: tuple[Phase, ...] = attrs.field(default=(), converter=_phases)
    chaos: Chaos = Chaos()
    connected: bool = True
    slo: str = ""
    timeout_s: float = attrs.field(default=TIMEOUT_S, validator=attrs.validators.gt(0))

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def closed(self) -> bool:
        """Some phase is a closed loop."""
        return any(phase.rate is None for phase in self.phases)

    def without(self, methods: set[str]) -> Plan:
        """The mix without calls of these methods.

        Raises:
            PlanError: nothing is left.
        """
        left = tuple(call for call in self.calls if call.method not in methods)
        if self.calls and not left:
            raise PlanError(
                f"the server has no {', '.join(sorted(methods))}, which the plan {self.name!r}"
                " is made of (debug methods: ECAN_DEBUG_METHODS=1, or --start)"
            )
        return attrs.evolve(self, calls=left)


def make_phases(
    rate: float | None, seconds: float, ramp_s: float = 0.0, warm_up_s: float = 0.0
) -> tuple[Phase, ...]:
    """The phases of ``--rate 2000 --for 60s --ramp 10s``.

    >>> [(p.name, p.rate, p.end_rate, p.seconds) for p in make_phases(200, 60, ramp_s=10)]
    [('ramp', 0.0, 200, 10), ('hold', 200, None, 60)]
    """
    phases = []
    if warm_up_s:
        phases.append(Phase(name="warm-up", seconds=warm_up_s, rate=rate, measured=False))
    if ramp_s and rate is not None:
        phases.append(Phase(name="ramp", seconds=ramp_s, rate=0.0, end_rate=rate, measured=False))
    phases.append(Phase(name="hold", seconds=seconds, rate=rate))
    return tuple(phases)


def split_at_events(
    phases: tuple[Phase, ...], events: list[tuple[float, str]]
) -> tuple[Phase, ...]:
    """Begin a phase of its own at each event, so that the report tells what clients saw.

    >>> [p.name for p in split_at_events(make_phases(10, 20), [(5, "kill -9"), (20, "drain")])]
    ['hold', 'hold after kill -9']
    """
    parts = list(phases)
    for at, name in events:
        start = 0.0
        for index, phase in enumerate(parts):
            into = at - start
            if 0 < into < phase.seconds:
                rate = None if phase.rate is None else phase.rate_at(into)
                base = phase.name.partition(" after ")[0]
                before = attrs.evolve(phase, seconds=into, end_rate=rate)
                after = attrs.evolve(
                    phase,
                    name=_fresh(f"{base} after {name}", parts),
                    seconds=phase.seconds - into,
                    rate=rate,
                    end_rate=phase.end_rate,
                )
                parts[index : index + 1] = [before, after]
                break
            start += phase.seconds
    return tuple(parts)


def _fresh(name: str, phases: list[Phase]) -> str:
    taken = {phase.name for phase in phases}
    number = 2
    fresh = name
    while fresh in taken:
        fresh = f"{name} ({number})"
        number += 1
    return fresh
