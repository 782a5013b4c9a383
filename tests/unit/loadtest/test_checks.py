"""The checks of promises, without a socket."""

from __future__ import annotations

from ecan.loadtest.checks import MAX_EXAMPLES, Counter, SessionChecks, Violations


def fresh() -> tuple[SessionChecks, Violations]:
    violations = Violations()
    return SessionChecks(violations, "user 1"), violations


def push(seq, epoch="a"):
    return {"seq": seq, "epoch": epoch}


def test_pushes_in_a_row_are_fine() -> None:
    """P12: from the login's number on, one by one; pushes of the server have none."""
    checks, violations = fresh()
    checks.opened({"epoch": "a", "seq": 3})
    for meta in (push(4), {}, push(5), push(6)):
        checks.push(meta)
    assert violations.total == 0


def test_hole_twice_and_backwards() -> None:
    """P12: a hole, a repetition."""
    checks, violations = fresh()
    checks.opened({"epoch": "a", "seq": 0})
    for seq in (1, 3, 3, 4):
        checks.push(push(seq))
    assert violations.counts == {"P12": 2}


def test_first_push_of_a_session_that_told_no_number() -> None:
    """Numbers go on from the first that is seen; a new epoch starts over."""
    checks, violations = fresh()
    checks.opened({"epoch": "a"})
    for meta in (push(9), push(10), push(1, "b"), push(2, "b")):
        checks.push(meta)
    assert violations.total == 0


def test_gap_that_is_told_is_no_hole() -> None:
    """P12: resume says from where to where; it must be what is missing."""
    checks, violations = fresh()
    checks.opened({"epoch": "a", "seq": 5})
    checks.resumed({"status": "gap", "from": 6, "to": 8, "epoch": "a"})
    checks.push(push(9))
    assert violations.total == 0
    checks.resumed({"status": "gap", "from": 12, "to": 13, "epoch": "a"})
    assert violations.counts == {"P12": 1}
    checks.resumed({"status": "gap", "from": 1, "to": 2, "epoch": "c"})
    checks.push(push(3, "c"))
    checks.resumed({"status": "resumed", "epoch": "d"})
    checks.push(push(1, "d"))
    assert violations.counts == {"P12": 1}


def test_order_is_of_one_connection() -> None:
    """P2: on a new connection it starts over; refusals and overlapping ones do not count."""
    checks, violations = fresh()
    checks.reply(5, {}, ordered=True)
    checks.reply(3, {}, ordered=False)
    checks.connected()
    checks.reply(4, {}, ordered=True)
    assert violations.total == 0
    checks.reply(2, {}, ordered=True)
    assert violations.counts == {"P2": 1}


def test_incarnations() -> None:
    """They never go back; a replay tells of the past."""
    checks, violations = fresh()
    for meta in ({"incarnation": 2}, {"incarnation": 1, "replayed": True}, {}, {"incarnation": 3}):
        checks.life(meta)
    assert violations.total == 0
    checks.life({"incarnation": 2})
    assert violations.counts == {"incarnation": 1}


def test_counter_that_is_right() -> None:
    """P10: values may come late, but each once; unanswered calls leave room in the total."""
    counter = Counter()
    assert [counter.answered(value) for value in (1, 3, 2, 4)] == [None] * 4
    assert counter.total(4) is None
    counter.unknown = 1
    assert counter.total(5) is None
    assert counter.total(6) is not None
    assert Counter().total(None) is None


def test_counter_that_is_wrong() -> None:
    """P10: a value twice, no number, a total too small."""
    checks, violations = fresh()
    for value in (1, 2, 2, "3"):
        checks.counted("n", value)
    checks.verify("n", 2)
    assert violations.counts == {"P10": 3}


def test_examples_are_bounded_and_merged() -> None:
    """A flood of violations is counted, the first few are kept."""
    checks, violations = fresh()
    for _ in range(100):
        checks.broken("P2", "again")
    assert len(violations.examples) == MAX_EXAMPLES
    both = Violations()
    both.merge(violations.dump())
    both.merge(violations.dump())
    assert (both.total, len(both.examples)) == (200, 2 * MAX_EXAMPLES)


def test_counter_of_a_session_with_a_past() -> None:
    """P10: it goes on from what it was, as read before or as its first value tells."""
    violations = Violations()
    checks = SessionChecks(violations, "user 1", fresh=False)
    checks.start_counter("read", 7)
    for value in (8, 9):
        checks.counted("read", value)
    checks.verify("read", 9)
    for value in (40, 41):
        checks.counted("told", value)
    checks.verify("told", 41)
    checks.verify("never answered", 5)
    assert violations.total == 0
    checks.verify("read", 10)
    assert violations.examples[0]["what"] == "read: the total is 10, after 2 successes from 7 on"
