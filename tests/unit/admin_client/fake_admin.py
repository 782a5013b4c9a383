"""An admin socket that answers from a table, for tests of its clients."""

from __future__ import annotations

import contextlib
import json
import queue
import socketserver
import threading
import time
from pathlib import Path
from typing import Any

NOW = time.time()

STACK = '  File "shop/handlers.py", line 31, in report\n    rows = slow_query(sql)\n'

SESSIONS = [
    {
        "sid": f"s{number:03}abcd",
        "user": user,
        "state": state,
        "tabs": number % 3,
        "incarnation": 1 + restarts,
        "restarts": restarts,
        "created_at": NOW - 3600 * number - 90,
        "idle_s": 1.5 * number,
        "queue": queued,
        "running": running,
        "running_s": 4.2 if running else None,
        "requests": 1234 * number,
        "requests_s": 80.0 / (number + 1),
        "state_bytes": 2048 * number,
        "paused": paused,
    }
    for number, (user, state, restarts, queued, running, paused) in enumerate(
        [
            ("ann", "active", 0, 0, None, False),
            ("bob", "active", 0, 41, "shop.report", False),
            ("王小明", "active", 0, 0, None, True),
            ("dora-with-a-long-name@example.com", "failed", 4, 2, None, False),
            ("eve", "passivated", 0, 0, None, False),
            ("frank", "restarting", 2, 1, None, False),
        ]
    )
]

BIOGRAPHY = {
    **SESSIONS[1],
    "created_by": {"address": "192.0.2.7", "user_agent": "Mozilla/5.0 \x1b[31m(evil)"},
    "tabs": [
        {
            "id": "c17",
            "address": "192.0.2.7",
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0",
            "connected_at": NOW - 300,
            "backlog_bytes": 1536,
        }
    ],
    "running": {"method": "shop.report", "id": "r-1", "age_s": 4.2, "stack": STACK},
    "overlapping": [{"method": "shop.ping", "id": "r-9", "age_s": 0.1}],
    "zombies": 1,
    "queue": [
        {"id": f"r-{number}", "method": "shop.report", "age_s": 3.0, "bytes": 420}
        for number in range(2, 5)
    ],
    "slots": {"cart": 1800, "prefs": 248},
    "transitions": [
        {"at": NOW - 5400, "event": "open", "state": "starting", "note": ""},
        {"at": NOW - 5399, "event": "started", "state": "active", "note": ""},
    ],
    "crashes": [
        {"at": NOW - 900, "crash_id": "cr-77", "method": "shop.pay", "error": "KeyError: 'sum'"}
    ],
    "errors": [{"at": NOW - 60, "method": "shop.pay", "code": "NO_MONEY", "message": "余额不足"}],
    "budget": {
        "cpu_s": {"used": 61.5, "soft": 60.0, "hard": 120.0},
        "state_bytes": {"used": 2048, "soft": 1 << 20, "hard": None},
    },
    "outbox": {"epoch": "e1", "seq": 17, "bytes": 900, "replies": 2},
    "ledger": 12,
    "store": "sqlite",
    "durability": "commit",
    "expires_in_s": 86000.0,
}

LETTER = {
    "id": "cr-77",
    "at": NOW - 900,
    "sid": "s001abcd",
    "user": "bob",
    "method": "shop.pay",
    "request_id": "r-0",
    "incarnation": 1,
    "error": "KeyError: 'sum'",
}

STATUS = {
    "status": "healthy",
    "version": "0.1.0",
    "pid": 4711,
    "uptime_s": 190000.0,
    "sessions": {"active": 3, "failed": 1, "passivated": 1, "restarting": 1},
    "connections": 4,
    "store": "sqlite",
    "durability": "commit",
    "store_trouble": None,
    "rates": {"frames_in_s": 151.2, "requests_s": 148.9, "errors_s": 0.4},
    "loop_lag_ms": 0.31,
    "rss_bytes": 123_456_789,
    "cpu_s": 431.0,
    "crashes": 5,
    "restarts": 6,
    "give_ups": 1,
    "dead_letters": 1,
    "suspended_methods": {"shop.pay": "crashed 5 sessions"},
    "worker_threads": 8,
    "worker_zombies": 1,
    "stalled": [],
}

METRICS = """\
# TYPE ecan_request_run_seconds histogram
ecan_request_run_seconds_bucket{le="0.001",method="ping"} 10.0
ecan_request_run_seconds_bucket{le="0.01",method="ping"} 20.0
ecan_request_run_seconds_bucket{le="+Inf",method="ping"} 20.0
"""

OK = {"ok": True}

ANSWERS: dict[str, Any] = {
    "status": STATUS,
    "metrics": {"text": METRICS},
    "sessions.list": {"sessions": SESSIONS, "cursor": None, "total": len(SESSIONS)},
    "sessions.show": BIOGRAPHY,
    "sessions.create": {
        "sessions": [
            {"sid": "s9", "session_id": "id-9", "token": "tok-9", "expires_at": NOW + 86400}
        ]
    },
    "sessions.keep": {"expires_in_s": 90000.0},
    "sessions.push": {"sessions": 3},
    "queue.list": {
        "paused": True,
        "running": {"method": "shop.report", "id": "r-1", "age_s": 4.2},
        "queue": BIOGRAPHY["queue"],
    },
    "queue.drop": {"dropped": 3},
    "deadletters.list": {"letters": [LETTER], "cursor": None, "total": 1},
    "deadletters.show": {
        **LETTER,
        "params": {"card": "[redacted]"},
        "traceback": "Traceback (most recent call last):\n  File \"x.py\", line 1\nKeyError: 'sum'",
        "context": {"cart": ["tea"]},
    },
    "deadletters.replay": {
        "applied": False,
        "status": "crash",
        "result": None,
        "error": "KeyError: 'sum'",
        "slots": {"cart": [["tea"], []]},
        "documents": [],
        "pushes": [],
        "redacted": True,
    },
    "methods.list": {
        "methods": [
            {
                "method": method,
                "calls": calls,
                "errors": 3,
                "crashes": crashes,
                "p50_ms": 0.4,
                "p99_ms": 812.0,
                "queue_p99_ms": 1.2,
                "suspended": why,
            }
            for method, calls, crashes, why in [
                ("shop.report", 1234567, 0, None),
                ("shop.pay", 88, 5, "crashed 5 sessions"),
            ]
        ]
    },
    "handlers.reload": {
        "reloaded": ["shop.handlers"],
        "methods": {"added": ["shop.refund"], "changed": ["shop.pay"], "removed": []},
        "migrated": {"cart": 12},
    },
    "settings.get": {
        "settings": [
            {
                "name": "ECAN_RATE_LIMIT",
                "value": "50",
                "default": "100/200",
                "from": "admin",
                "live": True,
                "doc": "Requests of one session.",
            },
            {
                "name": "ECAN_HANDLERS",
                "value": "",
                "default": None,
                "from": "default",
                "live": False,
                "doc": "Extra modules with handlers.",
            },
        ]
    },
    "gc": {"seconds": 0.41, "found": 12},
    "log.level": {"level": "DEBUG", "before": "INFO"},
    "users.list": {
        "users": [
            {
                "username": "ann",
                "role": "admin",
                "email": "ann@example.com",
                "name": "Ann",
                "disabled": False,
                "created_at": NOW - 1e6,
                "last_login_at": None,
                "sessions": 2,
            }
        ]
    },
    "users.add": {"username": "zoe", "role": "user"},
}

EVENTS = [
    {"kind": "session.created", "at": NOW - 3, "sid": "s001abcd", "user": "bob"},
    {"kind": "session.crashed", "at": NOW - 2, "sid": "s001abcd", "method": "shop.pay"},
    {"kind": "session.restarted", "at": NOW - 1, "sid": "s001abcd", "incarnation": 2},
]


class FakeAdmin:
    """Listens on ``path`` in threads; ``answers`` may hold functions of the params."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Any] = dict(ANSWERS)
        self.errors: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        for event in EVENTS:
            self.events.put(event)
        self._connections: list[Any] = []
        self._server: socketserver.ThreadingUnixStreamServer | None = None

    def called(self, method: str) -> list[dict[str, Any]]:
        """Params of the calls of a method."""
        return [params for name, params in self.calls if name == method]

    def start(self) -> None:
        fake = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                fake._connections.append(self.connection)
                try:
                    for line in self.rfile:
                        if not fake._one(json.loads(line), self.wfile):
                            return
                except OSError:
                    pass

        self.path.unlink(missing_ok=True)
        socketserver.ThreadingUnixStreamServer.daemon_threads = True
        self._server = socketserver.ThreadingUnixStreamServer(str(self.path), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Hang up on everybody and answer nobody."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        self.path.unlink(missing_ok=True)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(2)
        self.events.put(None)
        server.server_close()

    def _one(self, request: dict[str, Any], out: Any) -> bool:
        method, params = request["method"], request["params"]
        self.calls.append((method, params))
        if method == "events.watch":
            while (event := self.events.get()) is not None:
                self._write(out, {"jsonrpc": "2.0", "method": "event", "params": event})
            return False
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        if method in self.errors:
            reply["error"] = self.errors[method]
        else:
            answer = self.answers.get(method, OK)
            answer = answer(params) if callable(answer) else answer
            if answer is None:
                return True
            reply["result"] = answer
        self._write(out, reply)
        return True

    @staticmethod
    def _write(out: Any, message: dict[str, Any]) -> None:
        out.write(json.dumps(message).encode() + b"\n")
