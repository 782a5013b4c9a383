"""What happens next, by chance: what users, operators, disks and fate do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from ecan.testing.simulator.wishes import FEATURES, NONSENSE, Wishes
from ecan.testing.simulator.world import MAILBOX_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ecan.testing.simulator.model import Request
    from ecan.testing.simulator.tab import Tab
    from ecan.testing.simulator.world import World


class Plan:
    """Chooses and does one thing after the other."""

    def __init__(self, world: World, features: Collection[str] = FEATURES) -> None:
        self._world = world
        self._random = world.chance.plan
        self._wishes = Wishes(world, features)
        self._actions: list[tuple[int, str, Callable[[], None]]] = [
            (60, "", self._ask),
            (14, "", self._connect),
            (8, "", self._ask_again),
            (4, "", self._new_tab),
            (3, "sessions", self._new_client),
            (2, "sessions", self._log_out),
            (4, "leaving", self._leave),
            (2, "kill", self._world.kill),
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
        self._actions = [a for a in self._actions if not a[1] or a[1] in features]

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
            self._send(tab, self._wishes.request(tab.session))

    def _send(self, tab: Tab, request: Request) -> None:
        meta = self._wishes.meta(request)
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
                self._send(tab, self._wishes.request(tab.session))

    def _poison(self) -> None:
        """The same bad method in all sessions at once, and once more."""
        for _ in range(2):
            first = {tab.session.number: tab for tab in reversed(self._usable())}
            for tab in first.values():
                self._send(tab, self._world.request(tab.session, "sim.poison", {}))
            self._world.run_for(0.3)

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
                if not tab.bound:  # that bound it, and told of no missed push
                    tab.bound, tab.last_seq = True, None

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
            tab = self._random.choice(tabs)
            everybody = self._random.random() < 0.4  # noqa: PLR2004
            if everybody and tab.session.sid:  # and a handler will find nobody to ask
                for method, pause_s in (("sim.async", 3.0), ("sim.ask", 0.0)):
                    doing = {"pause_s": pause_s}
                    self._send(tab, self._world.request(tab.session, method, doing))
                self._world.run_for(0.2)
            for other in tab.session.tabs if everybody else (tab,):
                self._world.disconnect(other)

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
