"""RFC 6455 framing, as far as whole text messages need it. Pure.

Nearly every frame a client sends is one whole, masked text frame. Those are taken
apart here, for a quarter of what the library's parser costs; all others are handed
to the library as complete frames, so that it sees a valid stream of its own.
"""

from __future__ import annotations

import struct

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - where the library has no wheel
    from websockets.utils import apply_mask

TEXT = 0x81
"""FIN and the opcode of a text frame (RFC 6455 §5.2)."""

PING = 0x89
"""FIN and the opcode of a ping."""

CLOSE = 0x88
"""FIN and the opcode of a close frame."""

SHORT_HEADER = 6
"""Bytes of the header of a client's frame with less than 126 bytes."""

MASKED = 0x80
FIN = 0x80
BINARY_OPCODE = 2
"""Opcodes up to this one carry data: continuation, text, binary."""

_LENGTH_16 = 126
_LENGTH_64 = 127
_PACK_16 = struct.Struct("!BBH").pack
_PACK_64 = struct.Struct("!BBQ").pack


def text_header(length: int) -> bytes:
    """The header of an unmasked, unfragmented text frame, as servers send them.

    >>> text_header(5).hex(), text_header(200).hex(), text_header(70000).hex()
    ('8105', '817e00c8', '817f0000000000011170')
    """
    if length < _LENGTH_16:
        return bytes((TEXT, length))
    if length < 1 << 16:
        return _PACK_16(TEXT, _LENGTH_16, length)
    return _PACK_64(TEXT, _LENGTH_64, length)


def header_size(length: int) -> int:
    """How long `text_header` is."""
    if length < _LENGTH_16:
        return 2
    return 4 if length < 1 << 16 else 10


class FrameReader:
    r"""Takes a client's bytes apart into text messages and frames for the library.

    Args:
        max_size: of a payload in bytes; a frame that announces more goes to the library
            as it comes, which refuses it by its header (1009).

    >>> reader = FrameReader(100)
    >>> frame = bytes((0x81, 0x82)) + bytes(4) + b"hi"
    >>> reader.feed(frame[:3]), reader.feed(frame[3:] + bytes((0x89, 0x80)) + bytes(4))
    ([], [(True, b'hi'), (False, b'\x89\x80\x00\x00\x00\x00')])
    """

    __slots__ = ("_fragmented", "_max_size", "_need", "_rest", "given_up")

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._rest = bytearray()
        self._need = 0
        self._fragmented = False
        self.given_up = False

    def whole(self, data: bytes) -> bytes | None:
        """The text, if the bytes are one whole text frame: nearly always, and quickly told.

        None says nothing; then `feed` takes the bytes.
        """
        size = len(data)
        if size < SHORT_HEADER or data[0] != TEXT or self._need or self._fragmented:
            return None
        length = data[1] ^ MASKED  # too long if it is not masked
        start = SHORT_HEADER
        if length == _LENGTH_16 and size > SHORT_HEADER + 2:
            start += 2
            length = data[2] << 8 | data[3]
        elif length > _LENGTH_16:
            return None
        if size != start + length or length > self._max_size or self.given_up:
            return None
        return apply_mask(data[start:], data[start - 4 : start])

    def feed(  # noqa: C901, PLR0912 - one loop, run for every frame
        self, data: bytes
    ) -> list[tuple[bool, bytes]]:
        """Take the next bytes.

        Returns:
            Pairs: True with the payload of a whole text frame, False with the bytes of
            a frame that is none. After ``given_up`` is set all that comes is False.
        """
        if self._need:
            # In the middle of a frame: a large one in small pieces is not copied each time.
            self._rest += data
            if len(self._rest) < self._need:
                return []
            data, self._need = bytes(self._rest), 0
            self._rest = bytearray()
        found: list[tuple[bool, bytes]] = []
        at = 0
        size = len(data)
        need = 2
        while at < size:
            if self.given_up:
                found.append((False, data[at:]))
                return found
            need = 2
            if size - at < need:
                break
            second = data[at + 1]
            length = second & 0x7F
            start = at + 2
            if length == _LENGTH_16:
                start += 2
                need = start - at
                if size < start:
                    break
                length = data[at + 2] << 8 | data[at + 3]
            elif length == _LENGTH_64:
                start += 8
                need = start - at
                if size < start:
                    break
                length = int.from_bytes(data[at + 2 : start], "big")
            if not second & MASKED or length > self._max_size:
                # A violation: the library finds the words and the close code for it.
                self.given_up = True
                continue
            start += 4
            end = start + length
            need = end - at
            if size < end:
                break
            first = data[at]
            if first == TEXT and not self._fragmented:
                found.append((True, apply_mask(data[start:end], data[start - 4 : start])))
            else:
                if first & 0x0F <= BINARY_OPCODE:
                    self._fragmented = first < FIN
                found.append((False, data[at:end]))
            at = end
        # INVARIANT: what is kept is less than one frame of at most `max_size`.
        if at < size:
            self._rest += data[at:]
            self._need = need
        return found

    def take_rest(self) -> bytes:
        """Give up: what is kept of an unfinished frame."""
        rest, self._rest, self._need = bytes(self._rest), bytearray(), 0
        self.given_up = True
        return rest
