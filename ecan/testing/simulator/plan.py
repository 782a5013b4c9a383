"""What happens next, by chance: what users, operators, disks and fate do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from ecan.testing.simulator.methods import FATES
from ecan.testing.simulator.world import MAILBOX_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ecan.testing.simulator.model import Request
    from ecan.testing.simulator.tab import ClientSession, Tab
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


class Plan:
    """Chooses and does one thing after the other."""

    def __init__(self, world: World, features: Collection[str] = FEATURES) -> None:
        self._world = world
        self._random = world.chance.plan
        self._features = frozenset(features)
        self._actions: list[tuple[int, str, Callable[[], None]]] = [
            (60, "", self._ask),
            (14, "", self._connect),
            (8, "", self._ask_again),
            (4, "", self._new_tab),
            (3, "sessions", self._new_client),
            (2, "sessions", self._log_out),
            (4, "leaving", self._leave),
            (2, "kill", self._kill),
            (1, "drain", self._drain),
            (3, "faults", self._break_store),
            (3, "faults", self._mend_store),
            (3, "operators", self._steer),
            (1, "supervisor", self._world.crash_supervisor),
            (4, "cancel", self._cancel),
            (3, "cancel", self._call_session),
            (2, "idle", self._idle),
            (1, "slow", self._slow),
            (2, "nonsense", self._nonsense),
            (1, "nonsense", self._reuse_id),
            (1, "flood", self._flood),
            (1, "poison", self._poison),
            (2, "documents", self._contend),
        ]
        self._actions = [a for a in self._actions if not a[1] or a[1] in self._features]

    def populate(self) -> None:
        """How many are there when it begins."""
        for number in range(self._random.choice((1, 1, 2, 7))):
            self._world.new_client(number % 3 + 1)
        self._world.run_for(1.0)

    def step(self) -> None:
        """Do one thing, then let some time pass."""
        weights = [weight for weight, _, _ in self._actions]
        _, _, action = self._random.choices(self._actions, weights)[0]
        action()
        kind = self._random.random()
        if kind < 0.35:  # noqa: PLR2004 - in the middle of things
            self._world.run_callbacks(self._random.randint(0, 40))
        elif kind < 0.75:  # noqa: PLR2004
            self._world.run_for(self._random.random() * 0.05)
        elif kind < 0.96:  # noqa: PLR2004
            self._world.run_for(self._random.random() * 1.5)
        else:
            self._world.run_for(self._random.random() * 20)

    # -- requests ----------------------------------------------------------------------

    def _usable(self) -> list[Tab]:
        """Tabs that can ask something of their session."""
        return [tab for tab in self._world.tabs if tab.link is not None and tab.session.sid]

    def _ask(self) -> None:
        tabs = self._usable()
        if not tabs:
            self._connect()
            return
        tab = self._random.choice(tabs)
        for _ in range(self._random.choice((1, 1, 1, 2, 4))):
            self._send(tab, self._request(tab.session))

    def _request(self, client: ClientSession) -> Request:
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

    def _send(self, tab: Tab, request: Request) -> None:
        meta: dict[str, Any] = {}
        if "deadlines" in self._features and self._random.random() < 0.15:  # noqa: PLR2004
            meta["deadline_ms"] = self._random.choice((1, 20, 100, 1000))
        if request.params.get("pause_s") == LONG_S:
            meta["deadline_ms"] = LONG_S * 2000
        if self._random.random() < 0.05:  # noqa: PLR2004
            meta["on_disconnect"] = "cancel"
            request.cancellable = True
        self._bind(tab, meta)
        tab.ask(request, **meta)

    @staticmethod
    def _bind(tab: Tab, meta: dict[str, Any]) -> None:
        """A request with credentials binds its connection, and tells of no missed push."""
        if not tab.bound and not tab.resuming:
            meta.update(tab.credentials())
            tab.bound = True
            tab.last_seq = None

    def _ask_again(self) -> None:
        """The same request once more: because no answer came, or out of habit."""
        tabs = [tab for tab in self._usable() if tab.session.requests]
        if not tabs:
            return
        tab = self._random.choice(tabs)
        asked = list(tab.waiting.values()) or tab.session.requests
        if self._random.random() < 0.3:  # noqa: PLR2004 - any, of any of its tabs, however old
            asked = tab.session.requests
        self._world.trace.count("asked.again")
        self._send(tab, self._random.choice(asked))

    def _reuse_id(self) -> None:
        """Another request under an id whose answer is durable."""
        tabs = [tab for tab in self._usable() if any(r.final for r in tab.session.requests)]
        if tabs:
            tab = self._random.choice(tabs)
            request = self._random.choice([r for r in tab.session.requests if r.final])
            meta: dict[str, Any] = {}
            self._bind(tab, meta)
            other = {**request.params, "pushes": 7}
            frame = {"id": request.id, "type": "request", "method": request.method}
            assert tab.link is not None
            tab.link.send(orjson.dumps({**frame, "params": other, "meta": meta}))

    def _flood(self) -> None:
        tabs = self._usable()
        if tabs:
            tab = self._random.choice(tabs)
            for _ in range(self._random.choice((10, 40))):
                self._send(tab, self._request(tab.session))

    def _poison(self) -> None:
        """The same bad method in all sessions at once."""
        for client in self._world.clients:
            tabs = [tab for tab in client.tabs if tab.link is not None and client.sid]
            if tabs:
                self._send(tabs[0], self._world.request(client, "sim.poison", {}))

    def _contend(self) -> None:
        """Two sessions of one user write the same document, one of them all the time."""
        tabs = self._usable()
        pairs = [
            (one, other)
            for one in tabs
            for other in tabs
            if one.session is not other.session and one.session.user_id == other.session.user_id
        ]
        if pairs:
            one, other = self._random.choice(pairs)
            doing = {"document": "a", "pause_s": 0.3}
            self._send(one, self._world.request(one.session, "sim.async", doing))
            for _ in range(MAILBOX_SIZE):
                self._send(other, self._world.request(other.session, "sim.async", doing))

    def _nonsense(self) -> None:
        tabs = [tab for tab in self._world.tabs if tab.link is not None]
        if tabs:
            tab = self._random.choice(tabs)
            assert tab.link is not None
            tab.link.send(self._random.choice(NONSENSE))
            if tab.session.sid and self._random.random() < 0.3:  # noqa: PLR2004
                tab.call("sim.read", {"tag": "n"}, session_id=tab.session.session_id)
                tab.call("sim.read", {"tag": "n"}, **{**tab.credentials(), "token": "stolen"})
                tab.call("sim.read", {"tog": "n"}, **tab.credentials())
                tab.bound = True

    def _cancel(self) -> None:
        tabs = [tab for tab in self._usable() if tab.session.requests and tab.bound]
        if tabs:
            tab = self._random.choice(tabs)
            asked = list(tab.waiting.values()) or tab.session.requests
            request = self._random.choice(asked)
            request.cancellable = True
            tab.call("session.cancel", {"request_id": request.id})

    def _call_session(self) -> None:
        tabs = [tab for tab in self._usable() if tab.bound]
        if tabs:
            tab = self._random.choice(tabs)
            if self._random.random() < 0.25:  # noqa: PLR2004
                tab.refresh()
            else:
                method = self._random.choice(("session.info", "session.list", "session.keep"))
                tab.call(method, {})

    # -- tabs and sessions -------------------------------------------------------------

    def _connect(self) -> None:
        tabs = [tab for tab in self._world.tabs if not tab.bound or tab.link is None]
        tabs = [tab for tab in tabs if not tab.session.ended]
        if not tabs:
            if not self._world.clients:
                self._new_client()
            return
        tab = self._random.choice(tabs)
        if tab.link is None:
            self._world.connect(tab)
        if tab.session.sid:
            if not tab.resuming:
                tab.resume()
        else:
            tab.login()

    def _new_client(self) -> None:
        self._world.new_client(self._random.choice((1, 1, 2, 3)))

    def _new_tab(self) -> None:
        clients = [client for client in self._world.clients if client.sid and not client.ended]
        if clients:
            client = self._random.choice(clients)
            if len(client.tabs) < 3:  # noqa: PLR2004 - as people have
                self._world.new_tab(client).resume()

    def _leave(self) -> None:
        tabs = [tab for tab in self._world.tabs if tab.link is not None]
        if tabs:
            self._world.disconnect(self._random.choice(tabs))

    def _log_out(self) -> None:
        tabs = [tab for tab in self._usable() if tab.bound]
        if tabs:
            tab = self._random.choice(tabs)
            if self._random.random() < 0.5:  # noqa: PLR2004
                tab.call("logout", {}, **tab.credentials())
            else:
                mine = [c for c in self._world.clients if c.user_id == tab.session.user_id]
                tab.call("session.close", {"sid": self._random.choice(mine).sid or "none"})

    def _slow(self) -> None:
        tabs = [tab for tab in self._world.tabs if tab.link is not None]
        if tabs:
            tab = self._random.choice(tabs)
            assert tab.link is not None
            tab.link.be_slow(slow=True)
            self._world.trace.add("tab.slow", str(tab))

    def _idle(self) -> None:
        self._world.trace.add("idle")
        self._world.run_for(self._random.choice((40.0, 100.0, 650.0, 1000.0)))

    # -- the server's side -------------------------------------------------------------

    def _kill(self) -> None:
        self._world.kill()

    def _drain(self) -> None:
        if not self._world.faults.broken:
            self._world.shut_down()

    def _break_store(self) -> None:
        faults = self._world.faults
        kind = self._random.choice(("broken", "broken", "unreadable", "slow"))
        setattr(faults, kind, True)
        self._world.trace.add(f"store.is_{kind}")
        if kind == "broken" and self._random.random() < 0.4:  # noqa: PLR2004 - a hiccup
            self._world.run_for(self._random.random() * 0.05)
            faults.broken = False

    def _mend_store(self) -> None:
        faults = self._world.faults
        faults.broken = faults.unreadable = faults.slow = False

    def _steer(self) -> None:
        clients = [client for client in self._world.clients if client.sid]
        if clients:
            command = self._random.choice(
                ("restart", "restart", "passivate", "revive", "revive", "reset", "kill")
            )
            self._world.steer(self._random.choice(clients).sid, command)
