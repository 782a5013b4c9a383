"""Plain HTTP on the WebSocket's port: health, the browser app, and who may upgrade."""

from __future__ import annotations

import http
import ipaddress
from typing import TYPE_CHECKING

import orjson
from websockets.datastructures import Headers
from websockets.http11 import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from websockets.http11 import Request

    from ecan.config import Settings
    from ecan.gateway.assets import Asset, Assets

WEBSOCKET_PATHS = ("/", "/ws")


UP = ("healthy", "degraded")
"""Degraded: changes cannot be written now. Another server would not fare better."""


class HttpAnswers:
    """Answers what is no WebSocket.

    Args:
        health: ``(status, sessions)``; status is healthy, degraded, draining or starting.
        openrpc: the document of rpc.discover, encoded.
        connections: how many are open.
    """

    def __init__(
        self,
        settings: Settings,
        assets: Assets,
        health: Callable[[], tuple[str, int]],
        openrpc: Callable[[], bytes],
        connections: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._assets = assets
        self._health = health
        self._openrpc = openrpc
        self._connections = connections

    def answer(self, request: Request) -> Response | None:
        """The HTTP response, or None: go on with the WebSocket handshake."""
        # Not urlsplit: it raises ValueError for some paths, and reads //a/b as a host.
        path = request.path.partition("?")[0]
        if header(request, "Upgrade").lower() == "websocket":
            return self._refuse_upgrade(request, path)
        if request.method not in ("GET", "HEAD"):
            return _response(
                request,
                405,
                b"Only GET and HEAD are answered here.\n",
                "text/plain; charset=utf-8",
                [("Allow", "GET, HEAD")],
            )
        return self._answer_page(request, path)

    def _answer_page(self, request: Request, path: str) -> Response:
        if path.startswith("/health"):
            return self._answer_health(request, path)
        if path == "/openrpc.json":
            return _response(
                request, 200, self._openrpc(), "application/json", [("Cache-Control", "no-cache")]
            )
        if path == "/ws":
            return _response(
                request,
                426,
                b"This is the WebSocket endpoint.\n",
                "text/plain; charset=utf-8",
                [("Upgrade", "websocket")],
            )
        asset = self._assets.find(path)
        if asset is None:
            return _response(request, 404, b"Not found.\n", "text/plain; charset=utf-8")
        return _send_asset(request, asset)

    def _refuse_upgrade(self, request: Request, path: str) -> Response | None:
        if path not in WEBSOCKET_PATHS:
            return _response(request, 404, b"WebSockets are at /ws.\n", "text/plain; charset=utf-8")
        if not self._origin_allowed(request):
            return _response(
                request,
                403,
                b"This origin is not in ECAN_ALLOWED_ORIGINS.\n",
                "text/plain; charset=utf-8",
            )
        status, _ = self._health()
        if status not in UP or self._connections() >= self._settings.max_connections:
            return _response(
                request,
                503,
                b"The server takes no new connections now.\n",
                "text/plain; charset=utf-8",
                [("Retry-After", "5")],
            )
        return None

    def _origin_allowed(self, request: Request) -> bool:
        """Cross-site WebSocket hijacking ends here: browsers always send an Origin."""
        if "Origin" not in request.headers:
            return True
        origin = header(request, "Origin").lower()
        allowed = self._settings.allowed_origins
        if allowed is None:
            scheme, _, host = origin.partition("://")
            return scheme in ("http", "https") and host == header(request, "Host").lower()
        return "*" in allowed or origin in allowed

    def _answer_health(self, request: Request, path: str) -> Response:
        status, sessions = self._health()
        ready = status in UP
        body: dict[str, object]
        if path == "/health":
            body = {"status": status, "mode": self._settings.mode, "sessions": sessions}
        elif path == "/health/live":
            ready, body = True, {"status": "alive"}
        elif path == "/health/ready":
            body = {"status": "ready" if ready else status}
        else:
            return _response(request, 404, b"Not found.\n", "text/plain; charset=utf-8")
        return _response(
            request,
            200 if ready else 503,
            orjson.dumps(body),
            "application/json",
            [("Cache-Control", "no-store")],
        )


def header(request: Request, name: str) -> str:
    """A header's value; several of one name count as one list (RFC 9110 §5.3)."""
    return ", ".join(request.headers.get_all(name))


def client_address(remote: str, forwarded_for: Iterable[str], settings: Settings) -> str:
    """Where the client is: the last address in X-Forwarded-For that no trusted proxy wrote.

    A header from anybody else is ignored, so it cannot be forged past our proxies.
    """
    trusted = settings.trusted_proxies
    if not trusted or not _within(remote, trusted):
        return remote
    chain = [part.strip() for value in forwarded_for for part in value.split(",")]
    for address in reversed(chain):
        if not _within(address, trusted):
            return address[:64] if _is_address(address) else remote
        remote = address
    return remote


def _within(
    address: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _send_asset(request: Request, asset: Asset) -> Response:
    extra = [*asset.headers, ("ETag", asset.etag)]
    if asset.etag in header(request, "If-None-Match"):
        return _response(request, 304, b"", None, extra)
    body = asset.body
    if asset.gzipped is not None and "gzip" in header(request, "Accept-Encoding"):
        body = asset.gzipped
        extra.append(("Content-Encoding", "gzip"))
    return _response(request, 200, body, None, extra)


def _response(
    request: Request,
    status: int,
    body: bytes,
    content_type: str | None,
    extra: Iterable[tuple[str, str]] = (),
) -> Response:
    headers = Headers()
    headers["Connection"] = "close"
    if content_type is not None:
        headers["Content-Type"] = content_type
    for name, value in extra:
        headers[name] = value
    headers["Content-Length"] = str(len(body))
    if request.method == "HEAD":
        body = b""
    return Response(status, http.HTTPStatus(status).phrase, headers, body)
