"""The answers of one session: given once, stored before they leave, kept for who is gone.

A `Cell` is this and its mailbox and tabs. Everything here runs on the loop.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from ecan.actors.biography import Biography
from ecan.actors.ledger import replayed
from ecan.actors.lifecycle import State
from ecan.actors.record import Record
from ecan.actors.refusals import RetryError, expired_id_error
from ecan.errors import IdUsedError, ReplyError, StoreError
from ecan.protocol.codec import encode_error
from ecan.protocol.codes import ErrorCode
from ecan.store import LedgerRow

if TYPE_CHECKING:
    from ecan.actors.call import Call
    from ecan.protocol.frames import Peer
    from ecan.store import LetterRow, ReplyRow


class Answering(Record):
    """A session's accepted requests and their one final response each (P3, P10, P12).

    Attributes:
        pending: accepted requests whose answer has not been given, by request id.
        story: its figures and mishaps, for operators; None: none yet.
    """

    __slots__ = ("pending", "story")

    def __init__(self, *identity: Any, **record: Any) -> None:
        super().__init__(*identity, **record)
        self.pending: dict[str, Call] = {}
        self.story: Biography | None = None

    @property
    def biography(self) -> Biography:
        """Its figures and mishaps, made when first asked for."""
        if self.story is None:
            self.story = Biography()
        return self.story

    def timestamp(self) -> int:
        """Now, as frames say it: UTC epoch milliseconds."""
        return int(self._clock.now() * 1000)

    def is_known(self, call: Call) -> bool:
        """Whether this id was accepted before; then it is attached or answered again (P10)."""
        known = self.pending.get(call.id)
        if known is not None:
            _check_same(known.fingerprint, call)
            if known.waiters is None:
                known.waiters = []
            if call.origin is not known.origin and call.origin not in known.waiters:
                known.waiters.append(call.origin)
            _end_trace(call)
            return True
        ledger = self.ledger
        entry = ledger.get(call.id, self._clock.now())
        if entry is not None:
            _check_same(entry.fingerprint, call)
            self._metrics.replays += 1
            call.origin.send(replayed(entry.frame))
            if self.outbox.drop_reply(call.id):
                self._write_replies()
            _end_trace(call)
            return True
        if ledger.is_forgotten(call.id):
            raise expired_id_error()
        return False

    def answer(
        self,
        call: Call,
        frame: bytes,
        *,
        remember: bool,
        durable: bool = False,
        letter: LetterRow | None = None,
    ) -> None:
        """Give a request its one final response, once a retry cannot get another one.

        Args:
            call: whose answer it is; a second answer is dropped (P3).
            frame: the encoded response.
            remember: keep it in the ledger: the request took effect, or may have.
            durable: the store has it already.
            letter: what is kept of a crash, with the answer.
        """
        if call.answered:
            if letter is not None:
                self.write_quietly(self.commit_of(letter=letter))
            return
        call.answered = True
        stored = remember and not durable and not call.spec.reads
        if (stored or letter is not None) and self.state is not State.CLOSED:
            row = self.ledger_row(call, frame) if stored else None
            commit = self.commit_of(answer=row, letter=letter, replies=self.kept_with(call, frame))
            try:
                landing = self.write(commit)
            except StoreError as error:
                self._settle(call, frame, error, remember=remember)
                return
            if landing is not None:
                landing.add_done_callback(
                    partial(self._answer_landed, call, frame, remember=remember)
                )
                return
        self.deliver(call, frame, remember=remember)

    def ledger_row(self, call: Call, frame: bytes) -> LedgerRow:
        """An answer as the store keeps it."""
        return LedgerRow(
            request_id=call.id,
            fingerprint=call.fingerprint,
            frame=frame,
            at=self._clock.now(),
        )

    def kept_with(self, call: Call, frame: bytes, pushes: int = 0) -> tuple[ReplyRow, ...]:
        """The reply as one to keep for resume, if no tab is there to take it (P12)."""
        if call.origin.is_open or any(peer.is_open for peer in call.waiters or ()):
            return ()
        call.kept = self.outbox.reply_row(call.id, frame, pushes)
        return (call.kept,)

    def _answer_landed(
        self, call: Call, frame: bytes, landing: asyncio.Future[None], *, remember: bool
    ) -> None:
        error = asyncio.CancelledError() if landing.cancelled() else landing.exception()
        self._settle(call, frame, error, remember=remember)

    def _settle(
        self, call: Call, frame: bytes, error: BaseException | None, *, remember: bool
    ) -> None:
        if isinstance(error, IdUsedError):
            # It was answered long ago, which only the store knew. It ran, and was rolled back.
            frame = self._error_frame(call, expired_id_error())
            remember = False
            self.ledger.forget(call.id)
        elif error is not None:
            # Nothing took effect, so the answer may leave; only a kill would forget it.
            self._log_failure(error)
        self.deliver(call, frame, remember=remember)

    def deliver(self, call: Call, frame: bytes, *, remember: bool) -> None:
        """Let an answer leave that is settled: `answer`, for what wrote nothing."""
        if call.trace is not None:
            call.trace.end()
        if self.pending.get(call.id) is call:
            del self.pending[call.id]
        if remember:
            self.ledger.add(call.id, call.fingerprint, frame, self._clock.now())
        if call.waiters is None and call.kept is None and call.origin.send(frame):
            return  # nearly every request
        self._deliver_or_keep(call, frame)

    def _deliver_or_keep(self, call: Call, frame: bytes) -> None:
        delivered = False
        for peer in (call.origin, *(call.waiters or ())):
            if peer.send(frame):
                delivered = True
        if delivered and call.kept is None:
            return
        if delivered:
            # RACE: kept because no tab was there; one asked again before it landed.
            self._write_replies()
            return
        if self.state is State.CLOSED:
            return
        reply = call.kept
        if reply is None or reply.frame is not frame:
            reply = self.outbox.reply_row(call.id, frame)
            self.write_quietly(self.commit_of(replies=(reply,)))
        self.outbox.keep_reply(reply)

    def refuse(self, call: Call, error: ReplyError, *, letter: LetterRow | None = None) -> None:
        """Answer a call with an error; remembered unless it surely did not run."""
        if call.answered and letter is None:
            return
        if not call.answered:
            self._note_refusal(call, error)
        self.biography.refused(self._clock.now(), call, error)
        not_run = error.outcome == "not_run" or call.started_mono == 0.0
        remember = not not_run and not isinstance(error, RetryError)
        self.answer(call, self._error_frame(call, error), remember=remember, letter=letter)

    def _note_refusal(self, call: Call, error: ReplyError) -> None:
        if call.trace is not None:
            call.trace.failed(error.code)
        if call.started_mono == 0.0:
            # What ran is counted by who ran it.
            waited_s = self._clock.mono() - call.accepted_mono
            self._metrics.method(call.spec.name).observe(error.code.lower(), waited_s, 0.0)

    def _error_frame(self, call: Call, error: ReplyError) -> bytes:
        return encode_error(call.id, call.spec.name, error, self.reply_meta(call), self.timestamp())

    def reply_meta(self, call: Call) -> dict[str, Any]:
        """`meta` of a response (CONTRACT §2)."""
        now = self._clock.mono()
        started = call.started_mono
        return {
            "sid": self.sid,
            "incarnation": self.incarnation,
            "replayed": False,
            "queue_ms": round(((started or now) - call.accepted_mono) * 1000, 3),
            "run_ms": round((now - started) * 1000, 3) if started else 0.0,
        }

    def hand_out(self, peer: Peer, frames: list[bytes]) -> None:
        """Give a resuming tab what it missed; replies are handed out once."""
        if not peer.is_open:
            return
        if self.outbox.take_replies():
            self._write_replies()
        peer.send_all(frames)

    def _write_replies(self) -> None:
        """Have the store keep the replies that are kept here, and those on their way to it."""
        coming = (call.kept for call in self.pending.values() if call.kept is not None)
        self.write_quietly(self.commit_of(handed_out=True, replies=(*self.outbox.replies, *coming)))

    @property
    def waits(self) -> bool:
        """Whether any request has no answer yet."""
        return any(not call.answered for call in self.pending.values())


def _end_trace(call: Call) -> None:
    if call.trace is not None:
        call.trace.end()


def _check_same(known: bytes, call: Call) -> None:
    if known != call.fingerprint:
        raise ReplyError(
            ErrorCode.ID_REUSED, "This request id was already used for another request."
        )
