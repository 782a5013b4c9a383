"""The log: structlog and the standard library's loggers in one stream and one form.

Events are ``noun.verb`` (``session.opened``) with the rest as keywords. A line costs
10 µs, a filtered one 1 µs: nothing is logged per frame at INFO.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any, TextIO, cast

import orjson
import structlog

from ecan.observability.redact import REDACTED, is_secret_name, redact, scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from structlog.typing import EventDict, WrappedLogger

_QUIET = {
    # At DEBUG these write frames and messages as they are, passwords included (P16).
    "websockets": logging.WARNING,
    "pykka": logging.WARNING,
    "asyncio": logging.WARNING,
    "urllib3": logging.WARNING,
}
"""The least severe events other people's loggers may write, whatever our own level is."""

_FIRST = ("timestamp", "level", "logger", "event")

_level = logging.INFO


def _nothing() -> dict[str, Any]:
    return {}


def _no_secrets() -> set[str]:
    return set()


_facts: Callable[[], Mapping[str, Any]] = _nothing
_secrets: Callable[[], Collection[str]] = _no_secrets


class Log(structlog.BoundLoggerBase):
    """A logger whose level can change while the server runs (`log.level`).

    structlog's own filtering loggers fix the level when they are first used.
    """

    def bind(self, **values: Any) -> Log:
        """A logger that adds these values to every event."""
        return super().bind(**values)

    def debug(self, event: str, **values: Any) -> None:
        """For developers; may be frequent."""
        if _level <= logging.DEBUG:
            self._proxy_to_logger("debug", event, **values)

    def info(self, event: str, **values: Any) -> None:
        """What an operator wants to see in a quiet hour; never per frame."""
        if _level <= logging.INFO:
            self._proxy_to_logger("info", event, **values)

    def warning(self, event: str, **values: Any) -> None:
        """Something is off and the server deals with it."""
        if _level <= logging.WARNING:
            self._proxy_to_logger("warning", event, **values)

    def error(self, event: str, **values: Any) -> None:
        """Something failed for someone."""
        if _level <= logging.ERROR:
            self._proxy_to_logger("error", event, **values)

    def exception(self, event: str, **values: Any) -> None:
        """`error` with the traceback of the exception being handled, or of ``exc_info``."""
        self.error(event, **{"exc_info": True, **values})

    def critical(self, event: str, **values: Any) -> None:
        """The server cannot go on."""
        self._proxy_to_logger("critical", event, **values)


def get_logger(name: str) -> Log:
    """The logger of a module; may be called before `configure`.

    Args:
        name: ``__name__``.
    """
    return cast("Log", structlog.get_logger(name))


def redact_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A processor: secrets stay out, by the name of their field (P16)."""
    for key, value in event.items():
        if is_secret_name(key):
            event[key] = REDACTED
        elif isinstance(value, dict | list | tuple) and key != "exc_info":
            event[key] = redact(value)
    return event


def add_facts(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A processor: what runs here, unless the line says it itself.

    Asked for when a line is written, so that it costs a request nothing.
    """
    for key, value in _facts().items():
        event.setdefault(key, value)
    return event


def scrub_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A processor: the secrets of the running request stay out of every text (P16)."""
    secrets = _secrets()
    if secrets:
        for key, value in event.items():
            if key not in {"timestamp", "level", "logger"}:
                event[key] = scrub(value, secrets)
    return event


_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    add_facts,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    redact_secrets,
]


def _for_formatter(
    _logger: WrappedLogger, _method: str, event: EventDict
) -> tuple[tuple[str], dict[str, Any]]:
    """The last processor: hands the event to `_Formatter` with the standard library's record."""
    return (str(event.get("event")),), {"extra": {"_from_log": event}}


# One list for the life of the process: cached loggers and structlog's capture_logs share it.
_CHAIN: list[Any] = [*_PROCESSORS, _for_formatter]


def _to_json(event: EventDict, **_options: Any) -> str:
    ordered = {key: event[key] for key in _FIRST if key in event}
    ordered.update(event)
    try:
        return orjson.dumps(ordered, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        # Lone surrogates and integers above 64 bits, which orjson refuses.
        return json.dumps(ordered, default=repr)


class _Handler(logging.StreamHandler[TextIO]):
    """Ours among the root logger's handlers."""


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """structlog's, without its copy of each record of ours: only our handler gets them."""

    def __init__(self, last: list[Any]) -> None:
        self._last = [structlog.processors.format_exc_info, scrub_secrets, *last]
        super().__init__(
            foreign_pre_chain=_PROCESSORS,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *self._last],
        )

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        ours = getattr(record, "_from_log", None)
        if ours is None:
            return super().format(record)
        line: Any = ours
        for process in self._last:
            line = process(None, record.levelname.lower(), line)
        return str(line)


def configure(
    level: str = "INFO",
    format: str = "auto",  # noqa: A002 - named like its setting
    stream: TextIO | None = None,
    *,
    facts: Callable[[], Mapping[str, Any]] = _nothing,
    secrets: Callable[[], Collection[str]] = _no_secrets,
) -> None:
    """Set up logging for the process; a second call replaces the first.

    Args:
        level: name of the least severe level.
        format: ``console``, ``json``, or ``auto``: console if the stream is a terminal.
        stream: None: stderr. Stdout belongs to the ready line and to results.
        facts: what every line says of what runs where it is written: sid, method, …
        secrets: texts that no line written there may hold.

    Side effects: the root logger's level and our one handler on it, structlog's defaults.
    """
    global _facts, _secrets
    _facts, _secrets = facts, secrets
    stream = sys.stderr if stream is None else stream
    terminal = stream.isatty()
    last: list[Any]
    if format == "console" or (format == "auto" and terminal):
        # Not rich's tracebacks: they print local variables, secrets included (P16).
        renderer = structlog.dev.ConsoleRenderer(
            colors=terminal, exception_formatter=structlog.dev.plain_traceback
        )
        last = [renderer]
    else:
        last = [structlog.processors.JSONRenderer(serializer=_to_json)]
    handler = _Handler(stream)
    handler.setFormatter(_Formatter(last))
    # What no line says need not be found out (https://docs.python.org/3/howto/logging.html#optimization).
    logging._srcfile = None  # noqa: SLF001 - documented there
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    set_level(level)
    structlog.configure(
        processors=_CHAIN,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=Log,
        cache_logger_on_first_use=True,
    )


def set_level(level: str) -> None:
    """Change the level of every logger now.

    Raises:
        ValueError: no such level.
    """
    global _level  # noqa: PLW0603 - logging belongs to the process
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"no log level {level!r}")
    _level = number
    logging.getLogger().setLevel(number)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(number, least))
