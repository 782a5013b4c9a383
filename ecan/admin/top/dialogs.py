"""Questions and help, over the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, get_args

from rich.text import Text
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from ecan.admin.params import SessionState

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType

KEYS = (
    ("↑ ↓ PgUp PgDn", "choose a session; Tab goes to the other panes"),
    ("1 2 3 4 5, s", "sort by traffic, queue, restarts, memory, idle"),
    ("/", "filter by state and user, for example: failed ann"),
    ("!", "go to a session that is stuck"),
    ("e", "events or details below (a wide screen has both)"),
    ("m d", "methods; dead letters; again: back to sessions"),
    ("k r v", "kill, restart, revive the session"),
    ("p", "pause its queue or let it go on; suspend a method"),
    ("P", "passivate the session"),
    ("D", "drain: the server finishes what runs and stops"),
    ("+ -", "look more often, less often"),
    ("? q", "this help; quit"),
)

STATES: tuple[str, ...] = get_args(SessionState)


class Confirm(ModalScreen[bool]):
    """A question about something dangerous; y, or anything else."""

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """The question, and the two answers."""
        with Vertical(classes="dialog"):
            yield Static(Text(self._question), id="question")
            yield Static(Text.assemble(("y", "bold"), " yes   ", ("n", "bold"), " no"))

    def on_key(self, event: object) -> None:
        """Only y is a yes."""
        key = getattr(event, "key", "")
        event.stop()  # type: ignore[attr-defined]
        if key in {"y", "Y"}:
            self.dismiss(True)
        elif key in {"n", "N", "escape", "q", "enter"}:
            self.dismiss(False)


class Help(ModalScreen[None]):
    """The keys."""

    def compose(self) -> ComposeResult:
        """One line each."""
        with Vertical(classes="dialog"):
            lines = [Text.assemble((f"{keys:15}", "bold"), what) for keys, what in KEYS]
            yield Static(Text("\n").join(lines))

    def on_key(self, event: object) -> None:
        """Any key closes it."""
        event.stop()  # type: ignore[attr-defined]
        self.dismiss()


class Filter(ModalScreen[str | None]):
    """Which sessions."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "cancel", "Cancel")]

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words

    def compose(self) -> ComposeResult:
        """One line to write in."""
        with Vertical(classes="dialog"):
            yield Static(Text(f"State ({', '.join(STATES)}) and user; empty: all"))
            yield Input(self._words, placeholder="failed ann")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter."""
        self.dismiss(event.value)

    def action_cancel(self) -> None:
        """Leave it as it was."""
        self.dismiss(None)


def parse_filter(words: str) -> dict[str, str]:
    """Params of `sessions.list` for what was written.

    >>> parse_filter("failed ann")
    {'state': 'failed', 'user': 'ann'}
    """
    chosen = {}
    for word in words.split():
        chosen["state" if word in STATES else "user"] = word
    return chosen
