"""What must be true of every request, told from the disk and from the frames that left.

The model is a dictionary of requests and, per session, the list of tags that the effects
left behind: an effect appends its request's id, so the list says what took effect, how
often and in which order. Nothing here looks into the core.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
import orjson

from ecan.testing.simulator.disk import LOG_SLOT
from ecan.testing.simulator.documents import Documents

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecan.handlers.context import UserContext
    from ecan.store import Commit
    from ecan.testing.simulator.disk import Disk, SessionImage
    from ecan.testing.simulator.tab import ClientSession
    from ecan.testing.simulator.trace import Trace

CRASHES = 3
CRASH_WINDOW_S = 60.0
POISONED_SESSIONS = 5

RETRY = ("BUSY", "DRAINING", "CONFLICT")
"""Answers that are not kept: what ran was undone, and a retry may run it again."""


@attrs.define(eq=False)
class Request:
    """One request, with all its retries.

    Attributes:
        effect: it appends its id to the session's log, if it succeeds.
        document: key of the document it appends its id to as well.
        reads: declared so: its answer is not stored.
        serial: runs in its session's queue, one after the other.
        control: passes the queue.
        final: status, code and outcome of the definite answer that left, if one did.
        accepted_life: the last process that took it.
        accepted_at: when; UTC epoch seconds.
        failures_before: how often its session's commits had failed when it was taken last.
        cancellable: a client has asked to cancel it, or may have by leaving.
        unsaved_life: the last process whose answer the store could not keep.
        answered: finals that left.
    """

    id: str
    method: str
    params: dict[str, Any]
    session: ClientSession
    effect: bool = False
    document: str | None = None
    reads: bool = False
    serial: bool = True
    control: bool = False
    final: tuple[str, str, str] | None = None
    accepted_life: int = 0
    accepted_at: float = 0.0
    failures_before: int = 0
    cancellable: bool = False
    unsaved_life: int = 0
    answered: int = 0

    def __repr__(self) -> str:
        return f"{self.method} {self.id}"


class Model:
    """All requests, and what may be said of them.

    Attributes:
        life: number of the process that runs.
        erased: effects that an operator's reset took away.
        now: UTC epoch seconds.
        ever_failed: sessions of which some commit failed in an earlier life.
        is_over: whether the process has ended a session, durably or not yet.
        active_at: UTC epoch seconds of each session's last activity, as is durable.
        failures: how often commits of each session have failed in this life.
    """

    def __init__(self, disk: Disk, trace: Trace) -> None:
        self.requests: dict[str, Request] = {}
        self.life = 0
        self.failures: Counter[str] = Counter()
        self.ever_failed: set[str] = set()
        self.erased: set[str] = set()
        self.active_at: dict[str, float] = {}
        self.is_over: Callable[[str], bool] = lambda _sid: False
        self.now: Callable[[], float] = lambda: 0.0
        self._began_at = 0.0
        self._forgiven_at: dict[str, float] = {}
        self._disk = disk
        self._trace = trace
        self._owners: dict[tuple[str, int], Any] = {}
        self._crashes: dict[str, dict[str, float]] = {}
        self._documents = Documents(disk, trace)
        self._poisoned: list[tuple[float, str]] = []
        self._resets: dict[str, int] = {}

    def new_life(self) -> None:
        """The process died; another one starts."""
        self.life += 1
        self.ever_failed.update(self.failures)
        self.failures.clear()
        self._began_at = self.now()
        self._crashes.clear()
        self._poisoned.clear()

    def forgive(self, sid: str) -> None:
        """An operator revived or reset the session: its crashes do not count any more."""
        self._crashes.pop(sid, None)
        self._forgiven_at[sid] = self.now()
        self._resets[sid] = self._resets.get(sid, 0) + 1

    def happened(self, request: Request) -> bool:
        """Whether the request's effect is durable, or was and an operator took it away."""
        image = self._disk.sessions.get(request.session.sid)
        return image is not None and (request.id in image.tags or request.id in self.erased)

    # -- landing -----------------------------------------------------------------------

    def lands(self, image: SessionImage, commit: Commit) -> None:
        """A commit is about to be applied to the image."""
        if commit.facts is not None:
            self.active_at[image.sid] = commit.facts.last_active_at
        answer_id = commit.answer.request_id if commit.answer is not None else None
        request = self.requests.get(answer_id or "")
        if request is not None and commit.facts is None:
            before = self.active_at.get(image.sid, 0.0)
            self.active_at[image.sid] = max(before, request.accepted_at)
        if request is not None and request.session.sid != image.sid:
            self._trace.broken("P1", f"{request!r} landed in {image.sid}")
        if LOG_SLOT in commit.slots:
            self._log_lands(image, commit, request)
        if commit.documents:
            self._documents.land(commit, answer_id)

    def _log_lands(self, image: SessionImage, commit: Commit, request: Request | None) -> None:
        data = commit.slots[LOG_SLOT]
        if data is None and commit.answer is None:
            self.erased.update(image.tags)
            self._trace.add("reset.landed", image.sid)
            return
        tags = orjson.loads(data) if data is not None else []
        if commit.answer is None or request is None:
            self._trace.broken("P10", f"{image.sid}: {tags[-1:]} landed without its answer")
        elif tags != [*image.log, request.id]:
            self._trace.broken("P4", f"{image.sid}: {image.log} became {tags} by {request!r}")
        elif request.final is not None:
            self._trace.broken("P4", f"{request!r} landed after the answer {request.final}")

    # -- running -----------------------------------------------------------------------

    def started(self, ctx: UserContext, view: Any) -> None:
        """A handler begins to run; ``view`` stands for its incarnation."""
        request = self.requests[ctx.request_id]
        image = self._disk.sessions[ctx.sid]
        request.failures_before = self.failures[ctx.sid]
        if request.session.sid != ctx.sid:
            self._trace.broken("P1", f"{request!r} runs in {ctx.sid}")
        if request.id in image.answers:
            self._trace.broken("P10", f"{request!r} runs again although its answer is stored")
        if image.ended is not None:
            self._trace.broken("P15", f"{request!r} runs in a session that ended ({image.ended})")
        if ctx.incarnation <= image.incarnation:
            owner = self._owners.setdefault((ctx.sid, ctx.incarnation), view)
            if owner is not view:
                self._trace.broken("P5", f"incarnation {ctx.incarnation} of {ctx.sid} comes twice")
        elif not self.failures[ctx.sid]:  # ADR 9: only while the store cannot write
            self._trace.broken("P5", f"{ctx.sid}#{ctx.incarnation} serves and is not durable")
        self._check_state(ctx, request, image)

    def _check_state(self, ctx: UserContext, request: Request, image: SessionImage) -> None:
        seen = ctx.state.get(LOG_SLOT, [])
        if seen == image.log or (not seen and self._resets.get(ctx.sid)):
            return
        if request.serial or image.log[: len(seen)] != seen:
            self._trace.broken("P4", f"{request!r} sees {seen}, committed is {image.log}")

    # -- answers -----------------------------------------------------------------------

    def answered(self, request: Request, frame: dict[str, Any], data: bytes) -> None:
        """A final response leaves."""
        error = frame.get("error") or {}
        code, outcome = error.get("code", ""), error.get("outcome", "ran")
        image = self._disk.sessions.get(request.session.sid)
        request.answered += 1
        if error:
            self._trace.count(f"code.{code}")
        reason = (error.get("details") or {}).get("reason")
        if code == "CANCELLED" and not request.cancellable and reason is None:
            self._trace.broken("P13", f"{request!r} was cancelled and nobody asked for it: {frame}")
        if image is None or (error and outcome == "not_run") or code in RETRY:
            return
        excused = self._check_kept(request, image, frame, data)
        happened = self.happened(request)
        if error and happened:
            self._trace.broken("P4", f"{request!r} failed with {code} and took effect")
        elif not error:
            self._check_success(request, frame, happened=happened)
        if request.id in image.answers:
            request.final = (frame["status"], code, outcome)
        if code == "HANDLER_CRASHED" and not frame["meta"].get("replayed"):
            self._crashed(request, image, frame, excused=excused)

    def _check_kept(
        self, request: Request, image: SessionImage, frame: dict[str, Any], data: bytes
    ) -> bool:
        """The answer that leaves is the durable one (P10, P11).

        Returns:
            Whether there was a reason why it could not be stored.
        """
        stored = image.answers.get(request.id)
        excused = (
            request.reads
            or self.failures[image.sid] != request.failures_before
            or self.is_over(image.sid)
            or request.unsaved_life == self.life
        )
        if stored is not None and _plain(stored) != _plain(data):
            self._trace.broken("P10", f"{request!r} was answered {stored!r}, now {data!r}")
        if stored is None and excused:
            request.unsaved_life = self.life
        elif stored is None:
            self._trace.broken(
                "P11", f"{request!r}: the answer left before it was durable: {frame}"
            )
        return excused

    def _check_success(self, request: Request, frame: dict[str, Any], *, happened: bool) -> None:
        if request.effect and not happened:
            self._trace.broken("P11", f"{request!r} succeeded and is not durable")
        user_id = request.session.user_id
        if request.document is not None:
            self._documents.check_written(user_id, request.document, request.id)
        if request.method == "sim.read_documents" and not frame["meta"].get("replayed"):
            self._documents.check_moment(user_id, request.id, frame["result"])

    def _crashed(
        self, request: Request, image: SessionImage, frame: dict[str, Any], *, excused: bool
    ) -> None:
        details = frame["error"].get("details") or {}
        # Of a session found dead by the supervisor's successor nobody knows who did it.
        known = excused or self._trace.counts["supervisor.crashes"]
        if details.get("crash_id") not in self._disk.letters and not known:
            self._trace.broken("P9", f"{request!r} crashed and left no dead letter")
        now = frame["timestamp"] / 1000
        if request.method == "sim.poison":
            self._poisoned.append((self._trace.now_s, image.sid))
        before = now < max(self._began_at, self._forgiven_at.get(image.sid, 0.0))
        if details.get("restart_in_ms") is None or before:  # a reply that was kept
            return
        crashes = self._crashes.setdefault(image.sid, {})
        crashes[details["crash_id"]] = now  # several requests may end by one crash
        for crash_id, at in list(crashes.items()):
            if max(crashes.values()) - at >= CRASH_WINDOW_S - 1:
                del crashes[crash_id]
        if len(crashes) > CRASHES:
            self._trace.broken("P6", f"{image.sid} is restarted after {len(crashes)} crashes")

    def is_poisonous(self) -> bool:
        """Whether `sim.poison` must be suspended by now."""
        recent = [sid for at, sid in self._poisoned if self._trace.now_s - at < CRASH_WINDOW_S - 1]
        return len(set(recent)) >= POISONED_SESSIONS


def _plain(frame: bytes) -> bytes:
    return frame.replace(b'"replayed":true', b'"replayed":false', 1)
