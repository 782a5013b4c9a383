"""`ecan ops` against a server that is a table: every command, its page, its exit code."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest
from fake_admin import ANSWERS, SESSIONS, STATUS

from ecan.admin.table import BY_NAME, COMMANDS
from ecan.cli import app as ecan
from ecan.cli import ops_run


@pytest.fixture
def ops(fake, capsys, monkeypatch):
    """Run it in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    def run(*words: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as exited:
            ecan(["ops", *words])
        out = capsys.readouterr()
        return int(exited.value.code or 0), out.out, out.err

    return run


CALLS = {
    "status": ([], {}, ["healthy", "2d 4h", "117.7 MiB", "shop.pay"]),
    "metrics": ([], {}, ['ecan_request_run_seconds_bucket{le="0.001",method="ping"} 10.0']),
    "sessions.list": (["--state", "failed", "--sort", "queue"], {"state": "failed", "sort": "queue"}, ["SID", "王小明", "active paused", "10.0 KiB", "shop.report 4s"]),
    "sessions.show": (["s001"], {"sid": "s001"}, ["slow_query", "192.0.2.7", "cart", "KeyError: 'sum'", "余额不足", "61.5", "QUEUE (3)"]),
    "sessions.create": (["ann", "--count", "1"], {"user": "ann", "count": 1}, ["id-9", "tok-9"]),
    "sessions.kill": (["s1", "--reason", "spam", "--yes"], {"sid": "s1", "reason": "spam"}, ["ok"]),
    "sessions.restart": (["s1", "--yes"], {"sid": "s1"}, ["ok"]),
    "sessions.revive": (["s1"], {"sid": "s1"}, ["ok"]),
    "sessions.reset": (["s1", "--yes"], {"sid": "s1"}, ["ok"]),
    "sessions.passivate": (["s1"], {"sid": "s1"}, ["ok"]),
    "sessions.keep": (["s1", "60"], {"sid": "s1", "seconds": 60.0}, ["expires_in_s", "90000"]),
    "sessions.push": (["news", "--params", '{"a": 1}', "--all"], {"method": "news", "params": {"a": 1}, "all": True}, ["sessions  3"]),
    "queue.list": (["s1"], {"sid": "s1"}, ["shop.report (r-1) for 4s", "r-2", "420 B"]),
    "queue.drop": (["s1", "--all", "--yes"], {"sid": "s1", "all": True}, ["dropped  3"]),
    "queue.pause": (["s1"], {"sid": "s1"}, ["ok"]),
    "queue.resume": (["s1"], {"sid": "s1"}, ["ok"]),
    "deadletters.list": ([], {}, ["cr-77", "KeyError"]),
    "deadletters.show": (["cr-77"], {"id": "cr-77"}, ["Traceback", "[redacted]", "tea"]),
    "deadletters.replay": (["cr-77", "--apply"], {"id": "cr-77", "apply": True}, ["crash", "+ []", "secrets"]),
    "deadletters.discard": (["cr-77", "--yes"], {"id": "cr-77"}, ["ok"]),
    "methods.list": ([], {}, ["1,234,567", "812", "crashed 5 sessions"]),
    "methods.suspend": (["shop.pay", "--yes"], {"method": "shop.pay"}, ["ok"]),
    "methods.resume": (["shop.pay"], {"method": "shop.pay"}, ["ok"]),
    "handlers.reload": (["--yes"], {}, ["shop.refund", "cart: 12"]),
    "settings.get": ([], {}, ["ECAN_RATE_LIMIT", "50", "admin"]),
    "settings.set": (["ECAN_RATE_LIMIT", "50"], {"name": "ECAN_RATE_LIMIT", "value": "50"}, ["ok"]),
    "log.level": (["DEBUG"], {"level": "DEBUG"}, ["INFO"]),
    "users.list": ([], {}, ["ann@example.com"]),
    "users.add": (["zoe", "--password-stdin"], {"username": "zoe", "password": "hunter2"}, ["zoe"]),
    "users.passwd": (["zoe", "--password-stdin", "--yes"], {"username": "zoe", "password": "hunter2"}, ["ok"]),
    "users.disable": (["zoe", "--yes"], {"username": "zoe"}, ["ok"]),
    "gc": (["--yes"], {}, ["0.41", "12"]),
    "drain": (["--timeout", "5", "--yes"], {"timeout": 5.0}, ["ok"]),
    "shutdown": (["--yes"], {}, ["ok"]),
}  # fmt: skip


def test_all_commands_are_tried() -> None:
    """The table of this test and that of the server."""
    assert set(CALLS) | {"events.watch"} == {command.name for command in COMMANDS}


@pytest.mark.parametrize("name", CALLS)
def test_command_sends_its_params_and_shows_its_answer(ops, fake, name):
    """As words; arguments, options; a page."""
    words, params, shown = CALLS[name]
    code, out, err = ops(*name.split("."), *words, stdin="hunter2\n")

    assert (code, err) == (0, "")
    assert fake.called(name) == [params]
    assert [word for word in shown if word not in out] == []
    assert "\x1b" not in out


@pytest.mark.parametrize("name", CALLS)
def test_json_is_one_line(ops, name):
    """The result as it came."""
    code, out, _ = ops(*name.split("."), *CALLS[name][0], "--json", stdin="hunter2\n")

    assert code == 0
    assert out.count("\n") == 1
    assert json.loads(out) == json.loads(json.dumps(ANSWERS.get(name, {"ok": True})))


@pytest.mark.parametrize(
    "command", [row for row in COMMANDS if row.danger], ids=lambda row: row.name
)
def test_dangerous_command_without_a_terminal_needs_yes(ops, fake, command):
    """Exit 2, nothing sent."""
    words = [word for word in CALLS[command.name][0] if word != "--yes"]
    code, out, err = ops(*command.name.split("."), *words, stdin="hunter2\ny\n")

    assert (code, out) == (2, "")
    assert command.danger in err
    assert "--yes" in err
    assert fake.calls == []


def test_the_server_said_no(ops, fake):
    """Exit 1, its words on stderr; as JSON with --json."""
    error = {
        "code": -32001,
        "message": "no session s1",
        "data": {"code": "AMBIGUOUS", "details": {"similar": ["s17"]}},
    }
    fake.errors["sessions.show"] = error

    assert ops("sessions", "show", "s1") == (1, "", 'ecan: no session s1\n  {"similar": ["s17"]}\n')
    code, out, err = ops("sessions", "show", "s1", "--json")
    assert (code, out, json.loads(err)) == (1, "", error)


@pytest.mark.parametrize(
    "words",
    [
        ["sessions", "list", "--state", "dead"],
        ["sessions", "show"],
        ["sessions", "push", "m", "--params", "{", "--all"],
        ["sessions", "push", "m"],
        ["queue", "drop", "s1", "--all", "--request-id", "r1", "--yes"],
        ["status", "--watch", "0"],
        ["users", "add", "zoe"],
        ["nonsense"],
    ],
)
def test_usage_errors(ops, fake, words):
    """Exit 2, nothing sent."""
    assert ops(*words)[0] == 2
    assert fake.calls == []


def test_no_server(ops, fake, tmp_path):
    """Exit 3 and what to look at."""
    fake.stop()
    code, _, err = ops("status")
    assert code == 3
    assert err == (
        f"ecan: no server answers at {tmp_path / 'a.sock'};"
        " is it running with the same ECAN_DATA_DIR / ECAN_ADMIN_SOCKET?\n"
    )
    assert ops("status", "--socket", str(tmp_path / ("x" * 200)))[0] == 3


def test_no_answer_in_time_and_a_hang_up(ops, fake):
    """Exit 3."""
    fake.answers["status"] = lambda _: None
    assert ops("status", "--timeout", "0.1") == (3, "", "ecan: no answer within 0.1 s\n")

    def hang_up(_):
        raise OSError

    fake.answers["status"] = hang_up
    assert ops("status") == (3, "", "ecan: the server hung up\n")


def test_list_follows_the_cursor_up_to_the_limit(ops, fake):
    """Pages of a thousand."""

    def page(params):
        start = int(params.get("cursor") or 0)
        rows = [{**SESSIONS[0], "sid": f"s{n}"} for n in range(start, start + params["limit"])]
        return {"sessions": rows, "cursor": str(start + params["limit"]), "total": 9000}

    fake.answers["sessions.list"] = page
    code, out, _ = ops("sessions", "list", "--limit", "2500")

    assert code == 0
    assert [call["limit"] for call in fake.called("sessions.list")] == [1000, 1000, 500]
    assert len(out.splitlines()) == 2502
    assert out.endswith("2,500 of 9,000; more with --limit\n")
    assert (
        len(json.loads(ops("sessions", "list", "--limit", "1500", "--json")[1])["sessions"]) == 1500
    )


def test_empty_lists_say_so(ops, fake):
    """No table of nothing."""
    fake.answers["sessions.list"] = {"sessions": [], "cursor": None, "total": 0}
    fake.answers["deadletters.list"] = {"letters": [], "cursor": None, "total": 0}
    assert ops("sessions", "list")[1] == "No sessions.\n"
    assert ops("deadletters", "list")[1] == "No dead letters.\n"


def test_stuck_session_and_store_trouble_in_status(ops, fake):
    """With the stack."""
    stall = {"sid": "s1", "method": "m", "since_s": 3.0, "stack": ["  File x\n", "    y\n"]}
    fake.answers["status"] = {**STATUS, "stalled": [stall], "store_trouble": "disk full"}
    out = ops("status")[1]
    assert "stuck for 3s: s1 in m" in out
    assert "File x" in out
    assert "disk full" in out


def test_a_session_at_rest_has_a_short_biography(ops, fake):
    """No tables of nothing."""
    empty = {"running": None, "created_by": None, "state_bytes": None, "paused": True, "zombies": 0}
    names = ("tabs", "queue", "overlapping", "transitions", "crashes", "errors")
    facts = {**empty, **{name: [] for name in names}, "slots": {}, "budget": {}}
    fake.answers["sessions.show"] = lambda params: {**ANSWERS["sessions.show"], **facts}
    out = ops("sessions", "show", "s1")[1]
    assert "active paused" in out
    assert "RUNNING" not in out
    assert out.count("\n") == 10


def test_what_cannot_be_seen_and_what_stood_still(ops, fake):
    """A store that is down, stalls of the loop, abandoned threads."""
    fake.answers["sessions.list"] = {"sessions": [], "cursor": None, "total": 0, "trouble": "disk"}
    assert ops("sessions", "list")[1] == "Those at rest cannot be seen: disk\n"
    stall = {"sid": "s1", "method": "m", "since_s": 3.0, "stack": "", "abandoned": True}
    still = {"at": 0.0, "what": "m", "seconds": 1.5, "stack": "  File z"}
    fake.answers["status"] = {**STATUS, "stalled": [stall], "loop_stalls": [still]}
    out = ops("status")[1]
    assert "abandoned, still running for 3s" in out
    assert "the loop stood still for 1.50 s" in out


def test_a_replay_that_went_well_and_one_that_crashed(ops, fake):
    """What it would have changed; or where it crashed."""
    done = {"status": "success", "error": None, "applied": True, "redacted": False}
    fake.answers["deadletters.replay"] = {**ANSWERS["deadletters.replay"], **done, "result": [1]}
    assert "success (in the session)" in ops("deadletters", "replay", "cr-77")[1]
    error = {"code": "HANDLER_CRASHED", "message": "no", "traceback": "Traceback\n  x"}
    fake.answers["deadletters.replay"] = {**ANSWERS["deadletters.replay"], "error": error}
    assert "HANDLER_CRASHED: no\n  Traceback\n    x\n" in ops("deadletters", "replay", "cr-77")[1]


def test_an_answer_that_has_no_page_is_shown_as_json(ops, fake):
    """A newer server."""
    fake.answers["sessions.keep"] = {"expires_in_s": {"new": [1]}}
    assert '"new": [' in ops("sessions", "keep", "s1", "5")[1]


class Typist(io.StringIO):
    """A terminal to read from."""

    def isatty(self) -> bool:
        return True


def test_questions(ops, fake, monkeypatch):
    """No, yes; passwords that differ."""
    command = BY_NAME["sessions.kill"]
    monkeypatch.setattr(sys, "stdin", Typist("n\ny\n"))
    assert ops_run.run(command, {"sid": "s1"}, ops_run.Options()) == 1
    assert ops_run.run(command, {"sid": "s1"}, ops_run.Options()) == 0
    assert len(fake.called("sessions.kill")) == 1
    typed = iter(["one", "one", "one", "two"])
    monkeypatch.setattr(ops_run.getpass, "getpass", lambda _: next(typed))
    add, options = BY_NAME["users.add"], ops_run.Options(asks_password=True)
    assert ops_run.run(add, {"username": "zoe"}, options) == 0
    assert ops_run.run(add, {"username": "zoe"}, options) == 2


def test_watch_and_streams_end_with_ctrl_c(ops, fake, monkeypatch, capsys):
    """130; on what is no terminal without clearing."""
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(ops_run.time, "sleep", sleep)
    assert ops("status", "--watch")[0] == 130
    assert len(fake.called("status")) == 3
    threading.Timer(0.3, fake.stop).start()
    code, out, _ = ops("events", "watch")
    assert code == 3
    assert "session.crashed" in out


def test_help_lists_all_commands_with_their_words(ops):
    """One line each."""
    out = ops("--help")[1]
    for command in COMMANDS:
        assert re.search(
            rf"^  {command.name.replace('.', ' ')} +{re.escape(command.doc[:20])}",
            out,
            re.MULTILINE,
        )
    assert "only sessions in this state" in ops("sessions", "list", "--help")[1].lower()


def test_shell_completion_knows_the_words() -> None:
    """Commands, options, choices."""
    script = ecan.generate_completion(shell="bash")  # noqa: S604 - not that kind of shell
    assert all(
        word in script for word in ("deadletters", "replay", "passivated", "restarts", "--reason")
    )


# -- as a process, on a terminal -------------------------------------------------------------


class Terminal:
    """`ecan ops …` on a pseudo terminal."""

    def __init__(self, words: list[str], columns: int = 80, rows: int = 24) -> None:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ecan", *words],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""},
            # Job control: Ctrl-C must reach it.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )  # fmt: skip
        os.close(slave)
        self.master = master
        self.text = ""

    def read_until(self, word: str, timeout_s: float = 15.0) -> str:
        os.set_blocking(self.master, False)
        end = time.monotonic() + timeout_s
        while word not in self.text:
            assert time.monotonic() < end, f"{word!r} not in {self.text!r}"
            try:
                self.text += os.read(self.master, 65536).decode(errors="replace")
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:
                break
        assert word in self.text
        return self.text

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait(self) -> int:
        os.set_blocking(self.master, False)
        for _ in range(500):
            with contextlib.suppress(OSError):
                self.text += os.read(self.master, 65536).decode(errors="replace")
            if (code := self.process.poll()) is not None:
                return code
            time.sleep(0.02)
        raise AssertionError("it does not end: " + self.text)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal(fake):
    """Makes terminals."""
    made = []

    def make(*words: str, **options) -> Terminal:
        made.append(Terminal(list(words), **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize(("answer", "code", "calls"), [("y\n", 0, 1), ("\n", 1, 0)])
def test_dangerous_command_asks_on_a_terminal(fake, terminal, answer, code, calls):
    """Yes does it, Enter does not."""
    screen = terminal("ops", "sessions", "kill", "s1")
    screen.read_until("sessions kill s1: ends the session and deletes its data. Go on? [y/N]")
    screen.type(answer)
    assert screen.wait() == code
    assert len(fake.called("sessions.kill")) == calls


def test_password_is_asked_for_without_echo(fake, terminal):
    """Twice."""
    screen = terminal("ops", "users", "add", "zoe")
    screen.read_until("Password for zoe:")
    screen.type("hunter2\n")
    screen.read_until("Once more:")
    screen.type("hunter2\n")
    assert screen.wait() == 0
    assert "hunter2" not in screen.text
    assert fake.called("users.add")[0]["password"] == "hunter2"


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_tables_fit_the_terminal_in_colour(terminal, columns):
    """No line is longer, Chinese characters count two."""
    from rich.cells import cell_len

    screen = terminal("ops", "sessions", "list", columns=columns)
    screen.wait()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", screen.text).splitlines()
    assert "\x1b[32m" in screen.text
    assert max(cell_len(line) for line in lines) <= columns
    rows = [line for line in lines if line.startswith("s0")]
    assert len(rows) == 6
    assert len({cell_len(line) for line in rows}) == 1


def test_watch_repeats_until_ctrl_c(fake, terminal):
    """With the time, on a cleared screen; a clean end."""
    screen = terminal("ops", "status", "--watch", "0.1")
    screen.read_until("every 0.1 s")
    while len(fake.called("status")) < 3:
        time.sleep(0.02)
    screen.type("\x03")
    assert screen.wait() == 130
    assert "Traceback" not in screen.text
    assert screen.text.count("\x1b[2J") >= 2


def test_events_are_shown_as_they_come(fake, terminal):
    """Until Ctrl-C."""
    screen = terminal("ops", "events", "watch", "--kinds", "session", "log", columns=140)
    screen.read_until("session.restarted")
    screen.type("\x03")
    assert screen.wait() == 130
    assert fake.called("events.watch") == [{"kinds": ["session", "log"]}]


def test_events_as_json_end_with_the_server(fake):
    """One a line; exit 3 when it hangs up."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ecan", "ops", "events", "watch", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert json.loads(process.stdout.readline())["kind"] == "session.created"
    fake.stop()
    _, err = process.communicate(timeout=15)
    assert process.returncode == 3
    assert err == "ecan: the server hung up\n"


def test_broken_pipe_is_silent(fake):
    """`ecan ops metrics | head -1`."""
    fake.answers["metrics"] = {"text": "x\n" * 200_000}
    process = subprocess.Popen(
        [sys.executable, "-m", "ecan", "ops", "metrics"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(15) == 0
    assert err == b""


def test_interrupt_outside_a_terminal(fake):
    """SIGINT: 130, no trace."""
    fake.answers["status"] = lambda _: None
    process = subprocess.Popen(
        [sys.executable, "-m", "ecan", "ops", "status"], stderr=subprocess.PIPE, text=True
    )
    while not fake.calls:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert (process.returncode, err) == (130, "")


def test_top_without_a_terminal_or_textual(capsys, monkeypatch):
    """One line, exit 2."""
    from ecan.cli import top

    assert top.top() == 2
    assert "needs a terminal" in capsys.readouterr().err
    monkeypatch.setattr(top.importlib.util, "find_spec", lambda _: None)
    assert top.top() == 2
    assert capsys.readouterr().err == "ecan: ecan top needs textual: pip install 'ecan-web[ops]'\n"
