"""A disk that fails when a test tells it to: an SQLite VFS over the real one.

::

    with FaultyDisk() as disk:
        store = SqliteStore(path, vfs=disk.name)
        ...
        disk.fail("write", "full", after=3)
        ...
        disk.heal()

Everything else, locks and shared memory included, is SQLite's own VFS.

A fault while SQLite moves the journal into the file (``part="database"``) is raised by
the statement that set it off, though that has committed: apsw raises what Python raised.
A real disk's fault there is none of the statement's; so give ``part="wal"`` where it matters.
SQLite takes a short read as zeros, so ``short`` is noticed where that makes no sense.
"""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any, Literal, Self

import apsw
import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

Operation = Literal["open", "read", "write", "sync"]
Fault = Literal["full", "io", "locked", "short"]
"""``short``: of a read, half of the bytes; of a write, half of them, and then it is full."""

Part = Literal["database", "wal"]

_FAULTS: dict[str, Callable[[str], apsw.Error]] = {
    "full": apsw.FullError,
    "short": apsw.FullError,
    "io": apsw.IOError,
    "locked": apsw.BusyError,
}

_numbers = itertools.count(1)


@attrs.define
class _Plan:
    operation: Operation
    fault: Fault
    after: int
    times: int | None
    part: Part | None


class FaultyDisk(apsw.VFS):
    """An SQLite VFS with faults. A context manager: it is known to SQLite within.

    Attributes:
        name: what `SqliteStore` takes as `vfs`.
        faults: how many were injected.
    """

    def __init__(self) -> None:
        self.name = f"faulty-{next(_numbers)}"
        self.faults = 0
        self._plans: list[_Plan] = []
        self._lock = threading.Lock()  # stores use it from threads of their own
        super().__init__(self.name, "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.unregister()

    def fail(
        self,
        operation: Operation,
        fault: Fault,
        *,
        after: int = 0,
        times: int | None = None,
        part: Part | None = None,
    ) -> None:
        """Make an operation fail from now on.

        Args:
            operation: which.
            fault: in what way.
            after: so many go well before.
            times: so many fail; None: all, until `heal`.
            part: of the file; None: any.
        """
        with self._lock:
            self._plans.append(_Plan(operation, fault, after, times, part))

    def heal(self) -> None:
        """Nothing fails any more."""
        with self._lock:
            self._plans.clear()

    def due(self, operation: Operation, part: Part) -> Fault | None:
        """The fault that this operation shall meet; it is counted as met."""
        with self._lock:
            for plan in self._plans:
                if plan.operation != operation or plan.part not in {None, part}:
                    continue
                if plan.after > 0:
                    plan.after -= 1
                elif plan.times is None or plan.times > 0:
                    plan.times = None if plan.times is None else plan.times - 1
                    self.faults += 1
                    return plan.fault
        return None

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        """See SQLite."""
        part: Part = "wal" if flags[0] & apsw.SQLITE_OPEN_WAL else "database"
        fault = self.due("open", part)
        if fault is not None:
            raise _error(fault, "open")
        return _FaultyFile(self, part, name, flags)


class _FaultyFile(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, part: Part, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._part: Part = part
        super().__init__("", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - SQLite's name
        fault = self._disk.due("read", self._part)
        data = bytes(super().xRead(amount, offset))
        if fault == "short":
            return data[: amount // 2]
        if fault is not None:
            raise _error(fault, "read")
        return data

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802 - SQLite's name
        fault = self._disk.due("write", self._part)
        if fault == "short":
            super().xWrite(bytes(data)[: len(data) // 2], offset)
        if fault is not None:
            raise _error(fault, "write")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        fault = self._disk.due("sync", self._part)
        if fault is not None:
            raise _error(fault, "sync")
        super().xSync(flags)


def _error(fault: Fault, operation: Operation) -> apsw.Error:
    return _FAULTS[fault](f"{fault} at {operation}, injected")
