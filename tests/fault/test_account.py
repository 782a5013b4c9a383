"""The checker of the kill tests notices what it is there for: one that finds nothing proves nothing."""

from __future__ import annotations

import pytest

from ecan.testing.account import Account, BrokenPromiseError

FIRST, SECOND = 1, 2
"""Generations of the server process."""


@pytest.fixture
def account():
    """A session in incarnation 1 with two tabs that have seen push 0."""
    made = Account("s0", "seed 7")
    for tab in ("a", "b"):
        made.resumed(tab, resumed(seq=0), 0)
    return made


def resumed(**facts):
    return {"status": "resumed", "incarnation": 1, "epoch": "e1", **facts}


def reply(request_id, result=1, *, replayed=False, incarnation=1, **facts):
    meta = {"replayed": replayed, "incarnation": incarnation}
    return {
        "id": request_id,
        "type": "response",
        "status": "success",
        "result": result,
        "meta": meta,
        **facts,
    }


def refusal(request_id, code, outcome="not_run", **facts):
    error = {"code": code, "outcome": outcome}
    return reply(request_id, status="error", error=error, **facts)


def push(seq, *, epoch="e1", about=None):
    return {"type": "request", "params": {"about": about}, "meta": {"seq": seq, "epoch": epoch}}


def asked(account, request_id, method="debug.incr", generation=FIRST, changes=True, **params):
    made = account.ask(request_id, method, {"key": "n", **params}, changes=changes)
    account.sent("a", made, generation)
    return made


def increment(account, request_id, result, **facts):
    asked(account, request_id)
    account.reply("a", reply(request_id, result, **facts), FIRST)


def test_a_run_without_fault_passes(account):
    """Answers, their replays, pushes and another process: nothing to complain of."""
    increment(account, "r1", 1)
    account.reply("a", reply("r1", 1, replayed=True), FIRST)
    asked(account, "r2", "debug.push", count=2)
    for tab in ("a", "b"):
        account.push(tab, push(1, about="r2"))
        account.push(tab, push(2, about="r2"))
    account.reply("a", reply("r2", {"pushed": 2}), FIRST)
    account.resumed("a", resumed(incarnation=1, seq=2), 1)
    asked(account, "r3", generation=SECOND)
    account.reply("a", reply("r3", 2, incarnation=2), SECOND)

    account.check_counters({"n": 2})
    account.check_pushes(2)
    assert account.replays == 1
    assert [one.id for one in account.kept(2)] == ["r3", "r2"]


def test_a_failure_names_the_seed_and_shows_the_history(account):
    """The message is all there is to find the cause with."""
    increment(account, "r1", 1)
    with pytest.raises(BrokenPromiseError) as raised:
        account.reply("b", reply("r1", 2, replayed=True), FIRST)

    text = str(raised.value)
    assert "s0: two answers to one id" in text
    assert "seed 7" in text
    assert "sends r1 debug.incr" in text


@pytest.mark.parametrize(
    ("story", "what"),
    [
        (lambda a: increment(a, "r1", 2), "the answers are not 1"),
        (lambda a: [increment(a, f"r{n}", 1) for n in (1, 2)], r"twice: \[1\]"),
        (lambda a: increment(a, "r1", 1), "n is 0, acknowledged were 1"),
    ],
)
def test_a_lost_or_doubled_increment(account, story, what):
    """Each increment is acknowledged once, with its own number, and is in the counter."""
    story(account)
    value = 0 if what.startswith("n is") else len(account.answered)
    with pytest.raises(BrokenPromiseError, match=what):
        account.check_counters({"n": value})


def test_a_loss_that_is_allowed(account):
    """It is counted; doing something twice is never allowed."""
    increment(account, "r1", 1)
    increment(account, "r2", 1)

    assert account.lost({"n": 1}) == 1
    assert account.lost({"n": None}) == 2
    with pytest.raises(BrokenPromiseError, match="n is 3"):
        account.lost({"n": 3})


@pytest.mark.parametrize(
    ("seqs", "what"), [((1, 3), "missing"), ((1, 1), "doubled"), ((1, 2, 1), "doubled")]
)
def test_a_missing_or_doubled_push(account, seqs, what):
    """Within an epoch, and no gap told."""
    *good, bad = seqs
    for seq in good:
        account.push("a", push(seq))
    with pytest.raises(BrokenPromiseError, match=what):
        account.push("a", push(bad))


def test_one_number_is_one_push(account):
    """In every tab the same."""
    account.push("a", push(1, about="r1"))
    with pytest.raises(BrokenPromiseError, match="two pushes with number 1"):
        account.push("b", push(1, about="r2"))


def test_a_push_that_was_acknowledged_and_never_came(account):
    """Whether the number is missing at the end, or another push has it."""
    asked(account, "r1", "debug.push", count=1)
    account.reply("a", reply("r1", {"pushed": 1}), FIRST)
    with pytest.raises(BrokenPromiseError, match="r1 pushed 1, 0 came"):
        account.check_pushes(0)
    with pytest.raises(BrokenPromiseError, match="has seen push 0 of 1"):
        account.check_pushes(1)


def test_a_gap_that_was_told(account):
    """It counts as told, and the pushes behind it go on from there."""
    account.resumed("a", resumed(status="gap", **{"from": 1, "to": 3}, seq=4), 1)
    account.push("a", push(4))

    assert account.gaps == [("a", 1, 3)]
    with pytest.raises(BrokenPromiseError, match="a gap from 7"):
        account.resumed("a", resumed(status="gap", **{"from": 7, "to": 8}, seq=8), 1)


def test_numbers_that_start_over(account):
    """Another epoch is a loss that was told; a server that may not lose may not say so."""
    account.push("a", push(1))
    with pytest.raises(BrokenPromiseError, match="epoch e1 became e2"):
        account.resumed("a", resumed(epoch="e2", seq=0), 1)
    with pytest.raises(BrokenPromiseError, match="the server is at push 0"):
        account.resumed("a", resumed(seq=0), 1)
    loses = Account("s1", "seed 7", may_lose=True)
    loses.resumed("a", resumed(seq=5), 0)
    loses.resumed("a", resumed(epoch="e2", seq=0), 1)
    loses.push("a", push(1, epoch="e2"))
    loses.resumed("a", resumed(status="gap", epoch="e3", seq=1), 1)
    loses.push("a", push(1, epoch="e3"))
    loses.resumed("a", resumed(status="gap", epoch="e4", **{"from": 1, "to": 4}, seq=4), 1)
    loses.push("a", push(5, epoch="e4"))
    assert len(loses.gaps) == 2


def test_an_incarnation_that_goes_back(account):
    """Lower than known, or the number of a process that is dead."""
    increment(account, "r1", 1, incarnation=4)
    with pytest.raises(BrokenPromiseError, match="resumed in incarnation 3, after 4"):
        account.resumed("a", resumed(incarnation=3, seq=0), 4)
    asked(account, "r2", generation=SECOND)
    with pytest.raises(BrokenPromiseError, match="incarnation 4 again"):
        account.reply("a", reply("r2", 2, incarnation=4), SECOND)


def test_an_old_reply_may_come_late(account):
    """What an earlier incarnation answered and nobody was there to take is no step back."""
    asked(account, "r1")
    account.resumed("a", resumed(incarnation=3, seq=0), 1)
    account.reply("a", reply("r1", 1, incarnation=1), SECOND)

    account.check_counters({"n": 1})


def test_a_refusal_is_no_answer(account):
    """BUSY and its kin are not held against the answer that comes later."""
    asked(account, "r1")
    account.reply("a", refusal("r1", "BUSY"), FIRST)
    account.reply("a", reply("r1", 1), FIRST)

    account.check_counters({"n": 1})


def test_an_id_that_expired(account):
    """Allowed once the ledger may have forgotten it, and not before."""
    increment(account, "r1", 1)
    with pytest.raises(BrokenPromiseError, match="two answers"):
        account.reply("a", refusal("r1", "ID_EXPIRED"), FIRST)
    account.asked["r1"].old = True
    account.reply("a", refusal("r1", "ID_EXPIRED"), FIRST)

    account.check_counters({"n": 1})


def test_an_answer_that_nobody_asked_for(account):
    """An id that was never sent."""
    with pytest.raises(BrokenPromiseError, match="which nobody asked"):
        account.reply("a", reply("r9"), FIRST)


def test_the_looks_may_differ(account):
    """A request that only looks is looked up again after a death: another answer is right."""
    asked(account, "r1", "debug.state_get", changes=False)
    account.reply("a", reply("r1", 1), FIRST)
    account.reply("a", reply("r1", 2), SECOND)
