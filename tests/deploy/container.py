"""A container of the image, as the tests of the image start one."""

from __future__ import annotations

import re
import time

from ecan.testing import Client
from ecan.testing.process import free_port
from tests.deploy.engine import Engine

PASSWORD = "correct horse battery"
SETTINGS = {"ECAN_ADMIN_PASSWORD": PASSWORD, "ECAN_DEBUG_METHODS": "1"}


def run_container(docker: Engine, name: str, *options: str, **settings: str) -> Container:
    """``docker run -d`` of the image, ready on a port of its own."""
    port = free_port()
    env = [f"--env={key}={value}" for key, value in {**SETTINGS, **settings}.items()]
    publish = f"127.0.0.1:{port}:8765"
    docker("run", "-d", "-p", publish, "--name", name, *env, *options, "ecan-web")
    container = Container(docker, name, port)
    container.wait_ready()
    return container


class Container:
    """One that was started, and where it is reached."""

    def __init__(self, docker: Engine, name: str, port: int) -> None:
        self.docker = docker
        self.name = name
        self.port = port

    def logs(self) -> str:
        done = self.docker("logs", self.name)
        return done.stdout + done.stderr

    def wait_for(self, pattern: str, times: int = 1) -> None:
        """Wait until the log has it, so many times."""
        deadline = time.monotonic() + 60
        while len(re.findall(pattern, self.logs())) < times:
            assert time.monotonic() < deadline, f"no {pattern!r}:\n{self.logs()}"
            time.sleep(0.1)

    def wait_ready(self, times: int = 1) -> None:
        """Wait for the ready line of this start."""
        self.wait_for("ecan: ready on", times)

    def execute(self, *words: str) -> str:
        return self.docker("exec", self.name, *words).stdout

    def inspect(self, template: str) -> str:
        return self.docker("inspect", "--format", template, self.name).stdout.strip()

    def client(self) -> Client:
        return Client(f"ws://127.0.0.1:{self.port}/ws")
