"""`ecan top` against a server that is a table, driven by keys."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from fake_admin import STACK, STATUS
from textual.widgets import Static

from ecan.admin.top.app import TopApp

SIZES = pytest.mark.parametrize("size", [(80, 24), (140, 40)], ids=["80x24", "140x40"])

SHOTS = os.environ.get("ECAN_TOP_SHOTS")
"""A folder for pictures of the screen, for those who want to look at it."""


async def until(condition, pilot, why: str = "") -> None:
    """Wait for the server's thread."""
    for _ in range(300):
        if condition():
            await pilot.pause()
            return
        await asyncio.sleep(0.01)
    pytest.fail(why or "it did not happen")


def text(app, query: str = "#summary") -> str:
    return str(app.query_one(query, Static).content)


def detail(app) -> str:
    return str(app._page.content)


def screen(app) -> str:
    """What is on it, as text."""
    return "\n".join(
        "".join(part.text for part in strip) for strip in app.screen._compositor.render_strips()
    )


def shot(app, name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(exist_ok=True)
        app.save_screenshot(f"{name}-{app.size.width}.svg", SHOTS)


@SIZES
async def test_shows_the_server_its_sessions_and_the_chosen_one(fake, size):
    """Header, table, biography; events on a wide screen."""
    app = TopApp(fake.path, 0.2)
    async with app.run_test(size=size) as pilot:
        await until(lambda: "shop.report" in detail(app), pilot)
        await until(lambda: len(app._events.lines) == 3 or size[0] == 80, pilot)
        shown = screen(app)
        shot(app, "sessions")

    assert "healthy" in shown
    assert "149" in shown
    assert "ann" in shown
    assert "王小明" in shown.replace("王 小 明", "王小明")
    assert "REQ/S▾" in shown
    assert ("session.crashed" in shown) == (size[0] == 140)
    assert all(len(line) <= size[0] for line in shown.split("\n"))


@SIZES
async def test_stuck_session_is_marked_first_and_shows_its_stack(fake, size):
    """Method, age and where it hangs, without a key."""
    stall = {"sid": "s001abcd", "method": "shop.report", "since_s": 4.2, "stack": STACK}
    fake.answers["status"] = {**STATUS, "stalled": [stall]}
    app = TopApp(fake.path, 0.2)
    async with app.run_test(size=size) as pilot:
        await until(lambda: "slow_query" in detail(app), pilot)
        await pilot.press("exclamation_mark")
        await pilot.pause()
        await until(lambda: app.rows.selected["sid"] == "s001abcd", pilot)
        shown = screen(app)
        shot(app, "stuck")

    assert "STUCK" in shown
    assert "s001abcd stuck 4s" in shown
    assert "slow_query" in shown


@SIZES
async def test_methods_letters_and_events_views(fake, size):
    """m, d, e; the same key again leads back."""
    app = TopApp(fake.path, 0.2)
    async with app.run_test(size=size) as pilot:
        await pilot.press("m")
        await until(lambda: app._lists["methods"].rows, pilot)
        await pilot.pause(0.1)
        assert "1,234,567" in screen(app)
        shot(app, "methods")
        await pilot.press("d")
        await until(lambda: "Traceback" in detail(app), pilot)
        await pilot.pause(0.1)
        assert "cr-77" in screen(app)
        shot(app, "letters")
        await pilot.press("d", "e")
        await until(lambda: "session.crashed" in screen(app), pilot)
        shot(app, "events")
        assert app.view == "sessions"


async def test_sort_and_filter_ask_the_server(fake):
    """1-5, s, /: params of sessions.list."""
    app = TopApp(fake.path, 0.2)
    async with app.run_test(size=(80, 24)) as pilot:
        for key, name in (("1", "traffic"), ("2", "queue"), ("3", "restarts"), ("4", "bytes"), ("5", "idle"), ("s", "traffic")):  # fmt: skip
            await pilot.press(key)
            await until(
                lambda name=name: (
                    fake.called("sessions.list")[-1:] != []
                    and fake.called("sessions.list")[-1]["sort"] == name
                ),
                pilot,
            )
        await pilot.press("slash", *"failed dora")
        shot(app, "filter")
        await pilot.press("enter")
        await until(lambda: fake.called("sessions.list")[-1].get("user") == "dora", pilot)
        assert fake.called("sessions.list")[-1]["state"] == "failed"
        await pilot.press("slash", "escape")
        assert app.filter == "failed dora"


@pytest.mark.parametrize(
    ("key", "command"),
    [
        ("k", "sessions.kill"),
        ("r", "sessions.restart"),
        ("v", "sessions.revive"),
        ("P", "sessions.passivate"),
        ("p", "queue.pause"),
    ],
)
async def test_a_key_asks_with_the_session_s_name_and_acts_on_yes(fake, key, command):
    """n does nothing."""
    app = TopApp(fake.path, 0.2)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.rows.selected, pilot)
        await pilot.press("down")
        await pilot.press(key)
        await pilot.pause()
        shown = screen(app)
        assert "s001abcd of bob?" in shown
        shot(app, f"ask-{command}")
        await pilot.press("n")
        await pilot.press(key, "y")
        await until(lambda: fake.called(command), pilot)

    assert fake.called(command) == [{"sid": "s001abcd"}]


async def test_methods_are_suspended_and_resumed_with_p(fake):
    """The first is not suspended, the second is."""
    app = TopApp(fake.path, 0.2)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("m")
        await until(lambda: app.rows.selected, pilot)
        await pilot.press("p", "y")
        await until(lambda: fake.called("methods.suspend"), pilot)
        await pilot.press("down", "p", "y")
        await until(lambda: fake.called("methods.resume"), pilot)
    assert fake.called("methods.resume") == [{"method": "shop.pay"}]


async def test_drain_asks_and_a_refusal_is_shown(fake):
    """D; the server's words on the screen."""
    fake.errors["drain"] = {"code": -32000, "message": "it drains already"}
    app = TopApp(fake.path, 0.2)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.rows.selected, pilot)
        await pilot.press("D")
        await pilot.pause()
        assert "stops the server when handlers have finished" in screen(app)
        await pilot.press("y")
        await until(
            lambda: any("it drains already" in note.message for note in app._notifications), pilot
        )


async def test_server_goes_away_and_comes_back(fake):
    """No end, no trace: it says so and looks on."""
    app = TopApp(fake.path, 0.2)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.rows.selected, pilot)
        fake.stop()
        await until(lambda: "no server" in text(app), pilot)
        shot(app, "lost")
        assert "retrying" in text(app)
        fake.start()
        await until(lambda: "healthy" in text(app), pilot)


async def test_cursor_stays_on_its_session_when_the_order_changes(fake):
    """Not on its line."""
    rows = fake.answers["sessions.list"]["sessions"]
    app = TopApp(fake.path, 0.2)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.rows.selected, pilot)
        await pilot.press("down", "down")
        assert app.rows.selected["user"] == "王小明"
        fake.answers["sessions.list"] = {"sessions": rows[::-1], "cursor": None, "total": 6}
        await until(lambda: app.rows.rows[0]["user"] == "frank", pilot)
        assert app.rows.selected["user"] == "王小明"
        fake.answers["sessions.list"] = {"sessions": [], "cursor": None, "total": 0}
        await until(lambda: "No sessions." in screen(app), pilot)
        await pilot.press("k")
        assert len(app.screen_stack) == 1


async def test_session_that_is_gone_meanwhile(fake):
    """The refusal stands where its biography would."""
    fake.errors["sessions.show"] = {"code": -32001, "message": "no session s000abcd"}
    app = TopApp(fake.path, 0.2)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: "no session s000abcd" in detail(app), pilot)
        assert "healthy" in text(app)


async def test_help_pace_and_quit(fake):
    """?, + and -, q."""
    app = TopApp(fake.path, 1.0)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        assert "passivate the session" in screen(app)
        shot(app, "help")
        await pilot.press("x")
        await pilot.press("plus")
        assert app.feed.every_s == 0.5
        await pilot.press("minus", "minus")
        assert app.feed.every_s == 2.0
        await pilot.press("minus", "minus", "minus", "minus")
        assert app.feed.every_s == 10.0
        await pilot.resize_terminal(140, 40)
        await pilot.press("q")
    assert app.return_code == 0
