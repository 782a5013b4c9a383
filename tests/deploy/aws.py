"""AWS without AWS: an emulator, and the tools of `make deploy-tools`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ecan.testing.process import ROOT, free_port
from tests.deploy.engine import TOOLS

AWS = ROOT / "deploy" / "aws"
REGION = "eu-west-1"


def tool(name):
    path = TOOLS / name
    assert path.exists(), f"{name} is missing: make deploy-tools"
    return path


def run(*words, env=None, **options):
    """A command; what it printed."""
    done = subprocess.run(
        [str(word) for word in words],
        check=False,
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
        **options,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Emulator:
    """``aws WORDS`` against moto, its answer decoded."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env

    def __call__(self, *words: Any) -> Any:
        said = run("aws", *words, "--output", "json", env=self.env)
        return json.loads(said) if said.strip() else None


@contextmanager
def emulator() -> Iterator[Emulator]:
    """An empty account."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
        "PATH": f"{TOOLS}:{os.environ['PATH']}",
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "NO_PROXY": "127.0.0.1",
    }
    server = subprocess.Popen(
        [str(tool("moto_server")), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        run(
            "curl",
            "-sf",
            "--retry",
            "50",
            "--retry-delay",
            "1",
            "--retry-connrefused",
            f"{address}/moto-api/",
        )
        yield Emulator(env)
    finally:
        server.terminate()
        server.wait(20)
