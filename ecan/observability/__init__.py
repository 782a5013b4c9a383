"""What the server says about itself: logs and metrics, without secrets and without ids as labels.

Anyone above may import it; it knows nothing of frames, sessions or sockets. Nothing
is configured by importing: the composition root calls `configure` and makes `Metrics`.
"""

from ecan.observability.events import EventBus, Watcher
from ecan.observability.exporter import MetricsServer, serve_metrics
from ecan.observability.histogram import Histogram
from ecan.observability.logs import Log, configure, get_logger, set_level
from ecan.observability.metrics import MethodMetrics, Metrics
from ecan.observability.redact import REDACTED, is_secret_name, redact, scrub, secret_values

__all__ = [
    "REDACTED",
    "EventBus",
    "Histogram",
    "Log",
    "MethodMetrics",
    "Metrics",
    "MetricsServer",
    "Watcher",
    "configure",
    "get_logger",
    "is_secret_name",
    "redact",
    "scrub",
    "secret_values",
    "serve_metrics",
    "set_level",
]
