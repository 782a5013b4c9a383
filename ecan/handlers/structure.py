"""Params of requests against the handlers' own types.

Every wrong field is named in INVALID_PARAMS at once; `ecan.handlers.hooks` has the rules.
"""

from __future__ import annotations

from typing import Any

from cattrs import ClassValidationError, IterableValidationError
from cattrs.errors import ForbiddenExtraKeysError

from ecan.errors import ReplyError
from ecan.handlers.hooks import CONVERTER, ParamError, describe
from ecan.protocol.codes import ErrorCode
from ecan.protocol.redact import is_secret_name

__all__ = ["CONVERTER", "ParamError", "describe", "problems", "structure_params"]

MAX_PROBLEMS = 100
"""A frame of a mebibyte can hold 100 000 wrong fields; the reply must not be larger still (P8)."""

_HARMLESS = ("unknown field", "required field is missing")


def structure_params(value: Any, expected: Any) -> Any:
    """Params of a request as the handler's type.

    Raises:
        ReplyError: INVALID_PARAMS; ``details`` lists ``{"path", "problem"}`` for every
            wrong field.
    """
    try:
        return CONVERTER.structure(value, expected)
    except Exception as error:  # noqa: BLE001 - whatever a hook or validator raises, the value did it
        found = problems(error)
        _forget_frames(error)
        details = [_without_secret(problem) for problem in found[:MAX_PROBLEMS]]
        first = details[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ReplyError(
            ErrorCode.INVALID_PARAMS, f"{first['path']}: {first['problem']}{more}", details=details
        ) from None


def _forget_frames(error: BaseException) -> None:
    """Cattrs' frames hold the errors whose tracebacks hold the frames: cycles (ADR 17)."""
    error.__traceback__ = error.__context__ = None
    for inner in getattr(error, "exceptions", ()):
        _forget_frames(inner)


def _without_secret(problem: dict[str, str]) -> dict[str, str]:
    """A wrong value in a secret field is not repeated to anyone (P16)."""
    text = problem["problem"]
    if text in _HARMLESS or not is_secret_name(problem["path"]):
        return problem
    text, comma, _ = text.partition(", got ")
    return {**problem, "problem": text if comma else "does not fit"}


def problems(error: BaseException, path: str = "params") -> list[dict[str, str]]:
    """Every wrong field of a failed structuring, with its path."""
    if isinstance(error, ClassValidationError):
        found: list[dict[str, str]] = []
        with_notes, without = error.group_exceptions()
        for inner, note in with_notes:
            found += problems(inner, f"{path}.{note.name}")
        for inner in without:
            found += problems(inner, path)
        return found
    if isinstance(error, IterableValidationError):
        found = []
        with_indexes, without = error.group_exceptions()
        for inner, index in with_indexes:
            found += problems(inner, f"{path}[{index.index!r}]")
        for inner in without:
            found += problems(inner, path)
        return found
    if isinstance(error, ForbiddenExtraKeysError):
        return [
            {"path": f"{path}.{name}", "problem": "unknown field"}
            for name in sorted(error.extra_fields)
        ]
    if isinstance(error, KeyError):
        return [{"path": path, "problem": "required field is missing"}]
    return [{"path": path, "problem": str(error) or type(error).__name__}]
