"""Every exception of the project, in one tree.

::

    EcanError
    ├─ ConfigError                  a setting is wrong: one line, exit code 2
    ├─ ReplyError                   expected: becomes an error reply, the session's actor lives
    │  └─ HandlerError              what authors of handlers raise (outcome "ran")
    ├─ DisconnectError              becomes a close code
    ├─ StoreError
    │  ├─ SlotError                 a state slot or document that cannot be read back as it was
    │  ├─ StoreUnavailableError     disk full, I/O error, locked: later it may work (BUSY)
    │  ├─ ConflictError             a document was changed by another session (run again, CONFLICT)
    │  └─ IdUsedError               the request id took effect before (ID_EXPIRED)
    ├─ ReloadError                  changed handlers cannot be taken; nothing was changed
    └─ SupervisionError             a command does not fit a session's state

Anything else that leaves a handler is a crash: the client gets HANDLER_CRASHED,
the context is rolled back, and the supervisor restarts the session (P5).
"""

from __future__ import annotations

from typing import Any, Literal

Outcome = Literal["ran", "not_run", "unknown"]


class EcanError(Exception):
    """Base of all errors of the project."""


class ConfigError(EcanError):
    """A setting that cannot be used.

    Args:
        name: the variable, for example ``ECAN_WS_PORT``.
        value: what it was set to.
        allowed: what it may be, in words.
    """

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(f"{name}={value!r}: {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed


class ReplyError(EcanError):
    """An expected refusal or failure; it becomes an error reply.

    Args:
        code: one of `ecan.protocol.codes.ErrorCode`, or a handler's own.
        message: one sentence for a person.
        details: JSON-able, for programs.
        retryable: None takes the code's default.
        outcome: None takes the code's default: whether the request's effects happened.
        retry_after_ms: when trying again makes sense.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: Any = None,
        retryable: bool | None = None,
        outcome: Outcome | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = str(code)
        self.message = message
        self.details = details
        self.retryable = retryable
        self.outcome: Outcome | None = outcome
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Worker processes send their errors by pickle."""
        return (_again, (type(self), self.__dict__.copy()))


def _again(kind: type[ReplyError], facts: dict[str, Any]) -> ReplyError:
    error = kind.__new__(kind)
    Exception.__init__(error, facts["message"])
    error.__dict__.update(facts)
    return error


class HandlerError(ReplyError):
    """A handler's declared error: the caller gets it as it is, the session lives on.

    What the handler did to the session's state before raising is rolled back,
    as a database does with a transaction that raises.

    Example:
        ``raise HandlerError("OUT_OF_STOCK", "Only 3 left", details={"left": 3})``
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: Any = None,
        retryable: bool = False,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(
            code,
            message,
            details=details,
            retryable=retryable,
            outcome="ran",
            retry_after_ms=retry_after_ms,
        )


class DisconnectError(EcanError):
    """A connection must be closed with this code.

    Args:
        close_code: see `ecan.protocol.codes.CloseCode`.
        reason: at most 123 bytes of UTF-8 (RFC 6455 §5.5).
    """

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(f"{close_code} {reason}")
        self.close_code = close_code
        self.reason = reason


class StoreError(EcanError):
    """The store could not do what was asked."""


class StoreUnavailableError(StoreError):
    """Disk full, I/O error, locked: nothing was changed, and later it may work again."""


class ConflictError(StoreError):
    """What a commit had read was changed before it landed; nothing of it was applied."""


class IdUsedError(StoreError):
    """A commit answers a request id that was answered before; nothing of it was applied."""


class SlotError(StoreError):
    """A state slot or document holds a value that cannot be stored and read back as it was."""

    def __init__(self, slot: str, problem: str) -> None:
        super().__init__(f"state slot {slot!r}: {problem}")
        self.slot = slot
        self.problem = problem


class SupervisionError(EcanError):
    """A command that does not fit the session's state, for example revive of an active one."""


class ReloadError(EcanError):
    """Changed handlers cannot be taken; those that are loaded go on.

    Args:
        problem: in words, for an operator.
        details: JSON-able: ``file``, ``line`` and ``error`` of code that is wrong, or
            ``problems`` with ``sid``, ``slot`` and ``error`` of slots that do not migrate,
            and ``failed``, how many there are.
    """

    def __init__(self, problem: str, details: dict[str, Any]) -> None:
        super().__init__(problem)
        self.details = details
