"""Looks at every frame that comes and goes at the server's edge, and at what is accepted."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from unittest import mock

import orjson

from ecan.actors.cell import Cell
from ecan.protocol.codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecan.actors.call import Call
    from ecan.handlers.context import UserContext
    from ecan.testing.simulator.disk import Disk, SessionImage
    from ecan.testing.simulator.link import Link
    from ecan.testing.simulator.model import Model, Request
    from ecan.testing.simulator.reads import Faults
    from ecan.testing.simulator.trace import Trace

ACTIVITY_WRITTEN_S = 61.0
"""After kill -9 a session may look that much older than it is (ADR 9)."""

Key = tuple[int, str]
"""A connection and a request id."""


class Watch:
    """The edge of the process that runs.

    Attributes:
        owed: what was asked on an open connection and not answered there.
        last_active: UTC epoch seconds of the last activity, by public id.
    """

    def __init__(
        self, model: Model, disk: Disk, trace: Trace, faults: Faults, timeout_s: float
    ) -> None:
        self.owed: dict[Key, None] = {}
        self.last_active: dict[str, float] = {}
        self._model = model
        self._disk = disk
        self._trace = trace
        self._faults = faults
        self._timeout_s = timeout_s
        self._asked: dict[Key, int] = {}
        self._finals: dict[Key, int] = {}
        self._foreign: dict[Key, int] = {}
        self._resumed: set[int] = set()
        self._lanes: dict[str, list[Call]] = {}

    def new_life(self) -> None:
        """The process died: its connections are gone."""
        self.owed.clear()
        self._lanes.clear()
        for sid in self.last_active:  # what was accepted and no more, nobody knows of
            active_at = self._model.active_at.get(sid, 0.0)
            self.last_active[sid] = min(self.last_active[sid], active_at)

    # -- the mailbox's door ------------------------------------------------------------

    @contextlib.contextmanager
    def at_the_cells(self) -> Iterator[None]:
        """Note what every cell accepts, for as long as this lasts."""
        accept = Cell.accept

        def noted(cell: Cell, call: Call) -> None:
            serial = not call.spec.concurrent
            lane = self._lanes.setdefault(cell.sid, [])
            if serial:
                lane.append(call)
            request = self._model.requests.get(call.id)
            if request is not None and request.accepted_life != self._model.life:
                request.failures_before = self._model.failures[cell.sid]
            known = call.id in cell.pending
            try:
                accept(cell, call)
            except BaseException:
                _remove(lane, call)
                raise
            if known or (cell.pending.get(call.id) is not call and not call.answered):
                _remove(lane, call)  # attached to the first one, or answered again
                return
            if call.spec.activity:
                self.last_active[cell.sid] = self._model.now()
            if request is not None:
                request.accepted_life = self._model.life
                request.accepted_at = self._model.now()
                if request.method == "sim.poison" and self._model.is_poisonous():
                    self._trace.broken("P9", f"{request!r} taken, it crashed five sessions")
                self._trace.add("accepted", f"{request!r} in {cell.sid}")

        with mock.patch.object(Cell, "accept", noted):
            yield

    def started(self, ctx: UserContext) -> None:
        """A handler begins."""
        view: Any = ctx.session
        request = self._model.requests[ctx.request_id]
        self._trace.add("started", f"{request!r} in {ctx.sid}#{ctx.incarnation}")
        self._model.started(ctx, view)
        if not request.serial:
            return
        lane = self._lanes.get(ctx.sid, [])
        while lane and lane[0].answered:
            lane.pop(0)
        for call in lane:
            if call.id == request.id:
                return
            if not call.answered:
                self._trace.broken("P2", f"{request!r} runs before {call!r}, accepted earlier")

    # -- frames ------------------------------------------------------------------------

    def asked(self, link: Link, data: bytes) -> None:
        """A frame arrives."""
        try:
            frame = orjson.loads(data)
        except ValueError:
            self._trace.add("frame.in", f"{link} {data!r}")
            return
        self._trace.add("frame.in", f"{link} {frame.get('method', 'answer')} {frame['id']}")
        if frame.get("type") == "request" and type(frame["id"]) is str:
            key = (link.number, frame["id"])
            request = self._model.requests.get(frame["id"])
            if request is not None and frame["params"] != request.params:
                # Another request under its id, which will be refused.
                self._foreign[key] = self._foreign.get(key, 0) + 1
                return
            self._asked[key] = self._asked.get(key, 0) + 1
            self.owed[key] = None
            if frame["method"] == "session.resume":
                self._resumed.add(link.number)

    def sent(self, link: Link, data: bytes) -> None:
        """A frame leaves."""
        frame = orjson.loads(data)
        if frame["type"] == "request":
            self._pushed(link, frame)
            return
        key = (link.number, frame["id"])
        request = self._model.requests.get(frame["id"])
        if frame["status"] == "pending":
            self._trace.add("frame.pending", f"{link} {frame['id']}")
            if request is not None and request.final is not None:
                self._trace.broken("P3", f"progress of {request!r} on {link} after its answer")
            return
        error = frame.get("error") or {}
        self._trace.add("frame.out", f"{link} {frame['id']} {error.get('code', 'success')}")
        if error.get("code") == "ID_REUSED":
            self._trace.count("code.ID_REUSED")
            return
        self.owed.pop(key, None)
        if request is None:
            self._trace.count(f"code.{error['code']}" if error else "lobby.success")
            return
        if frame["meta"].get("replayed"):
            self._trace.count("replayed")
        self._count_final(key, request, frame)
        self._model.answered(request, frame, data)

    def _count_final(self, key: Key, request: Request, frame: dict[str, Any]) -> None:
        asked = self._asked.get(key, 0)
        if not asked:
            self._trace.count("reply.handed_out")  # it was kept, and this tab resumed
            return
        finals = self._finals[key] = self._finals.get(key, 0) + 1
        if finals > asked + self._foreign.get(key, 0) + (key[0] in self._resumed):
            self._trace.broken("P3", f"{request!r}: {finals} answers, the last one {frame}")

    def _pushed(self, link: Link, frame: dict[str, Any]) -> None:
        meta = frame["meta"]
        method = frame["method"]
        self._trace.add("frame.push", f"{link} {method} {meta.get('seq', '')}")
        if "seq" not in meta:
            return
        image = self._disk.sessions[meta["sid"]]
        if meta["seq"] > image.seq and method != "session.closed":
            self._trace.broken("P12", f"push {meta['seq']} left, {image.seq} is durable")
        if method == "sim.pushed":
            request = self._model.requests[frame["params"]["tag"]]
            if request.effect and not self._model.happened(request):
                self._trace.broken("P4", f"a push of {request!r} left without its effect")
        elif method == "session.restarted":
            self._trace.count("push.restarted")

    def closing(self, link: Link, code: int) -> None:
        """The server closes a connection."""
        self._trace.add("server.closes", f"{link} {code}")
        if code != CloseCode.SERVICE_RESTART or self._faults.slow:
            return
        for number, request_id in self.owed:
            request = self._model.requests.get(request_id)
            if number != link.number or request is None or request.answered:
                continue
            if request.accepted_life == self._model.life:
                self._trace.broken("P14", f"{link} closed without an answer to {request!r}")

    def lost(self, link: Link) -> None:
        """A connection is gone; what it still waited for is kept or lost with it."""
        self._trace.add("connection.lost", f"{link}")
        for key in [key for key in self.owed if key[0] == link.number]:
            del self.owed[key]

    def ended(self, image: SessionImage, reason: str) -> None:
        """The end of a session lands."""
        self._trace.count(f"ended.{reason}")
        if reason != "idle":
            return
        idle_s = self._model.now() - self.last_active.get(image.sid, 0.0)
        told = image.sid not in self._model.ever_failed  # the store knows how old it is
        if told and idle_s < self._timeout_s - ACTIVITY_WRITTEN_S:
            self._trace.broken("P13", f"{image.sid} ended as idle {idle_s} s after a request")
        busy = [call for call in self._lanes.get(image.sid, ()) if not call.answered]
        if busy:
            self._trace.broken("P13", f"{image.sid} ended as idle with {busy} in work")

    def check_answered(self) -> None:
        """Everything is quiet: nobody may still wait (P3)."""
        if self.owed:
            self._trace.broken("P3", f"never answered: {list(self.owed)}")


def _remove(lane: list[Call], call: Call) -> None:
    lane[:] = [other for other in lane if other is not call]
