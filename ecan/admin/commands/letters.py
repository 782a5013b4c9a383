"""Dead letters: requests that crashed their sessions."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import orjson

from ecan.admin.commands.rows import letter_row
from ecan.errors import ReplyError
from ecan.observability import redact

if TYPE_CHECKING:
    from ecan.admin import params as p
    from ecan.admin.ports import AdminPort, Function

_OK = {"ok": True}

_REPLAYED = ("applied", "status", "result", "error", "slots", "documents", "pushes", "redacted")


async def list_(port: AdminPort, params: p.ListLetters) -> dict[str, Any]:
    """Newest first."""
    letters = await port.store.letters(params.limit + 1, params.cursor)
    page = letters[: params.limit]
    return {
        "letters": [letter_row(letter) for letter in page],
        "cursor": page[-1].crash_id if len(letters) > len(page) else None,
        "total": await port.store.letter_count(),
    }


async def show(port: AdminPort, params: p.OneLetter) -> dict[str, Any]:
    """One of them."""
    letter = await port.store.letter(params.id)
    if letter is None:
        raise _not_found()
    return {
        **letter_row(letter),
        "params": redact(_json(letter.params)),
        "traceback": letter.traceback,
        "context": redact({name: _json(data) for name, data in letter.context.items()}),
    }


async def replay(port: AdminPort, params: p.ReplayLetter) -> dict[str, Any]:
    """Run it again."""
    if await port.store.letter(params.id) is None:
        raise _not_found()
    done = await port.sessions.replay(params.id, apply=params.apply)
    return {name: redact(getattr(done, name)) for name in _REPLAYED}


async def discard(port: AdminPort, params: p.OneLetter) -> dict[str, bool]:
    """Forget it."""
    if not await port.store.discard_letter(params.id):
        raise _not_found()
    port.metrics.dead_letters = await port.store.letter_count()
    return _OK


def _json(data: bytes) -> Any:
    with contextlib.suppress(orjson.JSONDecodeError):
        return orjson.loads(data)
    return None


def _not_found() -> ReplyError:
    return ReplyError("LETTER_NOT_FOUND", "There is no such dead letter.")


COMMANDS: dict[str, Function] = {
    "deadletters.list": list_,
    "deadletters.show": show,
    "deadletters.replay": replay,
    "deadletters.discard": discard,
}
