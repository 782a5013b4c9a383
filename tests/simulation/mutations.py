"""Faults planted in the core, one at a time: the simulator has to find each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
import pytest

from ecan.actors import arrivals, snapshots
from ecan.actors.cell import Cell
from ecan.actors.guard import PoisonGuard
from ecan.actors.incarnations import Incarnations
from ecan.actors.ledger import Ledger
from ecan.actors.outbox import Missed, Outbox
from ecan.actors.record import Record
from ecan.actors.restart import RestartBudget
from ecan.actors.session import SessionActor
from ecan.actors.supervisor import SupervisorActor
from ecan.app import App
from ecan.handlers.documents import Work
from ecan.handlers.state import State
from ecan.runtime import Mailbox

Patch = pytest.MonkeyPatch


class Mutation(NamedTuple):
    """A planted fault.

    Attributes:
        promises: one of which must be found broken.
        seed: that finds it, when this was written; others are tried after it.
    """

    plant: Callable[[Patch], None]
    promises: str
    seed: int


def answer_before_the_commit_lands(patch: Patch) -> None:
    def land(_actor: Any, durable: Any, _call: Any, landed: Callable[[], None]) -> Any:
        asyncio.ensure_future(durable).add_done_callback(lambda done: done.exception())
        landed()
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    patch.setattr(SessionActor, "_land", land)


def ledger_is_not_loaded(patch: Patch) -> None:
    cell_of = snapshots.cell_of

    def forgetful(snapshot: Any, *args: Any, **options: Any) -> Any:
        return cell_of(attrs.evolve(snapshot, ledger=(), used=()), *args, **options)

    patch.setattr(arrivals, "cell_of", forgetful)


def commit_without_its_answer(patch: Patch) -> None:
    commit_of = Record.commit_of
    patch.setattr(
        Record,
        "commit_of",
        lambda record, *, answer=None, **parts: commit_of(record, answer=None, **parts),
    )


def a_successor_does_not_wait_for_what_lands(patch: Patch) -> None:
    """Neither for its predecessor's commit nor for its own number."""
    write_quietly = Record.write_quietly

    def hasty(record: Any, commit: Any) -> Any:
        written = write_quietly(record, commit)
        return None if commit.begins else written

    patch.setattr(Record, "write_quietly", hasty)
    patch.setattr(SessionActor, "on_start", lambda _actor: None)


def every_answer_is_given_twice(patch: Patch) -> None:
    deliver = Cell.deliver

    def twice(cell: Any, *args: Any, **options: Any) -> None:
        deliver(cell, *args, **options)
        deliver(cell, *args, **options)

    patch.setattr(Cell, "deliver", twice)


def a_crash_drops_the_queue(patch: Patch) -> None:
    crashed = SupervisorActor._crashed

    def dropping(supervisor: Any, message: Any) -> None:
        message.cell.mailbox.clear()
        crashed(supervisor, message)

    patch.setattr(SupervisorActor, "_crashed", dropping)


def pushes_leave_before_the_commit(patch: Patch) -> None:
    write = Record.write

    def early(record: Any, commit: Any) -> Any:
        for push in commit.pushes:
            for peer in record.tabs.values():
                peer.send(push.frame)
        return write(record, commit)

    patch.setattr(Record, "write", early)
    patch.setattr(
        Cell, "send_pushes", lambda cell, frames: [cell.outbox.add(frame) for frame in frames]
    )


def a_late_detach_removes_the_successor(patch: Patch) -> None:
    detach = Cell.detach

    def clumsy(cell: Any, peer: Any) -> None:
        detach(cell, peer)
        cell.tabs.clear()

    patch.setattr(Cell, "detach", clumsy)


def sequence_numbers_start_over_after_activation(patch: Patch) -> None:
    cell_of = snapshots.cell_of

    def forgetful(snapshot: Any, *args: Any, **options: Any) -> Any:
        return cell_of(attrs.evolve(snapshot, seq=0, pushes=()), *args, **options)

    patch.setattr(arrivals, "cell_of", forgetful)


def the_reaper_ignores_what_runs(patch: Patch) -> None:
    patch.setattr(Cell, "waits", property(lambda _cell: False))


def documents_are_not_checked(patch: Patch) -> None:
    patch.setattr(Work, "as_checks", lambda _work: ())


def an_incarnation_is_not_committed(patch: Patch) -> None:
    write_quietly = Record.write_quietly

    def lazy(record: Any, commit: Any) -> Any:
        return None if commit.begins else write_quietly(record, commit)

    patch.setattr(Record, "write_quietly", lazy)


def kept_replies_are_not_handed_out(patch: Patch) -> None:
    missed = Outbox.missed

    def without_replies(outbox: Any, *args: Any) -> Missed:
        replies, outbox._replies = outbox._replies, None
        try:
            return missed(outbox, *args)
        finally:
            outbox._replies = replies

    patch.setattr(Outbox, "missed", without_replies)


def dead_letters_are_lost(patch: Patch) -> None:
    commit_of = Record.commit_of
    patch.setattr(
        Record,
        "commit_of",
        lambda record, *, letter=None, **parts: commit_of(record, letter=None, **parts),
    )


def nobody_is_given_up(patch: Patch) -> None:
    patch.setattr(RestartBudget, "crashed", lambda *_: 0.2)


def a_timed_out_handler_still_commits(patch: Patch) -> None:
    stop_call = SessionActor.stop_call

    def forgiving(actor: Any, call: Any, code: Any) -> None:
        stop_call(actor, call, code)
        call.answered = False

    patch.setattr(SessionActor, "stop_call", forgiving)


def the_mailbox_has_no_bound(patch: Patch) -> None:
    init = Mailbox.__init__
    patch.setattr(Mailbox, "__init__", lambda box, max_items=256, **rest: init(box, 10**6, **rest))


def no_method_is_suspended(patch: Patch) -> None:
    patch.setattr(PoisonGuard, "crashed", lambda *_: False)


def the_last_comes_first(patch: Patch) -> None:
    take = Mailbox.take

    def from_the_wrong_end(box: Any, user_lane_open: bool) -> Any:
        if box._user is not None and len(box._user) > 1:
            box._user.rotate(1)
        return take(box, user_lane_open)

    patch.setattr(Mailbox, "take", from_the_wrong_end)


def a_drain_does_not_wait(patch: Patch) -> None:
    async def at_once(*_: Any) -> None: ...

    patch.setattr(App, "_all_answered", at_once)
    patch.setattr(App, "_answer_unfinished", lambda _app: None)


def slots_change_before_the_commit(patch: Patch) -> None:
    changes = State.changes

    def eager(state: Any) -> Any:
        changed = changes(state)
        state._committed.update({k: v for k, v in changed.items() if v is not None})
        return changed

    patch.setattr(State, "changes", eager)


def any_params_are_the_same(patch: Patch) -> None:
    patch.setattr(Ledger, "get", lambda *_: None)


def tabs_hear_of_no_restart(patch: Patch) -> None:
    """A push is numbered and stored, and not sent to those who are there."""
    patch.setattr(
        Cell, "send_pushes", lambda cell, frames: [cell.outbox.add(frame) for frame in frames]
    )


def a_restarted_session_has_no_actor(patch: Patch) -> None:
    patch.setattr(Incarnations, "restart", lambda *_: None)


MUTATIONS = {
    mutation.plant.__name__: mutation
    for mutation in (
        Mutation(answer_before_the_commit_lands, "P4 P10 P11 P12", 1),
        Mutation(ledger_is_not_loaded, "P10", 8),
        Mutation(commit_without_its_answer, "P10 P11", 2),
        Mutation(a_successor_does_not_wait_for_what_lands, "P2 P4 P5 P7 P10", 3),
        Mutation(every_answer_is_given_twice, "P3", 2),
        Mutation(a_crash_drops_the_queue, "P2 P3", 3),
        Mutation(pushes_leave_before_the_commit, "P4 P12", 1),
        Mutation(a_late_detach_removes_the_successor, "P12", 28),
        Mutation(sequence_numbers_start_over_after_activation, "P12", 2),
        Mutation(the_reaper_ignores_what_runs, "P3 P13", 29),
        Mutation(documents_are_not_checked, "P4 P11", 27),
        Mutation(an_incarnation_is_not_committed, "P5", 3),
        Mutation(kept_replies_are_not_handed_out, "P3 P12", 3),
        Mutation(dead_letters_are_lost, "P9", 3),
        Mutation(nobody_is_given_up, "P6", 4),
        Mutation(a_timed_out_handler_still_commits, "P3 P4 P10", 1),
        Mutation(the_mailbox_has_no_bound, "P8", 2),
        Mutation(no_method_is_suspended, "P9", 27),
        Mutation(the_last_comes_first, "P2", 3),
        Mutation(a_drain_does_not_wait, "P14", 2),
        Mutation(slots_change_before_the_commit, "P4", 1),
        Mutation(any_params_are_the_same, "P10", 2),
        Mutation(tabs_hear_of_no_restart, "P12", 3),
        Mutation(a_restarted_session_has_no_actor, "P3 P12", 1),
    )
}
