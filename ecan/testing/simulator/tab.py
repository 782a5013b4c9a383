"""Browsers: a session as its owner knows it, and the tabs that are open on it.

A tab behaves as a careful client does: it counts the pushes, remembers what it has asked
and not been told, asks again with the same id after a reconnect, and resumes with its
cursor. What it sees must fit together (P3, P12).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import orjson

from ecan.testing.simulator.model import RETRY

if TYPE_CHECKING:
    from random import Random

    from ecan.testing.simulator.link import Link
    from ecan.testing.simulator.model import Request
    from ecan.testing.simulator.trace import Trace


@attrs.define(eq=False)
class ClientSession:
    """A session, as the browser that logged in knows it.

    Attributes:
        number: in the simulation.
        sid: public id; empty until the login was answered.
        ended: an answer or a push said that it is no more.
        logged_out: a logout was answered with success.
        refreshed: the first token is not the last one.
        refreshing: refreshed tokens that have not come.
        locked_out: one of those was lost, and the one before it has expired.
        requests: in the order they were first sent.
    """

    number: int
    user_id: int
    sid: str = ""
    session_id: str = ""
    token: str = ""
    ended: bool = False
    logged_out: bool = False
    refreshing: int = 0
    refreshed: bool = False
    locked_out: bool = False
    tabs: list[Tab] = attrs.field(factory=list)
    requests: list[Request] = attrs.field(factory=list)

    def __repr__(self) -> str:
        return f"session {self.number}"


class Tab:
    """One browser tab.

    Attributes:
        link: its connection, or None.
        bound: the server has said that the connection belongs to the session.
        last_seq: of the last push; None: it never saw one counted.
        waiting: ids it has asked and not been answered.
        close_code: the server's, when it closed the connection last.
    """

    def __init__(self, session: ClientSession, number: int, trace: Trace, random: Random) -> None:
        self.session = session
        self.name = f"{session.number}.{number}"
        self.link: Link | None = None
        self.bound = False
        self.resuming = False
        self.logging_in = False
        self.last_seq: int | None = None
        self.epoch = ""
        self.waiting: dict[str, Request] = {}
        self.close_code = 0
        self._trace = trace
        self._random = random
        self._calls = 0
        self._cursor: tuple[int | None, str] = (None, "")

    def __repr__(self) -> str:
        return f"tab {self.name}"

    # -- sending -----------------------------------------------------------------------

    def connected(self, link: Link) -> None:
        """A new connection; nothing is bound yet."""
        self.link = link
        self.bound = self.resuming = self.logging_in = False

    def call(self, method: str, params: dict[str, Any], **meta: Any) -> str:
        """Send a request of the client's own: login, resume, logout, cancel."""
        self._calls += 1
        request_id = f"{method}-{self.name}-{self._calls}"
        self._send(request_id, method, params, meta)
        return request_id

    def ask(self, request: Request, params: dict[str, Any] | None = None, **meta: Any) -> None:
        """Send a request of the application, for the first time or again."""
        self.waiting[request.id] = request
        self._send(request.id, request.method, params or request.params, meta)

    def login(self) -> None:
        """Open the session, unless that is on its way."""
        if not self.logging_in:
            self.logging_in = True
            self.call("login", {"user_id": self.session.user_id})

    def resume(self) -> None:
        """Bind the connection to the session and ask for what was missed."""
        cursor: dict[str, Any] = {}
        if self.last_seq is not None:
            cursor = {"last_seq": self.last_seq, "epoch": self.epoch}
        self._cursor = (self.last_seq, self.epoch)
        self.resuming = True
        self.call("session.resume", cursor, **self.credentials())

    def refresh(self) -> None:
        """Ask for a new token."""
        self.session.refreshing += 1
        self.call("refresh_token", {}, **self.credentials())

    def credentials(self) -> dict[str, str]:
        """As `meta` carries them."""
        return {"session_id": self.session.session_id, "token": self.session.token}

    def _send(
        self, request_id: str, method: str, params: dict[str, Any], meta: dict[str, Any]
    ) -> None:
        if self.link is None:
            return
        if self.bound and self.session.refreshed and "token" not in meta:
            # Always: a refused frame may not have told the server of the new one.
            meta = {**meta, "token": self.session.token}
        frame = {"id": request_id, "type": "request", "method": method, "params": params}
        self.link.send(orjson.dumps({**frame, "meta": meta}))

    # -- what comes --------------------------------------------------------------------

    def received(self, item: bytes | int, reason: str = "") -> None:
        """A frame, or the server's close."""
        if isinstance(item, int):
            self._trace.add("tab.closed", f"{self} {item} {reason}")
            self.close_code = item
            if self.link is not None:
                self.link.acknowledge_close()
                self.link = None
            return
        frame = orjson.loads(item)
        if frame["type"] == "request":
            self._pushed(frame)
        elif frame["status"] != "pending":
            self._answered(frame)

    def cut_off(self, link: Link) -> None:
        """The transport is gone."""
        if self.link is link:
            self._trace.add("tab.cut_off", str(self))
            self.link = None

    def _answered(self, frame: dict[str, Any]) -> None:
        error = frame.get("error") or {}
        code = error.get("code", "")
        if code in ("SESSION_CLOSED", "SESSION_EXPIRED", "SESSION_NOT_FOUND"):
            self._ended(code)
        method = frame["method"]
        if method == "login":
            self.logging_in = False
            if not code:
                self._logged_in(frame["result"])
        elif method == "logout" and not code:
            self.session.logged_out = True
        elif method == "session.resume":
            self.resuming = False
            if not code:
                self._resumed(frame["result"])
        elif method == "refresh_token" and not code:
            self.session.token = frame["result"]["token"]
            self.session.refreshing -= 1
            self.session.refreshed = True
        if code == "INVALID_TOKEN" and method != "sim.read":
            self._locked_out()
        again = error.get("retryable") and (error["outcome"] == "not_run" or code in RETRY)
        if not again or code == "METHOD_SUSPENDED":
            self.waiting.pop(frame["id"], None)

    def _logged_in(self, result: dict[str, Any]) -> None:
        session = self.session
        session.sid, session.session_id = result["sid"], result["session_id"]
        session.token = result["token"]
        self.bound = True
        self.last_seq, self.epoch = result["seq"], result["epoch"]

    def _resumed(self, result: dict[str, Any]) -> None:
        last_seq, epoch = self._cursor
        self.bound = True
        self._trace.count(f"resume.{result['status']}")
        if last_seq is None:
            last_seq = result["seq"]  # it asked for nothing: the next one is the first
        elif epoch != result["epoch"]:
            last_seq = 0
        if last_seq > result["seq"]:
            self._trace.broken("P12", f"{self} saw {last_seq}, the server is at {result}")
        if result["status"] == "gap":
            last_seq = result["to"]
        self.last_seq, self.epoch = last_seq, result["epoch"]

    def _locked_out(self) -> None:
        """The token is no good: its successor was lost on the way, and its grace is over."""
        session = self.session
        if not session.refreshing and not session.ended and not session.logged_out:
            self._trace.broken("P15", f"{self} has a good token that is refused")
        session.locked_out = True

    def _pushed(self, frame: dict[str, Any]) -> None:
        meta = frame["meta"]
        if "seq" not in meta:
            self._asked(frame)
            return
        if meta["sid"] != self.session.sid and self.session.sid:
            self._trace.broken("P1", f"{self} of {self.session.sid} got {frame}")
        known = self.last_seq
        if self.epoch == meta["epoch"] and known is not None and meta["seq"] != known + 1:
            self._trace.broken("P12", f"{self} got push {meta['seq']} after {known}")
        if frame["method"] == "session.closed":
            # The last push, the only one that leaves before it is durable: no cursor.
            self._ended(frame["params"]["reason"])
        else:
            self.last_seq, self.epoch = meta["seq"], meta["epoch"]

    def _asked(self, frame: dict[str, Any]) -> None:
        """A handler asks; people answer, refuse, or are not there."""
        answer = {"id": frame["id"], "type": "response", "method": frame["method"]}
        kind = self._random.random()
        if self.link is None or kind < 0.2:  # noqa: PLR2004
            return
        if kind < 0.8:  # noqa: PLR2004
            answer.update(status="success", result=frame["params"])
        else:
            answer.update(status="error", error={"code": "REFUSED", "message": "no"})
        self._trace.add("tab.answers", f"{self} {answer['id']} {answer['status']}")
        self.link.send(orjson.dumps(answer))

    def _ended(self, reason: str) -> None:
        if not self.session.ended:
            self._trace.add("session.over", f"{self.session} {reason}")
            self.session.ended = True
