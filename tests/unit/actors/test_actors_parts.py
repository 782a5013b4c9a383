"""The pure parts: ledger, outbox, restart budget, deadlines, guard, tokens, directory, table."""

from __future__ import annotations

import doctest
import importlib
import time

import pytest

from ecan.actors import lifecycle
from ecan.actors.directory import MAX_TOMBSTONES, Directory
from ecan.actors.guard import MAX_DEAD_LETTERS, DeadLetters, PoisonGuard
from ecan.actors.idle import DeadlineHeap
from ecan.actors.ledger import MAX_FORGOTTEN, Ledger, fingerprint, replayed
from ecan.actors.lifecycle import Event, State
from ecan.actors.outbox import MAX_BYTES, Outbox
from ecan.actors.restart import RestartBudget
from ecan.actors.tokens import MAX_TOKENS, Token, TokenTable, digest, new_session_id, sid_of
from ecan.errors import SupervisionError
from ecan.protocol.codec import encode_result


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
    assert [number for number, _ in outbox.frames()] == [2]
    assert outbox.nbytes == 2
    outbox.add(b"z" * (MAX_BYTES + 1))
    assert outbox.missed(0, None) == ([], (1, 3))


def test_p8_the_heap_forgets_stale_entries() -> None:
    """A key that is scheduled again and again does not grow it."""
    heap = DeadlineHeap()
    for n in range(1000):
        heap.schedule("a", float(n))
    assert len(heap._heap) <= 3 * 1 + 65
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


def test_p8_dead_letters_are_bounded() -> None:
    """The newest are kept; one can be looked at and discarded."""
    letters = DeadLetters()
    facts = dict.fromkeys(
        ("crash_id", "sid", "username", "method", "request_id", "params", "traceback"), ""
    )
    for _ in range(MAX_DEAD_LETTERS + 1):
        letters.add(at=0.0, incarnation=1, context_before={}, **facts)
    assert len(letters) == MAX_DEAD_LETTERS
    assert letters.get(1) is None
    assert letters.list()[0].id == MAX_DEAD_LETTERS + 1
    assert letters.discard(2)
    assert not letters.discard(2)


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
    """The reasons of the oldest closed sessions are forgotten."""
    directory = Directory()
    for n in range(MAX_TOMBSTONES + 1):
        directory.count_in(f"s{n}", n)
        directory.bury(f"s{n}", n, "logout")
    assert directory.reason("s0") is None
    assert directory.reason("s1") == "logout"
    assert directory.knows("s1")
    assert (directory.total, directory.users(), directory.stored()) == (0, [], [])
    directory.bury("never there", 1, "logout")
    directory.count_in("a", 1)
    directory.count_in("b", 1)
    directory.bury("a", 1, "logout")
    assert (directory.of_user(1), directory.users()) == (["b"], [1])
