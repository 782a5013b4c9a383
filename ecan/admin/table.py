"""Every command of the admin socket, once: the server, the CLI, its help and the docs read this.

`ecan.admin.commands` has the functions; a test sees that each command has one.
"""

from __future__ import annotations

from typing import Any

import attrs

from ecan.admin import params as p


@attrs.frozen(kw_only=True)
class Command:
    """One command.

    Attributes:
        name: as in ``method`` of JSON-RPC; with blanks for dots on the command line.
        params: attrs class; `ecan.admin.params`.
        doc: one sentence, for help and docs.
        result: the shape of the answer.
        danger: what happens, as a question is asked about it; None: harmless.
        stream: answers with notifications until the client hangs up.
    """

    name: str
    params: type[Any]
    doc: str
    result: str
    danger: str | None = None
    stream: bool = False


def _c(name: str, params: type[Any], doc: str, result: str, danger: str | None = None) -> Command:
    return Command(name=name, params=params, doc=doc, result=result, danger=danger)


_OK = '{"ok": true}'

COMMANDS: tuple[Command, ...] = (
    _c(
        "status",
        p.Nothing,
        "How the server is: sessions by state, connections, rates, store, handlers, loop lag.",
        '{"status", "version", "pid", "uptime_s", "sessions": {state: n}, "connections", "store",'
        ' "durability", "store_trouble", "rates": {"frames_in_s", "requests_s", "errors_s"},'
        ' "loop_lag_ms", "rss_bytes", "cpu_s", "crashes", "restarts", "give_ups",'
        ' "dead_letters", "suspended_methods": {method: why}, "worker_threads",'
        ' "worker_zombies", "stalled": [{"sid", "method", "since_s", "abandoned", "stack"}],'
        ' "loop_stalls": [{"at", "what", "seconds", "stack"}]}',
    ),
    _c("metrics", p.Nothing, "The Prometheus metrics.", '{"text": "…"}'),
    _c(
        "sessions.list",
        p.ListSessions,
        "Sessions: those in memory in the order asked for, then those at rest.",
        '{"sessions": [{"sid", "user", "state", "tabs", "incarnation", "restarts",'
        ' "created_at", "idle_s", "queue", "running": method|null, "running_s", "requests",'
        ' "requests_s", "state_bytes", "paused"}], "cursor": str|null, "total": n|null,'
        ' "trouble": why the store cannot be asked|null}',
    ),
    _c(
        "sessions.show",
        p.OneSession,
        "The biography of a session.",
        '{… as in sessions.list, "created_by": {"address", "user_agent"}|null, "tabs": [{"id",'
        ' "address", "user_agent", "connected_at", "backlog_bytes"}], "running": {"method", "id",'
        ' "age_s", "stack"}|null, "overlapping": [{"method", "id", "age_s"}], "queue":'
        ' [{"id", "method", "age_s", "bytes"}], "queue_bytes", "zombies", "slots":'
        ' {name: bytes}, "transitions": [{"at", "event", "state", "note"}], "crashes": [{"at",'
        ' "crash_id", "method", "error"}], "errors": [{"at", "method", "code", "message"}],'
        ' "budget": {name: {"used", "soft", "hard"}}, "outbox": {"epoch", "seq", "bytes",'
        ' "replies"}, "ledger", "store", "durability", "expires_in_s"}',
    ),
    _c(
        "sessions.create",
        p.CreateSessions,
        "Make sessions for load tests and scripts.",
        '{"sessions": [{"sid", "session_id", "token", "expires_at"}]}',
    ),
    _c(
        "sessions.kill",
        p.KillSession,
        "End a session; its data is deleted.",
        _OK,
        "ends the session and deletes its data",
    ),
    _c(
        "sessions.restart",
        p.OneSession,
        "Start a new incarnation now, from the last commit.",
        _OK,
        "cancels what the session runs",
    ),
    _c("sessions.revive", p.OneSession, "Let a failed session go on.", _OK),
    _c(
        "sessions.reset",
        p.OneSession,
        "Empty the session's state and start it anew.",
        _OK,
        "deletes the session's state",
    ),
    _c("sessions.passivate", p.OneSession, "Let an idle session leave memory now.", _OK),
    _c(
        "sessions.keep",
        p.KeepSession,
        "Do not take a session for idle for so long.",
        '{"expires_in_s"}',
    ),
    _c("sessions.push", p.PushTo, "Push to the tabs of one, some or all.", '{"sessions": n}'),
    _c(
        "queue.list",
        p.OneSession,
        "What waits in a session.",
        '{"paused", "running": {"method", "id", "age_s"}|null,'
        ' "queue": [{"id", "method", "age_s", "bytes"}]}',
    ),
    _c(
        "queue.drop",
        p.DropRequests,
        "Answer queued requests CANCELLED without running them.",
        '{"dropped": n}',
        "cancels queued requests",
    ),
    _c("queue.pause", p.OneSession, "Run no further request of a session; they wait.", _OK),
    _c("queue.resume", p.OneSession, "Go on with a paused session.", _OK),
    _c(
        "deadletters.list",
        p.ListLetters,
        "Requests that crashed their sessions, newest first.",
        '{"letters": [{"id", "at", "sid", "user", "method", "request_id", "incarnation",'
        ' "error"}], "cursor": str|null, "total"}',
    ),
    _c(
        "deadletters.show",
        p.OneLetter,
        "One of them: traceback, request without secrets, state before.",
        '{… as in deadletters.list, "params", "traceback", "context": {slot: value}}',
    ),
    _c(
        "deadletters.replay",
        p.ReplayLetter,
        "Run it again, on a copy of the session unless told otherwise.",
        '{"applied", "status": "success"|"error"|"crash", "result", "error", "slots": {name:'
        ' [before, after]}, "documents", "pushes", "redacted"}',
    ),
    _c("deadletters.discard", p.OneLetter, "Forget it.", _OK, "deletes the dead letter"),
    _c(
        "methods.list",
        p.Nothing,
        "Every method: calls, errors, crashes, latencies, suspended or not.",
        '{"methods": [{"method", "calls", "errors", "crashes", "p50_ms", "p99_ms",'
        ' "queue_p99_ms", "suspended": why|null}]}',
    ),
    _c(
        "methods.suspend",
        p.OneMethod,
        "Refuse a method until it is resumed.",
        _OK,
        "refuses the method for everybody",
    ),
    _c("methods.resume", p.OneMethod, "Allow a suspended method again.", _OK),
    _c(
        "handlers.reload",
        p.Nothing,
        "Load changed handler modules without losing a session.",
        '{"reloaded": [module], "methods": {"added": [], "changed": [], "removed": []},'
        ' "migrated": {slot: n}}',
        "switches to the handlers as they are on the disk",
    ),
    _c(
        "settings.get",
        p.Nothing,
        "Every setting, where it comes from, and whether it can change now.",
        '{"settings": [{"name", "value", "default", "from": "environment"|"default"|"admin",'
        ' "live": bool, "doc", "allowed"}]}',
    ),
    _c("settings.set", p.SetSetting, "Change a setting until the next start.", _OK),
    _c("log.level", p.LogLevel, "Log more, or less.", '{"level", "before"}'),
    _c(
        "users.list",
        p.Nothing,
        "All accounts.",
        '{"users": [{"user_id", "username", "role", "email", "name", "disabled", "created_at",'
        ' "last_login_at", "sessions"}]}',
    ),
    _c("users.add", p.AddUser, "A new account.", '{"username", "role"}'),
    _c("users.passwd", p.SetPassword, "A new password.", _OK, "ends the user's sessions"),
    _c(
        "users.disable",
        p.OneUser,
        "Lock an account out.",
        _OK,
        "locks the user out and ends their sessions",
    ),
    _c(
        "gc",
        p.Nothing,
        "Look through all of memory for garbage in cycles and free it.",
        '{"seconds": the server stood still, "found": objects freed}',
        "holds the whole server up, half a second for 10 000 sessions in memory",
    ),
    _c(
        "drain",
        p.Drain,
        "Finish what runs, part from every client, stop (as SIGTERM).",
        _OK,
        "stops the server when handlers have finished",
    ),
    _c("shutdown", p.Nothing, "Stop now (as a second SIGTERM).", _OK, "stops the server now"),
    Command(
        name="events.watch",
        params=p.WatchEvents,
        doc="What happens, as it happens.",
        result='{"watching": kinds|null}, then notifications {"method": "event", "params":'
        ' {"kind", "at", "sid"?, …}}',
        stream=True,
    ),
)

BY_NAME: dict[str, Command] = {command.name: command for command in COMMANDS}
