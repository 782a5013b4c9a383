"""What `ecan config check` says: every setting, where it comes from, and what is wrong."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from ecan.config.live import HIDDEN, text_of
from ecan.config.secret_files import SUFFIX
from ecan.config.settings import Settings, SettingsError, fields
from ecan.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Source = Literal["default", "environment", "file"]


@attrs.frozen
class CheckedSetting:
    """One setting as a server with this environment would have it.

    Attributes:
        name: of the variable.
        value: as it could stand in the environment; secrets are hidden.
        source: where it comes from.
        default: in words.
        doc: what it is.
    """

    name: str
    value: str
    source: Source
    default: str
    doc: str


@attrs.frozen
class Finding:
    """Something to say about a setting.

    Attributes:
        level: a ``problem`` ends the start or does nothing; a ``note`` is a choice that a
            server on the Internet should not make unknowingly.
        name: of the variable.
        text: one sentence.
    """

    level: Literal["problem", "note"]
    name: str
    text: str


def check(environ: Mapping[str, str]) -> tuple[list[CheckedSetting], list[Finding]]:
    """Every setting in the table's order, and everything there is to say about them.

    Side effects: none; files are looked at and not changed.
    """
    usable, wrong = _split(environ)
    settings = Settings.from_env(usable)
    findings = [Finding("problem", name, text) for name, text in wrong.items()]
    for name, suggestion in settings.unknown:
        hint = f"; did you mean {suggestion}?" if suggestion else ""
        findings.append(Finding("problem", name, f"there is no such setting{hint}"))
    findings += [Finding("problem", name, text) for name, text in _unusable(settings)]
    findings += [Finding("note", name, text) for name, text in _risky(settings)]
    return [_row(field, settings, usable) for field in fields()], findings


def check_environment() -> tuple[list[CheckedSetting], list[Finding]]:
    """As `check`, of this process."""
    return check(os.environ)


def _split(environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What fits, and what is wrong with the rest, by variable."""
    left, wrong = dict(environ), dict[str, str]()
    while True:
        try:
            Settings.from_env(left)
        except ConfigError as error:
            problems = error.problems if isinstance(error, SettingsError) else (error,)
            for problem in problems:
                wrong[problem.name] = f"{problem.value!r}: {problem.allowed}"
                left.pop(problem.name, None)
                left.pop(problem.name + SUFFIX, None)  # or it came from there
        else:
            return left, wrong


def _unusable(settings: Settings) -> Iterator[tuple[str, str]]:
    """What fits and will not work here."""
    folder = settings.data_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        yield "ECAN_DATA_DIR", f"{str(folder)!r} cannot be written to by this user"
    if settings.tls_cert is not None and settings.tls_key is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                settings.tls_cert, settings.tls_key
            )
        except OSError as error:  # ssl.SSLError is one
            yield "ECAN_TLS_CERT", f"cannot be used with ECAN_TLS_KEY: {error.strerror or error}"
    gone = [name for name in settings.handlers if not _module_exists(name)]
    if gone:
        yield "ECAN_HANDLERS", f"no module {', '.join(gone)} in {str(Path.cwd())!r} or installed"


def _module_exists(name: str) -> bool:
    """Whether the outermost package can be found; nothing is imported, so nothing is run."""
    import importlib.util  # noqa: PLC0415 - only where handlers are named

    top = name.partition(".")[0]
    here = Path.cwd() / top
    return (
        importlib.util.find_spec(top) is not None
        or here.with_suffix(".py").exists()
        or here.is_dir()
    )


def _risky(settings: Settings) -> Iterator[tuple[str, str]]:
    """Choices that are right somewhere, and wrong on the Internet."""
    if settings.debug_methods:
        yield "ECAN_DEBUG_METHODS", "any user can crash and block their session"
    if settings.allowed_origins and "*" in settings.allowed_origins:
        yield "ECAN_ALLOWED_ORIGINS", "any web site may connect from a visitor's browser"
    if settings.session_auth == "session_id":
        yield "ECAN_SESSION_AUTH", "whoever has a session id has the session; no token is asked for"
    if not settings.login_rate_limit.count:
        yield "ECAN_LOGIN_RATE_LIMIT", "passwords may be guessed as fast as the server answers"
    if not settings.rate_limit.rate_per_s:
        yield "ECAN_RATE_LIMIT", "one session may send as much as it likes"
    if settings.store == "memory":
        yield "ECAN_STORE", "sessions end with the process"
    if settings.durability != "commit":
        yield "ECAN_DURABILITY", "what was acknowledged may be lost"
    if any(network.prefixlen == 0 for network in settings.trusted_proxies):
        yield "ECAN_TRUSTED_PROXIES", "everybody is a trusted proxy and may claim any address"


def _row(
    field: attrs.Attribute[Any], settings: Settings, environ: Mapping[str, str]
) -> CheckedSetting:
    row, value = field.metadata, getattr(settings, field.name)
    name = row["env"]
    source: Source = "default"
    if environ.get(name, "").strip():
        source = "environment"
    elif row["secret"] and environ.get(name + SUFFIX, "").strip():
        source = "file"
    shown = HIDDEN if row["secret"] and value is not None else text_of(field, value)
    default: Any = field.default
    if hasattr(default, "takes_self"):
        default = default.factory(settings)
    return CheckedSetting(
        name,
        re.sub(r"//.*@", f"//{HIDDEN}@", shown),
        source,
        row["shown"] or text_of(field, default),
        row["doc"],
    )
