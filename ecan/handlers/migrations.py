"""How slots of an older form become those of today (ADR 12).

A module of handlers declares ``MIGRATIONS = {"cart": SlotMigrations(add_currency,
prices_to_cents, to=Cart)}``. A slot's version is how many of the steps it has been
through; a session's versions are a slot of their own, committed with the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import orjson

from ecan.errors import ConfigError, ReplyError, SlotError
from ecan.handlers.encoding import decode, encode
from ecan.protocol.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

VERSIONS = "$versions"
"""The slot with the versions of the others: name to number, 0 left out. Handlers do not see it."""


class SlotMigrations:
    """The forms that slots of one name went through, oldest first.

    Add steps at the end only: a slot in the store knows by number which it has been through.

    Args:
        steps: each takes the slot's JSON value, which it may change, and returns the next
            form. Pure: it also runs in rehearsals.
        to: the type of today's form; a rehearsal checks that stored slots fit it.

    >>> cents = SlotMigrations(lambda cart: {"cents": cart["price"] * 100})
    >>> cents.migrate("cart", b'{"price":3}', 0)
    b'{"cents":300}'
    """

    __slots__ = ("steps", "to")

    def __init__(self, *steps: Callable[[Any], Any], to: type[Any] | None = None) -> None:
        self.steps = steps
        self.to = to

    def __repr__(self) -> str:
        return f"SlotMigrations({len(self.steps)} steps, to={self.to!r})"

    def migrate(self, name: str, data: bytes, version: int) -> bytes:
        """A slot of that version in today's form.

        Raises:
            SlotError: a step failed, or made no JSON.
        """
        value = orjson.loads(data)
        for number, step in enumerate(self.steps[version:], version + 1):
            try:
                value = step(value)
            except Exception as error:
                problem = f"migration {number} failed: {type(error).__name__}: {error}"
                raise SlotError(name, problem) from error
        return encode(name, value)


_NONE = SlotMigrations()


@attrs.define(eq=False)
class Migrations:
    """The migrations of one generation of handlers.

    Attributes:
        by_slot: what the modules declare.
        superseded: newer handlers have taken over; what runs is on its way out.
    """

    by_slot: Mapping[str, SlotMigrations] = attrs.field(factory=dict)
    superseded: bool = False

    def of(self, name: str, slots: Mapping[str, bytes]) -> SlotMigrations | None:
        """What has to be done to a stored slot; None: nothing.

        Raises:
            ReplyError: BUSY, newer code wrote the slot while this one still ran.
            SlotError: newer code wrote it, and older code was deployed.
        """
        declared = self.by_slot.get(name, _NONE)
        version = versions_of(slots).get(name, 0)
        if version == len(declared.steps):
            return None
        if version < len(declared.steps):
            return declared
        if self.superseded:
            raise ReplyError(
                ErrorCode.BUSY,
                "The handlers were reloaded while this request ran; try again.",
                details={"reason": "reloaded"},
                outcome="not_run",
                retry_after_ms=100,
            )
        known = len(declared.steps)
        raise SlotError(
            name, f"has version {version}, was written by newer code; this one knows {known}"
        )

    def migrate(self, name: str, slots: Mapping[str, bytes]) -> bytes | None:
        """A stored slot in today's form; None: it has it already. Raises as `of`, and SlotError."""
        declared = self.of(name, slots)
        if declared is None:
            return None
        return declared.migrate(name, slots[name], versions_of(slots).get(name, 0))

    def stamp(
        self, slots: Mapping[str, bytes], changed: Mapping[str, bytes | None]
    ) -> bytes | None:
        """The versions after a commit, for the slot `VERSIONS`; None: as they were."""
        before = versions_of(slots)
        after = dict(before)
        for name, data in changed.items():
            version = len(self.by_slot.get(name, _NONE).steps)
            if data is None or version == 0:
                after.pop(name, None)
            else:
                after[name] = version
        return orjson.dumps(after) if after != before else None


NO_MIGRATIONS = Migrations()


def versions_of(slots: Mapping[str, bytes]) -> dict[str, int]:
    """The versions of a session's slots; 0 is left out."""
    data = slots.get(VERSIONS)
    versions: dict[str, int] = orjson.loads(data) if data is not None else {}
    return versions


def gather(tables: Iterable[tuple[str, object]]) -> Migrations:
    """The migrations that modules declare.

    Args:
        tables: module name and its ``MIGRATIONS``, or None.

    Raises:
        ConfigError: a table is none, or two modules declare the same slot.
    """
    by_slot: dict[str, SlotMigrations] = {}
    owners: dict[str, str] = {}
    for module, table in tables:
        if table is None:
            continue
        if not isinstance(table, dict) or not all(
            type(name) is str and isinstance(one, SlotMigrations) for name, one in table.items()
        ):
            raise ConfigError(
                "ECAN_HANDLERS", module, 'MIGRATIONS must be {"slot": SlotMigrations(step, ...)}'
            )
        for name, one in table.items():
            if name in owners:
                raise ConfigError(
                    "ECAN_HANDLERS",
                    module,
                    f"migrations of the slot {name!r} are already declared by {owners[name]}",
                )
            if not all(callable(step) for step in one.steps):
                raise ConfigError("ECAN_HANDLERS", module, f"MIGRATIONS[{name!r}]: not a function")
            by_slot[name], owners[name] = one, module
    return Migrations(by_slot)


# -- rehearsal ---------------------------------------------------------------------------


@attrs.frozen
class Problem:
    """A stored slot that would not migrate."""

    sid: str
    slot: str
    error: str


class Rehearsal:
    """Migrates stored slots into nothing, and counts. Runs on: any thread, one at a time.

    Args:
        migrations: to be rehearsed.
        before: those in force; slots of theirs that are declared no more must have no version.

    Attributes:
        names: of the slots to look at.
        behind: by slot, how many will be migrated.
        problems: the first of them.
        failed: how many there are.
    """

    MAX_PROBLEMS = 20

    def __init__(self, migrations: Migrations, before: Migrations) -> None:
        migrations = Migrations({**dict.fromkeys(before.by_slot, _NONE), **migrations.by_slot})
        self.migrations = migrations
        self.names = [*migrations.by_slot, VERSIONS]
        self.behind: dict[str, int] = {}
        self.problems: list[Problem] = []
        self.failed = 0

    def look_at(self, sessions: Iterable[tuple[str, Mapping[str, bytes]]]) -> None:
        """Try it on the slots of some sessions, by public id."""
        for sid, slots in sessions:
            for name in self._declared(slots):
                try:
                    self._try(name, slots)
                except Exception as error:  # noqa: BLE001 - whatever it is, it must not happen later
                    self.failed += 1
                    if len(self.problems) < self.MAX_PROBLEMS:
                        self.problems.append(Problem(sid, name, str(error)))

    def _declared(self, slots: Mapping[str, bytes]) -> Iterator[str]:
        return (name for name in slots if name in self.migrations.by_slot)

    def _try(self, name: str, slots: Mapping[str, bytes]) -> None:
        data = self.migrations.migrate(name, slots)
        if data is not None:
            self.behind[name] = self.behind.get(name, 0) + 1
        to = self.migrations.by_slot[name].to
        if to is not None:
            decode(name, data if data is not None else slots[name], to)
