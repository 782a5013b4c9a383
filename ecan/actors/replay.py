"""Runs a dead letter again: on a copy of its session, or in the session itself (P9)."""

from __future__ import annotations

import itertools
import traceback
from typing import TYPE_CHECKING, Any, Literal, cast

import attrs
import orjson

from ecan.actors.call import Call
from ecan.actors.cell import Cell
from ecan.actors.crashes import MAX_TRACE_CHARS
from ecan.actors.incarnations import Incarnations
from ecan.actors.ledger import fingerprint
from ecan.actors.messages import CloseSession, SessionCrashed
from ecan.errors import ReplyError, SupervisionError
from ecan.handlers.context import User
from ecan.observability import Metrics
from ecan.protocol.codes import CloseCode, ErrorCode
from ecan.protocol.frames import ConnectionId, Request, Sid
from ecan.protocol.redact import REDACTED

if TYPE_CHECKING:
    import asyncio

    from ecan.actors.environment import Environment
    from ecan.store import Commit, DocumentPage, DocumentRow, LetterRow, SessionStore

_numbers = itertools.count(1)


@attrs.frozen(kw_only=True)
class Replay:
    """What came of it.

    Attributes:
        applied: it ran in the session itself.
        status: ``success``, ``error`` (declared, refused or timed out) or ``crash``.
        result: of the handler.
        error: the reply's error object; of a crash on a copy with ``traceback``.
        slots: what it changed of the copy's state: name to JSON before and after.
        documents: what it would have written of the user's documents; null deletes.
        pushes: frames it would have sent.
        redacted: params were kept without secrets, so this was not quite the same request.
    """

    crash_id: str
    method: str
    applied: bool
    status: Literal["success", "error", "crash"]
    result: Any = None
    error: Any = None
    slots: dict[str, tuple[Any, Any]] = attrs.field(factory=dict)
    documents: dict[str, Any] = attrs.field(factory=dict)
    pushes: list[Any] = attrs.field(factory=list)
    redacted: bool = False


class Recorder:
    """A `Peer` that keeps what it is sent."""

    address = "replay"
    user_agent = ""
    connected_at = 0.0
    is_open = True
    backlog_bytes = 0
    sent_bytes = 0

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.id = ConnectionId(-next(_numbers))
        self.answer: asyncio.Future[dict[str, Any]] = loop.create_future()

    def send(self, frame: bytes) -> bool:
        """See `Peer.send`: the final response ends the replay."""
        message = orjson.loads(frame)
        final = message["type"] == "response" and message["status"] != "pending"
        if final and not self.answer.done():
            self.answer.set_result(message)
        return True

    def send_all(self, frames: list[bytes]) -> None:
        """See `Peer.send_all`."""
        for frame in frames:
            self.send(frame)

    def close(self, code: CloseCode, reason: str) -> None:
        """See `Peer.close`."""


class ScratchStore:
    """Reads from the real store; commits go nowhere but into `commits`."""

    name = "scratch"
    trouble = None

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self.commits: list[Commit] = []

    def commit(self, commit: Commit) -> None:
        """See `SessionStore.commit`."""
        self.commits.append(commit)

    async def document(self, user_id: int, collection: str, key: str) -> DocumentRow | None:
        """See `SessionStore.document`."""
        return await self._store.document(user_id, collection, key)

    async def documents(self, user_id: int, collection: str, **options: Any) -> DocumentPage:
        """See `SessionStore.documents`."""
        return await self._store.documents(user_id, collection, **options)


async def replay_on_copy(letter: LetterRow, env: Environment) -> Replay:
    """Run the request again over the state it crashed on; nothing of it is kept.

    Raises:
        ReplyError: the method is gone, or the params do not fit it any more.
    """
    scratch = ScratchStore(env.store)
    crashes: list[BaseException] = []
    recorder = Recorder(env.loop)

    def told(message: Any) -> None:
        if isinstance(message, SessionCrashed):
            crashes.append(message.error)
            if not recorder.answer.done():
                recorder.answer.set_result({"status": "error", "error": None})
        elif isinstance(message, CloseSession) and not message.reply.done():
            message.reply.set_result(True)  # a copy has no session that could end

    copy_env = attrs.evolve(
        env,
        store=cast("SessionStore", scratch),
        tell_supervisor=told,
        observe=lambda _call, _status: None,
    )
    metrics = Metrics()
    cell = Cell(
        Sid(letter.sid),
        b"",
        User(user_id=letter.user_id, username=letter.username),
        env.clock,
        mailbox_size=1,
        wake=lambda _: None,
        store=scratch,
        metrics=metrics,
        created_at=letter.at,
        slots=dict(letter.context),
    )
    before = dict(letter.context)
    incarnations = Incarnations(copy_env, metrics)
    incarnations.start(cell)
    call = _call_of(letter, env, recorder)
    cell.accept(call)
    try:
        reply = await recorder.answer
    finally:
        incarnations.halt(cell, ReplyError(ErrorCode.CANCELLED, "The replay is over."))
    if crashes:
        error = crashes[0]
        reply["error"] = {
            "code": ErrorCode.HANDLER_CRASHED,
            "message": f"{type(error).__name__}: {error}",
            "traceback": "".join(traceback.format_exception(error))[-MAX_TRACE_CHARS:],
        }
    return _replay(
        letter,
        reply,
        applied=False,
        status="crash" if crashes else reply["status"],
        slots=_changes(before, scratch.commits),
        documents={
            f"{write.collection}/{write.key}": _json(write.data)
            for commit in scratch.commits
            for write in commit.documents
        },
        pushes=[orjson.loads(push.frame) for commit in scratch.commits for push in commit.pushes],
    )


async def replay_in_session(letter: LetterRow, cell: Cell, env: Environment) -> Replay:
    """Put the request into its session again, under an id of its own; its effects stay.

    Raises:
        ReplyError: as `replay_on_copy`; the session takes no requests.
    """
    recorder = Recorder(env.loop)
    cell.accept(_call_of(letter, env, recorder))
    reply = await recorder.answer
    return _replay(letter, reply, applied=True, status=_status(reply))


def _status(reply: dict[str, Any]) -> Literal["success", "error", "crash"]:
    if reply["status"] == "success":
        return "success"
    return "crash" if reply["error"]["code"] == ErrorCode.HANDLER_CRASHED else "error"


def _replay(letter: LetterRow, reply: dict[str, Any], **facts: Any) -> Replay:
    return Replay(
        crash_id=letter.crash_id,
        method=letter.method,
        result=reply.get("result"),
        error=reply.get("error"),
        redacted=REDACTED.encode() in letter.params,
        **facts,
    )


def _call_of(letter: LetterRow, env: Environment, recorder: Recorder) -> Call:
    spec = env.server.registry.get(letter.method)
    if spec is None:
        raise SupervisionError(f"there is no method {letter.method} any more")
    request = Request(
        f"replay-{letter.crash_id}-{next(_numbers)}",
        letter.method,
        orjson.loads(letter.params),
        size_bytes=len(letter.params),
    )
    now = env.clock.mono()
    return Call(
        request,
        spec,
        spec.structure(request.params),
        fingerprint(spec.name, request.params),
        recorder,
        now,
        now + (spec.timeout_s or env.settings.request_timeout_s),
    )


def _changes(before: dict[str, bytes], commits: list[Commit]) -> dict[str, tuple[Any, Any]]:
    after: dict[str, bytes | None] = {}
    for commit in commits:
        after |= commit.slots
    return {name: (_json(before.get(name)), _json(data)) for name, data in after.items()}


def _json(data: bytes | None) -> Any:
    return None if data is None else orjson.loads(data)
