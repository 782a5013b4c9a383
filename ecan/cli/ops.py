"""``ecan ops``: every command of the admin socket as words, made from `ecan.admin.table`.

Params without a default are arguments, the others options; help and completion come
from the table and the params' own words.
"""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import cyclopts

from ecan.admin.table import COMMANDS, Command
from ecan.cli.ops_run import READING, Options, run

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["app"]

_GROUPS = {
    "sessions": "Sessions: see, end, restart, push to them.",
    "queue": "What waits in a session.",
    "deadletters": "Requests that crashed their sessions.",
    "methods": "Methods: how they do, refuse one, allow it again.",
    "handlers": "The code of the methods.",
    "settings": "Settings: see them, change those that can change now.",
    "log": "How much is logged.",
    "users": "Accounts of a running server (ecan users works without one).",
    "events": "What happens, as it happens.",
}
_HOW = cyclopts.Group("How", sort_key=1)
_PASSWORD = "password"  # noqa: S105 - the name of a param
_MAX_LIMIT = 1_000_000


class _AllCommands:
    """Help of ``ecan ops``: the commands with all their words, instead of the first ones."""

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        plain = cyclopts.help.PlainFormatter()
        if panel.format != "command":
            plain(console, options, panel)
            return
        width = max(len(command.name) for command in COMMANDS)
        console.print("Commands:")
        for command in COMMANDS:
            words = command.name.replace(".", " ")
            console.print(f"  {words:{width}}  {command.doc}", overflow="ellipsis", no_wrap=True)
        console.print("\nEach has its own --help. They need a running server.")


app = cyclopts.App(
    name="ops",
    help="See and steer a running server over its admin socket.",
    help_formatter=_AllCommands(),
)


def _param(
    name: str, kind: Any, annotation: Any, default: Any = inspect.Parameter.empty
) -> inspect.Parameter:
    return inspect.Parameter(name, kind, annotation=annotation, default=default)


def _of_field(field: attrs.Attribute[Any]) -> inspect.Parameter:
    """A param of the table as an argument or an option."""
    text = field.metadata["doc"]
    text = f"{text[0].upper()}{text[1:]}."
    kind: Any = str if field.type is Any else field.type
    if field.default is attrs.NOTHING:
        spec = cyclopts.Parameter(help=text)
        return _param(field.name, inspect.Parameter.POSITIONAL_ONLY, Annotated[kind, spec])
    if field.type is Any:
        text += " As JSON."
    if field.name == "limit":
        text = "At most so many; several pages if need be."
    spec = cyclopts.Parameter(
        help=text,
        negative=(),
        consume_multiple=True if "list" in str(kind) else None,
        show_default=field.default not in {None, False},
    )
    return _param(field.name, inspect.Parameter.KEYWORD_ONLY, Annotated[kind, spec], field.default)


def _how(command: Command, *, asks_password: bool) -> list[inspect.Parameter]:
    """The options that say how to ask and show."""

    def option(name: str, annotation: Any, default: Any, **words: Any) -> inspect.Parameter:
        spec = cyclopts.Parameter(
            name=f"--{name.removeprefix('as_').replace('_', '-')}",
            group=_HOW,
            negative=(),
            show_default=default not in {None, False},
            **words,
        )
        kind = inspect.Parameter.KEYWORD_ONLY
        return _param(name, kind, Annotated[annotation, spec], default)

    rows = [option("as_json", bool, False, help="The result as one line of JSON.")]
    if command.name.rpartition(".")[2] in READING:
        rows.append(
            option(
                "watch",
                list[float] | None,
                None,
                help="Again every so many seconds (2), until Ctrl-C.",
                consume_multiple=(0, 1),
                validator=_above_zero,
            )
        )
    if command.danger:
        rows.append(option("yes", bool, False, help=f"Do not ask; it {command.danger}."))
    if asks_password:
        rows.append(
            option("password_stdin", bool, False, help="The password is the first line of stdin.")
        )
    rows.append(
        option(
            "socket",
            Path | None,
            None,
            help="Of the server; else ECAN_ADMIN_SOCKET, else ECAN_DATA_DIR/admin.sock.",
        )
    )
    if not command.stream:
        rows.append(
            option(
                "timeout", float, 60.0, help="Seconds to wait for an answer.", validator=_above_zero
            )
        )
    return rows


def _above_zero(_type: Any, value: Any) -> None:
    for number in value if isinstance(value, list) else [value]:
        if number is not None and not 0 < number <= 86400:  # noqa: PLR2004 - a day
            raise ValueError("Must be above 0 and at most 86400.")


def _function(command: Command) -> Callable[..., int]:
    """What cyclopts calls for a command: its signature is made from the params' class."""
    fields = attrs.fields(attrs.resolve_types(command.params))
    own = [field for field in fields if field.name != _PASSWORD]
    asks_password = len(own) < len(fields)
    how = _how(command, asks_password=asks_password)
    names = [field.name for field in own if field.default is attrs.NOTHING]

    def call(*args: Any, **options: Any) -> int:
        params = dict(zip(names, args, strict=True))
        given = {row.name: options.pop(row.name, row.default) for row in how}
        params.update({name: value for name, value in options.items() if value is not None})
        return run(command, params, Options(asks_password=asks_password, **given))

    # `timeout` of `drain` is the server's; the client's own has no place beside it.
    taken = {field.name for field in own}
    how[:] = [row for row in how if row.name not in taken]
    rows = sorted([*map(_of_field, own), *how], key=lambda row: row.kind)
    call.__signature__ = inspect.Signature(rows)  # type: ignore[attr-defined]
    call.__annotations__ = {row.name: row.annotation for row in rows}
    call.__doc__ = command.doc
    return call


def _build() -> None:
    @functools.cache
    def group(name: str) -> cyclopts.App:
        made = cyclopts.App(name=name, help=_GROUPS[name], help_formatter="plain")
        app.command(made)
        return made

    for command in COMMANDS:
        first, _, second = command.name.partition(".")
        parent = group(first) if second else app
        parent.command(_function(command), name=second or first, help_formatter="plain")


_build()
