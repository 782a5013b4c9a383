"""The screen of ``ecan top``: what is where, and what the keys do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.app import App
from textual.containers import Container, VerticalScroll
from textual.widgets import ContentSwitcher, OptionList, RichLog, Static

from ecan.admin.biography import biography, letter
from ecan.admin.client import AsyncClient, ClientError, RefusedError
from ecan.admin.columns import event_line, letter_columns, method_columns, session_columns
from ecan.admin.render import clean, pairs
from ecan.admin.table import BY_NAME
from ecan.admin.top.dialogs import Confirm, Filter, Help, parse_filter
from ecan.admin.top.feed import Feed
from ecan.admin.top.lines import Lines
from ecan.admin.top.readings import Readings
from ecan.admin.top.summary import summary

if TYPE_CHECKING:
    from pathlib import Path

    from textual.app import ComposeResult
    from textual.binding import BindingType

SORTS = {"1": "traffic", "2": "queue", "3": "restarts", "4": "bytes", "5": "idle"}
_TITLES = {
    "traffic": "REQ/S",
    "queue": "QUEUE",
    "restarts": "RESTARTS",
    "bytes": "STATE SIZE",
    "idle": "IDLE",
}
_LIMIT = 200
_EVENTS = 500
_PACES_S = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_HINTS = (
    ("?", "help"), ("q", "quit"), ("1-5", "sort"), ("/", "filter"), ("e", "events"),
    ("m", "methods"), ("d", "letters"), ("krvpPD", "act"),
)  # fmt: skip


class TopApp(App[None]):
    """Sessions above, the one under the cursor and the events below or beside them.

    Args:
        path: of the admin socket.
        every_s: from look to look.
    """

    CSS_PATH = "top.tcss"
    TITLE = "ecan top"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012 - as textual wants it
    BINDINGS: ClassVar[list[BindingType]] = [
        *[(key, f"sort('{name}')", f"sort by {name}") for key, name in SORTS.items()],
        ("s", "sort_next", "next order"),
        ("slash", "filter", "filter"),
        ("exclamation_mark", "stuck", "stuck session"),
        ("e", "events", "events"),
        ("m", "view('methods')", "methods"),
        ("d", "view('letters')", "dead letters"),
        ("k", "act('sessions.kill')", "kill"),
        ("r", "act('sessions.restart')", "restart"),
        ("v", "act('sessions.revive')", "revive"),
        ("P", "act('sessions.passivate')", "passivate"),
        ("p", "pause", "pause or resume"),
        ("D", "drain", "drain"),
        ("plus,equals_sign", "pace(-1)", "more often"),
        ("minus", "pace(1)", "less often"),
        ("question_mark", "help", "help"),
        ("q", "quit", "quit"),
    ]

    def __init__(self, path: Path, every_s: float = 1.0) -> None:
        super().__init__()
        self.feed = Feed(path, every_s)
        self.readings = Readings()
        self.status: dict[str, Any] | None = None
        self.sort = "traffic"
        self.filter = ""
        self._summary = Static(id="summary")
        self._lists = {
            "sessions": Lines("sid", "No sessions.", id="sessions"),
            "methods": Lines("method", "No methods.", id="methods"),
            "letters": Lines("id", "No dead letters.", id="letters"),
        }
        self._switch = ContentSwitcher(*self._lists.values(), initial="sessions")
        self._page = Static()
        self._detail = VerticalScroll(self._page, id="detail")
        self._events = RichLog(id="events", max_lines=_EVENTS, wrap=False, min_width=20)
        self._hints = Static(id="hints")

    # -- what is where ---------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Summary, lists, details, events, keys."""
        yield self._summary
        with Container(id="body"):
            yield self._switch
            yield self._detail
            yield self._events
        yield self._hints

    def on_mount(self) -> None:
        """Begin to look."""
        self._detail.border_title = "details"
        self._events.border_title = "events"
        self._summary.update(Text(f"connecting to {self.feed.path} …"))
        self._lists["sessions"].take_focus()
        line = Text("  ").join(Text.assemble((key, "bold"), " ", what) for key, what in _HINTS)
        self._hints.update(line)
        self.run_worker(self.feed.look(self._look, self._lost), group="look")
        self.run_worker(self.feed.listen(self._heard), group="events")

    @property
    def view(self) -> str:
        """sessions, methods or letters."""
        return self._switch.current or "sessions"

    @property
    def rows(self) -> Lines:
        """The list that is shown."""
        return self._lists[self.view]

    # -- looking ---------------------------------------------------------------------------

    async def _look(self, client: AsyncClient) -> None:
        status = await client.call("status")
        metrics = await client.call("metrics")
        self.status = status
        self.readings.look(status, metrics["text"])
        self.screen_stack[0].remove_class("lost")
        lines = summary(status, self.readings, self.size.width - 2, self._chosen())
        self._summary.update(Text("\n").join(lines))
        try:
            await self._look_at_list(client)
            await self._look_at_one(client)
        except RefusedError as refused:
            self._page.update(Text(clean(refused), "dim"))

    async def _look_at_list(self, client: AsyncClient) -> None:
        now = time.time()
        if self.view == "methods":
            found = await client.call("methods.list")
            self._lists["methods"].show(method_columns(), found["methods"])
        elif self.view == "letters":
            found = await client.call("deadletters.list", {"limit": _LIMIT})
            self._lists["letters"].show(letter_columns(now), found["letters"])
        else:
            params = {"sort": self.sort, "limit": _LIMIT, **parse_filter(self.filter)}
            found = await client.call("sessions.list", params)
            self._show_sessions(found["sessions"], now)

    def _show_sessions(self, rows: list[dict[str, Any]], now: float) -> None:
        stuck = self._stuck()
        # A session that is stuck is what one looks for: it comes first.
        rows.sort(key=lambda row: row["sid"] not in stuck)
        columns = session_columns(now, mark=_TITLES[self.sort], stuck=stuck)
        self._lists["sessions"].show(
            columns, rows, lambda row: "bold red" if row["sid"] in self._stuck() else ""
        )

    async def _look_at_one(self, client: AsyncClient) -> None:
        row = self.rows.selected
        width = max(20, self._detail.size.width - 3)
        now = time.time()
        if row is None:
            lines = [Text("nothing chosen", "dim")]
        elif self.view == "sessions":
            shown = await client.call("sessions.show", {"sid": row["sid"]})
            lines = biography(shown, now, width, running_first=True)
        elif self.view == "letters":
            lines = letter(await client.call("deadletters.show", {"id": row["id"]}), now, width)
        else:
            facts = ((name.replace("_", " "), row[name]) for name in row)
            lines = pairs((name, "-" if value is None else clean(value)) for name, value in facts)
        self._page.update(Text("\n").join(lines))

    def _lost(self, why: str) -> None:
        self.screen_stack[0].add_class("lost")
        head = Text.assemble(
            ("no server", "bold white on red"), " retrying …\n", (clean(why), "red")
        )
        self._summary.update(head)

    def _heard(self, event: dict[str, Any]) -> None:
        self._events.write(event_line(event, time.time()))

    def _stuck(self) -> dict[str, dict[str, Any]]:
        return {
            stall["sid"]: stall
            for stall in (self.status or {}).get("stalled", [])
            # What was abandoned burns a thread; its session goes on.
            if not stall.get("abandoned")
        }

    def on_option_list_option_highlighted(self, _event: OptionList.OptionHighlighted) -> None:
        """Another row: its details now, not at the next look."""
        self.feed.poke()

    def on_resize(self) -> None:
        """Sparklines and pages as wide as the screen."""
        self.feed.poke()

    def _chosen(self) -> str:
        words = f"by {self.sort}, {self.feed.every_s:g} s"
        return f"only {self.filter}, {words}" if self.filter else words

    # -- keys ------------------------------------------------------------------------------

    def action_sort(self, name: str) -> None:
        """Order the sessions."""
        self.sort = name
        self.feed.poke()

    def action_sort_next(self) -> None:
        """The order after this one."""
        names = list(SORTS.values())
        self.action_sort(names[(names.index(self.sort) + 1) % len(names)])

    def action_filter(self) -> None:
        """Ask which sessions."""

        def chosen(words: str | None) -> None:
            if words is not None:
                self.filter = words.strip()
                self.feed.poke()

        self.push_screen(Filter(self.filter), chosen)

    def action_stuck(self) -> None:
        """Go to a session that is stuck."""
        self.action_view("sessions", stay=True)
        if not any(self.rows.go_to(sid) for sid in self._stuck()):
            self.notify("no session here is stuck")

    def action_events(self) -> None:
        """Events instead of details, or the other way round."""
        self.screen_stack[0].toggle_class("show-events")

    def action_view(self, name: str, *, stay: bool = False) -> None:
        """Another list; the same again leads back to the sessions."""
        back = self.view == name and not stay
        self._switch.current = "sessions" if back else name
        self.rows.take_focus()
        self.feed.poke()

    def action_pace(self, step: int) -> None:
        """Look more or less often."""
        faster = [pace for pace in _PACES_S if pace < self.feed.every_s]
        slower = [pace for pace in _PACES_S if pace > self.feed.every_s]
        pick = faster[-1:] if step < 0 else slower[:1]
        self.feed.every_s = pick[0] if pick else self.feed.every_s
        self.feed.poke()

    def action_help(self) -> None:
        """The keys."""
        self.push_screen(Help())

    def action_act(self, command: str) -> None:
        """Ask, then do something to the session under the cursor."""
        row = self._lists["sessions"].selected
        if self.view != "sessions" or row is None:
            self.notify("choose a session first")
            return
        self._ask(command, {"sid": row["sid"]}, f"session {row['sid']} of {row['user']}")

    def action_pause(self) -> None:
        """Hold the queue of a session, or let it go on; in the methods: suspend, resume."""
        row = self.rows.selected
        if self.view == "methods" and row:
            verb = "resume" if row["suspended"] else "suspend"
            self._ask(f"methods.{verb}", {"method": row["method"]}, f"method {row['method']}")
        elif self.view == "sessions" and row:
            self.action_act("queue.resume" if row["paused"] else "queue.pause")

    def action_drain(self) -> None:
        """Stop the server gently."""
        self._ask("drain", {}, "the server")

    def _ask(self, command: str, params: dict[str, Any], what: str) -> None:
        entry = BY_NAME[command]
        verb = command.rpartition(".")[2].capitalize()
        words = f"It {entry.danger}." if entry.danger else entry.doc

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(self._do(command, params, f"{verb} {clean(what)}"), group="act")

        self.push_screen(Confirm(f"{verb} {clean(what)}?\n{words}"), answered)

    async def _do(self, command: str, params: dict[str, Any], what: str) -> None:
        try:
            await self.feed.command(command, params)
        except ClientError as error:
            self.notify(f"{what}: {error}", severity="error", markup=False)
        else:
            self.notify(f"{what}: done", markup=False)
        self.feed.poke()
