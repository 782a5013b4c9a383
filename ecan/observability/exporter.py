"""The HTTP endpoint that Prometheus scrapes (ECAN_METRICS_PORT)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import start_http_server

if TYPE_CHECKING:
    from ecan.observability.metrics import Metrics


class MetricsServer:
    """The endpoint for Prometheus, in threads of its own: it answers when the loop does not.

    Attributes:
        port: on which it listens.
    """

    def __init__(self, host: str, port: int, metrics: Metrics) -> None:
        self._server: Any
        self._server, self._thread = start_http_server(port, host, metrics.registry)
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Stop listening; waits for the thread, at most half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_metrics(host: str, port: int, metrics: Metrics) -> MetricsServer:
    """Serve ``/metrics`` until `MetricsServer.close`.

    Args:
        host: to listen on.
        port: 0 takes any free one.
        metrics: to serve.

    Raises:
        OSError: the address cannot be used.
    """
    return MetricsServer(host, port, metrics)
