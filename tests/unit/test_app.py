"""The composition root: start, its failures, stop; and what ends the process."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import signal
import socket

import pytest

from ecan.app import App, build_registry, folders, main, process, serve
from ecan.config import Settings
from ecan.errors import ConfigError, StoreError
from ecan.testing import ADMIN_PASSWORD, Client


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch, tmp_path):
    """What `main` changes in the process is changed back; the data is the test's own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for name in [name for name in os.environ if name.startswith("ECAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ECAN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ECAN_WS_HOST", "127.0.0.1")
    monkeypatch.setenv("ECAN_WS_PORT", "0")
    monkeypatch.chdir(tmp_path)
    yield
    gc.unfreeze()
    root.handlers[:] = handlers
    root.setLevel(level)


def config(tmp_path, **settings):
    values = {"ws_host": "127.0.0.1", "ws_port": 0, "mode": "web", "data_dir": tmp_path / "data"}
    return Settings(**{**values, "admin_password": ADMIN_PASSWORD, **settings})


# -- main ---------------------------------------------------------------------------------


def refusal(capsys):
    """Run `main`, which must end with code 2; the one line that is no log."""
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert "ready" not in out
    (line,) = [line for line in err.splitlines() if not line.startswith("{")]
    assert "Traceback" not in err
    return line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ECAN_LOG_LEVEL", "LOUD"),
        ("ECAN_STORE", "postgres"),
        ("ECAN_MAX_FRAME", "1TiB"),
        ("ECAN_TRUSTED_PROXIES", "10.0.0.0/99"),
        ("ECAN_ALLOWED_ORIGINS", "example.com"),
        ("ECAN_HANDLERS", "json"),
        ("ECAN_HANDLERS", "no.such.module"),
    ],
)
def test_a_bad_value_is_one_line(monkeypatch, capsys, name, value):
    """CONTRACT §6: variable, value and what is allowed on stderr, exit code 2."""
    monkeypatch.setenv(name, value)

    line = refusal(capsys)

    assert line.startswith(f"ecan: {name}='{value}'")


def test_a_first_password_that_breaks_the_rules(monkeypatch, capsys):
    """It is named and not shown (P16)."""
    monkeypatch.setenv("ECAN_ADMIN_PASSWORD", "hunter2")

    line = refusal(capsys)

    assert line.startswith("ecan: ECAN_ADMIN_PASSWORD")
    assert "hunter2" not in line


def test_several_bad_values_are_several_lines(monkeypatch, capsys):
    """Each wrong variable has a line."""
    monkeypatch.setenv("ECAN_WS_PORT", "x")
    monkeypatch.setenv("ECAN_LOG_LEVEL", "x")
    with pytest.raises(SystemExit):
        main()

    assert capsys.readouterr().err.count("ecan: ECAN_") == 2


def test_a_handlers_module_with_an_error(monkeypatch, capsys, tmp_path):
    """The module's own error is in the line."""
    (tmp_path / "broken_handlers.py").write_text("1 / 0\n")
    monkeypatch.setenv("ECAN_HANDLERS", "broken_handlers")

    line = refusal(capsys)

    assert line.startswith("ecan: ECAN_HANDLERS='broken_handlers'")
    assert "ZeroDivisionError" in line


@pytest.mark.parametrize("name", ["ECAN_WS_PORT", "ECAN_METRICS_PORT"])
def test_a_port_in_use_is_named(monkeypatch, capsys, name):
    """Each port by its own variable."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv(name, str(port))
        line = refusal(capsys)

    assert line.startswith(f"ecan: {name}='127.0.0.1:{port}': cannot listen there: ")


def test_a_host_that_does_not_exist(monkeypatch, capsys):
    """A host that cannot be resolved or is not ours."""
    monkeypatch.setenv("ECAN_WS_HOST", "203.0.113.1")

    assert refusal(capsys).startswith("ecan: ECAN_WS_PORT='203.0.113.1:0': cannot listen there")


def test_a_data_directory_that_cannot_be_written(capsys, tmp_path):
    """The store's own words, with the file."""
    (tmp_path / "data").write_text("a file")

    assert "cannot be opened" in refusal(capsys)


@pytest.mark.parametrize("there", [False, True])
def test_a_certificate_that_cannot_be_used(monkeypatch, capsys, tmp_path, there):
    """The certificate is named, not the port."""
    if there:
        (tmp_path / "cert.pem").write_text("hello")
        (tmp_path / "key.pem").write_text("hello")
    monkeypatch.setenv("ECAN_TLS_CERT", "cert.pem")
    monkeypatch.setenv("ECAN_TLS_KEY", "key.pem")

    line = refusal(capsys)

    assert line.startswith("ecan: ECAN_TLS_CERT='cert.pem'")
    assert "key.pem" in line


def test_an_unknown_variable_is_warned_of(monkeypatch, capsys):
    """With the name that was probably meant; the server starts all the same."""
    monkeypatch.setenv("ECAN_SESSION_TIMEOT", "5")

    async def nothing(_config):
        return 0

    monkeypatch.setattr(process, "serve", nothing)
    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 0
    err = capsys.readouterr().err
    assert "ECAN_SESSION_TIMEOT" in err and "ECAN_SESSION_TIMEOUT" in err


# -- serve --------------------------------------------------------------------------------


async def served(capsys, settings):
    """A server in a task, its port, and what it printed."""
    task = asyncio.create_task(serve(settings))
    text = ""
    async with asyncio.timeout(30):
        while "ready on" not in text:
            assert not task.done(), task
            await asyncio.sleep(0.01)
            text += capsys.readouterr().out
    port = int(re.search(r"ready on https?://\S+:(\d+) ", text)[1])
    return task, port, text


@pytest.fixture
async def signals():
    """No signal handler is left."""
    yield
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)


async def test_a_signal_ends_serve(capsys, tmp_path, signals):
    """P14: SIGTERM drains and returns 0; the ready line comes once."""
    task, _, text = await served(capsys, config(tmp_path))
    os.kill(os.getpid(), signal.SIGTERM)

    assert await task == 0
    assert text.count("ready") == 1


async def test_a_second_signal_hurries(capsys, tmp_path, signals):
    """P14: the second signal does not wait for what runs; it is answered all the same (P3)."""
    settings = config(tmp_path, debug_methods=True, drain_timeout_s=3600.0)
    task, port, _ = await served(capsys, settings)
    async with Client(f"ws://127.0.0.1:{port}/ws") as client:
        await client.login("admin", ADMIN_PASSWORD)
        running = await client.start("debug.sleep", {"seconds": 3600}, deadline_ms=3_600_000)
        await client.call("ping")
        os.kill(os.getpid(), signal.SIGTERM)
        await client.push("server.draining")
        os.kill(os.getpid(), signal.SIGINT)
        error = (await running)["error"]
        assert (error["code"], error["outcome"]) == ("DRAINING", "unknown")
        assert (await client.closed())[0] == 1012
    assert await task == 0


@pytest.mark.parametrize(
    ("host", "shown"), [("::1", "[::1]"), ("127.0.0.1", "127.0.0.1"), ("localhost", "localhost")]
)
def test_the_ready_line_has_a_url(tmp_path, host, shown):
    """An IPv6 address stands in brackets."""
    assert process._host(config(tmp_path, ws_host=host)) == shown


# -- App ----------------------------------------------------------------------------------


async def test_a_start_that_fails_stops_what_was_started(tmp_path):
    """No task, thread or database is left open."""
    before = asyncio.all_tasks()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        app = App(config(tmp_path, ws_port=taken.getsockname()[1], metrics_port=0))
        with pytest.raises(ConfigError, match="ECAN_WS_PORT"):
            await app.start()
    await asyncio.sleep(0)

    assert asyncio.all_tasks() == before
    assert app.sessions._supervisor is None


async def test_a_data_directory_that_is_a_file(tmp_path):
    """A StoreError, and nothing left behind."""
    (tmp_path / "data").write_text("")
    with pytest.raises(StoreError, match="cannot be opened"):
        await App(config(tmp_path)).start()


async def test_stop_twice_and_without_start(tmp_path):
    """Stopping is always safe."""
    app = App(config(tmp_path))
    await app.stop()
    await app.stop()

    app = App(config(tmp_path))
    await app.start()
    await app.stop()
    await app.stop()
    assert app.health() == ("draining", 0)


@pytest.mark.parametrize("store", ["sqlite", "memory"])
async def test_status_for_operators(tmp_path, store):
    """What get_system_status answers to an admin."""
    app = App(config(tmp_path, store=store))
    await app.start()
    try:
        status = app.status()
        assert status["status"] == "healthy"
        assert (status["store"], status["mode"]) == (store, "web")
        assert status["handlers"] == len(app.registry)
        text = app.metrics.render().decode()
        for gauge in (
            "connections",
            "worker_threads",
            "worker_zombies",
            "dead_letters",
            "draining",
        ):
            assert f"ecan_{gauge} " in text
    finally:
        await app.stop()


async def test_a_store_that_cannot_write_is_told_to_operators(tmp_path):
    """Health degraded, the reason in the status, a gauge; draining goes before."""
    app = App(config(tmp_path, store="memory"))
    await app.start()
    try:
        for trouble, status in ((None, "healthy"), ("the disk is full", "degraded")):
            app.store.trouble = trouble
            assert app.health() == (status, 0)
            assert (app.status()["status"], app.status()["store_trouble"]) == (status, trouble)
            gauge = f"ecan_store_degraded {float(trouble is not None)}"
            assert gauge in app.metrics.render().decode()
    finally:
        await app.stop()
    assert app.health() == ("draining", 0)


async def test_sessions_and_letters_of_the_last_life_are_counted(tmp_path):
    """What rests in the store at the start counts for the caps and the status."""
    for life in (1, 2):
        app = App(config(tmp_path, debug_methods=True))
        await app.start()
        try:
            assert app.sessions.count() == app.status()["dead_letters"] == life - 1
            assert app.sessions.by_state()["passivated"] == life - 1
            async with Client(f"ws://127.0.0.1:{app.gateway.port}/ws") as client:
                await client.login("admin", ADMIN_PASSWORD)
                assert (await client.error("debug.crash"))["code"] == "HANDLER_CRASHED"
            assert app.sessions.count() == app.status()["dead_letters"] == life
        finally:
            await app.stop()


def test_debug_methods_only_when_asked(tmp_path):
    """debug.* exists with ECAN_DEBUG_METHODS=1 and not without."""
    assert "debug.crash" not in build_registry(config(tmp_path))
    assert "debug.crash" in build_registry(config(tmp_path, debug_methods=True))


async def test_a_stall_is_counted_once(tmp_path):
    """A stall is told when it is noticed and when it ends; it counts once."""
    from ecan.runtime import Stall

    app = App(config(tmp_path))
    for seconds, ended in ((0.2, False), (0.5, True)):
        app._stalled(Stall("Call(x)", seconds, "where", ended=ended))
    assert app.metrics.stalls == 1
    assert [stall["seconds"] for stall in app.vitals()["loop_stalls"]] == [0.5]
    await app.stop()


def test_the_browser_app_is_found_beside_the_package_or_in_the_working_directory(
    tmp_path, monkeypatch
) -> None:
    """An installed `ecan serve` started in a checkout serves the app that was built there."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "site" / "ecan" / "app"
    monkeypatch.setattr(folders, "__file__", str(folder / "folders.py"))
    assert folders.gui_folder() == tmp_path / "gui_v2" / "dist"

    (tmp_path / "site" / "gui_v2" / "dist").mkdir(parents=True)
    assert folders.gui_folder() == tmp_path / "site" / "gui_v2" / "dist"
