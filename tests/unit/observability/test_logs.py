"""The log."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from ecan.observability import configure, get_logger, set_level
from ecan.observability.logs import _Handler


@pytest.fixture(autouse=True)
def restore():
    """Logging belongs to the process: put it back."""
    root = logging.getLogger()
    level = root.level
    yield
    for handler in [one for one in root.handlers if isinstance(one, _Handler)]:
        root.removeHandler(handler)
    root.setLevel(level)
    structlog.reset_defaults()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_program_reads_json_lines():
    """Off a terminal every event is one JSON object with time, level, logger and event."""
    stream = io.StringIO()
    configure("INFO", "auto", stream)
    get_logger("ecan.test").info("session.opened", sid="abc", tabs=2)
    (line,) = _lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "ecan.test",
        "event": "session.opened",
        "sid": "abc",
        "tabs": 2,
    }


def test_a_person_reads_console_lines():
    """On a terminal the same event is readable text."""
    stream = _Terminal()
    configure("INFO", "auto", stream)
    get_logger("ecan.test").bind(sid="abc").info("session.opened")
    assert "session.opened" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(stream.getvalue())


def test_console_without_a_terminal_has_no_colours():
    """Asked for in a file, console output has no escape sequences."""
    stream = io.StringIO()
    configure("INFO", "console", stream)
    get_logger("ecan.test").info("session.opened")
    assert "\x1b[" not in stream.getvalue()


def test_other_libraries_log_in_the_same_form():
    """The standard library's loggers go through the same formatter."""
    stream = io.StringIO()
    configure("DEBUG", "json", stream)
    logging.getLogger("ecan.runtime").warning("actor %s late", 7)
    (line,) = _lines(stream)
    assert (line["event"], line["level"], line["logger"]) == (
        "actor 7 late",
        "warning",
        "ecan.runtime",
    )


@pytest.mark.parametrize("name", ["websockets.server", "pykka", "asyncio"])
def test_p16_chatty_libraries_stay_quiet_even_at_debug(name):
    """P16: websockets and pykka write frames and messages at DEBUG; they are not let."""
    stream = io.StringIO()
    configure("DEBUG", "json", stream)
    logging.getLogger(name).debug("< TEXT '{\"password\": ...}'")
    logging.getLogger(name).info("connection open")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("form", ["json", "console"])
def test_p16_secrets_are_redacted_by_name(form):
    """P16: no session_id, token or password reaches the log, however deep."""
    stream = io.StringIO()
    configure("INFO", form, stream)
    log = get_logger("ecan.test")
    log.info(
        "request.seen",
        token="hunter2",
        params={"a": [{"newPassword": "hunter2"}], "sessionId": "hunter2"},
        rows=({"session_id": "hunter2"},),
    )
    assert "hunter2" not in stream.getvalue()
    assert "[redacted]" in stream.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_p16_tracebacks_show_no_local_variables(form):
    """P16: a traceback is lines of code, not values."""
    stream = io.StringIO()
    configure("INFO", form, stream)
    password = "-".join(["hunter2"] * 2)
    try:
        raise ZeroDivisionError(len(password))
    except ZeroDivisionError:
        get_logger("ecan.test").exception("handler.crashed")
    assert "ZeroDivisionError" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_what_is_not_json_is_still_logged():
    """A log line is never lost to its values."""
    stream = io.StringIO()
    configure("INFO", "json", stream)
    get_logger("ecan.test").info("a.b", big=1 << 70, text="\ud800", thing=object)
    (line,) = _lines(stream)
    assert line["big"] == 1 << 70
    assert line["thing"] == "<class 'object'>"


def test_levels_change_while_running():
    """`log.level` takes effect on loggers that are in use."""
    stream = io.StringIO()
    configure("WARNING", "json", stream)
    log = get_logger("ecan.test")
    for write in (log.debug, log.info, log.warning, log.error, log.critical):
        write("first.round")
    set_level("debug")
    for write in (log.debug, log.info):
        write("second.round")
    set_level("CRITICAL")
    for write in (log.warning, log.error):
        write("third.round")
    log.critical("third.round")
    seen = [(line["event"], line["level"]) for line in _lines(stream)]
    assert seen == [
        ("first.round", "warning"),
        ("first.round", "error"),
        ("first.round", "critical"),
        ("second.round", "debug"),
        ("second.round", "info"),
        ("third.round", "critical"),
    ]


def test_an_unknown_level_is_refused():
    """The admin command gets a clear error."""
    with pytest.raises(ValueError, match="no log level 'LOUD'"):
        set_level("LOUD")


def test_configuring_twice_does_not_log_twice(capsys):
    """The second set-up replaces the first; the default stream is stderr."""
    configure("INFO", "json", io.StringIO())
    configure("INFO", "json")
    get_logger("ecan.test").info("a.b")
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1


def test_tests_can_capture_events():
    """structlog's own test helper works with our loggers, before and after they are cached."""
    configure("INFO", "json", io.StringIO())
    log = get_logger("ecan.captured")
    log.info("cached.now")
    with structlog.testing.capture_logs() as events:
        log.info("a.b", n=1)
    assert events == [{"event": "a.b", "n": 1, "log_level": "info"}]


def test_a_line_says_what_runs_where_it_is_written():
    """Asked for per line; what the line says itself counts more."""
    stream = io.StringIO()
    configure("INFO", "json", stream, facts=lambda: {"sid": "abc", "method": "ping"})
    get_logger("ecan.test").info("one.line", method="pong")
    logging.getLogger("shop").info("another line")
    first, second = _lines(stream)
    assert (first["sid"], first["method"]) == ("abc", "pong")
    assert (second["sid"], second["method"]) == ("abc", "ping")


@pytest.mark.parametrize("form", ["json", "console"])
def test_p16_the_secrets_of_what_runs_are_in_no_text(form):
    """P16: in messages, values, tracebacks and reprs, however they are quoted."""
    stream = io.StringIO()
    secret = "tok\"en\\with'quotes"
    configure("INFO", form, stream, secrets=lambda: {secret, "7312"})
    try:
        raise ValueError(f"no {secret!r} here, nor {secret}")
    except ValueError as error:
        get_logger("ecan.test").exception(
            "it.failed", problem=error, rows=[{"n": 7312, "text": secret}], fine=(1, None, True)
        )
    logging.getLogger("shop").warning("plain %s", secret)
    written = stream.getvalue()
    for form_of_it in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], "7312"):
        assert form_of_it not in written
    assert written.count("[redacted]") >= 6
    assert "ValueError" in written
