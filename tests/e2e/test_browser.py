"""What a person does in the browser."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from ecan.testing.process import ServerProcess
from tests.e2e.conftest import PASSWORD


def by_id(page: Page, test_id: str) -> Locator:
    return page.get_by_test_id(test_id)


def log_in(page: Page, username: str = "admin", password: str = PASSWORD) -> None:
    by_id(page, "login-username").fill(username)
    by_id(page, "login-password").fill(password)
    by_id(page, "login-submit").click()


def in_session(page: Page) -> str:
    """Wait for the session page; the session's public id."""
    expect(by_id(page, "session-sid")).to_be_visible()
    expect(by_id(page, "connection-state")).to_have_attribute("data-state", "open")
    return by_id(page, "session-sid").inner_text()


def send(page: Page, method: str, params: object) -> Locator:
    """Send a request from the console; its row in the history."""
    field = (
        by_id(page, "console-method")
        .locator("input")
        .or_(page.locator("input[data-testid=console-method]"))
    )
    field.first.fill(method)
    page.keyboard.press("Escape")
    by_id(page, "console-params").fill(json.dumps(params))
    by_id(page, "console-send").click()
    return newest(page, method)


def newest(page: Page, method: str) -> Locator:
    return page.locator(f"[data-testid=console-history] li[data-method='{method}']").first


@pytest.mark.each_transport
def test_log_in_and_call_methods(page: Page) -> None:
    """A wrong password is said; the right one opens a session in which requests run."""
    log_in(page, password="not the password")
    expect(by_id(page, "login-error")).to_have_attribute("data-code", "INVALID_CREDENTIALS")
    expect(by_id(page, "login-username")).to_have_value("admin")

    log_in(page)
    in_session(page)
    expect(by_id(page, "whoami")).to_contain_text("admin")

    row = send(page, "debug.state_set", {"key": "colour", "value": "green"})
    expect(row).to_have_attribute("data-status", "success")
    row = send(page, "debug.state_get", {"key": "colour"})
    expect(row.get_by_test_id("row-result")).to_contain_text("green")
    row = send(page, "debug.incr", {"key": 5})
    expect(row.get_by_test_id("row-error")).to_have_attribute("data-code", "INVALID_PARAMS")


def test_a_crash_is_seen_and_survived(page: Page) -> None:
    """P5: the push arrives, the incarnation rises, state from before the crash is there."""
    log_in(page)
    in_session(page)
    by_id(page, "debug-incr").click()
    expect(newest(page, "debug.incr").get_by_test_id("row-result")).to_have_text("1")

    by_id(page, "debug-incr-crash").click()

    row = newest(page, "debug.incr_then_crash")
    expect(row.get_by_test_id("row-error")).to_have_attribute("data-code", "HANDLER_CRASHED")
    expect(row.get_by_test_id("row-error")).to_have_attribute("data-outcome", "unknown")
    expect(
        page.locator("[data-testid=pushes-list] li[data-method='session.restarted']")
    ).to_be_visible()
    expect(by_id(page, "session-incarnation")).to_have_text("2")
    expect(by_id(page, "session-restarts")).to_have_text("1")
    by_id(page, "debug-incr").click()
    expect(newest(page, "debug.incr").get_by_test_id("row-result")).to_have_text("2")


@pytest.mark.each_transport
def test_reload_keeps_session_preferences_and_draft(page: Page) -> None:
    """After a reload it is the same session, and nothing that was typed or chosen is gone."""
    log_in(page)
    sid = in_session(page)
    by_id(page, "pref-theme-dark").click()
    expect(by_id(page, "pref-theme")).to_have_attribute("data-value", "dark")
    by_id(page, "console-params").fill('{"half": "typed')

    page.reload()

    assert in_session(page) == sid
    expect(by_id(page, "pref-theme")).to_have_attribute("data-value", "dark")
    expect(by_id(page, "console-params")).to_have_value('{"half": "typed')


@pytest.mark.each_transport
def test_two_tabs_share_one_session(
    page: Page, context: BrowserContext, server: ServerProcess
) -> None:
    """A second tab is the same session, both get pushes, logout in one ends the other."""
    log_in(page)
    sid = in_session(page)
    second = context.new_page()
    second.goto(server.http)
    assert in_session(second) == sid

    by_id(page, "debug-push").click()

    for tab in (page, second):
        rows = tab.locator("[data-testid=pushes-list] li[data-kind=push]")
        expect(rows).to_have_count(5)
    by_id(second, "session-refresh").click()
    expect(by_id(second, "session-tabs")).to_have_text("2")

    by_id(page, "logout").click()

    expect(by_id(page, "login-username")).to_be_visible()
    expect(by_id(second, "login-username")).to_be_visible()
    expect(by_id(second, "login-reason")).to_have_attribute("data-reason", "logout")


@pytest.mark.each_transport
def test_server_restart_is_noticed_and_said(page: Page, server: ServerProcess) -> None:
    """The page reconnects by itself; with a volatile store it asks to log in again."""
    assert server.stop() == 0
    server.env["ECAN_STORE"] = "memory"
    server.start()
    page.reload()
    log_in(page)
    in_session(page)
    by_id(page, "console-params").fill('{"keep": "me"}')

    assert server.stop() == 0
    expect(by_id(page, "connection-state")).not_to_have_attribute("data-state", "open")
    server.start()

    expect(by_id(page, "login-username")).to_be_visible()
    expect(by_id(page, "login-reason")).to_be_visible()
    log_in(page)
    in_session(page)
    expect(by_id(page, "console-params")).to_have_value('{"keep": "me"}')


def test_blocked_session_answers_pings_and_goes_on(page: Page, context: BrowserContext) -> None:
    """P1, P7: while a handler blocks a thread the page stays alive, and requests queue up."""
    log_in(page)
    in_session(page)
    by_id(page, "debug-block").click()
    by_id(page, "debug-incr").click()

    expect(newest(page, "debug.incr")).to_have_attribute("data-status", "running")
    expect(newest(page, "debug.incr")).to_have_attribute("data-status", "success")
    expect(newest(page, "debug.block")).to_have_attribute("data-status", "success")


def test_flood_is_limited_and_the_page_lives(page: Page) -> None:
    """P8: 500 requests at once are answered, some of them with RATE_LIMITED or BUSY."""
    log_in(page)
    in_session(page)

    by_id(page, "debug-flood").click()

    report = by_id(page, "debug-flood-report")
    expect(report).to_be_visible()
    counts = json.loads(report.get_attribute("data-counts") or "{}")
    assert sum(counts.values()) == 500
    assert set(counts) <= {"ok", "success", "RATE_LIMITED", "BUSY"}
    page.wait_for_timeout(2500)  # the bucket fills again
    by_id(page, "debug-incr").click()
    expect(newest(page, "debug.incr")).to_have_attribute("data-status", "success")


def test_chinese(page: Page) -> None:
    """The page speaks Chinese, and remembers it."""
    by_id(page, "login-language-zh").click()
    expect(by_id(page, "login-submit")).to_contain_text("登")
    log_in(page)
    in_session(page)
    page.reload()
    in_session(page)
    expect(page.locator("html")).to_have_attribute("lang", "zh")


@pytest.mark.each_transport
def test_stream_shows_progress(page: Page) -> None:
    """Pending frames are shown while a stream runs, then its result."""
    log_in(page)
    in_session(page)
    by_id(page, "debug-stream").click()

    row = newest(page, "debug.stream")
    expect(row.get_by_test_id("row-progress")).to_be_visible()
    expect(row).to_have_attribute("data-status", "success")
