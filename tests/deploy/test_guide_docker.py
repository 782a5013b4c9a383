"""The blocks of deploy.md about Docker, run as they stand by podman. `make image-test`."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from ecan.testing.process import ROOT, free_port
from tests.deploy.blocks import Shell, block, commands
from tests.deploy.container import PASSWORD, Container
from tests.deploy.engine import Engine

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

NOFILE = {"nofile=65536": "nofile=16384 --ulimit nproc=16384"}  # no more is given away here


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def reader(docker: Engine, tmp_path):
    """Somebody whose `docker` is podman, with an .env that chooses the first password."""
    example = (ROOT / ".env.example").read_text()
    settings = f"ECAN_ADMIN_PASSWORD={PASSWORD}\nECAN_DEBUG_METHODS=1\n"
    (tmp_path / ".env").write_text(f"{example}\n{settings}")
    shell = Shell(tmp_path, docker.env)
    return shell.with_tools(tmp_path / "bin", docker='exec podman "$@"')


def run_in_production(reader, docker, port, image="ecan-web"):
    """The second block of Docker: its first line, with another port."""
    run, _ = commands("deploy/Docker/2", {"127.0.0.1:8765:": f"127.0.0.1:{port}:", **NOFILE})
    assert run.endswith(" ecan-web")
    reader(f"{run.removesuffix('ecan-web')}{image}")
    container = Container(docker, "ecan-web", port)
    container.wait_ready()
    return container


async def count(container, session=None):
    """(n, session) of one more debug.incr, after a login or a resume."""
    async with container.client() as client:
        if session is None:
            await client.login("admin", PASSWORD)
        else:
            await client.resume(session)
        return await client.call("debug.incr", {"key": "n"}), client.session


def test_the_quick_start(docker, reader, port):
    """build, run, the first password in the logs, status and the live screen inside."""
    reader.cwd = ROOT
    build, run, logs, status, top = commands(
        "deploy/Docker/1", {"-p 8765:8765": f"-p 127.0.0.1:{port}:8765"}
    )
    reader(build, timeout_s=600)
    reader(run)
    container = Container(docker, "ecan-web", port)
    with reader.start(logs) as shown:
        password = shown.until(r"^ecan: first account 'admin', password: (\S+)$")[1]
        shown.until(r"^ecan: ready on http://0\.0\.0\.0:8765 \(mode=web, store=sqlite")

    async def scenario():
        async with container.client() as client:
            await client.login("admin", password)
            return await client.call("ping")

    assert asyncio.run(scenario())["pong"]
    assert "healthy" in reader(status)
    listed = json.loads(container.execute("ecan", "ops", "sessions", "list", "--json"))
    assert [row["user"] for row in listed["sessions"]] == ["admin"]
    with reader.start(top) as screen:
        screen.until("healthy")
        screen.type("q")
        assert screen.ended() == 0


def test_in_production(docker, reader, port):
    """The long line starts it with nothing writable but /data; `docker stop` ends it with 0."""
    container = run_in_production(reader, docker, port)
    assert asyncio.run(count(container))[0] == 1
    assert "Read-only" in docker("exec", "ecan-web", "touch", "/app/x", check=False).stderr
    assert container.inspect("{{.HostConfig.RestartPolicy.Name}}") == "unless-stopped"
    reader(commands("deploy/Docker/2")[1])
    assert container.inspect("{{.State.ExitCode}}") == "0"
    # Every setting of .env.example is commented out there, so it is ours that came through.
    assert '"event":"server.stopped"' in container.logs()


def test_backup_and_restore(docker, reader, port):
    """What was counted after the backup is gone, the session is there."""
    container = run_in_production(reader, docker, port)
    value, session = asyncio.run(count(container))
    for _ in range(2):  # the second night's too
        reader(block("deploy/Backup and restore/1"))
    assert (value, asyncio.run(count(container, session))[0]) == (1, 2)
    docker("exec", "ecan-web", "rm", "/data/ecan.tar")

    said = reader(block("deploy/Backup and restore/2"))
    assert "Restored into /data" in said
    container.wait_ready(times=2)
    assert asyncio.run(count(container, session))[0] == 2


NEXT_VERSION = """\
FROM localhost/ecan-web
USER root
RUN cd /opt/ecan/lib/python3*/site-packages/ecan/store/migrations/sessions \\
 && echo 'CREATE TABLE of_the_next_version (x INTEGER);' >$(printf %04d_next.sql $(($(ls *.sql | wc -l) + 1)))
USER 10001:10001
"""


@pytest.fixture
def migrating(docker, tmp_path):
    """An image whose database has one migration more."""
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "Dockerfile").write_text(NEXT_VERSION)
    docker("build", "--pull=never", "-t", "ecan-web:v2", str(tmp_path / "next"), timeout_s=300)
    yield
    docker("rmi", "--force", "ecan-web:v2")


def upgrade(reader, docker, port):
    """The first block of Upgrade."""
    ours = {"127.0.0.1:8765:": f"127.0.0.1:{port}:", "ecan-web:v2 ": "--env-file .env ecan-web:v2 "}
    reader(block("deploy/Upgrade and rollback/1", ours))
    container = Container(docker, "ecan-web", port)
    container.wait_ready()
    return container


def test_upgrade_and_back_without_a_migration(docker, reader, port):
    """The session goes on in the new container and again in the old one; nothing is lost."""
    docker("tag", "ecan-web", "ecan-web:v2")
    _, session = asyncio.run(count(run_in_production(reader, docker, port)))
    assert asyncio.run(count(upgrade(reader, docker, port), session))[0] == 2
    reader(block("deploy/Upgrade and rollback/2"))
    old = Container(docker, "ecan-web", port)
    old.wait_ready(times=2)
    assert asyncio.run(count(old, session))[0] == 3


def test_upgrade_and_back_over_a_migration(docker, reader, port, migrating):
    """The old version refuses migrated data and says why; the backup brings it back."""
    _, session = asyncio.run(count(run_in_production(reader, docker, port)))
    assert asyncio.run(count(upgrade(reader, docker, port), session))[0] == 2

    reader(block("deploy/Upgrade and rollback/2"))
    old = Container(docker, "ecan-web", port)
    page = (ROOT / "docs" / "operators" / "deploy.md").read_text()
    (sentence,) = re.findall(r"the log says `(has schema \d.*?)`", page)
    old.wait_for(re.sub(r"\d+", r"\\d+", sentence))
    docker("stop", "ecan-web")  # or it is tried again and again: --restart unless-stopped
    refused = docker("run", "--rm", "-v", "ecan-data:/data", "ecan-web", check=False)
    assert (refused.returncode, "use the version that wrote it" in refused.stderr) == (2, True)

    said = reader(block("deploy/Upgrade and rollback/3"))
    assert "Restored into /data" in said
    old.wait_ready(times=2)
    assert asyncio.run(count(old, session))[0] == 2
