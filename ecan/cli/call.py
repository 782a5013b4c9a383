"""``ecan call METHOD [JSON]``: one request from the shell."""

from __future__ import annotations

import getpass
import itertools
import json
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Self, TextIO

from cyclopts import Parameter

from ecan.config import load_client

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

REFUSED = 1
USAGE = 2
NO_CONNECTION = 3

_LOGIN = ("username", "password")

MAX_REPLY_BYTES = 64 << 20


class _ExitError(Exception):
    """Ends the command with this exit code and a line on stderr."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class _RefusedError(Exception):
    """The server answered with an error."""

    def __init__(self, error: Any) -> None:
        super().__init__(str(error))
        self.error = error


def call(
    method: str,
    params: Annotated[str, Parameter(allow_leading_hyphen=True)] = "",
    /,
    *,
    url: str | None = None,
    user: str | None = None,
    password_stdin: Annotated[bool, Parameter(negative=())] = False,
    timeout: float = 30.0,
) -> int:
    """Send one request and print its result.

    The result goes to stdout as JSON, `pending` frames to stderr as they come. With
    --user it logs in first and out afterwards; else ECAN_TOKEN and ECAN_SESSION_ID
    are used if they are set.

    Parameters
    ----------
    method:
        Name of the method, for example ping; rpc.discover lists all.
    params:
        Params as JSON; - reads them from stdin.
    url:
        Of the server; else ECAN_URL, else this machine and ECAN_WS_PORT.
    user:
        Log in as this user; asks for the password on a terminal.
    password_stdin:
        Read the password from the first line of stdin.
    timeout:
        Seconds to wait for the connection and for the answer.
    """
    try:
        if password_stdin and (user is None or params == "-"):
            _fail(USAGE, "--password-stdin needs --user, and stdin cannot be the params as well")
        if not timeout > 0:
            _fail(USAGE, "--timeout must be above 0")
        value = _read_params(params)
        password = None if user is None else _read_password(user, password_stdin)
        return _run(method, value, url, timeout, None if user is None else (user, password))
    except _RefusedError as refused:
        _write(sys.stderr, refused.error)
        return REFUSED
    except _ExitError as error:
        sys.stderr.write(f"ecan: {error}\n")
        return error.code


def _run(
    method: str,
    params: Any,
    url: str | None,
    timeout: float,
    account: tuple[str, str | None] | None,
) -> int:
    environment = load_client()
    meta: dict[str, Any] = {"token": environment.token, "session_id": environment.session_id}
    with _Client(url or environment.url, timeout) as client:
        if account is not None:
            login = client.request("login", dict(zip(_LOGIN, account, strict=True)), {})
            meta = {"token": login["token"], "session_id": login["session_id"]}
        try:
            result = client.request(method, params, meta)
        finally:
            if account is not None:
                client.leave(meta)
    _write(sys.stdout, result)
    return 0


def _fail(code: int, message: str) -> NoReturn:
    raise _ExitError(code, message)


def _read_params(text: str) -> Any:
    if text == "-":
        text = sys.stdin.read()
    if not text.strip():
        return None
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1] if text.splitlines() else ""
        start = max(0, error.colno - 40)
        _fail(
            USAGE,
            f"the params are not JSON: {error.msg} at line {error.lineno}, column {error.colno}\n"
            f"  {line[start : error.colno + 39]}\n  {' ' * (error.colno - 1 - start)}^",
        )
    except (ValueError, RecursionError) as error:
        _fail(USAGE, f"the params are not JSON: {error}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} does not exist in JSON")


def _read_password(user: str, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        _fail(USAGE, "no terminal to ask for the password; use --password-stdin")
    return getpass.getpass(f"Password of {user}: ")


def _write(stream: TextIO, value: Any) -> None:
    """As JSON: laid out for people on a terminal, one line for programs."""
    indent = 2 if stream.isatty() else None
    stream.write(json.dumps(value, ensure_ascii=False, indent=indent) + "\n")
    stream.flush()


class _Client:
    """One connection; requests one after the other."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._ids = itertools.count(1)
        self._stack = ExitStack()
        self._socket: ClientConnection

    def __enter__(self) -> Self:
        from websockets.exceptions import InvalidHandshake, InvalidURI  # noqa: PLC0415 - slow
        from websockets.sync.client import connect  # noqa: PLC0415 - `ecan --help` is quick

        try:
            self._socket = self._stack.enter_context(
                connect(
                    self._url,
                    open_timeout=self._timeout,
                    close_timeout=1,
                    compression=None,
                    max_size=MAX_REPLY_BYTES,
                    proxy=None,
                )
            )
        except InvalidURI as error:
            _fail(USAGE, f"--url: {error}")
        except (OSError, InvalidHandshake) as error:
            _fail(NO_CONNECTION, f"cannot connect to {self._url}: {str(error) or 'timed out'}")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def request(self, method: str, params: Any, meta: dict[str, Any]) -> Any:
        """The result of a request.

        Raises:
            _RefusedError: the server answered with an error.
            _ExitError: no answer in time, or the connection is gone.
        """
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415 - as above

        request_id = f"call-{next(self._ids)}-{time.time_ns()}"
        known = {key: value for key, value in meta.items() if value is not None}
        frame = {
            "id": request_id,
            "type": "request",
            "method": method,
            "params": params,
            "meta": {**known, "deadline_ms": min(self._timeout, 86400) * 1000},
        }
        try:
            self._socket.send(json.dumps(frame))
            return self._answer(request_id)
        except ConnectionClosed as closed:
            _fail(NO_CONNECTION, f"the server closed the connection: {closed}")
        except TimeoutError:
            _fail(NO_CONNECTION, f"no answer within {self._timeout:g} s")

    def _answer(self, request_id: str) -> Any:
        end = time.monotonic() + self._timeout
        while True:
            text = self._socket.recv(timeout=max(0.0, end - time.monotonic()))
            frame = json.loads(text)
            # Pushes of the session come here too; this client has no use for them.
            if frame.get("type") != "response" or frame.get("id") != request_id:
                continue
            if frame["status"] == "pending":
                _write(sys.stderr, frame.get("result"))
            elif frame["status"] == "success":
                return frame.get("result")
            else:
                raise _RefusedError(frame.get("error"))

    def leave(self, meta: dict[str, Any]) -> None:
        """Log out; if that fails the session ends by itself when it is idle."""
        try:
            self.request("logout", None, meta)
        except (_RefusedError, _ExitError) as error:
            sys.stderr.write(f"ecan: could not log out: {error}\n")
