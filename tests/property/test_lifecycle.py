"""The life of a session against a model that keeps rules, not a table."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ecan.actors.lifecycle import TRANSITIONS, Event, State, allows, next_state
from ecan.errors import SupervisionError


class Lifecycle(RuleBasedStateMachine):
    """Facts a session has: an actor, a back-off, an operator's decision, a place in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State.STARTING
        self.has_actor = False
        self.waits_for = "actor"

    def happen(self, event: Event) -> None:
        self.state = next_state(self.state, event)

    @precondition(lambda self: self.waits_for == "actor")
    @rule()
    def started(self) -> None:
        self.happen(Event.STARTED)
        self.has_actor, self.waits_for = True, ""

    @precondition(lambda self: self.has_actor or self.waits_for == "actor")
    @rule(budget_left=st.booleans())
    def crash(self, budget_left: bool) -> None:
        self.happen(Event.CRASHED if budget_left else Event.GAVE_UP)
        self.has_actor = False
        self.waits_for = "back-off" if budget_left else "operator"

    @precondition(lambda self: self.waits_for == "back-off")
    @rule()
    def back_off_over(self) -> None:
        self.happen(Event.BACKOFF_OVER)
        self.waits_for = "actor"

    @precondition(lambda self: self.waits_for == "operator")
    @rule()
    def revive(self) -> None:
        self.happen(Event.REVIVED)
        self.waits_for = "actor"

    @precondition(lambda self: self.waits_for not in ("actor", "save", "end"))
    @rule()
    def reset(self) -> None:
        self.happen(Event.RESET)
        self.has_actor, self.waits_for = False, "actor"

    @precondition(lambda self: self.has_actor)
    @rule()
    def replace(self) -> None:
        self.happen(Event.REPLACED)
        self.has_actor, self.waits_for = False, "actor"

    @precondition(lambda self: self.has_actor)
    @rule()
    def idle(self) -> None:
        self.happen(Event.IDLE)
        self.has_actor, self.waits_for = False, "save"

    @precondition(lambda self: self.waits_for == "save")
    @rule()
    def saved(self) -> None:
        self.happen(Event.SAVED)
        self.waits_for = "frame"

    @precondition(lambda self: self.waits_for in ("save", "frame"))
    @rule()
    def woken(self) -> None:
        self.happen(Event.WOKEN)
        self.waits_for = "actor"

    @precondition(lambda self: self.waits_for != "end")
    @rule()
    def close(self) -> None:
        self.happen(Event.CLOSED)
        self.has_actor, self.waits_for = False, "end"

    @rule(event=st.sampled_from(list(Event)))
    def what_the_table_lacks_is_refused(self, event: Event) -> None:
        if allows(self.state, event):
            assert next_state(self.state, event) is TRANSITIONS[self.state][event]
            return
        try:
            next_state(self.state, event)
        except SupervisionError:
            return
        raise AssertionError(f"{event} in {self.state} was accepted")

    @invariant()
    def the_state_says_what_is_so(self) -> None:
        expected = {
            "": State.ACTIVE,
            "actor": State.STARTING,
            "back-off": State.RESTARTING,
            "operator": State.FAILED,
            "save": State.PASSIVATING,
            "frame": State.PASSIVATED,
            "end": State.CLOSED,
        }
        assert self.state is expected[self.waits_for]
        assert self.has_actor == (self.state is State.ACTIVE)

    @invariant()
    def only_the_end_is_final(self) -> None:
        assert (self.state is State.CLOSED) == (not TRANSITIONS[self.state])
        assert self.state is State.CLOSED or allows(self.state, Event.CLOSED)


TestLifecycle = Lifecycle.TestCase
"""P5, P6, P13: whatever happens to a session in whatever order, its state is true."""
