"""P10, P11, P12 as a person sees them: the server is killed and the page goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ecan.testing.process import ServerProcess
from tests.e2e.conftest import ARTIFACTS, PASSWORD
from tests.e2e.test_browser import by_id, in_session, log_in, newest, send


@pytest.fixture
def server(tmp_path: Path) -> ServerProcess:
    """A server whose sessions are on disk, every reply after its commit."""
    env = {
        "ECAN_STORE": "sqlite",
        "ECAN_DURABILITY": "commit",
        "ECAN_ADMIN_PASSWORD": PASSWORD,
        "ECAN_DEBUG_METHODS": "1",
        "ECAN_LOG_FORMAT": "json",
        "ECAN_DRAIN_TIMEOUT": "5",
    }
    with ServerProcess(tmp_path, env) as running:
        yield running


def picture(page: Page, name: str) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=ARTIFACTS / f"durable-{name}.png", full_page=True)


def same_session(page: Page, sid: str) -> None:
    """The page is in the session it was in, and has not asked anybody to log in."""
    assert in_session(page) == sid
    expect(by_id(page, "login-username")).to_have_count(0)


def test_kill_9_under_a_running_request(page: Page, server: ServerProcess) -> None:
    """Same session without a login; what ran and what waited is answered once; nothing typed is gone."""
    log_in(page)
    sid = in_session(page)
    by_id(page, "pref-theme-dark").click()
    expect(by_id(page, "pref-theme")).to_have_attribute("data-value", "dark")
    by_id(page, "debug-incr").click()
    expect(newest(page, "debug.incr").get_by_test_id("row-result")).to_have_text("1")
    slow = send(page, "debug.sleep", {"seconds": 3})
    expect(slow).to_have_attribute("data-status", "running")
    slow_id = slow.get_attribute("data-request-id")
    by_id(page, "debug-incr").click()
    behind = newest(page, "debug.incr")
    expect(behind).to_have_attribute("data-status", "running")
    by_id(page, "console-params").fill('{"half": "typed')

    server.kill()

    expect(by_id(page, "connection-state")).not_to_have_attribute("data-state", "open")
    expect(slow).to_have_attribute("data-status", "waiting")
    expect(behind).to_have_attribute("data-status", "waiting")
    by_id(page, "debug-push").click()  # asked for while there is no server
    expect(newest(page, "debug.push")).to_have_attribute("data-status", "waiting")
    picture(page, "killed")
    server.start()

    same_session(page, sid)
    expect(slow).to_have_attribute("data-status", "success")
    expect(slow).to_have_attribute("data-request-id", slow_id or "")
    expect(slow.get_by_test_id("row-result")).to_contain_text("slept_s")
    expect(behind.get_by_test_id("row-result")).to_have_text("2")
    expect(newest(page, "debug.push")).to_have_attribute("data-status", "success")
    expect(page.locator("[data-testid=pushes-list] li[data-kind=push]")).to_have_count(5)
    expect(by_id(page, "console-params")).to_have_value('{"half": "typed')
    expect(by_id(page, "pref-theme")).to_have_attribute("data-value", "dark")
    by_id(page, "debug-incr").click()
    expect(newest(page, "debug.incr").get_by_test_id("row-result")).to_have_text("3")
    picture(page, "resumed")


def test_kill_9_again_and_again(page: Page, server: ServerProcess) -> None:
    """Each click counts once, whichever process answers it; incarnations only rise."""
    log_in(page)
    sid = in_session(page)
    incarnation = int(by_id(page, "session-incarnation").inner_text())
    clicks = 0
    for _ in range(3):
        for _ in range(5):
            by_id(page, "debug-incr").click()
            clicks += 1
        server.kill()
        by_id(page, "debug-incr").click()
        clicks += 1
        server.start()
        same_session(page, sid)
        expect(newest(page, "debug.incr").get_by_test_id("row-result")).to_have_text(str(clicks))
        by_id(page, "session-refresh").click()
        expect(by_id(page, "session-incarnation")).not_to_have_text(str(incarnation))
        assert int(by_id(page, "session-incarnation").inner_text()) > incarnation
        incarnation = int(by_id(page, "session-incarnation").inner_text())


def test_a_reload_while_the_server_is_dead(page: Page, server: ServerProcess) -> None:
    """A tab that was closed while its server was gone finds the session, and its request, again."""
    log_in(page)
    sid = in_session(page)
    by_id(page, "pref-theme-dark").click()
    expect(by_id(page, "pref-theme")).to_have_attribute("data-value", "dark")
    slow = send(page, "debug.block", {"seconds": 2})
    expect(slow).to_have_attribute("data-status", "running")
    by_id(page, "console-params").fill('{"half": "typed')
    server.kill()
    server.start()

    page.reload()

    same_session(page, sid)
    expect(newest(page, "debug.block")).to_have_attribute("data-status", "success")
    expect(by_id(page, "console-params")).to_have_value('{"half": "typed')
    expect(by_id(page, "pref-theme")).to_have_attribute("data-value", "dark")
