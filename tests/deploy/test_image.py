"""The image of Dockerfile.web, built, run, drained and resumed. `make image-test`."""

from __future__ import annotations

import asyncio
import json
import ssl

import pytest

from ecan.testing import Client
from tests.deploy.container import PASSWORD, run_container
from tests.deploy.engine import BUILD_ARGS
from tests.deploy.site import self_signed

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

MAX_OVER_BASE_BYTES = 150_000_000
HARDENED = (
    "--read-only",
    "--tmpfs=/tmp:rw,noexec,nosuid,size=16m",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=512m",
    "--pids-limit=512",
)


def test_sigterm_drains_and_the_same_volume_resumes(docker):
    """`docker stop`: exit code 0 within its time-out; a new container goes on with the session."""
    volume = ("--volume=ecan-data:/data", "--stop-timeout=35")

    async def before(container):
        async with container.client() as client:
            await client.login("admin", PASSWORD)
            await client.call("debug.state_set", {"key": "colour", "value": "green"})
            running = await client.start("debug.sleep", {"seconds": 1})
            stop = asyncio.create_task(asyncio.to_thread(docker, "stop", container.name))
            assert (await running)["status"] == "success"
            code, _ = await client.closed()
            await stop
            assert code == 1012
            return client.session

    first = run_container(docker, "ecan-first", *volume)
    session = asyncio.run(before(first))
    assert first.inspect("{{.State.ExitCode}} {{.State.OOMKilled}}") == "0 false"
    assert '"event":"server.stopped"' in first.logs()

    async def after(container):
        async with container.client() as client:
            await client.resume(session)
            assert await client.call("debug.state_get", {"key": "colour"}) == "green"

    second = run_container(docker, "ecan-second", *volume)
    asyncio.run(after(second))


def test_it_runs_on_a_read_only_root_without_privileges(docker):
    """Read-only root, no capability, memory and process limits: only /data is written to."""
    container = run_container(docker, "ecan-hardened", *HARDENED)

    async def scenario():
        async with container.client() as client:
            await client.login("admin", PASSWORD)
            assert await client.call("debug.incr", {"key": "n"}) == 1

    asyncio.run(scenario())
    assert container.execute("ecan", "users", "add", "ann", "--generate").startswith("Added ann")
    written = docker("diff", container.name).stdout.split("\n")
    assert [line for line in written if line.startswith(("A /app", "C /app", "A /opt"))] == []
    refused = docker("exec", container.name, "touch", "/app/x", check=False)
    assert "Read-only file system" in refused.stderr


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_the_other_transport_is_in_it(docker, tmp_path, tls):
    """ECAN_TRANSPORT=picows needs nothing more, on a read-only root, with and without TLS."""
    options = [*HARDENED]
    settings = {"ECAN_TRANSPORT": "picows"}
    trust = None
    if tls:
        cert, key = self_signed(tmp_path)
        key.chmod(0o644)  # the container's user is another one
        options += [f"--volume={cert}:/tls/cert.pem:ro", f"--volume={key}:/tls/key.pem:ro"]
        settings |= {"ECAN_TLS_CERT": "/tls/cert.pem", "ECAN_TLS_KEY": "/tls/key.pem"}
        trust = ssl.create_default_context(cafile=str(cert))
    container = run_container(docker, "ecan-picows", *options, **settings)
    assert docker("healthcheck", "run", container.name).returncode == 0

    async def scenario():
        url = f"{'wss' if tls else 'ws'}://127.0.0.1:{container.port}/ws"
        async with Client(url, **({"ssl": trust} if tls else {})) as client:
            await client.login("admin", PASSWORD)
            assert await client.call("debug.incr", {"key": "n"}) == 1

    asyncio.run(scenario())
    # It is picows that reads the socket.
    loaded = container.execute("sh", "-c", "grep -c picows /proc/1/maps")
    assert int(loaded) > 0


def test_the_health_check_follows_the_server(docker):
    """HEALTHCHECK succeeds while it serves, and fails when /health does not answer."""
    container = run_container(docker, "ecan-health")
    assert docker("healthcheck", "run", container.name).returncode == 0

    elsewhere = docker(
        "exec", "--env=ECAN_WS_PORT=1", container.name, "python", "/app/healthcheck.py", check=False
    )
    assert elsewhere.returncode == 1
    assert "refused" in elsewhere.stdout


def test_it_is_not_root_and_has_no_build_tools(docker):
    """User 10001 without a shell; no compiler, Node, pip, tests, or secrets in the image."""
    container = run_container(docker, "ecan-inside")
    assert container.execute("id", "-u").strip() == "10001"
    assert container.execute("stat", "-c", "%u %a", "/data").strip() == "10001 700"

    tools = "for tool in gcc cc make node npm uv hatchling; do command -v $tool; done; true"
    assert container.execute("sh", "-c", tools) == ""
    assert container.execute("sh", "-c", "ls /opt/ecan/bin | grep pip; true") == ""
    listed = container.execute("ls", "-A", "/app").split()
    assert sorted(listed) == ["gui_v2", "healthcheck.py", "sbom.json"]


def test_what_the_image_says_of_itself(docker):
    """Labels, port, volume, stop signal, exec form."""
    (image,) = json.loads(docker("image", "inspect", "ecan-web").stdout)
    config = image["Config"]
    assert config["Labels"]["org.opencontainers.image.title"] == "ecan-web"
    assert list(config["ExposedPorts"]) == ["8765/tcp"]
    assert list(config["Volumes"]) == ["/data"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Cmd"] == ["ecan", "serve"]
    assert config["User"] == "10001:10001"


def test_its_size(docker, capsys):
    """Under 150 MB over its base."""
    image, base = docker.size("ecan-web"), docker.size(BUILD_ARGS["PYTHON_IMAGE"])
    with capsys.disabled():
        print(f"\necan-web: {image / 1e6:.0f} MB, {(image - base) / 1e6:.0f} MB over its base")
    assert image - base < MAX_OVER_BASE_BYTES
