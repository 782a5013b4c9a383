"""Which requests users send, by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecan.testing.simulator.methods import FATES

if TYPE_CHECKING:
    from collections.abc import Collection

    from ecan.testing.simulator.model import Request
    from ecan.testing.simulator.tab import ClientSession
    from ecan.testing.simulator.world import World

FEATURES = (
    "kill",
    "drain",
    "faults",
    "operators",
    "supervisor",
    "crashes",
    "jobs",
    "documents",
    "deadlines",
    "cancel",
    "leaving",
    "idle",
    "slow",
    "nonsense",
    "flood",
    "poison",
    "sessions",
)
"""What a run may do, and `shrink` may leave out."""

METHODS: dict[str, tuple[int, str]] = {
    "sim.inline": (7, ""),
    "sim.async": (7, ""),
    "sim.stream": (2, ""),
    "sim.ask": (2, ""),
    "sim.overlap": (2, ""),
    "sim.read": (3, ""),
    "sim.control": (1, ""),
    "sim.thread": (3, "jobs"),
    "sim.process": (1, "jobs"),
    "sim.deaf": (1, "jobs"),
    "sim.read_documents": (2, "documents"),
    "sim.poison": (1, "poison"),
}
"""How often each is asked for, and the feature it belongs to."""

LONG_S = 50.0
"""Longer than a session may be idle before it is passivated: it is busy, not idle."""

PAUSING = ("sim.async", "sim.deaf", "sim.stream", "sim.overlap", "sim.read_documents")

NONSENSE: tuple[bytes, ...] = (
    b"no json",
    b'{"id": "n1", "method": "sim.read"}',
    b'{"id": "n2", "type": "telegram", "method": "sim.read"}',
    b'{"id": 7, "type": "request", "method": "sim.read"}',
    b'{"id": "n3", "type": "request", "method": "sim.nothing"}',
    b'{"id": "n4", "type": "request", "method": "session.resume", "params": {"last_seq": "one"}}',
    b'{"id": "n5", "type": "request", "method": "sim.read", "meta": {"session_id": "no"}}',
)


class Wishes:
    """Makes up requests."""

    def __init__(self, world: World, features: Collection[str]) -> None:
        self._world = world
        self._random = world.chance.plan
        self._features = frozenset(features)

    def request(self, client: ClientSession) -> Request:
        """A new request of the session."""
        random, usable = self._random, self._features
        names = [name for name, (_, feature) in METHODS.items() if not feature or feature in usable]
        method = random.choices(names, [METHODS[name][0] for name in names])[0]
        doing: dict[str, Any] = {}
        if "crashes" in usable and random.random() < 0.12:  # noqa: PLR2004
            doing["fate"] = random.choice(FATES[1:])
            doing["early"] = random.random() < 0.3  # noqa: PLR2004
        if random.random() < 0.4:  # noqa: PLR2004
            doing["pushes"] = random.randint(1, 3)
        if method in PAUSING:
            doing["pause_s"] = random.choice((0.0, 0.0, 0.01, 0.3, 3.0, 12.0, LONG_S))
            doing["progress"] = random.choice((0, 0, 1, 3))
        if method == "sim.async" and "documents" in usable and random.random() < 0.5:  # noqa: PLR2004
            doing["document"] = random.choice("ab")
        return self._world.request(client, method, doing)

    def meta(self, request: Request) -> dict[str, Any]:
        """How it is sent this time."""
        meta: dict[str, Any] = {}
        if "deadlines" in self._features and self._random.random() < 0.15:  # noqa: PLR2004
            meta["deadline_ms"] = self._random.choice((1, 20, 100, 1000))
        if request.params.get("pause_s") == LONG_S:
            meta["deadline_ms"] = LONG_S * 2000
        if self._random.random() < 0.05:  # noqa: PLR2004
            meta["on_disconnect"] = "cancel"
            request.cancellable = True
        return meta
