"""A list of lines with a heading and a cursor that stays on its row when the order changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual.containers import Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from ecan.admin.render import Column, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual.app import ComposeResult
    from textual.events import Resize

_MARGIN = 3
"""A scroll bar and a column of air on each side."""


class Lines(Vertical):
    """Rows as lines that fit the width.

    Args:
        key: names a row, so that the cursor can follow it.
        empty: shown when there are no rows.
    """

    def __init__(self, key: str, empty: str, **options: Any) -> None:
        super().__init__(**options)
        self.rows: list[dict[str, Any]] = []
        self._key = key
        self._empty = empty
        self._columns: Sequence[Column] = ()
        self._style: Callable[[dict[str, Any]], str] = lambda _row: ""
        self._shown: list[Text] = []
        self._heading = Static(classes="heading")
        self._list = OptionList(markup=False)

    def compose(self) -> ComposeResult:
        """A heading above a list."""
        yield self._heading
        yield self._list

    @property
    def selected(self) -> dict[str, Any] | None:
        """The row under the cursor."""
        index = self._list.highlighted
        return self.rows[index] if index is not None and index < len(self.rows) else None

    def take_focus(self) -> None:
        """Keys go here."""
        self._list.focus()

    def go_to(self, key: str) -> bool:
        """Put the cursor on a row; False: it is not here."""
        for index, row in enumerate(self.rows):
            if row[self._key] == key:
                self._list.highlighted = index
                return True
        return False

    def show(
        self,
        columns: Sequence[Column],
        rows: list[dict[str, Any]],
        style: Callable[[dict[str, Any]], str] | None = None,
    ) -> None:
        """Other rows; the cursor stays on the row it is on."""
        selected = self.selected
        self.rows, self._columns = rows, columns
        if style is not None:
            self._style = style
        self._draw()
        if not rows:
            return
        if selected is None or not self.go_to(selected[self._key]):
            index = self._list.highlighted or 0
            self._list.highlighted = min(index, len(rows) - 1)

    def on_resize(self, _event: Resize) -> None:
        """The same rows in another width."""
        self._draw()

    def _draw(self) -> None:
        if not self._columns or self.size.width < 1:
            return
        heading, *lines = table(self._columns, self.rows, self.size.width - _MARGIN)
        heading.pad_left(1)
        self._heading.update(heading if self.rows else Text(f" {self._empty}", "dim"))
        for row, line in zip(self.rows, lines, strict=True):
            line.stylize_before(self._style(row))
        self._replace(lines)

    def _replace(self, lines: list[Text]) -> None:
        """Touch only what changed: that keeps the scroll position, and is little over ssh."""
        there = self._list
        while there.option_count > len(lines):
            there.remove_option_at_index(there.option_count - 1)
        for index in range(there.option_count):
            if lines[index] != self._shown[index] or lines[index].spans != self._shown[index].spans:
                there.replace_option_prompt_at_index(index, lines[index])
        there.add_options([Option(line) for line in lines[there.option_count :]])
        self._shown = lines
