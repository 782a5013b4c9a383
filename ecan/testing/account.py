"""What the clients of one session were told, and whether all of it can be true. Pure.

A server that dies and comes back must contradict none of its earlier answers. So
everything a client sends and receives is entered here, and what does not fit raises
`BrokenPromiseError` at once, with the seed's name and the session's history in it:

* an id has one answer, whenever and how often it is asked for (P3, P10);
* pushes of an epoch are numbered without a hole and without a double for each tab, but
  for gaps it was told of (P12), and one number is the same push in every tab;
* incarnation numbers never go down, and those of a dead process are never given again.

`check_counters` closes the account: each counter is the number of acknowledged increments.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, NoReturn

import attrs

MAX_HISTORY = 20_000
SHOWN = 80
"""Lines of history in a failure: of the request or tab it is about, and of all."""

MAX_DETAIL = 120

NOT_NOW = frozenset({"BUSY", "RATE_LIMITED", "DRAINING"})
"""Refusals after which the same request is sent again with the same id."""

LEDGER = 240
"""Answers that are surely kept: the contract says 256, and some of them are the checker's own."""


class BrokenPromiseError(AssertionError):
    """What the server said contradicts what it said before; the message has the story."""


@attrs.define(eq=False)
class Asked:
    """One request of a session.

    Attributes:
        changes: it may have an effect, so its answer is kept and never made anew.
        generation: of the process it was first sent to.
        least_incarnation: the highest known when it was first sent.
        answer: the first final response.
        sends: how often it was sent.
        old: the ledger may have forgotten it, so ID_EXPIRED is a good answer too.
    """

    id: str
    method: str
    params: dict[str, Any]
    changes: bool
    generation: int = 0
    least_incarnation: int = 0
    answer: dict[str, Any] | None = None
    sends: int = 0
    old: bool = False

    @property
    def acknowledged(self) -> bool:
        """The server said that it is done."""
        return self.answer is not None and self.answer["status"] == "success"


@attrs.define(eq=False)
class Cursor:
    """Which pushes one tab has seen."""

    epoch: str
    last: int


def is_final(frame: dict[str, Any]) -> bool:
    """Whether this answer stands; a refusal that asks to come again does not."""
    error = frame.get("error")
    return error is None or error["code"] not in NOT_NOW or error["outcome"] == "ran"


def _without_mark(frame: dict[str, Any]) -> dict[str, Any]:
    """The frame as it was when it was no replay."""
    return {**frame, "meta": {**frame["meta"], "replayed": False}}


class Account:
    """Everything one session's clients sent and were told.

    Args:
        name: of the session, for people.
        story: how to repeat the run, put into every failure.
        may_lose: the server may forget the newest commits when it is killed, and then says
            so with another epoch (ECAN_DURABILITY other than ``commit``).
    """

    def __init__(self, name: str, story: str, *, may_lose: bool = False) -> None:
        self.name = name
        self.incarnation = 0
        self.asked: dict[str, Asked] = {}
        self.answered: list[Asked] = []
        self.replays = 0
        self.resumes = 0
        self.gaps: list[tuple[str, int, int]] = []
        self.pushes: dict[tuple[str, int], dict[str, Any]] = {}
        self.cursors: dict[str, Cursor] = {}
        self._story = story
        self._may_lose = may_lose
        self._incarnations: dict[int, int] = {}  # generation → the highest of it
        self._dead_incarnation = 0  # the highest of all generations before the newest one
        self._history: deque[tuple[float, str, str, str, str]] = deque(maxlen=MAX_HISTORY)
        self._started = time.monotonic()

    # -- what is entered -------------------------------------------------------------

    def ask(self, request_id: str, method: str, params: dict[str, Any], *, changes: bool) -> Asked:
        """A request that is going to be sent."""
        asked = Asked(id=request_id, method=method, params=params, changes=changes)
        self.asked[request_id] = asked
        return asked

    def sent(self, tab: str, asked: Asked, generation: int) -> None:
        """It goes out, for the first time or again."""
        asked.sends += 1
        if asked.sends == 1:
            asked.generation = generation
            asked.least_incarnation = self.incarnation
        self.note(tab, "sends", asked.id, f"{asked.method} {_short(asked.params)} #{asked.sends}")

    def reply(self, tab: str, frame: dict[str, Any], generation: int) -> None:
        """A final response came, for whichever reason."""
        request_id = frame["id"]
        self.note(tab, "is answered", request_id, _short(_essence(frame)))
        asked = self.asked.get(request_id)
        if asked is None:
            self.broken(f"an answer to {request_id}, which nobody asked", request_id)
        self._incarnation_of_reply(asked, frame, generation)
        self.replays += frame["meta"]["replayed"]
        if not is_final(frame):
            return
        first = asked.answer
        if first is None:
            asked.answer = frame
            self.answered.append(asked)
        elif self._must_be_same(asked, frame, generation) and (
            _without_mark(first) != _without_mark(frame)
        ):
            self.broken(f"two answers to one id:\n  {first}\n  {frame}", request_id)

    def _must_be_same(self, asked: Asked, frame: dict[str, Any], generation: int) -> bool:
        if asked.old and frame["status"] == "error" and frame["error"]["code"] == "ID_EXPIRED":
            return False
        return asked.changes and not (self._may_lose and asked.generation != generation)

    def resumed(self, tab: str, result: dict[str, Any], least_incarnation: int) -> None:
        """A resume was answered; the pushes this tab has missed come after it.

        Args:
            tab: which one.
            result: of the answer.
            least_incarnation: the highest known when the resume was sent.
        """
        self.resumes += 1
        self.note(tab, "resumed", "", _short(result))
        incarnation = result["incarnation"]
        if incarnation < least_incarnation:
            self.broken(f"resumed in incarnation {incarnation}, after {least_incarnation}", tab)
        self.incarnation = max(self.incarnation, incarnation)
        epoch, seq = result["epoch"], result["seq"]
        cursor = self.cursors.get(tab)
        if cursor is None:
            self.cursors[tab] = Cursor(epoch, seq)
            return
        if epoch != cursor.epoch:
            if not self._may_lose:
                self.broken(f"epoch {cursor.epoch} became {epoch}: no number was lost", tab)
            cursor.epoch, cursor.last = epoch, 0
        if result["status"] == "gap":
            # Without numbers: those that were lost are void in the new epoch.
            first, last = result.get("from", 1), result.get("to", 0)
            if first != cursor.last + 1:
                self.broken(f"a gap from {first} told to a tab that has seen {cursor.last}", tab)
            self.gaps.append((tab, first, last))
            cursor.last = last
        if seq < cursor.last:
            self.broken(f"the server is at push {seq}, this tab has seen {cursor.last}", tab)

    def push(self, tab: str, frame: dict[str, Any]) -> None:
        """A push came; those without a number are none of a session's."""
        meta = frame.get("meta") or {}
        if "seq" not in meta:
            return
        seq, epoch = meta["seq"], meta["epoch"]
        self.note(tab, "is pushed", f"{epoch}/{seq}", _short(frame.get("params")))
        cursor = self.cursors[tab]
        if epoch != cursor.epoch:
            self.broken(f"a push of epoch {epoch} to a tab that is in {cursor.epoch}", tab)
        if seq != cursor.last + 1:
            what = "missing" if seq > cursor.last else "doubled"
            self.broken(f"push {seq} came after {cursor.last}: {what}", tab)
        cursor.last = seq
        known = self.pushes.setdefault((epoch, seq), frame)
        if known != frame:
            self.broken(f"two pushes with number {seq}:\n  {known}\n  {frame}", tab)

    def note(self, tab: str, verb: str, subject: str = "", detail: str = "") -> None:
        """A line of history."""
        self._history.append((time.monotonic() - self._started, tab, verb, subject, detail))

    # -- what must be so in the end ---------------------------------------------------

    def increments(self) -> dict[str, list[int]]:
        """The results of the acknowledged increments, by key."""
        results: dict[str, list[int]] = {}
        for asked in self.answered:
            if asked.method == "debug.incr" and asked.acknowledged and asked.answer:
                results.setdefault(asked.params["key"], []).append(asked.answer["result"])
        return results

    def check_counters(self, values: dict[str, Any]) -> None:
        """Each counter is what was acknowledged, and each step was acknowledged once."""
        for key, results in self.increments().items():
            value = values[key]
            if value != len(results):
                self.broken(f"{key} is {value}, acknowledged were {len(results)} increments")
            if sorted(results) != list(range(1, len(results) + 1)):
                doubled = sorted({n for n in results if results.count(n) > 1})
                self.broken(f"{key}: the answers are not 1 … {len(results)}; twice: {doubled}")

    def lost(self, values: dict[str, Any]) -> int:
        """How many acknowledged increments a server that may lose has lost; none is done twice."""
        lost = 0
        for key, results in self.increments().items():
            value = values[key] or 0
            if value > len(results):
                self.broken(f"{key} is {value}, acknowledged were {len(results)} increments")
            lost += len(results) - value
        return lost

    def check_pushes(self, server_seq: int) -> None:
        """What was acknowledged as pushed came, as often as asked, and to every tab."""
        for tab, cursor in self.cursors.items():
            if cursor.last < server_seq:
                self.broken(f"{tab} has seen push {cursor.last} of {server_seq}", tab)
        if self.gaps:
            return
        seen: dict[str, int] = {}
        for frame in self.pushes.values():
            about = (frame.get("params") or {}).get("about")
            if about is not None:
                seen[about] = seen.get(about, 0) + 1
        for asked in self.answered:
            if asked.method == "debug.push" and asked.acknowledged:
                came, due = seen.get(asked.id, 0), asked.params["count"]
                if came != due:
                    self.broken(f"{asked.id} pushed {due}, {came} came", asked.id)

    def kept(self, most: int) -> list[Asked]:
        """The newest requests whose answers the ledger surely has, the newest first."""
        newest = self.answered[-LEDGER:]
        return [asked for asked in reversed(newest) if asked.changes][:most]

    def old(self, most: int) -> list[Asked]:
        """Requests that the ledger may have forgotten, the oldest first."""
        return [asked for asked in self.answered[:-LEDGER] if asked.changes][:most]

    # -- incarnations ----------------------------------------------------------------

    def _incarnation_of_reply(self, asked: Asked, frame: dict[str, Any], generation: int) -> None:
        meta = frame["meta"]
        incarnation = meta.get("incarnation")
        if incarnation is None:
            return
        self.incarnation = max(self.incarnation, incarnation)
        if meta["replayed"] or asked.generation != generation or not is_final(frame):
            return
        # First sent to this process and answered by it: it did the work.
        if incarnation < asked.least_incarnation:
            self.broken(
                f"{asked.id} was sent to incarnation {asked.least_incarnation}"
                f" and answered by {incarnation}",
                asked.id,
            )
        if generation not in self._incarnations:
            self._dead_incarnation = max(self._incarnations.values(), default=0)
            self._incarnations[generation] = incarnation
        if incarnation <= self._dead_incarnation and generation == max(self._incarnations):
            self.broken(
                f"incarnation {incarnation} again: a dead process had {self._dead_incarnation}",
                asked.id,
            )
        self._incarnations[generation] = max(self._incarnations[generation], incarnation)

    # -- failure ---------------------------------------------------------------------

    def broken(self, what: str, subject: str = "") -> NoReturn:
        """Raise, with the seed and the history of the request and of the session.

        Raises:
            BrokenPromiseError: always.
        """
        __tracebackhide__ = True
        lines = list(self._history)
        own = [line for line in lines if subject and subject in line[1:4]]
        shown = [*own[-SHOWN:], None, *lines[-SHOWN:]]
        text = "\n".join(
            f"  {line[0]:9.3f} {line[1]:6} {line[2]} {line[3]} {line[4]}" if line else "  ..."
            for line in shown
        )
        raise BrokenPromiseError(f"{self.name}: {what}\n{self._story}\n{text}")


def _essence(frame: dict[str, Any]) -> Any:
    meta = frame["meta"]
    error = frame.get("error")
    said = error["code"] if error else frame.get("result")
    return said, f"incarnation {meta.get('incarnation')}", "replayed" if meta["replayed"] else "new"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_DETAIL else f"{text[:MAX_DETAIL]}..."
