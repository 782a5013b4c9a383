"""What a sessions file says about itself: how it was closed, and how often numbers went back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import apsw

Durability = Literal["commit", "interval", "off"]

APPLICATION_ID = int.from_bytes(b"eCan", "big")
"""In the header of the file (SQLite's ``PRAGMA application_id``), set by migration 2."""

SYNCHRONOUS = {"commit": "FULL", "interval": "NORMAL", "off": "OFF"}


class Meta:
    """The one row of ``meta``.

    Attributes:
        generation: sessions created in another one answer another epoch.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.generation = 0

    def is_ours(self) -> bool:
        """Whether it is a file of sessions, and not another SQLite file."""
        return bool(self._connection.pragma("application_id") == APPLICATION_ID)

    def begin(self, mode: Durability) -> None:
        """The file is going to be written in this mode."""
        # A power cut must not take this note and leave what tabs have seen, so it is
        # synced in every mode.
        self._connection.execute("PRAGMA synchronous = FULL")
        with self._connection:
            self._connection.execute(
                "UPDATE meta SET generation = generation + (NOT clean AND mode <> 'commit'),"
                " clean = 0, mode = ?",
                (mode,),
            )
        self.generation = self._connection.execute("SELECT generation FROM meta").get
        self._connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[mode]}")

    def end(self) -> None:
        """All that was acknowledged is in the file."""
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("UPDATE meta SET clean = 1")

    def bump(self) -> None:
        """Numbers have gone back: every session gets another epoch."""
        self._connection.execute("UPDATE meta SET generation = generation + 1")
        self.generation += 1

    def probe(self) -> None:
        """Write something, to find out whether it works."""
        self._connection.execute("UPDATE meta SET probes = probes + 1")

    def epoch(self, stored: str, generation: int) -> str:
        """The epoch of a session that was created in that generation."""
        return stored if generation == self.generation else f"{stored}.{self.generation}"
