"""How long a coroutine's steps take on the loop, while somebody else awaits it."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator


class Metered:
    """A coroutine, and the time its steps take on the loop.

    An iterator and not a generator, with the coroutine in ``cr_await``: whoever asks where
    a suspended handler is (`ecan.runtime.stacks`) looks through it.
    """

    __slots__ = ("cpu_s", "cr_await")

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.cr_await: Any = None

    def run(self, awaitable: Any) -> Metered:
        """Await this to await the coroutine; one after the other may be given."""
        self.cr_await = awaitable
        return self

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # it has all of a generator that await uses

    def __iter__(self) -> Metered:
        return self

    def __next__(self) -> Any:
        began = perf_counter()
        try:
            return self.cr_await.send(None)
        finally:
            self.cpu_s += perf_counter() - began

    def send(self, value: Any) -> Any:
        """One step."""
        began = perf_counter()
        try:
            return self.cr_await.send(value)
        finally:
            self.cpu_s += perf_counter() - began

    def throw(self, *error: Any) -> Any:
        """One step, with an exception."""
        began = perf_counter()
        try:
            return self.cr_await.throw(*error)
        finally:
            self.cpu_s += perf_counter() - began
            del error  # whose traceback has this frame (ADR 17)

    def close(self) -> None:
        """It is thrown away."""
        self.cr_await.close()
