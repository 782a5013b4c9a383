"""The quick start of README.md, line by line, as a reader types it. `make guide-test`."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import urllib.request

import pytest

from ecan.testing import Client
from ecan.testing.process import ROOT, free_port
from tests.deploy.blocks import Shell, block, commands, committed_files

pytestmark = [pytest.mark.guide, pytest.mark.timeout(300)]

PASSWORD = "correct horse battery"
READY = (
    r"^ecan: ready on http://(?P<host>\S+):(?P<port>\d+) \(mode=web, store=sqlite, handlers=\d+\)"
)
VENV = ROOT / ".venv" / "bin"


def reader(cwd, data, **settings):
    """Somebody in `cwd` with a data directory and a port of their own."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("ECAN_")}
    env |= {"ECAN_DATA_DIR": str(data), "ECAN_WS_PORT": str(free_port()), **settings}
    return Shell(cwd, env)


def log_in(port, password, method="ping"):
    """Log in as admin and call a method."""

    async def scenario():
        async with Client(f"ws://127.0.0.1:{port}/ws") as client:
            await client.login("admin", password)
            return await client.call(method)

    return asyncio.run(scenario())


def page(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return answer.read().decode()


def test_start(tmp_path):
    """`make run`: the page, the first password on the terminal, a login with it, Ctrl-C."""
    shell = reader(ROOT, tmp_path)
    with shell.start(block("README/Start/1")) as server:
        password = server.until(r"^ecan: first account 'admin', password: (\S+)$")[1]
        port = server.until(READY)["port"]
        assert port == shell.env["ECAN_WS_PORT"]
        assert '<div id="root">' in page(port)
        assert log_in(port, password)["pong"]
        server.type("\x03")
        server.ended()


def test_start_without_make(tmp_path):
    """pip, npm and `python web_server.py` in a clean copy and an environment of its own."""
    clone = tmp_path / "clone"
    committed_files(clone)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    shell = reader(clone, tmp_path / "data", ECAN_ADMIN_PASSWORD=PASSWORD)
    shell.env["PATH"] = f"{tmp_path / 'venv' / 'bin'}:{shell.env['PATH']}"
    other = str(free_port())
    with shell.start(block("README/Start/2", {"=9000 ": f"={other} "})) as server:
        assert server.until(READY, 240)["port"] == shell.env["ECAN_WS_PORT"]
        assert '<div id="root">' in page(shell.env["ECAN_WS_PORT"])
        assert log_in(shell.env["ECAN_WS_PORT"], PASSWORD)["pong"]
        shell("ecan ops drain --yes")
        server.until(rf"^ecan: ready on http://\S+:{other} ")
        assert log_in(other, PASSWORD)["pong"]
        server.type("\x03")
        server.ended()


def test_a_handler_of_your_own(tmp_path):
    """The example is saved as it says, served by `make run`, and called from the shell."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    (tmp_path / "shop.py").write_text(code)
    shell = reader(ROOT, tmp_path / "data", ECAN_ADMIN_PASSWORD=PASSWORD, PYTHONPATH=str(tmp_path))
    run, call = commands("README/A handler of your own/1")
    with shell.start(run) as server:
        server.until(READY)
        with shell.start(call) as called:
            called.until("assword")
            called.type(PASSWORD + "\n")
            assert called.ended() == 0
            assert re.search(r'"items":\s*2', called.text()), called.text()


@pytest.fixture
def running(tmp_path):
    """A server, and a shell that has `ecan`."""
    shell = reader(tmp_path, tmp_path / "data", ECAN_ADMIN_PASSWORD=PASSWORD)
    shell.env["PATH"] = f"{VENV}:{shell.env['PATH']}"
    with shell.start("ecan serve") as server:
        server.until(READY)
        yield shell


def test_accounts(running):
    """An account is added, listed, given another password, disabled."""
    add, listed, passwd, disable = commands("README/Accounts/1")
    for command in (add, passwd):
        with running.start(command) as asked:
            for prompt in ("Password for ann:", "Once more:"):
                asked.until(prompt)
                asked.type("a long enough one\n")
            assert asked.ended() == 0, asked.text()
    assert re.search(r"ann .*user", running(listed))
    running(disable)
    assert "disabled" in running(listed)


def test_seeing_and_steering_it(running):
    """The live screen, sessions and one's biography, dead letters, reload, backup."""
    log_in(running.env["ECAN_WS_PORT"], PASSWORD)
    top, listed, show, letters, reload, backup = commands("README/Seeing and steering it/1")
    with running.start(top) as screen:
        screen.until("healthy")
        screen.type("q")
        assert screen.ended() == 0
    made = running("ecan ops sessions list --json")
    sid = re.search(r'"sid": *"(\w+)"', made)[1]
    assert sid in running(listed)
    assert sid in running(show.replace("SID", sid))
    running(letters)
    with running.start(reload) as asked:
        asked.until("y/N")
        asked.type("y\n")
        assert asked.ended() == 0, asked.text()
    running(backup)
    assert (running.cwd / "ecan.tar").exists()
