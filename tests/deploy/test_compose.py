"""deploy.md's block about Compose, both profiles, run by podman-compose. `make image-test`."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import urllib.request
from collections.abc import Iterator

import pytest

from ecan.testing import Client
from ecan.testing.process import ROOT, free_port
from tests.deploy.blocks import Shell, commands
from tests.deploy.engine import TOOLS, Engine
from tests.deploy.site import PASSWORD, self_signed

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]


class Compose:
    """A reader whose ``docker compose`` is podman-compose, with ports and files of the test."""

    def __init__(self, docker: Engine, folder) -> None:
        program = TOOLS / "podman-compose"
        assert program.exists(), "podman-compose is missing: make deploy-tools"
        self.docker = docker
        (folder / "secrets").mkdir()
        (folder / "secrets" / "admin_password").write_text(PASSWORD + "\n")
        (folder / "tls").mkdir()
        self.cert, key = self_signed(folder / "tls")
        key.chmod(0o644)  # the container's user is another one
        for parent in (folder, *list(folder.parents)[:2]):
            parent.chmod(0o755)
        self.port, self.http, self.https = free_port(), free_port(), free_port()
        env = {
            **docker.env,
            "ECAN_PUBLISH": f"127.0.0.1:{self.port}",
            "ECAN_SECRET_DIR": str(folder / "secrets"),
            "ECAN_ADMIN_PASSWORD_FILE": "/run/secrets/admin_password",
            "ECAN_NOFILE": "16384",  # no more is given away here
            "NGINX_TLS_DIR": str(folder / "tls"),
            "NGINX_PUBLISH_HTTP": f"127.0.0.1:{self.http}",
            "NGINX_PUBLISH_HTTPS": f"127.0.0.1:{self.https}",
            "NGINX_PUBLIC_PORT": str(self.https),
        }
        # Its first word is compose.
        docker_compose = f'shift; exec "{program}" "$@"'
        self.shell = Shell(ROOT, env).with_tools(folder / "bin", docker=docker_compose)

    def running(self) -> set[str]:
        listed = self.docker("ps", "--format", "{{.Names}}", "--filter", "name=^ecan_")
        return set(listed.stdout.split())

    def until_healthy(self, url: str) -> dict:
        """What /health says, once it does."""
        context = ssl.create_default_context(cafile=str(self.cert))
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(  # noqa: S310 - our own address
                    url, timeout=5, context=context
                ) as answer:
                    return json.load(answer)
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)


@pytest.fixture
def compose(docker, tmp_path) -> Iterator[Compose]:
    """Both images built, nothing running."""
    docker.build("deploy/nginx/Dockerfile", "ecan-nginx")
    made = Compose(docker, tmp_path)
    yield made
    made.shell("docker compose -f docker-compose.web.yml --profile production down -v", check=False)


def test_the_server_alone_and_then_with_nginx(compose):
    """Default: one container, password from a file. Production: TLS before it, same session."""
    up, up_in_production, logs, status = commands("deploy/Compose, with or without nginx/1")
    compose.shell(up, timeout_s=300)
    assert compose.running() == {"ecan_ecan-web_1"}
    health = compose.until_healthy(f"http://127.0.0.1:{compose.port}/health")
    assert health["mode"] == "web"
    with compose.shell.start(logs) as shown:
        shown.until(r"ecan: ready on http://0\.0\.0\.0:8765 ")
    with compose.shell.start(status) as shown:
        assert shown.ended() == 0
        assert "healthy" in shown.text()

    async def alone():
        async with Client(f"ws://127.0.0.1:{compose.port}/ws") as client:
            await client.login("admin", PASSWORD)
            return client.session

    session = asyncio.run(alone())

    compose.shell(up_in_production, timeout_s=300)
    assert compose.running() == {"ecan_ecan-web_1", "ecan_nginx_1"}
    compose.until_healthy(f"https://127.0.0.1:{compose.https}/health")

    async def behind_nginx():
        trust = ssl.create_default_context(cafile=str(compose.cert))
        async with Client(f"wss://127.0.0.1:{compose.https}/ws", ssl=trust) as client:
            await client.resume(session)

    asyncio.run(behind_nginx())
    logs = compose.docker("logs", "ecan_nginx_1")
    assert "[alert]" not in logs.stdout + logs.stderr
    env = compose.docker("inspect", "--format", "{{.Config.Env}}", "ecan_ecan-web_1").stdout
    assert PASSWORD not in env
