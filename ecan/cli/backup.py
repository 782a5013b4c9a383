# ruff: noqa: T201 - a command line prints
"""``ecan backup`` and ``ecan restore``: all accounts, sessions and documents in one file.

They use the files that a server with this environment uses. A backup is made while it
runs; a restore needs it stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts

from ecan.config import load
from ecan.errors import ConfigError, StoreError
from ecan.store.backup import back_up
from ecan.store.choose import sqlite_path
from ecan.store.restore import read_manifest
from ecan.store.restore import restore as put_back
from ecan.store.users import USERS_FILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecan.store.archive import Manifest

_REFUSED = 1
_USAGE = 2
_PERCENT = 100
_MEGABYTE = 1_000_000

Archive = Annotated[Path, cyclopts.Parameter(help="The backup: NAME.tar, or NAME.tar.gz.")]


class RefusedError(Exception):
    """The request is not done; one line for stderr, exit code 1."""


def backup(
    file: Archive,
    /,
    *,
    force: Annotated[
        bool, cyclopts.Parameter(negative="", help="Overwrite FILE if it is there.")
    ] = False,
) -> int:
    """Copy accounts, sessions and documents into one file, while the server runs or not."""

    def work(accounts: Path, sessions: Path | None) -> None:
        manifest = back_up(file, accounts, sessions, force=force, progress=_Progress())
        print(f"Wrote {file}: {_contents(manifest)}.")
        if sessions is None:
            print("Sessions are not in it: ECAN_STORE=memory keeps them in the server's memory.")

    return _run("backup", work)


def restore(
    file: Archive,
    /,
    *,
    yes: Annotated[bool, cyclopts.Parameter(negative="", help="Do not ask.")] = False,
    without_sessions: Annotated[
        bool,
        cyclopts.Parameter(
            negative="", help="Everybody must log in again; documents are restored."
        ),
    ] = False,
) -> int:
    """Put a backup in the place of the present data, which is kept beside it; server stopped."""

    def work(accounts: Path, sessions: Path | None) -> None:
        manifest = read_manifest(file)
        print(f"{file} is of {manifest.created}: {_contents(manifest)}.")
        if not yes:
            _confirm(accounts.parent)
        done = put_back(
            file, accounts, sessions, without_sessions=without_sessions, progress=_Progress()
        )
        print(f"Restored into {accounts.parent}.")
        for kept in done.kept:
            print(f"What was there before: {kept}")

    return _run("restore", work)


def _run(name: str, work: Callable[[Path, Path | None], None]) -> int:
    try:
        settings = load()
        work(settings.data_dir / USERS_FILE, sqlite_path(settings))
    except ConfigError as error:
        print(f"ecan {name}: {error}", file=sys.stderr)
        return _USAGE
    except (RefusedError, StoreError) as error:
        print(f"ecan {name}: {error}", file=sys.stderr)
        return _REFUSED
    return 0


def _contents(manifest: Manifest) -> str:
    return ", ".join(
        f"{name} ({file.bytes / _MEGABYTE:.1f} MB)" for name, file in manifest.files.items()
    )


def _confirm(folder: Path) -> None:
    if not sys.stdin.isatty():
        raise RefusedError("no terminal to ask on; use --yes")
    try:
        answer = input(f"Replace the data in {folder}? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in {"y", "yes"}:
        raise RefusedError("nothing was changed")


class _Progress:
    """A line on a terminal, that counts up; nothing elsewhere."""

    def __init__(self) -> None:
        self._shown = ""

    def __call__(self, what: str, done: int, total: int, /) -> None:
        if not sys.stderr.isatty():
            return
        line = f"{what}: {done * _PERCENT // max(total, 1)} %"
        if line != self._shown:
            self._shown = line
            print(f"\r{line}", end="\n" if done >= total else "", file=sys.stderr, flush=True)
