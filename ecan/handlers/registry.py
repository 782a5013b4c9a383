"""The table of methods: what may be called, by whom, and how it runs.

A module lists its handlers in `HANDLERS`; importing it registers nothing. The
composition root hands all tables to one `Registry`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from collections.abc import Awaitable, Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import attrs
import orjson

from ecan.errors import ConfigError, ReplyError
from ecan.handlers.migrations import NO_MIGRATIONS, Migrations, gather
from ecan.handlers.state import CONCURRENT_ONLY, READS_ONLY
from ecan.handlers.structure import CONVERTER, structure_params
from ecan.protocol.codes import ErrorCode

if TYPE_CHECKING:
    from types import ModuleType

F = TypeVar("F", bound=Callable[..., Any])

Role = Literal["user", "admin"]
ROLES: tuple[Role, ...] = ("user", "admin")
"""From least to most; a method's role is the least that may call it."""


class Kind(Enum):
    """How a handler runs, told from the function itself."""

    INLINE = "inline"
    """On the loop, at once: a function that computes for microseconds."""
    ASYNC = "async"
    """A coroutine on the loop."""
    STREAM = "stream"
    """An async generator: every value leaves at once as a `pending` frame. The result is
    ``{"streamed": count}`` unless it ends with ``yield Final(result)``."""
    THREAD = "thread"
    """A plain function in a worker thread; it may block."""
    PROCESS = "process"
    """A plain function in a worker process; it may burn CPU, and is killed at its deadline."""


@attrs.frozen
class Final:
    """What a streaming handler yields last, to set the result of its request."""

    result: Any


class Scope(Enum):
    """Where a request runs."""

    CONNECTION = "connection"
    """At the gateway's lobby, without a session: login, logout, resume."""
    ANY = "any"
    """In the session if there is one, else at the lobby: ping, echo."""
    SESSION = "session"
    """Only in a session."""


@attrs.frozen(kw_only=True, eq=False)
class MethodSpec:
    """One method. Made by `handler`; read by the router, the actors and `rpc.discover`.

    Attributes:
        name: on the wire.
        name_json: the same, as JSON.
        function: as written by the author.
        kind: how it runs.
        scope: where it runs.
        params_type: attrs class or other structurable type; None if it takes no params.
        result_type: for the documentation.
        role: the least role that may call it.
        concurrent: may overlap other requests of its session; cannot write session state.
        control: passes the session's queue (control lane); implies concurrent.
        reads: changes nothing: its answer is not stored (ADR 9).
        activity: counts against the idle clock (P13).
        timeout_s: the method's own deadline, else ECAN_REQUEST_TIMEOUT.
        public: false for methods hidden from `rpc.discover`.
        migrations: of slots, of the same generation of code as the function.
        locked: why it may write no state, in words; None: it may.
    """

    name: str
    name_json: bytes
    function: Callable[..., Any]
    kind: Kind
    scope: Scope
    params_type: Any
    result_type: Any
    role: Role | None
    concurrent: bool
    control: bool
    reads: bool
    activity: bool
    timeout_s: float | None
    public: bool
    doc: str
    takes_context: bool
    credential_params: frozenset[str]
    migrations: Migrations = NO_MIGRATIONS
    locked: str | None = attrs.field(init=False)

    @locked.default
    def _why_locked(self) -> str | None:
        if self.reads:
            return READS_ONLY
        return CONCURRENT_ONLY if self.concurrent else None

    def without_credentials(self, params: Any) -> Any:
        """The params without a session id and token that the handler did not ask for.

        Credentials may travel in params (CONTRACT §2); then neither the handler nor a
        dead letter sees them, and a retry with a newer token is the same request.
        """
        if type(params) is dict and ("token" in params or "session_id" in params):
            drop = {"token", "session_id"} - self.credential_params
            return {key: value for key, value in params.items() if key not in drop}
        return params

    def structure(self, params: Any) -> Any:
        """The request's params as the declared type.

        Raises:
            ReplyError: INVALID_PARAMS with every wrong field.
        """
        if self.params_type is None:
            if params:
                raise ReplyError(
                    ErrorCode.INVALID_PARAMS,
                    f"{self.name} takes no params.",
                    details=_unexpected(params),
                )
            return None
        if params is None:
            params = {}
        if self.params_type is Any:
            return params
        return structure_params(params, self.params_type)


def _unexpected(params: Any) -> list[dict[str, str]]:
    if type(params) is dict:
        return [{"path": f"params.{key}", "problem": "unknown field"} for key in params]
    return [{"path": "params", "problem": "expected no params"}]


def handler(
    name: str,
    *,
    scope: Scope = Scope.SESSION,
    role: Role | None = None,
    inline: bool = False,
    concurrent: bool = False,
    control: bool = False,
    reads: bool = False,
    isolation: Literal["process"] | None = None,
    activity: bool = True,
    timeout_s: float | None = None,
    public: bool = True,
) -> Callable[[F], F]:
    """Marks a function as the handler of a method.

    The function takes the context and, if it needs params, one parameter annotated
    with an attrs class: ``async def add(ctx: UserContext, params: AddItem) -> Cart``.
    ``async def`` runs on the loop, ``def`` in a worker thread, an async generator
    streams. With ``isolation="process"`` it takes only the params.

    Args:
        name: of the method on the wire.
        scope: where it runs; a handler of an application keeps the default.
        role: the least role that may call it; None: every logged-in user.
        inline: run a plain function on the loop itself; for microseconds only.
        concurrent: may overlap other requests of the session; state is read-only then.
        control: passes the queue; only for methods that never wait.
        reads: it only looks. Writing state or documents and pushing are errors then, nothing
            is written to the disk for it, and a retry after the server died looks again.
        isolation: ``"process"`` for CPU-bound functions.
        activity: whether a call keeps the session from being idle.
        timeout_s: deadline in seconds if the request brings none.
        public: listed by rpc.discover.
    """

    def mark(function: F) -> F:
        function.__ecan_method__ = {  # type: ignore[attr-defined]
            "name": name,
            "scope": scope,
            "role": role,
            "inline": inline,
            "concurrent": concurrent or control,
            "control": control,
            "reads": reads,
            "isolation": isolation,
            "activity": activity,
            "timeout_s": timeout_s,
            "public": public,
        }
        return function

    return mark


def spec_of(function: Callable[..., Any], migrations: Migrations = NO_MIGRATIONS) -> MethodSpec:
    """The `MethodSpec` of a function marked with `handler`.

    Raises:
        ConfigError: the function's shape does not fit its marking.
    """
    marks = getattr(function, "__ecan_method__", None)
    if marks is None:
        raise ConfigError(
            "ECAN_HANDLERS", _where(function), 'every entry of HANDLERS needs @handler("name")'
        )
    try:
        hints = typing.get_type_hints(function)
    except Exception as error:
        raise ConfigError(
            "ECAN_HANDLERS", _where(function), f"its annotations cannot be read: {error}"
        ) from error
    parameters = list(inspect.signature(function).parameters.values())
    process = marks["isolation"] == "process"
    expected = 1 if process else 2
    if len(parameters) > expected or (not process and not parameters):
        raise ConfigError(
            "ECAN_HANDLERS",
            _where(function),
            "a process handler takes (params)"
            if process
            else "a handler takes (ctx) or (ctx, params)",
        )
    params_type = None
    if len(parameters) == expected:
        params_type = hints.get(parameters[-1].name, Any)
    kind = _kind_of(function, inline=marks["inline"], process=process)
    if marks["scope"] is not Scope.SESSION and kind not in (Kind.INLINE, Kind.ASYNC):
        raise ConfigError(
            "ECAN_HANDLERS", _where(function), "before login only inline and async handlers run"
        )
    if marks["control"] and kind is not Kind.INLINE:
        raise ConfigError("ECAN_HANDLERS", _where(function), "control handlers must be inline")
    credentials: frozenset[str] = frozenset()
    if params_type not in (None, Any) and attrs.has(params_type):
        credentials = frozenset(field.name for field in attrs.fields(params_type)) & {
            "session_id",
            "token",
        }
    if params_type not in (None, Any):
        try:
            CONVERTER.get_structure_hook(params_type)
        except Exception as error:
            raise ConfigError(
                "ECAN_HANDLERS", _where(function), f"params type {params_type!r}: {error}"
            ) from error
    return MethodSpec(
        name=marks["name"],
        name_json=orjson.dumps(marks["name"]),
        function=function,
        kind=kind,
        scope=marks["scope"],
        params_type=params_type,
        result_type=hints.get("return", Any),
        role=marks["role"],
        concurrent=marks["concurrent"],
        control=marks["control"],
        reads=marks["reads"],
        activity=marks["activity"],
        timeout_s=marks["timeout_s"],
        public=marks["public"],
        doc=inspect.getdoc(function) or "",
        takes_context=not process,
        credential_params=credentials,
        migrations=migrations,
    )


def _kind_of(function: Callable[..., Any], *, inline: bool, process: bool) -> Kind:
    is_async = inspect.iscoroutinefunction(function)
    is_stream = inspect.isasyncgenfunction(function)
    if (inline or process) and (is_async or is_stream):
        raise ConfigError(
            "ECAN_HANDLERS",
            _where(function),
            "inline and process handlers are plain functions (def), not async",
        )
    if process:
        return Kind.PROCESS
    if is_stream:
        return Kind.STREAM
    if is_async:
        return Kind.ASYNC
    return Kind.INLINE if inline else Kind.THREAD


def _where(function: Any) -> str:
    module = getattr(function, "__module__", "?")
    return f"{module}:{getattr(function, '__qualname__', repr(function))}"


class Registry:
    """All methods of a server, by name. Changes as a whole (`replace_by`), or not at all.

    Attributes:
        specs: by name; changed by `add` and `replace_by` only.
        migrations: of slots, as the modules of the methods declare them.
    """

    def __init__(
        self,
        functions: Iterable[Callable[..., Any]] = (),
        migrations: Migrations = NO_MIGRATIONS,
    ) -> None:
        self.specs: dict[str, MethodSpec] = {}
        self.migrations = migrations
        for function in functions:
            self.add(function)

    def add(self, function: Callable[..., Any]) -> None:
        """Put one handler in the table.

        Raises:
            ConfigError: a name is taken, or the function is no handler.
        """
        spec = spec_of(function, self.migrations)
        if spec.name in self.specs:
            other = _where(self.specs[spec.name].function)
            raise ConfigError(
                "ECAN_HANDLERS", _where(function), f"{spec.name} is already defined by {other}"
            )
        self.specs[spec.name] = spec

    def replace_by(self, other: Registry) -> None:
        """Have the methods of another registry from now on (ADR 12)."""
        if self.migrations is not NO_MIGRATIONS:  # which is everybody's
            self.migrations.superseded = True
        self.specs, self.migrations = other.specs, other.migrations

    def get(self, name: str) -> MethodSpec | None:
        """The method of that name, or None."""
        return self.specs.get(name)

    def __iter__(self) -> Iterator[MethodSpec]:
        return iter(self.specs.values())

    def __len__(self) -> int:
        return len(self.specs)

    def __contains__(self, name: str) -> bool:
        return name in self.specs


def load_handlers(module_name: str) -> list[Callable[..., Any]]:
    """The handlers of a module named in ECAN_HANDLERS.

    The working directory counts as a place to import from, as with ``python script.py``.

    Raises:
        ConfigError: it does not import, or has no `HANDLERS` list.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            "ECAN_HANDLERS", module_name, f"does not import: {type(error).__name__}: {error}"
        ) from error
    return handlers_of(module)


def handlers_of(module: ModuleType) -> list[Callable[..., Any]]:
    """The handlers of an imported module.

    Raises:
        ConfigError: it has no `HANDLERS` list.
    """
    table = getattr(module, "HANDLERS", None)
    if not isinstance(table, list | tuple):
        raise ConfigError(
            "ECAN_HANDLERS",
            module.__name__,
            "the module needs a list HANDLERS = [your_handler, ...]",
        )
    return list(table)


def load_registry(module_names: Iterable[str]) -> Registry:
    """The methods and migrations of modules.

    Raises:
        ConfigError: a module does not import, or two methods have one name.
    """
    names = list(module_names)
    functions = [one for name in names for one in load_handlers(name)]
    tables = [(name, getattr(sys.modules[name], "MIGRATIONS", None)) for name in names]
    return Registry(functions, gather(tables))


Handler = Callable[..., Any | Awaitable[Any]]
