"""What must be true of a user's documents: each is a list of the requests that wrote to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from ecan.store import Commit
    from ecan.testing.simulator.disk import Disk
    from ecan.testing.simulator.trace import Trace

DOCUMENTS = "docs"
KEYS = ("a", "b")
"""The documents that the simulated application writes."""


class Documents:
    """All users' documents. They only grow, so their lengths say which moment it was."""

    def __init__(self, disk: Disk, trace: Trace) -> None:
        self._disk = disk
        self._trace = trace
        self._moments: dict[int, set[tuple[int, ...]]] = {}

    def land(self, commit: Commit, answer_id: str | None) -> None:
        """A commit that writes documents is about to be applied: each grows by its request."""
        user_id = commit.user_id
        lengths = {key: len(self._tags(user_id, key)) for key in KEYS}
        moments = self._moments.setdefault(user_id, {tuple(lengths.values())})
        for write in commit.documents:
            tags = orjson.loads(write.data) if write.data is not None else []
            before = self._tags(user_id, write.key)
            if tags != [*before, answer_id]:
                story = f"document {write.key}: {before} became {tags} by {answer_id}"
                self._trace.broken("P4", story)
            lengths[write.key] = len(tags)
        moments.add(tuple(lengths.values()))

    def check_written(self, user_id: int, key: str, request_id: str) -> None:
        """A request that succeeded is in its document, once."""
        count = self._tags(user_id, key).count(request_id)
        if count != 1:
            self._trace.broken("P11", f"{request_id} is in its document {count} times")

    def check_moment(self, user_id: int, request_id: str, seen: dict[str, list[str]]) -> None:
        """What a reader of several documents saw was true at one moment (ADR 10)."""
        lengths = tuple(len(seen[key]) for key in KEYS)
        if lengths not in self._moments.get(user_id, {(0,) * len(KEYS)}):
            self._trace.broken("P4", f"{request_id} saw {lengths}, never so at one moment")

    def _tags(self, user_id: int, key: str) -> list[str]:
        data = self._disk.documents.get((user_id, DOCUMENTS, key))
        tags: list[str] = orjson.loads(data) if data is not None else []
        return tags
