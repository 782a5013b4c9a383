"""The life of a session as a table: state x event -> state.

Theory of operation. A session is one user's context and mailbox; an incarnation is
one life of the actor that runs it. The session's state says whether there is an
actor (`ACTIVE`), one is being made (`STARTING`), one will be made after a back-off
(`RESTARTING`), one will be made at the next frame (`PASSIVATED`), or an operator
must decide (`FAILED`). `CLOSED` is final.

Two rules: every change of a session's state goes through `next_state`; and what is
not in the table is a bug or a command that does not fit, never a silent no-op.
docs/developers/lifecycle.md draws its diagram from this table.
"""

from __future__ import annotations

from enum import StrEnum

from ecan.errors import SupervisionError


class State(StrEnum):
    """Where a session is."""

    STARTING = "starting"
    ACTIVE = "active"
    RESTARTING = "restarting"
    FAILED = "failed"
    PASSIVATING = "passivating"
    PASSIVATED = "passivated"
    CLOSED = "closed"


class Event(StrEnum):
    """What happens to a session."""

    STARTED = "started"
    CRASHED = "crashed"
    GAVE_UP = "gave_up"
    REPLACED = "replaced"
    BACKOFF_OVER = "backoff_over"
    REVIVED = "revived"
    RESET = "reset"
    IDLE = "idle"
    SAVED = "saved"
    WOKEN = "woken"
    CLOSED = "closed"


S, E = State, Event

TRANSITIONS: dict[State, dict[Event, State]] = {
    S.STARTING: {
        E.STARTED: S.ACTIVE,
        E.CRASHED: S.RESTARTING,
        E.GAVE_UP: S.FAILED,
        E.CLOSED: S.CLOSED,
    },
    S.ACTIVE: {
        E.CRASHED: S.RESTARTING,
        E.GAVE_UP: S.FAILED,
        E.REPLACED: S.STARTING,
        E.RESET: S.STARTING,
        E.IDLE: S.PASSIVATING,
        E.CLOSED: S.CLOSED,
    },
    S.RESTARTING: {
        E.BACKOFF_OVER: S.STARTING,
        E.RESET: S.STARTING,
        E.CLOSED: S.CLOSED,
    },
    S.FAILED: {
        E.REVIVED: S.STARTING,
        E.RESET: S.STARTING,
        E.CLOSED: S.CLOSED,
    },
    S.PASSIVATING: {
        E.SAVED: S.PASSIVATED,
        E.WOKEN: S.STARTING,
        E.CLOSED: S.CLOSED,
    },
    S.PASSIVATED: {
        E.WOKEN: S.STARTING,
        E.RESET: S.STARTING,
        E.CLOSED: S.CLOSED,
    },
    S.CLOSED: {},
}


def next_state(state: State, event: Event) -> State:
    """The state after an event.

    Raises:
        SupervisionError: the event does not fit the state.

    >>> next_state(State.ACTIVE, Event.CRASHED)
    <State.RESTARTING: 'restarting'>
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise SupervisionError(f"a session that is {state} cannot be {event}") from None


def allows(state: State, event: Event) -> bool:
    """Whether the event fits the state."""
    return event in TRANSITIONS[state]


def mermaid() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    lines = ["stateDiagram-v2", "    [*] --> starting"]
    lines += [
        f"    {state} --> {target}: {event}"
        for state, row in TRANSITIONS.items()
        for event, target in row.items()
    ]
    return "\n".join([*lines, "    closed --> [*]", ""])
