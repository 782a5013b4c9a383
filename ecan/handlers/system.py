"""What a client may ask before it logs in: is anyone there, who, and what can you do."""

# ruff: noqa: ARG001 - a handler's parameters are its signature on the wire

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict
from weakref import WeakKeyDictionary

from ecan import __version__
from ecan.handlers.context import HandlerContext, UserContext
from ecan.handlers.registry import Kind, MethodSpec, Registry, Scope, handler
from ecan.protocol.schema import MethodDoc, openrpc

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "eCan.ai Web"

PROTOCOL = "1"
"""Of CONTRACT.md §2; grows when a client has to know."""

PUBLIC_STATUS = ("status", "mode", "version", "sessions", "uptime_s", "draining")
"""Of `Server.status`, what everybody may see; the rest is for admins."""


class Pong(TypedDict):
    """The server is there; in a session also how the session is."""

    pong: bool
    time: int
    tabs: NotRequired[int]
    incarnation: NotRequired[int]
    restarts: NotRequired[int]


class Version(TypedDict):
    """Which server this is."""

    version: str
    name: str
    protocol: str


class Health(TypedDict):
    """As `GET /health`."""

    status: str
    mode: str
    sessions: int


class InitializationProgress(TypedDict):
    """How far the start has come; the web server answers only when it is ready.

    The five flags are those the existing eCan.ai client polls for.
    """

    ready: bool
    progress: int
    stage: str
    message: str
    ui_ready: bool
    critical_services_ready: bool
    sync_init_complete: bool
    async_init_complete: bool
    fully_ready: bool


@handler("ping", scope=Scope.ANY, inline=True, reads=True, control=True, activity=False)
def ping(ctx: HandlerContext, params: Any) -> Pong:
    """Answers at once, past everything that waits; keeps no session alive."""
    now = time.time_ns() // 1_000_000
    if isinstance(ctx, UserContext):
        return {"pong": True, "time": now, **ctx.session.brief()}  # type: ignore[typeddict-item]
    return {"pong": True, "time": now}


@handler("echo", scope=Scope.ANY, inline=True, reads=True)
def echo(ctx: HandlerContext, params: Any) -> Any:
    """Returns its params, without credentials."""
    return params


@handler("get_version", scope=Scope.ANY, inline=True, reads=True, concurrent=True, activity=False)
def get_version(ctx: HandlerContext) -> Version:
    """Which server this is, and which version of the protocol it speaks."""
    return {"version": __version__, "name": NAME, "protocol": PROTOCOL}


@handler("health_check", scope=Scope.ANY, inline=True, reads=True, concurrent=True, activity=False)
def health_check(ctx: HandlerContext) -> Health:
    """Whether the server takes work, as `GET /health`."""
    return {
        "status": ctx.server.status()["status"],
        "mode": ctx.server.settings.mode,
        "sessions": ctx.server.sessions.count(),
    }


@handler(
    "get_system_status",
    scope=Scope.ANY,
    inline=True,
    reads=True,
    concurrent=True,
    activity=False,
)
def get_system_status(ctx: HandlerContext) -> dict[str, Any]:
    """How the server is; admins see more."""
    status = ctx.server.status()
    if isinstance(ctx, UserContext) and ctx.user.role == "admin":
        return status
    return {key: status[key] for key in PUBLIC_STATUS if key in status}


@handler(
    "get_initialization_progress",
    scope=Scope.ANY,
    inline=True,
    reads=True,
    concurrent=True,
    activity=False,
)
def get_initialization_progress(ctx: HandlerContext) -> InitializationProgress:
    """Whether the application may be shown; polled by the client before the login page."""
    return {
        "ready": True,
        "progress": 100,
        "stage": "ready",
        "message": "The server is ready.",
        "ui_ready": True,
        "critical_services_ready": True,
        "sync_init_complete": True,
        "async_init_complete": True,
        "fully_ready": True,
    }


@handler("rpc.discover", scope=Scope.ANY, inline=True, reads=True, concurrent=True, activity=False)
def discover(ctx: HandlerContext) -> dict[str, Any]:
    """The OpenRPC document of all methods, as `GET /openrpc.json`."""
    return discover_document(ctx.server.registry)


_documents: WeakKeyDictionary[Registry, tuple[tuple[MethodSpec, ...], dict[str, Any]]]
_documents = WeakKeyDictionary()


def discover_document(registry: Registry) -> dict[str, Any]:
    """The OpenRPC document of a registry; made again only when its methods changed.

    Runs on: loop.
    """
    specs = tuple(registry)
    cached = _documents.get(registry)
    if cached is None or cached[0] != specs:
        docs = [_method_doc(spec) for spec in specs if spec.public]
        cached = _documents[registry] = (specs, openrpc(NAME, __version__, docs))
    return cached[1]


def _method_doc(spec: MethodSpec) -> MethodDoc:
    summary, _, description = spec.doc.partition("\n")
    return MethodDoc(
        name=spec.name,
        summary=summary.strip(),
        description=description.strip(),
        params_type=spec.params_type,
        result_type=spec.result_type,
        errors=_errors(spec),
        extensions={
            "scope": spec.scope.value,
            "role": spec.role,
            "kind": spec.kind.value,
            "concurrent": spec.concurrent,
            "control": spec.control,
        },
    )


def _errors(spec: MethodSpec) -> tuple[str, ...]:
    codes = ["INVALID_PARAMS"] if spec.params_type is not Any else []
    if spec.scope is Scope.SESSION:
        codes += ["TOKEN_REQUIRED", "INVALID_TOKEN"]
    if spec.role is not None:
        codes.append("FORBIDDEN")
    if spec.kind is not Kind.INLINE:
        codes += ["TIMEOUT", "CANCELLED"]
    return (*codes, "HANDLER_CRASHED")


HANDLERS: list[Callable[..., Any]] = [
    ping,
    echo,
    get_version,
    health_check,
    get_system_status,
    get_initialization_progress,
    discover,
]
