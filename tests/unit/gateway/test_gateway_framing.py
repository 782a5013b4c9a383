"""Taking a client's bytes apart, against the library's own framing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from ecan.gateway.framing import FrameReader


def wire_bytes(opcode: Opcode, data: bytes, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


frames = st.lists(
    st.tuples(
        st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.CLOSE]),
        st.binary(max_size=400) | st.sampled_from([b"x" * 125, b"y" * 126, b"z" * 65536]),
        st.booleans(),
    ),
    max_size=6,
)


def as_sent(opcode: Opcode, data: bytes, fin: bool) -> tuple[Opcode, bytes, bool]:
    """Control frames are short and whole."""
    if opcode in (Opcode.PING, Opcode.CLOSE):
        return opcode, data[:125], True
    return opcode, data, fin


@given(frames, st.lists(st.integers(1, 3000), max_size=60))
def test_any_cut_of_any_frames_gives_the_same_parts(drawn, cuts) -> None:
    """Whole texts come out as texts, all else as the bytes it came as, whatever TCP does."""
    sent = [as_sent(*frame) for frame in drawn]
    encoded = [wire_bytes(*frame) for frame in sent]
    stream = b"".join(encoded)
    reader = FrameReader(1 << 20)
    found = []
    at = 0
    for cut in [*cuts, len(stream)]:
        found += reader.feed(stream[at : at + cut])
        at += cut
    if at < len(stream):
        found += reader.feed(stream[at:])

    expected = []
    fragmented = False
    for (opcode, data, fin), raw in zip(sent, encoded, strict=True):
        if opcode is Opcode.TEXT and fin and not fragmented:
            expected.append((True, data))
        else:
            expected.append((False, raw))
            if opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                fragmented = not fin
    assert found == expected
    assert reader.take_rest() == b""


reads = st.one_of(
    st.builds(wire_bytes, st.just(Opcode.TEXT), st.binary(max_size=400), st.booleans()),
    st.builds(
        lambda drawn: b"".join(wire_bytes(*as_sent(*frame)) for frame in drawn),
        frames,
    ),
    st.builds(lambda rest: b"\x81" + rest, st.binary(max_size=300)),
    st.builds(
        lambda length, rest: b"\x81\xfe" + length.to_bytes(2, "big") + rest,
        st.integers(0, 300),
        st.binary(max_size=300),
    ),
    st.just(wire_bytes(Opcode.TEXT, b"z" * 70_000)),
    st.binary(max_size=20),
)


@given(st.lists(reads, max_size=4))
def test_the_quick_look_finds_what_the_long_one_does(drawn) -> None:
    """One whole text and nothing else; whatever was read before."""
    quick, slow = FrameReader(1 << 16), FrameReader(1 << 16)
    for data in drawn:
        expected = slow.feed(data)
        text = quick.whole(data)
        if text is None:
            assert quick.feed(data) == expected
        else:
            assert [(True, text)] == expected


@given(st.binary(max_size=70_000) | st.sampled_from([b"x" * n for n in (0, 125, 126, 65535)]))
def test_the_quick_look_finds_nearly_all(data) -> None:
    """Of up to 64 KiB, which is more than a browser sends in a frame of this protocol."""
    found = FrameReader(1 << 20).whole(wire_bytes(Opcode.TEXT, data))
    assert found == (data if len(data) < 1 << 16 else None)


def test_a_large_frame_in_small_pieces_is_put_together() -> None:
    """Nothing is found until the last byte, then the whole text."""
    frame = wire_bytes(Opcode.TEXT, b"a" * 100_000)
    reader = FrameReader(1 << 20)
    for at in range(0, len(frame) - 1, 100):
        assert reader.feed(frame[at : min(at + 100, len(frame) - 1)]) == []

    assert reader.feed(frame[-1:]) == [(True, b"a" * 100_000)]


def test_violations_go_to_the_library_and_everything_after_them() -> None:
    """Too large and unmasked frames are not taken apart here."""
    for bad in (
        wire_bytes(Opcode.TEXT, b"a" * 11),
        Frame(Opcode.TEXT, b"hi").serialize(mask=False),
    ):
        reader = FrameReader(10)
        good = wire_bytes(Opcode.TEXT, b"ok")

        assert reader.feed(good + bad) == [(True, b"ok"), (False, bad)]
        assert reader.given_up
        assert reader.feed(good) == [(False, good)]


def test_what_is_kept_can_be_handed_over() -> None:
    """When the connection closes the library gets the unfinished frame too."""
    reader = FrameReader(10)
    frame = wire_bytes(Opcode.TEXT, b"hello")
    assert reader.feed(frame[:4]) == []

    assert reader.take_rest() == frame[:4]
    assert reader.feed(frame[4:]) == [(False, frame[4:])]
