"""The tables of docs/operators and of docs/developers/lifecycle.md, from the code.

``python -m ecan.testing.docs`` rewrites the pages; a test compares them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from ecan.actors.lifecycle import mermaid
from ecan.admin.table import COMMANDS, Command
from ecan.config import markdown_table
from ecan.protocol.codes import CLOSE_CODES, ERROR_CODES, may_reconnect

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent.parent


def error_table() -> str:
    """Every error code with what a client may assume."""
    rows = ["| code | retry | outcome | meaning |", "|---|---|---|---|"]
    rows += [
        f"| {code} | {'yes' if info.retryable else 'no'} | {info.outcome} | {info.doc} |"
        for code, info in ERROR_CODES.items()
    ]
    return "\n".join(rows)


def close_table() -> str:
    """Every close code and whether to reconnect."""
    rows = ["| code | name | reconnect | meaning |", "|---|---|---|---|"]
    rows += [
        f"| {int(code)} | {code.name} | {'yes' if may_reconnect(code) else 'no'} | {doc} |"
        for code, doc in CLOSE_CODES.items()
    ]
    return "\n".join(rows)


def command_table() -> str:
    """Every command of the admin socket: as words, with its params; ⚠ those that ask."""
    rows = ["| `ecan ops …` | what it does | params |", "|---|---|---|"]
    for command in COMMANDS:
        words = command.name.replace(".", " ")
        mark = f" ⚠ {command.danger}" if command.danger else ""
        rows.append(f"| `{words}` | {command.doc}{mark} | {_params(command)} |")
    return "\n".join(rows)


def _params(command: Command) -> str:
    shown = []
    for field in attrs.fields(command.params):
        name = field.name if field.default is attrs.NOTHING else f"{field.name}?"
        shown.append(f"`{name}` {field.metadata['doc']}")
    return "<br>".join(shown)


def answer_table() -> str:
    """What each command answers, as JSON."""
    rows = ["| method | result |", "|---|---|"]
    rows += [
        f"| `{command.name}` | `` {command.result.replace('|', chr(92) + '|')} `` |"
        for command in COMMANDS
    ]
    return "\n".join(rows)


TABLES: dict[str, Callable[[], str]] = {
    "settings": markdown_table,
    "errors": error_table,
    "closes": close_table,
    "commands": command_table,
    "answers": answer_table,
    "lifecycle": lambda: "```mermaid\n" + mermaid() + "```",
}

PAGES = (
    ROOT / "docs" / "operators" / "running.md",
    ROOT / "docs" / "operators" / "ops.md",
    ROOT / "docs" / "operators" / "runbook.md",
    ROOT / "docs" / "developers" / "lifecycle.md",
)


def render(page: str) -> str:
    """A page with the text between ``<!-- made: NAME -->`` and ``<!-- end -->`` made anew."""

    def fill(match: re.Match[str]) -> str:
        table = TABLES[match["name"]]().strip()
        return f"<!-- made: {match['name']} -->\n{table}\n<!-- end -->"

    return re.sub(r"<!-- made: (?P<name>\w+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


def main() -> None:
    """Rewrite the pages."""
    for page in PAGES:
        page.write_text(render(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
