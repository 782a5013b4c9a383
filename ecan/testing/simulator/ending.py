"""The end of a run: everything is mended, everybody comes back, and all must be well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecan.actors.lifecycle import State
from ecan.store import Snapshot

if TYPE_CHECKING:
    from ecan.testing.simulator.disk import SessionImage
    from ecan.testing.simulator.tab import ClientSession, Tab
    from ecan.testing.simulator.world import World

REST_S = 130.0
"""Longer than any deadline, and any retry of the server's own."""

PATIENCE = 15
"""Rounds of asking again without any progress."""

AT_ONCE = 8
"""Requests a tab asks again in one go: below the rate limit."""


class Ending:
    """Brings a world to rest and checks what must be true then."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._trace = world.trace
        self._counting: set[int] = set()

    def run(self) -> None:
        """All of it."""
        world = self._world
        self._trace.add("ending")
        world.faults.broken = world.faults.slow = world.faults.unreadable = False
        self._come_to_rest()
        world.watch.check_answered()
        self._everybody_resumes()
        self._check_kept()
        self._everybody_asks_again()
        self._check_sessions()
        world.shut_down()
        self._check_sessions()
        self._check_disk()
        self._trace.check()

    def _come_to_rest(self) -> None:
        world = self._world
        for tab in world.tabs:
            if tab.link is not None:
                tab.link.be_slow(slow=False)
        world.run_for(REST_S)
        in_memory = {cell.sid for cell in world.server.directory if cell.state is State.FAILED}
        for image in list(world.disk.sessions.values()):
            if image.ended is None and (image.failed or image.sid in in_memory):
                world.steer(image.sid, "revive")
        world.run_for(20.0)

    def _living(self) -> list[tuple[ClientSession, SessionImage]]:
        """Sessions that were not ended."""
        images = self._world.disk.sessions
        clients = [client for client in self._world.clients if not client.locked_out]
        pairs = [(client, images.get(client.sid)) for client in clients]
        return [(c, image) for c, image in pairs if image is not None and image.ended is None]

    def _tabs(self) -> list[Tab]:
        return [tab for client, _ in self._living() for tab in client.tabs]

    def _everybody_resumes(self) -> None:
        world = self._world
        for client, image in self._living():
            if client.logged_out:
                self._trace.broken("P11", f"{client} was logged out; {image.sid} lives")
            client.ended = False  # its end was never durable
        for tab in self._tabs():
            if tab.link is None:
                world.connect(tab)
            if tab.last_seq is not None:
                self._counting.add(tab.session.number)
            tab.resume()
            world.run_for(0.5)
        world.run_for(30.0)
        for tab in self._tabs():
            if tab.link is None or not tab.bound:
                self._trace.broken("P12", f"{tab} cannot resume")

    def _check_kept(self) -> None:
        """Every accepted request was answered: to a tab, or it was kept and handed out (P3)."""
        model = self._world.model
        for client, image in self._living():
            if client.number not in self._counting:
                continue  # nobody asked for what was missed
            for request in client.requests:
                here = request.accepted_life == model.life
                excused = model.failures[image.sid] != request.failures_before
                if here and not request.answered and not excused:
                    self._trace.broken("P3", f"{request!r} was accepted and never answered")
            if image.replies and not model.failures[image.sid]:
                self._trace.broken("P12", f"kept and not handed out: {list(image.replies)}")

    def _everybody_asks_again(self) -> None:
        """Until each request has a definite answer; that may take a while, but not for ever."""
        world = self._world
        least, since = 1_000_000, 0
        while waiting := [tab for tab in self._tabs() if tab.waiting]:
            left = sum(len(tab.waiting) for tab in waiting)
            least, since = (left, 0) if left < least else (least, since + 1)
            if since > PATIENCE:
                ids = {str(tab): list(tab.waiting) for tab in waiting}
                self._trace.broken("P3", f"asked {since} times without a definite answer: {ids}")
            for tab in waiting:
                for request in list(tab.waiting.values())[:AT_ONCE]:
                    tab.ask(request)
            world.run_for(30.0)
            world.watch.check_answered()
            self._trace.check()

    def _check_sessions(self) -> None:
        model = self._world.model
        for client, image in self._living():
            if len(set(image.log)) != len(image.log):
                self._trace.broken("P10", f"{client} ran twice: {image.log}")
            for request in client.requests:
                if request.effect and request.final is not None:
                    succeeded = request.final[0] == "success"
                    if succeeded != model.happened(request):
                        self._trace.broken("P11", f"{request!r}: {request.final}, {image.log}")
            for tab in client.tabs:
                if tab.link is not None and tab.last_seq not in (None, image.seq):
                    self._trace.broken("P12", f"{tab} saw {tab.last_seq} of {image.seq} pushes")
        self._trace.check()

    def _check_disk(self) -> None:
        """The store kept what landed."""
        for image in self._world.disk.sessions.values():
            found = self._world.disk.snapshot(image.sid)
            if image.ended is not None:
                if isinstance(found, Snapshot):
                    self._trace.broken("P11", f"{image.sid} ended and is still stored")
                continue
            kept = {row.request_id: row.frame for row in found.ledger}
            expected = dict(list(image.answers.items())[-len(kept) :]) if kept else {}
            if (found.slots, found.seq, kept) != (image.slots, image.seq, expected):
                self._trace.broken("P11", f"{image.sid} is stored as {found}, landed was {image}")
