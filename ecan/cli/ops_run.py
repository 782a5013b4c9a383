"""What ``ecan ops`` does with a command: ask, send, show; exit codes of CONTRACT §8."""

from __future__ import annotations

import getpass
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import attrs
from rich.console import Console

from ecan.admin.client import Client, ClientError, NoServerError, RefusedError
from ecan.admin.columns import event_line
from ecan.admin.render import WIDE, clean
from ecan.admin.views import Paper, view
from ecan.config import load_client

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rich.text import Text

    from ecan.admin.table import Command

DONE, REFUSED, USAGE, NO_CONNECTION, INTERRUPTED = 0, 1, 2, 3, 130

READING = frozenset({"status", "metrics", "list", "show", "get"})
"""Last words of the commands that change nothing; these can be watched."""

_WATCH_S = 2.0
_MAX_PAGE = 1000
_CLEAR = "\x1b[H\x1b[2J"


class UsageError(Exception):
    """One line for stderr, exit code 2."""


@attrs.frozen(kw_only=True)
class Options:
    """How to ask and show; see the help of `ecan.cli.ops`."""

    as_json: bool = False
    watch: list[float] | None = None
    yes: bool = False
    asks_password: bool = False
    password_stdin: bool = False
    socket: Path | None = None
    timeout: float = 60.0


def run(command: Command, params: dict[str, Any], options: Options) -> int:
    """One command from the shell, to its exit code."""
    try:
        _check(command, params)
        if options.asks_password:
            params["password"] = _password(params["username"], options)
        if command.danger and not options.yes and not _confirmed(command, params):
            sys.stderr.write("ecan: nothing was done\n")
            return REFUSED
        _answer(command, params, options)
        sys.stdout.flush()
    except (UsageError, ClientError) as error:
        return _failed(error, as_json=options.as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # `ecan ops … | head`: whoever read has enough. The interpreter must not try again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def _check(command: Command, params: dict[str, Any]) -> None:
    """What the types do not say."""
    if command.name == "sessions.push":
        if "params" in params:
            params["params"] = _json(params["params"])
        _one_of(params, "sid", "user", "all")
    elif command.name == "queue.drop":
        _one_of(params, "request_id", "all")


def _one_of(params: dict[str, Any], *names: str) -> None:
    if sum(bool(params.get(name)) for name in names) != 1:
        options = " or ".join("--" + name.replace("_", "-") for name in names)
        raise UsageError(f"give one of {options}")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"--params is not JSON: {error}") from None


def _password(username: str, options: Options) -> str:
    if options.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise UsageError("no terminal to ask for the password; use --password-stdin")
    password = getpass.getpass(f"Password for {username}: ")
    if getpass.getpass("Once more: ") != password:
        raise UsageError("the two passwords differ")
    return password


def _confirmed(command: Command, params: dict[str, Any]) -> bool:
    words = " ".join([command.name.replace(".", " "), *_named(params)])
    if not sys.stdin.isatty():
        raise UsageError(f"{words} {command.danger}; no terminal to ask on, so it needs --yes")
    sys.stderr.write(f"{words}: {command.danger}. Go on? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _named(params: dict[str, Any]) -> list[str]:
    return [str(params[name]) for name in ("sid", "id", "method", "username") if name in params]


def _answer(command: Command, params: dict[str, Any], options: Options) -> None:
    path = options.socket or load_client().admin_socket
    if options.watch is None:
        with Client(path, options.timeout) as client:
            if command.stream:
                _stream(client, command, params, as_json=options.as_json)
            else:
                _show(command, _ask(client, command.name, params), as_json=options.as_json)
        return
    every = options.watch[0] if options.watch else _WATCH_S
    while True:
        started = time.monotonic()
        with Client(path, options.timeout) as client:
            result = _ask(client, command.name, params)
        if sys.stdout.isatty() and not options.as_json:
            sys.stdout.write(f"{_CLEAR}{time.strftime('%H:%M:%S')}  every {every:g} s\n\n")
        _show(command, result, as_json=options.as_json)
        sys.stdout.flush()
        time.sleep(max(0.0, started + every - time.monotonic()))


def _ask(client: Client, name: str, params: dict[str, Any]) -> Any:
    """The answer; of a list, as many pages as the limit asks for."""
    limit = params.get("limit")
    if limit is None or limit <= _MAX_PAGE:
        return client.call(name, params)
    result = client.call(name, {**params, "limit": _MAX_PAGE})
    rows = next(value for value in result.values() if isinstance(value, list))
    while result["cursor"] and len(rows) < limit:
        more = {"cursor": result["cursor"], "limit": min(_MAX_PAGE, limit - len(rows))}
        page = client.call(name, {**params, **more})
        rows += next(value for value in page.values() if isinstance(value, list))
        result["cursor"] = page["cursor"]
    return result


def _show(command: Command, result: Any, *, as_json: bool) -> None:
    if as_json:
        _write_json(result)
        return
    paper = Paper(now=time.time(), width=_width())
    _write(view(command.name, result, paper))


def _stream(client: Client, command: Command, params: dict[str, Any], *, as_json: bool) -> None:
    for event in client.watch(command.name, params):
        if as_json:
            _write_json(event)
        else:
            _write([event_line(event, time.time())])
        sys.stdout.flush()


def _width() -> int:
    if not sys.stdout.isatty():
        return WIDE
    return Console(file=sys.stdout).width


def _write(lines: Iterable[Text]) -> None:
    """Colours on a terminal that has them, unless NO_COLOR is set."""
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        sys.stdout.writelines(line.plain + "\n" for line in lines)
        return
    for line in lines:
        console.print(line, soft_wrap=True)


def _write_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def _failed(error: Exception, *, as_json: bool) -> int:
    """Say it on stderr; the exit code."""
    if isinstance(error, RefusedError) and as_json:
        sys.stderr.write(json.dumps(error.error, ensure_ascii=False) + "\n")
        return REFUSED
    sys.stderr.write(f"ecan: {clean(error, lines=True)}\n")
    data = error.error.get("data") if isinstance(error, RefusedError) else None
    details = data.get("details") if isinstance(data, dict) else data
    if details:
        text = details if isinstance(details, str) else json.dumps(details, ensure_ascii=False)
        sys.stderr.write(f"  {clean(text, lines=True)}\n")
    if isinstance(error, UsageError):
        return USAGE
    return NO_CONNECTION if isinstance(error, NoServerError) else REFUSED
