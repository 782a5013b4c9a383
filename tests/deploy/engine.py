"""The container engine of the tests: podman with images and state of its own."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from ecan.testing.process import ROOT

SCRIPT = Path(__file__).parent / "containers.sh"
BUILD_ARGS = {
    "PYTHON_IMAGE": "localhost/python:3.13-slim",
    "NODE_IMAGE": "localhost/node:20-slim",
    "NGINX_IMAGE": "localhost/nginx:1.27-alpine",
}
TOOLS = ROOT / ".make" / "deploy" / "bin"
"""Made by `make deploy-tools`."""

BUILD_TIMEOUT_S = 900.0
COMMAND_TIMEOUT_S = 60.0


class Engine:
    """Runs the words that follow ``docker``."""

    def __init__(self) -> None:
        up = subprocess.run(
            [str(SCRIPT), "up"],
            check=False,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
        )
        assert up.returncode == 0, up.stderr
        self.env = {
            **os.environ,
            **dict(re.findall(r"^export (\w+)=(.*)$", up.stdout, flags=re.MULTILINE)),
        }

    def __call__(
        self, *words: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """One command; a failure of it fails the test with what it said."""
        done = subprocess.run(
            ["podman", *words],
            check=False,
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if check:
            assert done.returncode == 0, f"podman {' '.join(words)}:\n{done.stdout}{done.stderr}"
        return done

    def build(self, file: str, tag: str, **build_args: str) -> None:
        """``docker build -f FILE -t TAG .`` on the local base images."""
        wanted = re.findall(r"^ARG (\w+_IMAGE)=", (ROOT / file).read_text(), flags=re.MULTILINE)
        bases = {name: BUILD_ARGS[name] for name in wanted}
        args = [
            word
            for name, value in {**bases, **build_args}.items()
            for word in ("--build-arg", f"{name}={value}")
        ]
        self("build", "--pull=never", "-f", file, *args, "-t", tag, ".", timeout_s=BUILD_TIMEOUT_S)

    def size(self, image: str) -> int:
        """Bytes of an image, its base included."""
        return int(self("image", "inspect", "--format", "{{.Size}}", image).stdout)
