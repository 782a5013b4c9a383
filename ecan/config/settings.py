"""The table of settings and how an environment becomes `Settings`."""

# ruff: noqa: E501 - one setting, one line
# ruff: noqa: RUF009 - _setting makes an attrs field, which is no shared default

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ecan.config import parsers
from ecan.config.parsers import Budget, LoginRateLimit, Network, RateLimit
from ecan.config.secret_files import SUFFIX, read_secret_files
from ecan.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CLIENT_VARIABLES = ("ECAN_TOKEN", "ECAN_SESSION_ID", "ECAN_URL")
"""Read by `ecan call`; the server knows them only in order not to warn of them."""

_HIDDEN = "[hidden]"
_DURATION_WORDS = "a duration like 30, 30s, 15m or 24h"


class SettingsError(ConfigError):
    """Several settings are wrong; ``str`` gives one line for each.

    Attributes:
        problems: one `ConfigError` for each wrong setting, in the table's order.
    """

    def __init__(self, problems: list[ConfigError]) -> None:
        first = problems[0]
        super().__init__(first.name, first.value, first.allowed)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def _setting(
    env: str,
    parse: Callable[[str], Any],
    default: Any,
    allowed: str,
    doc: str,
    *,
    shown: str = "",
    secret: bool = False,
) -> Any:
    """One row: ``shown`` is the default in words where its value does not say it."""
    row = {"env": f"ECAN_{env}", "parse": parse, "allowed": allowed, "doc": doc}
    return attrs.field(
        default=default, repr=not secret, metadata={**row, "shown": shown, "secret": secret}
    )


_SWITCH = parsers.switch(on=("1", "true", "yes", "on"), off=("0", "false", "no", "off"))
_PORT = "a number from 0 to 65535"
_COUNT = parsers.whole(1, 10_000_000)
_COUNT_WORDS = "a number from 1 to 10000000"
_SECONDS = parsers.budget(parsers.parse_duration)
_SECONDS_WORDS = "off, or soft/hard like 20s/50s"
_BYTES = parsers.budget(parsers.parse_size)
_BYTES_WORDS = "off, or soft/hard like 8MiB/32MiB"


# fmt: off
@attrs.frozen(kw_only=True)
class Settings:
    """The configuration of one server; CONTRACT.md §6 describes each variable.

    ``unknown`` holds set ``ECAN_*`` variables that mean nothing, each with the name
    that was probably meant, for a warning at the start.
    """

    mode: str = _setting("MODE", parsers.one_of("web", "desktop"), "desktop", "web or desktop", "What the process serves.")
    ws_host: str = _setting("WS_HOST", str, "0.0.0.0", "a host name or address", "Where the server listens.")  # noqa: S104 - a container's port mapping decides who reaches it
    ws_port: int = _setting("WS_PORT", parsers.whole(0, 65535), 8765, _PORT, "Port of WebSocket and HTTP; 0 takes any free one.")
    log_level: str = _setting("LOG_LEVEL", parsers.one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), "INFO", "DEBUG, INFO, WARNING, ERROR or CRITICAL", "The least severe events that are logged.")
    log_format: str = _setting("LOG_FORMAT", parsers.one_of("console", "json", "auto"), "auto", "console, json or auto", "Form of the log; auto is console on a terminal, else json.")
    log_figures_s: float = _setting("LOG_FIGURES", parsers.duration(0), 0.0, _DURATION_WORDS, "How often the log has a line with the number of sessions; 0 is never.")
    data_dir: Path = _setting("DATA_DIR", Path, Path("data"), "a directory", "Holds the admin socket and embedded databases.")
    store: str = _setting("STORE", parsers.store, "sqlite", "memory, sqlite or sqlite:PATH", "Where sessions are kept; memory forgets them with the process.")
    durability: str = _setting("DURABILITY", parsers.one_of("commit", "interval", "off"), "commit", "commit, interval or off", "When a change is safe: before its reply, within a second, or never.")
    session_timeout_s: float = _setting("SESSION_TIMEOUT", parsers.duration(), 86400.0, _DURATION_WORDS, "A session idle for so long is closed.")
    passivate_after_s: float = _setting("PASSIVATE_AFTER", parsers.duration(), 900.0, _DURATION_WORDS, "An idle session with a connection leaves memory after this.")
    passivate_detached_after_s: float = _setting("PASSIVATE_DETACHED_AFTER", parsers.duration(), 180.0, _DURATION_WORDS, "An idle session without a connection leaves memory after this.")
    max_sessions: int = _setting("MAX_SESSIONS", _COUNT, 100_000, _COUNT_WORDS, "Active and passivated sessions of the server.")
    max_sessions_per_user: int = _setting("MAX_SESSIONS_PER_USER", _COUNT, 20, _COUNT_WORDS, "Active and passivated sessions of one user.")
    max_connections: int = _setting("MAX_CONNECTIONS", _COUNT, 50_000, _COUNT_WORDS, "Open connections of the server.")
    mailbox_size: int = _setting("MAILBOX_SIZE", parsers.whole(1, 1_000_000), 256, "a number from 1 to 1000000", "Requests that may wait in one session.")
    max_frame: int = _setting("MAX_FRAME", parsers.max_frame, 1 << 20, "a size from 1KiB to 64MiB, like 1048576, 512KiB or 1MiB", "Largest frame a client may send.", shown="1MiB")
    request_timeout_s: float = _setting("REQUEST_TIMEOUT", parsers.duration(), 30.0, _DURATION_WORDS, "Deadline of a request that brings none.")
    worker_threads: int = _setting("WORKER_THREADS", parsers.whole(1, 10_000), 256, "a number from 1 to 10000", "Most threads for synchronous handlers.")
    rate_limit: RateLimit = _setting("RATE_LIMIT", parsers.rate_limit, RateLimit(100.0, 200), "a rate like 100, 100/s or 100/200 (a second/burst), or 0 for off", "Requests of one session.", shown="100/200")
    login_rate_limit: LoginRateLimit = _setting("LOGIN_RATE_LIMIT", parsers.login_rate_limit, LoginRateLimit(5, 60.0), "a rate like 5/min or 10/s, or 0 for off", "Logins of one user and of one address.", shown="5/min")
    session_auth: str = _setting("SESSION_AUTH", parsers.one_of("token", "session_id"), "token", "token or session_id", "What binds a new connection; session_id takes the id alone.")
    token_ttl_s: float = _setting("TOKEN_TTL", parsers.duration(1), 86400.0, f"{_DURATION_WORDS}, at least 1s", "How long a token is good.")
    signup_open: bool = _setting("SIGNUP", parsers.switch(on=("open",), off=("closed",)), False, "closed or open", "Whether anyone may make an account.", shown="closed")
    allowed_origins: tuple[str, ...] | None = _setting("ALLOWED_ORIGINS", parsers.origins, None, "origins like https://app.example.com, comma-separated, or *", "Pages that may connect.", shown="same origin")
    trusted_proxies: tuple[Network, ...] = _setting("TRUSTED_PROXIES", parsers.networks, (), "addresses or networks like 10.0.0.0/8, comma-separated", "Whose X-Forwarded-For counts.", shown="none")
    admin_socket: Path = _setting("ADMIN_SOCKET", Path, attrs.Factory(lambda self: self.data_dir / "admin.sock", takes_self=True), "a path", "Unix socket for operators, mode 0600.", shown="$ECAN_DATA_DIR/admin.sock")
    handlers: tuple[str, ...] = _setting("HANDLERS", parsers.modules, (), "Python modules like shop.handlers, comma-separated", "Extra modules with handlers.", shown="none")
    drain_timeout_s: float = _setting("DRAIN_TIMEOUT", parsers.duration(0), 25.0, _DURATION_WORDS, "How long running handlers may finish at shutdown.")
    transport: str = _setting("TRANSPORT", parsers.one_of("websockets", "picows"), "websockets", "websockets or picows", "Library that carries the frames; picows is faster and needs the extra `fast`.")
    tls_cert: Path | None = _setting("TLS_CERT", Path, None, "a PEM file", "Certificate chain, for TLS without a proxy.", shown="none")
    tls_key: Path | None = _setting("TLS_KEY", Path, None, "a PEM file", "Its private key.", shown="none")
    budget_cpu_s: Budget | None = _setting("BUDGET_CPU", _SECONDS, None, _SECONDS_WORDS, "CPU time of one session in a minute.", shown="off")
    budget_wall_s: Budget | None = _setting("BUDGET_WALL", _SECONDS, None, _SECONDS_WORDS, "Time its handlers run in a minute.", shown="off")
    budget_sent_bytes: Budget | None = _setting("BUDGET_SENT", _BYTES, None, _BYTES_WORDS, "Bytes sent to its connections in a minute.", shown="off")
    budget_backlog_bytes: Budget | None = _setting("BUDGET_BACKLOG", _BYTES, None, _BYTES_WORDS, "Bytes that a connection of it has not taken yet.", shown="off")
    budget_queued_bytes: Budget | None = _setting("BUDGET_QUEUED", _BYTES, None, _BYTES_WORDS, "Bytes of its waiting requests.", shown="off")
    budget_state_bytes: Budget | None = _setting("BUDGET_STATE", _BYTES, None, _BYTES_WORDS, "Bytes of its state.", shown="off")
    budget_windows: int = _setting("BUDGET_WINDOWS", _COUNT, 5, _COUNT_WORDS, "Minutes in a row over a hard limit, then the session is suspended.")
    debug_methods: bool = _setting("DEBUG_METHODS", _SWITCH, False, "0 or 1", "Adds the debug.* methods; never in production.", shown="0")
    admin_user: str = _setting("ADMIN_USER", str, "admin", "a user name", "First account, made when there is no user.")
    admin_password: str | None = _setting("ADMIN_PASSWORD", parsers.password, None, "at most 1024 characters", "Its password; ECAN_ADMIN_PASSWORD_FILE names a file that holds it.", shown="made and printed once", secret=True)
    metrics_host: str = _setting("METRICS_HOST", str, "127.0.0.1", "a host name or address", "Where metrics are served.")
    metrics_port: int | None = _setting("METRICS_PORT", parsers.whole(0, 65535), None, _PORT, "Serves Prometheus metrics on this port.", shown="off")
    unknown: tuple[tuple[str, str | None], ...] = ()
# fmt: on

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """The settings of an environment; an empty variable counts as not set.

        Raises:
            ConfigError: names variable, value and what is allowed; with several problems
                a `SettingsError` with one line for each.
        """
        values: dict[str, Any] = {}
        environ, problems = read_secret_files(environ, secret_variables())
        for field in fields():
            row = field.metadata
            text = environ.get(row["env"], "")
            if not text.strip():
                continue
            if not row["secret"]:
                text = text.strip()
            try:
                values[field.name] = row["parse"](text)
            except ValueError as error:
                own_words = str(error) if isinstance(error, parsers.BadValueError) else ""
                value = _HIDDEN if row["secret"] else re.sub(r"//.*@", f"//{_HIDDEN}@", text)
                words = own_words or f"must be {row['allowed']}"
                problems.append(ConfigError(row["env"], value, words))
        problems += _cross_check(values)
        if problems:
            raise problems[0] if len(problems) == 1 else SettingsError(problems)
        return cls(**values, unknown=_unknown(environ))


def fields() -> list[attrs.Attribute[Any]]:
    """Every setting as a field of `Settings`, with its row of the table as metadata."""
    return [field for field in attrs.fields(Settings) if field.metadata]


def secret_variables() -> list[str]:
    """The variables that may come from a file (`ecan.config.secret_files`)."""
    return [field.metadata["env"] for field in fields() if field.metadata["secret"]]


def _cross_check(values: dict[str, Any]) -> list[ConfigError]:
    problems = []
    for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if one in values and other not in values:
            allowed = f"needs ECAN_{other.upper()} beside it"
            problems.append(ConfigError(f"ECAN_{one.upper()}", str(values[one]), allowed))
    port = values.get("metrics_port")
    if port and port == values.get("ws_port", 8765):
        problems.append(ConfigError("ECAN_METRICS_PORT", str(port), "must differ from ECAN_WS_PORT"))
    return problems


def _unknown(environ: Mapping[str, str]) -> tuple[tuple[str, str | None], ...]:
    known = [field.metadata["env"] for field in fields()]
    known += [name + SUFFIX for name in secret_variables()]
    return tuple(
        (name, next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.75)), None))
        for name in sorted(environ)
        if name.startswith("ECAN_") and name not in known and name not in CLIENT_VARIABLES
    )


def load() -> Settings:
    """The settings of this process; with `load_client` the only reader of ``os.environ``.

    Raises:
        ConfigError: exit code 2, the message on stderr.
    """
    return Settings.from_env(os.environ)


@attrs.frozen
class ClientEnvironment:
    """What `ecan call`, `ecan ops` and `ecan top` find in their environment.

    Attributes:
        url: ECAN_URL, else where a server with this environment listens on this machine.
        token: ECAN_TOKEN.
        session_id: ECAN_SESSION_ID.
        admin_socket: where a server with this environment listens for operators.
    """

    url: str
    token: str | None = attrs.field(repr=False)
    session_id: str | None = attrs.field(repr=False)
    admin_socket: Path

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> ClientEnvironment:
        """Read it; never fails, the server's own variables need not be right."""
        port = environ.get("ECAN_WS_PORT", "").strip() or "8765"
        scheme = "wss" if environ.get("ECAN_TLS_CERT", "").strip() else "ws"
        return cls(
            url=environ.get("ECAN_URL", "").strip() or f"{scheme}://127.0.0.1:{port}/ws",
            token=environ.get("ECAN_TOKEN", "").strip() or None,
            session_id=environ.get("ECAN_SESSION_ID", "").strip() or None,
            admin_socket=Path(
                environ.get("ECAN_ADMIN_SOCKET", "").strip()
                or Path(environ.get("ECAN_DATA_DIR", "").strip() or "data") / "admin.sock"
            ),
        )


def load_client() -> ClientEnvironment:
    """As `load`, for programs that talk to a server."""
    return ClientEnvironment.from_env(os.environ)


@attrs.frozen
class SettingDoc:
    """A row of the table in words, for `ecan serve --help` and docs/operators."""

    env: str
    default: str
    allowed: str
    doc: str


def describe_settings() -> list[SettingDoc]:
    """Every setting in words, in the table's order."""
    rows = []
    for field in fields():
        default = field.metadata["shown"] or str(field.default)
        if "duration" in field.metadata["allowed"]:
            default = f"{field.default:g}s"
        rows.append(
            SettingDoc(field.metadata["env"], default, field.metadata["allowed"], field.metadata["doc"])
        )
    return rows


def markdown_table() -> str:
    """The settings as a Markdown table, for docs/operators."""
    lines = ["| variable | default | allowed | |", "|---|---|---|---|"]
    lines += [
        f"| `{row.env}` | {row.default} | {row.allowed} | {row.doc} |"
        for row in describe_settings()
    ]
    return "\n".join(lines) + "\n"
