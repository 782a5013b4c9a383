"""P10, P12: ledger and outbox against a plain list of all that ever was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ecan.actors import outbox as outbox_module
from ecan.actors.ledger import MAX_AGE_S, MAX_ENTRIES, Ledger, fingerprint, replayed
from ecan.actors.outbox import Outbox
from ecan.protocol.codec import encode_result
from ecan.store import id_hash

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 40)), max_size=400))
def test_p10_an_answered_id_is_known_or_forgotten_never_new(steps: list[tuple[int, int]]) -> None:
    """The last 256 answers of ten minutes are kept; older ids are told apart from new ones."""
    ledger, now = Ledger(), 1000.0
    answered: dict[str, float] = {}
    for number, pause in steps:
        now += pause
        request_id = str(number)
        if ledger.get(request_id, now) is None and not ledger.is_forgotten(request_id):
            assert request_id not in answered
            ledger.add(request_id, b"p", request_id.encode(), now)
            answered[request_id] = now
    order = list(answered)
    for position, request_id in enumerate(order):
        entry = ledger.get(request_id, now)
        kept = len(order) - position <= MAX_ENTRIES and now - answered[request_id] <= MAX_AGE_S
        assert (entry is not None) == kept
        assert ledger.is_forgotten(request_id) == (not kept)
    assert len(ledger) <= MAX_ENTRIES


@given(st.integers(257, 300), st.integers(0, 3))
def test_p10_a_full_ledger_forgets_the_oldest(count: int, again: int) -> None:
    """With more answers than it keeps, exactly the oldest are forgotten."""
    ledger = Ledger()
    for number in range(count):
        ledger.add(str(number), b"p", b"f", 0.0)
    gone = count - MAX_ENTRIES
    assert [n for n in range(count) if ledger.is_forgotten(str(n))] == list(range(gone))
    kept = {str(n): ledger.get(str(n), 0.0) for n in range(gone, count)}
    assert all(entry is not None for entry in kept.values())
    assert len(ledger) == MAX_ENTRIES
    stored = Ledger(kept, [id_hash(str(n)) for n in range(gone)])
    assert {id_: stored.get(id_, 0.0) for id_ in kept} == kept
    assert [n for n in range(count) if stored.is_forgotten(str(n))] == list(range(gone))


@given(st.text(max_size=50), st.text(max_size=50), json_values)
def test_p10_a_replay_differs_in_one_flag_only(
    request_id: str, method: str, result: object
) -> None:
    """Whatever id, method and result say, `meta.replayed` is what changes."""
    import orjson

    meta = {"sid": "s", "incarnation": 1, "replayed": False, "queue_ms": 0.1}
    frame = encode_result(request_id, method, result, meta, 5)
    before, after = orjson.loads(frame), orjson.loads(replayed(frame))
    assert after["meta"].pop("replayed") is True
    assert before["meta"].pop("replayed") is False
    assert after == before


@given(json_values, json_values)
def test_p10_fingerprints_tell_params_apart(one: object, other: object) -> None:
    """Equal params have equal fingerprints, others do not; absent params are empty ones."""
    import orjson

    def canonical(value: object) -> bytes:
        return orjson.dumps({} if value is None else value, option=orjson.OPT_SORT_KEYS)

    same = canonical(one) == canonical(other)
    assert (fingerprint("m", one) == fingerprint("m", other)) == same


@given(
    st.lists(st.integers(1, 120), max_size=120),
    st.none() | st.integers(-5, 150),
    st.sampled_from([None, "epoch", "other"]),
)
def test_p12_missed_frames_and_gap_are_the_models(
    sizes: list[int], last_seq: int | None, epoch: str | None
) -> None:
    """Frames and gap together are exactly the numbers after the last one seen."""
    bounds = outbox_module.MAX_FRAMES, outbox_module.MAX_BYTES
    outbox_module.MAX_FRAMES, outbox_module.MAX_BYTES = 20, 800
    try:
        outbox = Outbox("epoch")
        kept: list[tuple[int, bytes]] = []
        for number, size in enumerate(sizes, 1):
            frame = number.to_bytes(2, "big") + b"x" * size
            outbox.add(frame)
            kept.append((number, frame))
            while len(kept) > 20 or sum(len(f) for _, f in kept) > 800:
                kept.pop(0)
        assert outbox.missed(0, "epoch").frames == [frame for _, frame in kept]
        assert outbox.nbytes == sum(len(f) for _, f in kept)
        stored = Outbox("epoch", outbox.seq, kept)
        for seen in (0, outbox.seq // 2, outbox.seq):
            assert stored.missed(seen, "epoch") == outbox.missed(seen, "epoch")
    finally:
        outbox_module.MAX_FRAMES, outbox_module.MAX_BYTES = bounds

    missed = outbox.missed(last_seq, epoch)
    if last_seq is None:
        assert missed == ([], None)
        return
    seen = 0 if epoch == "other" else min(max(last_seq, 0), len(sizes))
    wanted = list(range(seen + 1, len(sizes) + 1))
    given_numbers = [int.from_bytes(frame[:2], "big") for frame in missed.frames]
    gone = list(range(missed.gap[0], missed.gap[1] + 1)) if missed.gap else []
    assert gone + given_numbers == wanted
    assert missed.gap is not None or epoch != "other"  # what it saw may be gone: it is told


@given(st.lists(st.sampled_from(["push", "reply", "reply of 2 pushes", "resume"]), max_size=60))
def test_p12_pushes_and_replies_come_in_the_order_they_were_made(steps: list[str]) -> None:
    """Replies are handed out once, among the pushes at their place, whatever came between."""
    outbox = Outbox("epoch")
    made: list[bytes] = []  # since the last resume
    seen = 0
    for number, step in enumerate(steps):
        frame = str(number).encode()
        if step == "push":
            outbox.add(frame)
            made.append(frame)
        elif step == "reply":
            outbox.keep_reply(outbox.reply_row(step + str(number), frame))
            made.append(frame)
        elif step == "reply of 2 pushes":
            row = outbox.reply_row(step + str(number), frame, 2)
            for push in (frame + b"a", frame + b"b"):
                outbox.add(push)
                made.append(push)
            outbox.keep_reply(row)
            made.append(frame)
        else:
            assert outbox.missed(seen, "epoch") == (made, None)
            outbox.take_replies()
            seen, made = outbox.seq, []
    assert outbox.missed(seen, "epoch") == (made, None)
