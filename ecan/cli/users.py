# ruff: noqa: T201 - a command line prints
"""``ecan users``: accounts from the shell, while a server runs or not.

It changes the accounts file directly; a running server notices within a second and
ends the sessions of users who were locked out or got another password.
"""

from __future__ import annotations

import getpass
import json
import sys
import time
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import cyclopts

from ecan.errors import StoreError
from ecan.handlers.accounts.passwords import (
    PasswordRuleError,
    check_new_password,
    generate_password,
    hash_password,
)
from ecan.handlers.accounts.service import describe
from ecan.store.users import USERS_FILE, UserExistsError, UserNotFoundError, UserStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecan.store.users import UserRow

app = cyclopts.App(name="users", help="Accounts: add, passwd, list, disable, enable.")

DataDir = Annotated[
    Path,
    cyclopts.Parameter(
        name="--data-dir", env_var="ECAN_DATA_DIR", help="Where accounts.sqlite3 is."
    ),
]
Name = Annotated[str, cyclopts.Parameter(help="User name.")]
PasswordStdin = Annotated[
    bool,
    cyclopts.Parameter(negative="", help="Read the password from the first line of stdin."),
]
Generate = Annotated[
    bool, cyclopts.Parameter(negative="", help="Make a random password and print it.")
]

_DATA_DIR = Path("data")

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


class RefusedError(Exception):
    """The request cannot be done; one line for stderr, exit code 1."""


@app.command
def add(
    username: Name,
    /,
    *,
    role: Annotated[
        Literal["user", "admin"], cyclopts.Parameter(help="What they may do.")
    ] = "user",
    email: Annotated[str, cyclopts.Parameter(help="For people; nothing is sent.")] = "",
    name: Annotated[str, cyclopts.Parameter(help="Display name.")] = "",
    password_stdin: PasswordStdin = False,
    generate: Generate = False,
    data_dir: DataDir = _DATA_DIR,
) -> int:
    """Make an account."""

    def work(store: UserStore) -> None:
        if store.get_by_name(username) is not None:
            raise UserExistsError(username)
        password = _new_password(username, password_stdin=password_stdin, generate=generate)
        row = store.add(username, hash_password(password), role=role, email=email, name=name)
        print(f"Added {row.username} ({row.role}).")
        _show_generated(password, generate)

    return _run(data_dir, work, create=True)


@app.command
def passwd(
    username: Name,
    /,
    *,
    password_stdin: PasswordStdin = False,
    generate: Generate = False,
    data_dir: DataDir = _DATA_DIR,
) -> int:
    """Set a user's password; their sessions end."""

    def work(store: UserStore) -> None:
        row = _find(store, username)
        password = _new_password(row.username, password_stdin=password_stdin, generate=generate)
        store.set_password(row.user_id, hash_password(password))
        print(f"Changed the password of {row.username}; their sessions end.")
        _show_generated(password, generate)

    return _run(data_dir, work)


@app.command(name="list")
def list_(
    *,
    as_json: Annotated[
        bool, cyclopts.Parameter(name="--json", negative="", help="For scripts.")
    ] = False,
    data_dir: DataDir = _DATA_DIR,
) -> int:
    """Show all accounts."""

    def work(store: UserStore) -> None:
        rows = store.list_users()
        if as_json:
            print(json.dumps([describe(row) for row in rows], ensure_ascii=False, indent=2))
        elif rows:
            print(_table(rows, time.time()))
        else:
            print("No users yet. Make one: ecan users add NAME")

    return _run(data_dir, work)


@app.command
def disable(username: Name, /, *, data_dir: DataDir = _DATA_DIR) -> int:
    """Lock a user out; their sessions end."""

    def work(store: UserStore) -> None:
        row = store.set_disabled(_find(store, username).user_id, disabled=True)
        print(f"{row.username} is locked out; their sessions end.")

    return _run(data_dir, work)


@app.command
def enable(username: Name, /, *, data_dir: DataDir = _DATA_DIR) -> int:
    """Let a disabled user in again."""

    def work(store: UserStore) -> None:
        row = store.set_disabled(_find(store, username).user_id, disabled=False)
        print(f"{row.username} may log in.")

    return _run(data_dir, work)


def _run(data_dir: Path, work: Callable[[UserStore], None], *, create: bool = False) -> int:
    try:
        if not create:
            _check_there(data_dir)
        with UserStore(data_dir) as store:
            work(store)
    except (RefusedError, StoreError) as error:
        print(f"ecan users: {error}", file=sys.stderr)
        return 1
    return 0


def _check_there(data_dir: Path) -> None:
    # A mistyped --data-dir must not make an empty file somewhere.
    if not (data_dir / USERS_FILE).exists():
        raise RefusedError(f"there are no accounts in {data_dir}; see --data-dir")


def _find(store: UserStore, username: str) -> UserRow:
    row = store.get_by_name(username)
    if row is None:
        raise UserNotFoundError(username)
    return row


def _new_password(username: str, *, password_stdin: bool, generate: bool) -> str:
    if generate:
        return generate_password()
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = getpass.getpass(f"Password for {username}: ")
    else:
        raise RefusedError("no terminal to ask on; use --password-stdin or --generate")
    try:
        check_new_password(password, username)
    except PasswordRuleError as error:
        raise RefusedError(f"the password {error}") from None
    if not password_stdin and getpass.getpass("Once more: ") != password:
        raise RefusedError("the two passwords differ")
    return password


def _show_generated(password: str, generated: bool) -> None:
    if generated:
        print(f"Password: {password}")


def _table(rows: list[UserRow], now: float) -> str:
    header = ("USER", "ROLE", "STATE", "CREATED", "LAST LOGIN", "FROM", "NAME", "EMAIL")
    lines = [header, *(_line(row, now) for row in rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def _line(row: UserRow, now: float) -> tuple[str, ...]:
    return (
        row.username,
        row.role,
        "disabled" if row.disabled else "ok",
        _age(row.created_at, now),
        "never" if row.last_login_at is None else _age(row.last_login_at, now),
        row.last_login_address or "-",
        row.name or "-",
        row.email or "-",
    )


def _width(cell: str) -> int:
    """Columns of a terminal: Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in cell)


def _age(at: float, now: float) -> str:
    """How long ago, as a person would say it; beyond a month the date says more."""
    seconds = max(0.0, now - at)
    if seconds < _MINUTE:
        return "just now"
    for unit, name, limit in (
        (_MINUTE, "min", _HOUR),
        (_HOUR, "h", 2 * _DAY),
        (_DAY, "days", 31 * _DAY),
    ):
        if seconds < limit:
            return f"{seconds // unit:.0f} {name} ago"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
