"""What survives the death of the process, and what must hold of everything that lands.

`MemoryStore` keeps it, as any store of the contract suite would; beside it stands an image
of its own, so plain that it cannot have the store's faults, which the checks read.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import orjson

from ecan.errors import StoreError
from ecan.store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ecan.store import Commit, Snapshot
    from ecan.testing.simulator.trace import Trace

T = TypeVar("T")

LOG_SLOT = "log"
"""Where the handlers of the simulation append the tag of each effect."""


@attrs.define
class SessionImage:
    """One session as it is on the disk.

    Attributes:
        answers: every answer that ever landed, by request id.
        replies: frames kept for resume, by request id.
        log: the tags of all effects, in order.
    """

    sid: str
    user_id: int
    seq: int
    incarnation: int
    slots: dict[str, bytes]
    answers: dict[str, bytes] = attrs.field(factory=dict)
    replies: dict[str, bytes] = attrs.field(factory=dict)
    failed: bool = False
    ended: str | None = None
    log: list[str] = attrs.field(factory=list)

    @property
    def tags(self) -> frozenset[str]:
        """Of all effects."""
        return frozenset(self.log)

    def apply(self, commit: Commit) -> None:
        """Take over a commit that has landed."""
        self.incarnation = max(self.incarnation, commit.incarnation)
        for name, data in commit.slots.items():
            if data is None:
                self.slots.pop(name, None)
            else:
                self.slots[name] = data
        if LOG_SLOT in commit.slots:
            data = commit.slots[LOG_SLOT]
            self.log = orjson.loads(data) if data is not None else []
        if commit.answer is not None:
            self.answers[commit.answer.request_id] = commit.answer.frame
        if commit.pushes:
            self.seq = commit.pushes[-1].seq
        if commit.handed_out:
            self.replies.clear()
        for reply in commit.replies:
            self.replies[reply.request_id] = reply.frame
        if commit.facts is not None:
            self.failed = commit.facts.failed

    def problem(self, commit: Commit) -> tuple[str, str] | None:
        """The promise that a commit breaks by landing now, and how."""
        if commit.incarnation < self.incarnation and (commit.slots or commit.documents):
            late = f"a commit of incarnation {commit.incarnation} after {self.incarnation} began"
            return "P7", f"{self.sid}: {late}"
        for number, push in enumerate(commit.pushes, self.seq + 1):
            if push.seq != number:
                return "P12", f"{self.sid}: push {push.seq} landed instead of {number}"
        answer = commit.answer
        if answer is not None and answer.request_id in self.answers:
            return "P10", f"{self.sid}: {answer.request_id} was committed twice"
        return None


class Disk:
    """Everything that is durable.

    Attributes:
        memory: the store's own keeping of it.
        sessions: the image, by public id; ended ones too.
        letters: crash ids of dead letters.
        documents: by user, collection and key.
        lands: is told of every commit before it is applied to the image.
        ends: is told of every end of a session.
        limbo: writes that failed and may yet be found on the disk, if the process dies now.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.memory = MemoryStore()
        self.sessions: dict[str, SessionImage] = {}
        self.letters: set[str] = set()
        self.documents: dict[tuple[int, str, str], bytes] = {}
        self.limbo: list[Callable[[], Any]] | None = None
        self.lands: Callable[[SessionImage, Commit], None] = lambda _image, _commit: None
        self.ends: Callable[[SessionImage, str], None] = lambda _image, _reason: None

    def create(self, snapshot: Snapshot) -> None:
        """A new session lands."""
        at_once(self.memory.create(snapshot))
        row = snapshot.row
        if row.sid in self.sessions:
            self._trace.broken("P1", f"the public id {row.sid} was given twice")
        self.sessions[row.sid] = SessionImage(
            sid=row.sid,
            user_id=int(row.user["user_id"]),
            seq=snapshot.seq,
            incarnation=row.incarnation,
            slots=dict(snapshot.slots),
        )

    def commit(self, commit: Commit) -> None:
        """A commit lands.

        Raises:
            StoreError: the store refuses it; nothing was changed.
        """
        if self.memory.commit(commit) is not None:
            self._trace.broken("P11", "the memory store has something to wait for")
        image = self.sessions.get(commit.sid)
        if image is None or image.ended is not None:
            return
        problem = image.problem(commit)
        if problem is not None:
            self._trace.broken(*problem)
        self.lands(image, commit)
        image.apply(commit)
        if commit.letter is not None:
            self.letters.add(commit.letter.crash_id)
        for write in commit.documents:
            key = (commit.user_id, write.collection, write.key)
            if write.data is None:
                self.documents.pop(key, None)
            else:
                self.documents[key] = write.data

    def delete(self, sid: str, reason: str) -> bool:
        """The end of a session lands."""
        image = self.sessions.get(sid)
        if image is not None and image.ended is None:
            self.ends(image, reason)
            image.ended = reason
        return at_once(self.memory.delete(sid, reason))

    def found_after_a_kill(self) -> None:
        """An fsync that failed had reached the disk."""
        for land in self.limbo or ():
            with contextlib.suppress(StoreError):
                land()
        self.limbo = None

    def snapshot(self, sid: str) -> Any:
        """The session as a new process would find it."""
        return at_once(self.memory.load(sid))


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    coroutine.close()
    raise RuntimeError("the memory store waited")
