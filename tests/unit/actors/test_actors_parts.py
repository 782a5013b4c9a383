"""The pure parts: ledger, outbox, restart budget, deadlines, guard, tokens, directory, table."""

from __future__ import annotations

import doctest
import importlib
import time

import pytest

from ecan.actors import lifecycle
from ecan.actors.cell import Cell
from ecan.actors.directory import MAX_TOMBSTONES, Directory
from ecan.actors.guard import PoisonGuard
from ecan.actors.idle import DeadlineHeap
from ecan.actors.ledger import MAX_FORGOTTEN, Ledger, fingerprint, replayed
from ecan.actors.lifecycle import Event, State
from ecan.actors.outbox import MAX_BYTES, MAX_FRAMES, Outbox
from ecan.actors.refusals import RetryError, refused_by_store
from ecan.actors.restart import RestartBudget
from ecan.actors.tokens import MAX_TOKENS, Token, TokenTable, digest, new_session_id, sid_of
from ecan.errors import (
    ConflictError,
    IdUsedError,
    SlotError,
    StoreError,
    StoreUnavailableError,
    SupervisionError,
)
from ecan.handlers.context import User
from ecan.observability import Metrics
from ecan.protocol.codec import encode_result
from ecan.protocol.frames import Sid
from ecan.store import MemoryStore
from ecan.testing import FakeClock


@pytest.mark.parametrize("name", ["guard", "idle", "lifecycle", "restart", "tokens"])
def test_doctests(name: str) -> None:
    """The examples in the docstrings run."""
    assert doctest.testmod(importlib.import_module(f"ecan.actors.{name}")).failed == 0


def test_the_table_refuses_what_does_not_fit() -> None:
    """An event that is not in the table is an error, never a silent no-op."""
    with pytest.raises(SupervisionError, match="closed cannot be revived"):
        lifecycle.next_state(State.CLOSED, Event.REVIVED)
    assert lifecycle.allows(State.FAILED, Event.REVIVED)
    assert not lifecycle.allows(State.ACTIVE, Event.REVIVED)
    assert "failed --> starting: revived" in lifecycle.mermaid()


def test_p10_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    """The same request in another order of keys is the same request."""
    assert fingerprint("m", {"a": 1, "b": 2}) == fingerprint("m", {"b": 2, "a": 1})
    assert fingerprint("m", {"a": 1}) != fingerprint("n", {"a": 1})


def test_p10_replayed_is_set_in_meta_and_nowhere_else() -> None:
    """Not in a result or an id that looks like it."""
    frame = encode_result(
        '"replayed":false', "m", {"replayed": False}, {"replayed": False, "sid": "s"}, 0
    )
    again = replayed(frame)
    assert again.count(b'"replayed":true') == 1
    assert again.endswith(
        b'"meta":{"replayed":true,"sid":"s"},"result":{"replayed":false},"timestamp":0}'
    )


def test_p8_forgotten_ids_are_bounded() -> None:
    """The oldest of them give way."""
    ledger = Ledger()
    for n in range(256 + MAX_FORGOTTEN + 1):
        ledger.add(str(n), b"", b"", 0.0)
    assert not ledger.is_forgotten("0")
    assert ledger.is_forgotten("1")
    assert len(ledger) == 256


def test_p12_the_outbox_is_bounded_in_bytes() -> None:
    """A frame beyond the bound pushes out the oldest; one larger than all, itself."""
    outbox = Outbox("e")
    outbox.add(b"x" * (MAX_BYTES - 1))
    outbox.add(b"yy")
    assert outbox.missed(0, "e") == ([b"yy"], (1, 1))
    assert outbox.nbytes == 2
    outbox.add(b"z" * (MAX_BYTES + 1))
    assert outbox.missed(0, None) == ([], (1, 3))


def test_p8_the_heap_forgets_stale_entries() -> None:
    """A key that is scheduled again and again does not grow it."""
    heap = DeadlineHeap()
    for n in range(1000):
        heap.schedule("a", float(n))
    assert sum(len(part.heap) for part in heap._parts) <= 3 * 1 + 65
    assert len(heap) == 1
    assert "a" in heap
    heap.cancel("a")
    heap.cancel("a")
    assert heap.next_at() is None
    assert "a" not in heap


def test_the_heap_gives_a_slice() -> None:
    """At most ``limit`` keys at a time; the rest is still due."""
    heap = DeadlineHeap()
    for n in range(5):
        heap.schedule(str(n), float(n))
    assert list(heap.due(10.0, 2)) == ["0", "1"]
    assert list(heap.due(10.0)) == ["2", "3", "4"]


def test_p6_a_budget_that_is_reset_starts_over() -> None:
    """All crashes are forgotten, and the back-off is the first again."""
    budget = RestartBudget()
    assert [budget.crashed(0.0, lambda: 0.5) is None for _ in range(4)] == [False] * 3 + [True]
    budget.reset()
    assert budget.crashed(1.0, lambda: 0.5) == pytest.approx(0.2)


def test_p9_the_guard_counts_sessions_within_its_window() -> None:
    """Crashes older than a minute do not count; a suspended method is not suspended twice."""
    guard = PoisonGuard()
    for n in range(4):
        assert not guard.crashed("m", f"s{n}", 0.0)
    assert not guard.crashed("m", "s9", 60.0)
    for n in range(3):
        assert not guard.crashed("m", f"t{n}", 60.0)
    assert guard.crashed("m", "t9", 119.9)
    assert not guard.crashed("m", "t8", 119.9)
    assert guard.suspended["m"] == "it crashed 5 sessions within 60 s"
    assert guard.resume("m")
    assert not guard.resume("m")


def test_p15_tokens_expire_are_revoked_and_are_few() -> None:
    """A secret finds its live token only; the seventeenth pushes out the oldest."""
    table = TokenTable()
    now = time.time()
    secret, token = table.issue(now, 10)
    assert table.find(secret, now) is token
    assert table.find(secret, now + 10) is None
    assert table.newest(now + 10) is None
    for _ in range(MAX_TOKENS):
        table.issue(now, 10)
    assert (len(table), token.revoked) == (MAX_TOKENS, True)
    rest = list(table)
    table.issue(now + 11, 10)
    assert len(table) == 1  # expired ones went
    table.revoke_all()
    assert len(table) == 0
    assert not rest[0].revoked
    assert TokenTable([Token(digest("s"), now + 1)]).find("s", now)


def test_p16_secrets_are_long_and_their_hashes_tell_nothing() -> None:
    """256 random bits; the public id comes from the hash."""
    one, other = new_session_id(), new_session_id()
    assert one != other
    assert len(one) == 43
    assert one not in sid_of(digest(one))


def test_p8_tombstones_are_bounded() -> None:
    """The reasons of the oldest closed sessions are forgotten; the store remembers more."""
    directory = Directory()
    directory.total = MAX_TOMBSTONES + 1
    for n in range(MAX_TOMBSTONES + 1):
        directory.bury(Sid(f"s{n}"), "logout")
    assert directory.reason(Sid("s0")) is None
    assert directory.reason(Sid("s1")) == "logout"
    assert (directory.total, len(directory)) == (0, 0)


def test_p8_a_session_at_rest_costs_the_directory_nothing() -> None:
    """It counts, and is found here no more; its user's other sessions are."""
    directory = Directory()
    cells = [_cell(sid, user_id) for sid, user_id in (("a", 1), ("b", 1), ("c", 2))]
    for cell in cells:
        directory.total += 1
        directory.add(cell)
    first, second, third = cells
    directory.evict(first)
    directory.evict(first)  # twice is fine
    assert (directory.get(first.sid), directory.total, len(directory)) == (None, 3, 2)
    assert directory.of_user(1) == [second]
    directory.evict(third)
    assert directory.of_user(2) == []
    directory.bury(second.sid, "logout")
    directory.bury(first.sid, "idle")
    assert (directory.total, list(directory)) == (1, [])
    directory.add(third)
    directory.forget(third)
    assert directory.total == 0


def _cell(sid: str, user_id: int) -> Cell:
    return Cell(
        Sid(sid),
        b"",
        User(user_id=user_id, username="ann"),
        FakeClock(),
        mailbox_size=1,
        wake=lambda _: None,
        store=MemoryStore(),
        metrics=Metrics(),
        created_at=0.0,
    )


# -- replies kept for resume ---------------------------------------------------------------


def test_p12_replies_stand_at_their_place_among_the_pushes() -> None:
    """Each right behind the push it followed, several in the order they were made."""
    outbox = Outbox("e")
    outbox.keep_reply(outbox.reply_row("r0", b"r0"))
    outbox.add(b"p1")
    outbox.keep_reply(outbox.reply_row("r1", b"r1"))
    outbox.keep_reply(outbox.reply_row("r2", b"r2"))
    third = outbox.reply_row("r3", b"r3", 2)  # of a request that commits two pushes
    outbox.add(b"p2")
    outbox.add(b"p3")
    outbox.keep_reply(third)
    assert outbox.missed(0, "e").frames == [b"r0", b"p1", b"r1", b"r2", b"p2", b"p3", b"r3"]
    assert outbox.missed(1, "e").frames == [b"r0", b"r1", b"r2", b"p2", b"p3", b"r3"]
    assert outbox.missed(3, "e").frames == [b"r0", b"r1", b"r2", b"r3"]
    assert outbox.missed(None, None) == ([], None)
    again = Outbox("e", outbox.seq, [(1, b"p1"), (2, b"p2"), (3, b"p3")], outbox.replies)
    assert again.missed(0, "e") == outbox.missed(0, "e")
    assert [reply.request_id for reply in outbox.take_replies()] == ["r0", "r1", "r2", "r3"]
    assert (outbox.take_replies(), outbox.missed(0, "e").frames) == ((), [b"p1", b"p2", b"p3"])


def test_p8_kept_replies_are_bounded_and_one_each() -> None:
    """The oldest give way, by count and by bytes; a reply kept twice counts once."""
    outbox = Outbox("e")
    for n in range(MAX_FRAMES + 5):
        outbox.keep_reply(outbox.reply_row(str(n), b"x"))
    assert (len(outbox.replies), outbox.replies[0].request_id) == (MAX_FRAMES, "5")
    outbox.keep_reply(outbox.reply_row("5", b"y"))
    assert (len(outbox.replies), outbox.nbytes) == (MAX_FRAMES, MAX_FRAMES)
    assert outbox.drop_reply("5")
    assert not outbox.drop_reply("5")
    assert outbox.nbytes == MAX_FRAMES - 1
    outbox.keep_reply(outbox.reply_row("big", b"z" * MAX_BYTES))
    assert [reply.request_id for reply in outbox.replies] == ["big"]
    assert outbox.nbytes == MAX_BYTES
    outbox.take_replies()
    assert outbox.nbytes == 0
    assert not outbox.drop_reply("big")


def test_p12_numbers_of_another_epoch_are_a_gap_and_all_that_is_kept() -> None:
    """What was seen of them cannot be told from what was missed."""
    outbox = Outbox("new", 7, [(6, b"p6"), (7, b"p7")])
    assert outbox.missed(7, "old") == ([b"p6", b"p7"], (1, 5))
    assert outbox.missed(7, "new") == ([], None)


# -- tokens whose change could not be written ----------------------------------------------


def test_p15_tokens_can_be_put_back_as_they_were() -> None:
    """The old live again with their old times, on connections that hold them; the new die."""
    table = TokenTable()
    secret, token = table.issue(0.0, 100.0)
    before = table.saved()
    newer, other = table.refresh(token, 10.0, 100.0)
    assert token.expires_at == 70.0
    table.restore(before)
    assert (token.expires_at, token.revoked, other.revoked) == (100.0, False, True)
    assert (table.find(secret, 99.0), table.find(newer, 11.0)) == (token, None)
    table.revoke_all()
    table.restore(before)
    assert table.find(secret, 99.0) is token


# -- what the store refuses ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "outcome", "retry"),
    [
        (ConflictError("x"), "CONFLICT", "not_run", True),
        (IdUsedError("x"), "ID_EXPIRED", "not_run", False),
        (StoreUnavailableError("x"), "BUSY", "unknown", True),
    ],
)
def test_what_the_store_refuses_is_an_answer(
    error: StoreError, code: str, outcome: str, retry: bool
) -> None:
    """Those that may be tried again are not kept in the ledger."""
    reply = refused_by_store(error)
    assert reply is not None
    assert (reply.code, reply.outcome) == (code, outcome)
    assert isinstance(reply, RetryError) == retry
    assert (reply.retry_after_ms is not None) == retry


def test_any_other_error_of_the_store_is_a_bug() -> None:
    """It is no answer but a crash."""
    assert refused_by_store(StoreError("x")) is None
    assert refused_by_store(SlotError("a", "b")) is None
